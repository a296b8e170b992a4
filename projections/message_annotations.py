"""Annotations of apps, their vectors, settings and hits: the tables `message_annotations`, `annotation_vectors`,
`app_annotation_settings` and `app_annotation_hit_histories`."""

from __future__ import annotations

from sqlalchemy import Boolean, Double, Integer, Text

from domain.access.end_user import EndUser
from domain.chat.annotation import Annotation
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded, derived_id
from projections.apps import apps
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator
from projections.messages import message_of, messages

message_annotations = ReadModel(
    "message_annotations",
    "Questions and answers that were stored for apps. They go with their app.",
    key("id", "Annotation."),
    required("app_id", Id, "App, in apps."),
    optional("conversation_id", Id, "Conversation of the message that it was made from; null for none."),
    optional("message_id", Id, "Message that it was made from; null for none."),
    required("question", Text, "Question; empty when the person was erased."),
    required("content", Text, "Answer; empty when the person was erased."),
    required("hit_count", Integer, "Number of questions that got this answer."),
    required("account_id", Text, "Actor who created it."),
    person(),
    required("created_at", Time, "When it was created."),
    required("updated_at", Time, "Time of the last change."),
)
message_annotations.clears(Annotation.Removed)
message_annotations.clears(App.Deleted, column="app_id")
message_annotations.sets(EndUser.Erased, {"question": "", "content": ""}, column="person_id")
message_annotations.sorted_by("created_at", "app_id", "created_at")

annotation_vectors = ReadModel(
    "annotation_vectors",
    "Vectors of the questions of annotations, one row a model. They go with their annotation, and when its question "
    "is edited or its person is erased.",
    key("id", "Vector."),
    required("annotation_id", Id, "Annotation, in message_annotations."),
    required("app_id", Id, "App, in apps."),
    required("embedding_model", Text, "Identity of the embedding model."),
    required("vector", Text, "Numbers of 16 bits, little-endian, in Base64."),
    person(),
    required("created_at", Time, "When the question was embedded."),
)
annotation_vectors.clears(Annotation.Edited, column="annotation_id")
annotation_vectors.clears(Annotation.Removed, column="annotation_id")
annotation_vectors.clears(App.Deleted, column="app_id")
annotation_vectors.clears(EndUser.Erased, column="person_id")

app_annotation_settings = ReadModel(
    "app_annotation_settings",
    "Settings of stored answers, one row an app that has ever set them.",
    key("id", "App, in apps."),
    required("enabled", Boolean, "Stored answers are given."),
    required("score_threshold", Double, "Minimum cosine of two questions, up to 1."),
    optional("embedding_model", Text, "Embedding model that was chosen; null for the default of the workers."),
    optional("embedding_model_provider", Text, "Provider of that model; `builtin`: the workers run it."),
    optional("active_embedding_model", Text, "Model that questions are compared by; null until all are embedded."),
    required("created_user_id", Text, "Actor who set them last."),
    required("created_at", Time, "When they were first set."),
    required("updated_at", Time, "Time of the last change."),
)
app_annotation_settings.clears(App.Deleted)

app_annotation_hit_histories = ReadModel(
    "app_annotation_hit_histories",
    "Questions that got the answer of an annotation. They go with their conversation or app.",
    key("id", "Hit."),
    required("app_id", Id, "App, in apps."),
    required("annotation_id", Id, "Annotation, in message_annotations until it is removed."),
    required("conversation_id", Id, "Conversation, in conversations."),
    required("message_id", Id, "Message whose question it was, in messages."),
    required("score", Double, "Cosine of the two questions, up to 1."),
    required("embedding_model", Text, "Embedding model that compared them."),
    required("source", Text, "Always app: an app answered."),
    required("created_at", Time, "When it was answered."),
)
app_annotation_hit_histories.clears(Conversation.Deleted, column="conversation_id")
app_annotation_hit_histories.clears(App.Deleted, column="app_id")
app_annotation_hit_histories.looked_up("annotation_id")


@message_annotations.makes(Annotation.Created, within=(apps, lambda event, message: event.app), new=originator)
def created(event: Annotation.Created, message: Recorded, app: Row) -> Row:
    return {
        "id": event.originator_id,
        "app_id": event.app,
        "conversation_id": event.conversation,
        "message_id": event.message,
        "question": event.question,
        "content": event.answer,
        "hit_count": 0,
        "account_id": message.metadata.actor,
        "person_id": message.metadata.person,
    }


@message_annotations.changes(Annotation.Edited)
def edited(row: Row, event: Annotation.Edited, message: Recorded) -> Row:
    return {"question": event.question, "content": event.answer}


def _annotation(event: Conversation.Matched, message: Recorded) -> str:
    return event.annotation


@message_annotations.changes(Conversation.Matched, pick=_annotation)
def hit(row: Row, event: Conversation.Matched, message: Recorded) -> Row:
    return {"hit_count": row["hit_count"] + 1}


@annotation_vectors.makes(Annotation.Embedded, within=(message_annotations, originator))
def embedded(event: Annotation.Embedded, message: Recorded, annotation: Row) -> Row:
    return {
        "id": derived_id(f"annotation_vector/{event.originator_id}/{event.embedding_model}"),
        "annotation_id": event.originator_id,
        "app_id": event.app,
        "embedding_model": event.embedding_model,
        "vector": event.vector,
        "person_id": message.metadata.person,
    }


@app_annotation_settings.makes(App.AnnotationReplySet, once=originator)
def first_set(event: App.AnnotationReplySet, message: Recorded) -> Row:
    return {"id": event.originator_id, **reply_set({}, event, message)}


@app_annotation_settings.changes(App.AnnotationReplySet)
def reply_set(row: Row, event: App.AnnotationReplySet, message: Recorded) -> Row:
    return {
        "enabled": event.enabled,
        "score_threshold": event.score_threshold,
        "embedding_model": event.embedding and event.embedding["model"],
        "embedding_model_provider": event.embedding and event.embedding["provider"],
        "created_user_id": message.metadata.actor,
    }


@app_annotation_settings.changes(App.AnnotationsEmbedded)
def all_embedded(row: Row, event: App.AnnotationsEmbedded, message: Recorded) -> Row:
    return {"active_embedding_model": event.embedding_model}


@app_annotation_hit_histories.makes(Conversation.Matched, within=(messages, message_of), new=message_of)
def matched(event: Conversation.Matched, message: Recorded, of: Row) -> Row:
    return {
        "id": event.message,
        "app_id": event.app,
        "annotation_id": event.annotation,
        "conversation_id": event.originator_id,
        "message_id": event.message,
        "score": event.score,
        "embedding_model": event.embedding_model,
        "source": "app",
    }
