from __future__ import annotations

from domain.aggregate import new_id
from domain.chat.annotation import Annotation
from tests.domain.scenario import NOW, given, made

APP = new_id()


def annotation() -> Annotation:
    return Annotation.begin(
        Annotation.Created,
        new_id(),
        NOW,
        app=APP,
        question="When?",
        answer="At six.",
        conversation=None,
        message=None,
    )


def embed(annotation: Annotation, model: str = "a-model", revision: int = 1) -> None:
    annotation.embed(NOW, revision=revision, embedding_model=model, vector="AAA=")


def edit(annotation: Annotation) -> None:
    annotation.edit(NOW, question=None, answer="At seven.")


def remove(annotation: Annotation) -> None:
    annotation.remove(NOW)


def test_begins_with_a_question_and_its_answer() -> None:
    made(annotation()).then(Annotation.Created, app=APP, question="When?", answer="At six.", message=None)


def test_an_edit_keeps_what_it_does_not_name_and_ends_the_vectors() -> None:
    scenario = given(annotation(), embed).once(edit, Annotation.Edited, question="When?", answer="At seven.")
    assert (scenario.aggregate.revision, scenario.aggregate.embedded) == (2, [])


def test_each_model_embeds_a_revision_once() -> None:
    given(annotation()).once(embed, Annotation.Embedded, app=APP, embedding_model="a-model", vector="AAA=")
    given(annotation(), embed).when(lambda it: embed(it, "another")).then(Annotation.Embedded)
    given(annotation(), edit).when(embed).nothing()
    given(annotation(), edit).when(lambda it: embed(it, revision=2)).then(Annotation.Embedded)
    given(annotation(), remove).when(embed).nothing()


def test_is_removed_once() -> None:
    assert given(annotation()).once(remove, Annotation.Removed).aggregate.deleted


def test_one_whose_person_was_erased_is_not_edited() -> None:
    it = annotation()
    it.question = it.answer = ""
    given(it).when(edit).rejects("erased", "annotation")
