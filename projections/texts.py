"""Texts that recorded prompts quote: the tables `texts` and `turns`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text

from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded, derived_id
from domain.models.passage import Passage
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row
from projections.messages import message_of
from projections.model_calls import model_calls

texts = ReadModel(
    "texts",
    "Texts that prompts quote: passages of documents, and instructions of apps. They outlive what they are from.",
    key("id", "Name of the text in prompts: passage/<id>, or instructions/<app>/<number>."),
    required("content", Text, "Text."),
    required("created_at", Time, "Time of the record."),
)

turns = ReadModel(
    "turns",
    "Questions and answers of conversations, as prompts quote them. They outlive their conversations, and go when the "
    "person is erased.",
    key("id", "Message; of one that a fork copied, an id of its own."),
    required("conversation_id", Id, "Conversation."),
    required("position", BigInteger, "Place in the conversation: a later turn has a higher one."),
    required("message_id", Id, "Message; of one that a fork copied, that of the forked conversation."),
    required("query", Text, "Question."),
    optional("answer", Text, "Answer; null before, and where the model call has it."),
    optional("model_call_id", Id, "Call that gave the answer, in model_calls; null before, and where there is none."),
    person(),
    required("created_at", Time, "Time of the record."),
)
turns.sorted_by("position", "conversation_id", "position")
turns.clears(EndUser.Erased, column="person_id")

COPIES = 2**20
"""Places that an event has for the turns that it brings into a conversation."""


@texts.makes(App.Configured)
def configured(event: App.Configured, message: Recorded) -> Row:
    return {"id": f"instructions/{event.originator_id}/{event.number}", "content": event.prompt}


@texts.makes(Passage.Recorded)
def passage(event: Passage.Recorded, message: Recorded) -> Row:
    return {"id": f"passage/{event.originator_id}", "content": event.text}


@turns.makes(Conversation.Asked, new=message_of)
def asked(event: Conversation.Asked, message: Recorded) -> Row:
    return {
        "id": event.message,
        "conversation_id": event.originator_id,
        "position": event.originator_version * COPIES,
        "message_id": event.message,
        "query": event.query,
        "person_id": message.metadata.person,
    }


@turns.makes(Conversation.Forked)
def forked(event: Conversation.Forked, message: Recorded) -> list[Row]:
    return [
        {
            "id": derived_id(f"{event.originator_id}/{copied['message']}"),
            "conversation_id": event.originator_id,
            "position": event.originator_version * COPIES + number,
            "message_id": copied["message"],
            "query": copied["query"],
            "answer": copied["answer"],
            "person_id": message.metadata.person,
        }
        for number, copied in enumerate(event.messages)
    ]


def _call_of(event: Conversation.Answered, message: Recorded) -> str | None:
    return event.model_call or None


@turns.changes(Conversation.Answered, pick=message_of, related=(model_calls, _call_of))
def answered(row: Row, event: Conversation.Answered, message: Recorded, call: Row | None) -> Row:
    """An answer is here where it is not word for word the call's, because filters or stored answers took part."""
    answer = None if call and call["response"] == event.answer else event.answer
    return {"answer": answer, "model_call_id": event.model_call or None}


@turns.changes(Conversation.Stopped, pick=message_of)
def stopped(row: Row, event: Conversation.Stopped, message: Recorded) -> Row:
    return {"answer": event.answer}
