"""The page of annotations, and what a trace shows of filters and stored answers; on a real log and real tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from domain.aggregate import new_id
from domain.chat.annotation import Annotation
from domain.chat.app import App
from domain.chat.conversation import Conversation, FilterVerdict, Truncation, Usage
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import Site, serving, text_of

EVIL = "<script>alert(1)</script>"


@dataclass
class Sample:
    site: Site
    app: App
    annotation: str
    evil: str
    hit: str
    checked: str


def checked(site: Site, where: str, kind: str, position: int, **fields: object) -> FilterVerdict:
    verdict = FilterVerdict(
        where=where,
        position=position,
        kind=kind,
        verdict="passed",
        action="none",
        checked=1,
        flagged=[],
        code=None,
        started_at=site.now.isoformat(),
        duration_ms=12.5,
    )
    return verdict | fields  # type: ignore[return-value]


async def annotated(site: Site, app: App, question: str, answer: str) -> str:
    made = Annotation.begin(
        Annotation.Created,
        new_id(),
        site.now,
        app=app.id,
        question=question,
        answer=answer,
        conversation=None,
        message=None,
    )
    if not question.startswith("<"):
        made.embed(site.now, revision=1, embedding_model="a-model/1", vector="AAA=")
    await site.record(made, new_id())
    return made.id


async def asked(site: Site, app: App, talk: Conversation, query: str) -> str:
    message = new_id()
    talk.ask(site.now, message=message, app=app.id, configuration=1, query=query, inputs={}, user=talk.user)
    await site.record(talk, message)
    talk.answering(site.now, message=message)
    await site.record(talk, message)
    return message


async def given(site: Site, talk: Conversation, message: str, answer: str) -> None:
    talk.answer(
        site.now,
        message=message,
        answer=answer,
        citations=[],
        usage=Usage(prompt_tokens=0, completion_tokens=0, estimated=False),
        cut=Truncation(segments=0, messages=0),
        model_call="",
        duration_ms=20.0,
    )
    await site.record(talk, message)


@pytest.fixture(scope="module")
async def sample(
    lone_nats: EmbeddedNats, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sample]:
    home = tmp_path_factory.mktemp("site")
    async with serving(Path(home), lone_nats.url, module_database_url) as site:
        app = await site.app("Harbour", "Be brief.")
        app.set_annotation_reply(site.now, enabled=True, score_threshold=0.92, embedding=None)
        app.annotations_embedded(site.now, embedding_model="a-model")
        await site.record(app, new_id())
        annotation = await annotated(site, app, "When does the gate open?", "At high tide.")
        evil = await annotated(site, app, EVIL, "No.")
        talk = await site.conversation(app)
        hit = await asked(site, app, talk, "When is the gate open?")
        talk.match(site.now, message=hit, annotation=annotation, score=0.9512, embedding_model="a-model")
        await given(site, talk, hit, "At high tide.")
        message = await asked(site, app, talk, "Where is the **** kept?")
        verdicts = [
            checked(site, "input", "words", 0, verdict="flagged", action="replace", flagged=["query"]),
            checked(site, "output", "http", 1, verdict="failed", action="refuse", code="timeout"),
            checked(site, "output", "words", 0, verdict="flagged", action="replace", checked=3, flagged=["1"]),
        ]
        changed = "Where is the **** kept?"
        talk.moderate(site.now, message=message, attempt=1, verdicts=verdicts, query=changed, inputs=None)
        await given(site, talk, message, "In the house.")
        await site.settled()
        yield Sample(site, app, annotation, evil, hit, message)


async def test_annotations_are_listed_with_their_settings_and_hits(sample: Sample) -> None:
    page = await sample.site.get("/annotations")
    said = text_of(page)
    assert "When does the gate open?" in said
    assert "At high tide." in said
    assert "0.951" in said
    assert "When is the gate open?" in said
    assert f"/traces/{sample.hit}" in page
    assert "0.92" in said
    assert EVIL not in page
    assert "not embedded" in said
    found = await sample.site.json("/annotations", app="Harbour", q="tide")
    [row] = found["annotations"]
    assert (row["id"], row["hit_count"], row["vectors"], len(row["hits"])) == (sample.annotation, 1, 1, 1)
    [setting] = found["settings"]
    assert (setting["enabled"], setting["active_embedding_model"]) == (True, "a-model")


async def test_what_is_sought_is_found(sample: Sample) -> None:
    found = await sample.site.json("/annotations", id=sample.evil)
    assert [row["id"] for row in found["annotations"]] == [sample.evil]
    assert "Nothing matches" in text_of(await sample.site.get("/annotations", q="nothing of this"))
    assert "Nothing matches" in text_of(await sample.site.get("/annotations", before="2020-01-01T00:00:00+00:00~x"))


async def test_a_trace_shows_the_annotation_that_answered(sample: Sample) -> None:
    page = await sample.site.get(f"/traces/{sample.hit}", span="-")
    assert "0.951" in text_of(page)
    assert f"/annotations?id={sample.annotation}" in page


async def test_a_trace_shows_what_filters_found(sample: Sample) -> None:
    said = text_of(await sample.site.get(f"/traces/{sample.checked}", span="-"))
    assert "3 verdicts" in said
    for text in ("sentence 2", "query", "timeout", "refuse", "words of input: flagged", "http of output: failed"):
        assert text in said
