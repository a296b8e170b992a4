from __future__ import annotations

from domain.access.end_user import EndUser
from domain.chat.annotation import Annotation
from domain.chat.app import App
from domain.embedding import of_workers
from projections.message_annotations import (
    annotation_vectors,
    app_annotation_hit_histories,
    app_annotation_settings,
    message_annotations,
)
from projections.messages import messages
from tests.projections.history import History


def annotated(history: History, app: App, id: str = "the-annotation") -> Annotation:
    annotation = Annotation.begin(
        Annotation.Created,
        id,
        history.now,
        app=app.id,
        question="How high?",
        answer="Four metres.",
        conversation=None,
        message=None,
    )
    annotation.embed(history.now, revision=1, embedding_model="a-model/1", vector="AAA=")
    history.record(annotation)
    return annotation


def test_given_an_annotation_when_questions_match_then_it_counts_and_each_hit_has_a_row() -> None:
    history = History()
    app = history.app()
    annotated(history, app)
    conversation = history.conversation(app.id)
    for _ in range(2):
        message = history.ask(conversation)
        conversation.match(
            history.now, message=message, annotation="the-annotation", score=0.95, embedding_model="a-model"
        )
        history.record(conversation)
    (row,) = history.rows(message_annotations)
    assert (row["question"], row["content"], row["hit_count"], row["account_id"]) == (
        "How high?",
        "Four metres.",
        2,
        "ada",
    )
    (vector,) = history.rows(annotation_vectors)
    assert (vector["annotation_id"], vector["embedding_model"], vector["vector"]) == (
        "the-annotation",
        "a-model/1",
        "AAA=",
    )
    hits = history.rows(app_annotation_hit_histories)
    assert len(hits) == 2
    assert {(hit["annotation_id"], hit["score"], hit["app_id"]) for hit in hits} == {("the-annotation", 0.95, app.id)}
    conversation.delete(history.now)
    history.record(conversation)
    assert history.rows(app_annotation_hit_histories) == []


def test_given_an_annotation_when_it_is_edited_or_removed_then_its_vectors_go() -> None:
    history = History()
    annotation = annotated(history, history.app())
    annotation.edit(history.now, question=None, answer="Five metres.")
    history.record(annotation)
    assert [row["content"] for row in history.rows(message_annotations)] == ["Five metres."]
    assert history.rows(annotation_vectors) == []
    annotation.embed(history.now, revision=2, embedding_model="a-model/1", vector="AAE=")
    history.record(annotation)
    assert len(history.rows(annotation_vectors)) == 1
    annotation.remove(history.now)
    history.record(annotation)
    assert history.rows(message_annotations) == history.rows(annotation_vectors) == []


def test_given_an_annotation_of_a_person_when_it_is_erased_then_nothing_of_it_is_left() -> None:
    history = History()
    app = history.app()
    history.person = "the-person"
    annotated(history, app)
    history.person = None
    person = EndUser.begin(EndUser.Erased, "the-person", history.now, known=True)
    history.record(person)
    (row,) = history.rows(message_annotations)
    assert (row["question"], row["content"]) == ("", "")
    assert history.rows(annotation_vectors) == []


def test_given_an_app_when_it_gives_stored_answers_then_its_settings_have_a_row_until_it_is_deleted() -> None:
    history = History()
    app = history.app()
    app.set_annotation_reply(history.now, enabled=True, score_threshold=0.9, embedding=None)
    app.annotations_embedded(history.now, embedding_model="a-model")
    history.record(app)
    (row,) = history.rows(app_annotation_settings)
    assert (row["id"], row["enabled"], row["score_threshold"]) == (app.id, True, 0.9)
    assert (row["embedding_model"], row["active_embedding_model"], row["created_user_id"]) == (None, "a-model", "ada")
    app.set_annotation_reply(history.now, enabled=False, score_threshold=0.8, embedding=of_workers("b"))
    history.record(app)
    (row,) = history.rows(app_annotation_settings)
    assert (row["enabled"], row["active_embedding_model"]) == (False, "a-model")
    app.delete(history.now)
    history.record(app)
    assert history.rows(app_annotation_settings) == []


def test_given_suggestions_when_they_fail_and_come_then_the_message_has_them() -> None:
    history = History()
    conversation = history.conversation(history.app().id)
    message = history.ask(conversation)
    history.answer(conversation, message)
    conversation.request_suggestions(history.now, message=message, configuration=1)
    conversation.suggest(history.now, message=message, questions=[], model_call="", code="timeout", reason="Silence.")
    history.record(conversation)
    (row,) = history.rows(messages)
    assert (row["suggested_questions"], row["suggestion_error"]) == (None, "timeout")
    conversation.request_suggestions(history.now, message=message, configuration=1)
    conversation.suggest(history.now, message=message, questions=["Why?"], model_call="the-call")
    history.record(conversation)
    (row,) = history.rows(messages)
    assert (row["suggested_questions"], row["suggestion_error"]) == (["Why?"], None)
