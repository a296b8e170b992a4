"""Annotations: made, embedded, matched, and gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from domain.chat.annotation import Annotation
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.models.model_call import ModelCall
from handlers.chat.annotations import Annotate, AnnotateAll, pack, unpack
from handlers.ports.documents import Vectors
from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError
from tests.handlers.chat.test_answer import Counter
from tests.handlers.desk import Desk
from tests.handlers.fakes import Notes, OneModel, Words, embedding_models
from tests.memory import Memory

ASKED, STORED = "When does it open?", "At seven, since May."


class Bag(Words):
    """A model whose vectors are bags of words."""

    async def embed(self, token_ids: Sequence[Sequence[int]], *, tenant: str = "", urgent: bool = False) -> Vectors:
        await super().embed(token_ids, tenant=tenant, urgent=urgent)
        vectors = np.zeros((len(token_ids), 64), np.float32)
        for row, ids in enumerate(token_ids):
            for id in ids:
                vectors[row, id % 64] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Other(Bag):
    model, identity = "another-model", "another-model/1"


class TwoModels(OneModel):
    """Two embedding models, one of them the default."""

    async def get(self, name: str) -> Any:
        return await OneModel(Other()).get("words") if name == "another-model" else await super().get(name)


class Shop(Counter):
    """An app with annotations, and the workers that embed them."""

    def __init__(self, memory: Memory, tenant: str, *says: str) -> None:
        super().__init__(memory, tenant, *says)
        self.embedding = TwoModels(Bag())

    async def opened(self, **features: Any) -> None:
        self.app = await self.desk.done("app.create", name="Guide")
        await self.desk.done("app.configure", app=self.app, **features)

    async def stored(self, question: str = ASKED, answer: str = STORED) -> str:
        return await self.desk.done("annotation.create", app=self.app, question=question, answer=answer)

    async def reply(self, **fields: Any) -> None:
        await self.desk.done("app.set_annotation_reply", app=self.app, **{"enabled": True, **fields})

    async def work(self) -> None:
        """React to all that was ever committed, as workers do; what was done before is not done again."""
        models = embedding_models(self.desk.repository, self.embedding, self.vectorizer)
        annotate = Annotate(self.desk.repository, models)
        for subject in dict.fromkeys(message.subject for message in self.memory.streams["EVENTS"].messages):
            _, _, noun, id = subject.split(".")
            for commit in await self.desk.commits(noun, id) if noun in ("annotation", "app") else ():
                if any(isinstance(event, Annotation.Created | Annotation.Edited) for event in commit.events):
                    await annotate(commit)
                if any(isinstance(event, App.AnnotationReplySet) for event in commit.events):
                    await AnnotateAll(annotate, Notes(self.memory, self.desk))(commit)

    async def ask(self, query: str = ASKED, **fields: Any) -> dict[str, Any]:
        outcome = await self.desk.send("message.send", app=self.app, query=query, user="ada", **fields)
        self.conversation, self.message = outcome.ids["conversation"], outcome.ids["message"]
        del self.memory.frames[:]
        await self.worker()(await self.cause())
        return dict(await self.state())


@pytest.fixture
async def shop(memory: Memory, tenant: str) -> Shop:
    shop = Shop(memory, tenant, "At six.")
    await shop.opened()
    return shop


async def test_a_question_that_is_close_enough_gets_the_stored_answer_without_a_model(shop: Shop) -> None:
    annotation = await shop.stored()
    await shop.reply()
    await shop.work()
    state = await shop.ask()
    assert (state["status"], state["answer"]) == ("answered", STORED)
    assert shop.speaker.asked == []
    assert shop.frames() == ["token", "answered"]
    assert shop.memory.frames[-1]["answer"] == STORED
    matched, answered = (await shop.desk.events("conversation", shop.conversation))[-2:]
    assert isinstance(matched, Conversation.Matched)
    assert isinstance(answered, Conversation.Answered)
    assert (matched.annotation, matched.score, matched.embedding_model) == (
        annotation,
        pytest.approx(1, abs=1e-3),
        "words",
    )
    assert (answered.model_call, answered.usage["prompt_tokens"]) == ("", 0)
    calls = {subject.rpartition(".")[2] for subject in shop.subjects("model_call")}
    kinds = [(await shop.desk.events("model_call", call))[0] for call in calls]
    assert all(isinstance(call, ModelCall.Requested) and call.kind == "embedding" for call in kinds)
    assert sorted(call.cause_noun for call in kinds if isinstance(call, ModelCall.Requested)) == [
        "annotation",
        "message",
    ]


async def test_a_follow_up_has_the_stored_answer_in_its_history(shop: Shop) -> None:
    await shop.stored()
    await shop.reply()
    await shop.work()
    await shop.ask()
    await shop.ask("And on the last Sunday of every month, say in winter?", conversation=shop.conversation)
    said = [message.content for message in shop.speaker.asked[-1].messages][1:]
    assert said[:2] == [ASKED, STORED]


@pytest.mark.parametrize(
    "reply", [None, {"enabled": False}, {"score_threshold": 1.0}], ids=["never set", "disabled", "too far"]
)
async def test_other_questions_go_to_the_model(shop: Shop, reply: dict[str, Any] | None) -> None:
    await shop.stored()
    if reply:
        await shop.reply(**reply)
    await shop.work()
    state = await shop.ask("When does the gate open in winter, please?")
    assert state["answer"] == "At six."
    assert not any("matched" in type for type in await shop.desk.types("conversation", shop.conversation))


async def test_what_was_removed_or_edited_is_not_given_any_more(shop: Shop) -> None:
    removed = await shop.stored()
    await shop.reply()
    await shop.work()
    await shop.desk.done("annotation.edit", annotation=removed, answer="At eight.")
    assert (await shop.ask())["answer"] == "At six."  # its vector goes with the edit, and comes back
    await shop.work()
    assert (await shop.ask())["answer"] == "At eight."
    await shop.desk.done("annotation.edit", annotation=removed, question="Something quite different and much longer?")
    await shop.work()
    assert (await shop.ask())["answer"] == "At six."
    await shop.desk.done("annotation.edit", annotation=removed, question=ASKED)
    await shop.work()
    assert (await shop.ask())["answer"] == "At eight."
    await shop.desk.done("annotation.remove", annotation=removed)
    assert (await shop.ask())["answer"] == "At six."


async def test_another_model_embeds_all_before_questions_are_compared_by_it(shop: Shop) -> None:
    first = await shop.stored()
    await shop.reply()
    await shop.work()
    await shop.reply(embedding_model="another-model")
    assert (await shop.ask())["answer"] == STORED  # by the old one
    second = await shop.stored("How wide is it?", "Four metres.")
    await shop.work()
    app = await shop.desk.fold("app", shop.app)
    assert isinstance(app, App)
    assert app.annotation_model == "another-model"
    for id in (first, second):
        annotation = await shop.desk.fold("annotation", id)
        assert isinstance(annotation, Annotation)
        assert "another-model/1" in annotation.embedded
    assert (await shop.ask("How wide is it?"))["answer"] == "Four metres."


async def test_a_model_that_is_away_is_waited_for_and_nothing_is_embedded_twice(shop: Shop) -> None:
    await shop.stored()
    await shop.reply()
    shop.embedding.words.away = True
    with pytest.raises(Unavailable):
        await shop.work()
    shop.embedding.words.away = False
    await shop.work()
    await shop.work()
    embedded = [subject for subject in shop.subjects("annotation")]
    assert len(embedded) == 2  # created, embedded once
    assert (await shop.ask())["answer"] == STORED


async def test_an_annotation_of_a_message_is_of_its_person_and_goes_with_it(shop: Shop) -> None:
    desk = shop.desk
    await shop.ask("When?")
    annotation = await desk.done(
        "annotation.create", app=shop.app, conversation=shop.conversation, message=shop.message, answer="At nine."
    )
    [created] = await desk.events("annotation", annotation)
    assert isinstance(created, Annotation.Created)
    assert (created.question, created.answer, created.message) == ("When?", "At nine.", shop.message)
    await shop.reply()
    await shop.work()
    assert (await shop.ask("When?"))["answer"] == "At nine."
    person = await desk.person("ada")
    assert {commit.metadata.person for commit in await desk.commits("annotation", annotation)} == {person}
    await desk.keys.erase(desk.tenant, person)
    erased = await desk.fold("annotation", annotation)
    assert isinstance(erased, Annotation)
    assert (erased.question, erased.answer) == ("", "")
    assert await desk.fails("annotation.edit", annotation=annotation, answer="x") == ("erased", "annotation")


async def test_an_annotation_needs_an_answered_message_of_the_app(shop: Shop) -> None:
    desk, app = shop.desk, await shop.desk.done("app.create", name="Other")
    talk = await desk.done("message.send", app=shop.app, query="Why?")
    of = {"conversation": talk, "message": talk}
    assert await desk.fails("annotation.create", app=shop.app, **of) == ("not_answered", "message")
    assert await desk.fails("annotation.create", app=app, **of) == ("wrong_app", "app")
    assert await desk.fails("annotation.create", app=shop.app, question="x") == ("invalid", "answer")
    assert await desk.fails("annotation.create", app=shop.app, answer="x") == ("invalid", "question")
    assert await desk.fails("annotation.create", app=shop.app, message=talk) == ("invalid", "message")
    unknown = {"enabled": True, "embedding_model": "nothing"}
    assert await desk.fails("app.set_annotation_reply", app=app, **unknown) == ("unknown_model", "embedding_model")


async def test_vectors_are_recorded_in_half_precision() -> None:
    vector = unpack(pack((await Words().embed([[1, 2, 3]]))[0]))
    assert vector.shape == (4,)
    assert float(vector @ vector) == pytest.approx(1, abs=1e-3)


def test_the_desk_knows_the_models_of_these_tests(memory: Memory, tenant: str) -> None:
    assert "another-model" in Desk(memory, tenant).ports.embedding_models


async def lab(shop: Shop) -> str:
    """Have an annotation compared by a model of a provider."""
    await shop.desk.done("provider.register", name="lab", base_url="http://127.0.0.1:1/v1", key="k")
    annotation = await shop.stored()
    await shop.reply(embedding_provider="lab", embedding_model="small")
    return annotation


async def test_the_model_of_a_provider_embeds_questions_and_finds_them(shop: Shop) -> None:
    annotation = await lab(shop)
    await shop.work()
    assert (await shop.ask())["answer"] == STORED
    assert shop.vectorizer.asked == [("small", [ASKED]), ("small", [ASKED])]
    [_, embedded] = await shop.desk.events("annotation", annotation)
    assert isinstance(embedded, Annotation.Embedded)
    assert embedded.embedding_model == "lab/small"


async def test_a_provider_that_refuses_a_question_fails_its_message(shop: Shop) -> None:
    await lab(shop)
    await shop.work()
    shop.vectorizer.error = ModelError("unauthorized", "Who?")
    state = await shop.ask()
    assert (state["status"], shop.memory.frames[-1]["code"]) == ("failed", "unauthorized")


async def test_a_provider_that_is_away_is_waited_for(shop: Shop) -> None:
    await lab(shop)
    shop.vectorizer.error = ModelError("unreachable", "No connection.", passing=True)
    with pytest.raises(Unavailable):
        await shop.work()
    shop.vectorizer.error = None
    await shop.work()
    assert (await shop.ask())["answer"] == STORED
