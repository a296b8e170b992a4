"""Citations of answers: the table `dataset_retriever_resources`."""

from __future__ import annotations

from sqlalchemy import Double, Integer, Text

from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded, derived_id
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row
from projections.messages import message_of, messages

dataset_retriever_resources = ReadModel(
    "dataset_retriever_resources",
    "Citations of answers, one row each, as the documents were when the answer was given: they outlive the documents, "
    "and go with their conversation or app, or when the person who asked is erased.",
    key("id", "Citation."),
    required("app_id", Id, "App, in apps."),
    required("conversation_id", Id, "Conversation, in conversations."),
    required("message_id", Id, "Message whose answer cites, in messages."),
    required("position", Integer, "Number of the citation in the answer, from 1."),
    required("dataset_id", Id, "Dataset that was cited, in datasets unless it was deleted since; empty for a file."),
    required("document_id", Id, "Document that was cited, in documents unless deleted since; empty for a file."),
    required("document_name", Text, "Name of the document or file."),
    optional("upload_file_id", Id, "File of a question that was cited, in upload_files; null for a document."),
    required("segment_id", Id, "Segment that was cited, in document_segments unless it went since, or of the file."),
    required("segment_position", Integer, "Place of the segment in the document, from 0."),
    optional("page", Integer, "Page that the segment begins on, from 1; null where the format has none."),
    optional("heading", Text, "Headings above the segment, outermost first; null when there are none."),
    required("sentence", Text, "Sentence that the answer rests on."),
    required("content", Text, "Text of the segment."),
    required("score", Double, "Score of the segment in its search; not comparable between searches."),
    person(),
    required("created_at", Time, "When the answer was given."),
)
dataset_retriever_resources.looked_up("message_id")
dataset_retriever_resources.clears(Conversation.Deleted, column="conversation_id")
dataset_retriever_resources.clears(App.Deleted, column="app_id")
dataset_retriever_resources.clears(EndUser.Erased, column="person_id")


@dataset_retriever_resources.makes(Conversation.Answered, within=(messages, message_of))
def answered(event: Conversation.Answered, message: Recorded, answered: Row) -> list[Row]:
    return [
        {
            "id": derived_id(f"citation/{event.message}/{citation['position']}"),
            "app_id": answered["app_id"],
            "conversation_id": event.originator_id,
            "message_id": event.message,
            "position": citation["position"],
            "dataset_id": citation["dataset"],
            "document_id": citation["document"],
            "document_name": citation["document_name"],
            "upload_file_id": citation.get("file"),
            "segment_id": citation["segment"],
            "segment_position": citation["segment_position"],
            "page": citation["page"],
            "heading": citation["heading"],
            "sentence": citation["sentence"],
            "content": citation["content"],
            "score": citation["score"],
            "person_id": answered["person_id"],
        }
        for citation in event.citations
    ]
