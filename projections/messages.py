"""Questions and their answers: the table `messages`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Double, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded
from projections.app_model_configs import configuration_id
from projections.conversations import conversations
from projections.end_users import end_user_of
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

messages = ReadModel(
    "messages",
    "Questions, each with its answer as far as there is one. They go with their conversation or app.",
    key("id", "Message."),
    required("app_id", Id, "App that answers, in apps."),
    required("conversation_id", Id, "Conversation, in conversations."),
    optional("parent_message_id", Id, "Message of the conversation that this one continues after; null for none."),
    optional("repeated_message_id", Id, "Message whose question is asked again; null for a question of its own."),
    optional("tool_call_id", Id, "Call by which an agent asked it, in tool_calls; null for a user."),
    required("app_model_config_id", Id, "Configuration that it is answered by, in app_model_configs."),
    required("app_model_config_number", Integer, "Number of that configuration."),
    required("from_end_user_id", Id, "End user who asked, in end_users; empty when the person was erased."),
    required("end_user", Text, "Name of who asked; empty when the person was erased."),
    required("query", Text, "Question; empty when the person was erased, as are inputs and answer."),
    required("inputs", JSONB, "Values of the app's variables."),
    required(
        "status",
        Text,
        "asked, answering, held (calls of tools wait for a person), queued (after other messages), running (a run "
        "answers it), answered, failed or stopped.",
    ),
    required("attempt", Integer, "Number of times that a worker began to answer; 0 before the first."),
    required("answer", Text, "Answer; empty before, and as far as it came when it failed or was stopped."),
    optional("error_code", Text, "Error code; null unless the answer failed."),
    optional("error", Text, "Error message; null unless the answer failed."),
    optional("finish_reason", Text, "Reason for the end of the answer, as the model's server gives it; null if none."),
    optional("message_tokens", BigInteger, "Tokens of the prompt; null before the answer."),
    optional("answer_tokens", BigInteger, "Tokens of the answer; null before it."),
    optional("tokens_estimated", Boolean, "The model's server did not count the tokens; null before the answer."),
    optional("segments_cut", Integer, "Segments that did not fit the context window; null before the answer."),
    optional("messages_cut", Integer, "Earlier messages that did not fit the context window; null before the answer."),
    optional("model_call_id", Id, "Call that gave the answer, in model_calls; null before, and without one."),
    optional("provider_response_latency", Double, "Seconds that answering took; null before the answer."),
    optional("workflow_run_id", Id, "Run that answers it, in workflow_runs; null for none."),
    optional("stop_requested_at", Time, "Time of the request to stop; null where there is none."),
    optional("suggested_questions", JSONB, "Questions suggested after the answer; null before, and for none."),
    optional("suggestion_error", Text, "Error code of questions that could not be suggested; null for none."),
    required("trace_id", Id, "Command that had it asked, or asked again last: its trace, in traces."),
    person(),
    required("created_at", Time, "When it was asked."),
    required("updated_at", Time, "Time of the last change."),
)
messages.sorted_by("open", postgresql_where=text("status IN ('asked', 'answering')"))
messages.clears(Conversation.Deleted, column="conversation_id")
messages.clears(App.Deleted, column="app_id")
messages.sets(
    EndUser.Erased,
    {
        "from_end_user_id": "",
        "end_user": "",
        "query": "",
        "inputs": {},
        "answer": "",
        "error": None,
        "suggested_questions": None,
    },
    column="person_id",
)


def message_of(event: Any, message: Recorded) -> str:
    return event.message  # type: ignore[no-any-return]


@messages.makes(Conversation.Asked, within=(conversations, originator), new=message_of)
def asked(event: Conversation.Asked, message: Recorded, conversation: Row) -> Row:
    return {
        "id": event.message,
        "app_id": event.app,
        "conversation_id": event.originator_id,
        "parent_message_id": event.parent,
        "repeated_message_id": event.repeats,
        "tool_call_id": event.tool_call,
        "app_model_config_id": configuration_id(event.app, event.configuration),
        "app_model_config_number": event.configuration,
        "from_end_user_id": end_user_of(event, message) or "",
        "end_user": event.user,
        "query": event.query,
        "inputs": event.inputs,
        "status": "asked",
        "attempt": 0,
        "answer": "",
        "trace_id": message.metadata.correlation,
        "person_id": message.metadata.person,
    }


@messages.changes(Conversation.Answering, pick=message_of)
def answering(row: Row, event: Conversation.Answering, message: Recorded) -> Row:
    return {"status": "answering", "attempt": event.attempt}


@messages.changes(Conversation.Queued, pick=message_of)
def queued(row: Row, event: Conversation.Queued, message: Recorded) -> Row:
    return {"status": "queued"}


@messages.changes(Conversation.RunStarted, pick=message_of)
def run_started(row: Row, event: Conversation.RunStarted, message: Recorded) -> Row:
    return {"status": "running", "attempt": event.attempt, "workflow_run_id": event.run}


@messages.changes(Conversation.Held, pick=message_of)
def held(row: Row, event: Conversation.Held, message: Recorded) -> Row:
    return {"status": "held"}


@messages.changes(Conversation.Resumed, pick=message_of)
def resumed(row: Row, event: Conversation.Resumed, message: Recorded) -> Row:
    return {"status": "asked"}


@messages.changes(Conversation.Answered, pick=message_of)
def answered(row: Row, event: Conversation.Answered, message: Recorded) -> Row:
    return {
        "status": "answered",
        "answer": event.answer,
        "finish_reason": event.finish_reason,
        "message_tokens": event.usage["prompt_tokens"],
        "answer_tokens": event.usage["completion_tokens"],
        "tokens_estimated": event.usage["estimated"],
        "segments_cut": event.cut["segments"],
        "messages_cut": event.cut["messages"],
        "model_call_id": event.model_call or None,
        "provider_response_latency": event.duration_ms / 1000,
    }


@messages.changes(Conversation.Failed, pick=message_of)
def failed(row: Row, event: Conversation.Failed, message: Recorded) -> Row:
    return {"status": "failed", "answer": event.answer, "error_code": event.code, "error": event.reason}


@messages.changes(Conversation.Retried, pick=message_of)
def retried(row: Row, event: Conversation.Retried, message: Recorded) -> Row:
    return {
        "status": "asked",
        "answer": "",
        "error_code": None,
        "error": None,
        "stop_requested_at": None,
        "trace_id": message.metadata.correlation,
    }


@messages.changes(Conversation.SuggestionsRequested, pick=message_of)
def suggestions_requested(row: Row, event: Conversation.SuggestionsRequested, message: Recorded) -> Row:
    return {"suggested_questions": None, "suggestion_error": None}


@messages.changes(Conversation.Suggested, pick=message_of)
def suggested(row: Row, event: Conversation.Suggested, message: Recorded) -> Row:
    return {"suggested_questions": event.questions or None, "suggestion_error": event.code}


@messages.changes(Conversation.StopRequested, pick=message_of)
def stop_requested(row: Row, event: Conversation.StopRequested, message: Recorded) -> Row:
    return {"stop_requested_at": event.timestamp}


@messages.changes(Conversation.Stopped, pick=message_of)
def stopped(row: Row, event: Conversation.Stopped, message: Recorded) -> Row:
    return {"status": "stopped", "answer": event.answer}
