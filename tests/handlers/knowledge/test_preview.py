"""The preview of segments: its result, its refusals, and that it changes nothing."""

from __future__ import annotations

import asyncio
import base64
from copy import deepcopy
from typing import Any, cast

import orjson
import pytest

from domain.aggregate import new_id
from handlers.knowledge import preview
from handlers.knowledge.preview import QUEUED, SHARE, Preview
from handlers.ports.index import Index
from tests.handlers.desk import Desk
from tests.handlers.fakes import Lines, OneModel, Shelf, Words, embedding_models
from tests.memory import Memory

TEXT = "The lock opens at six.\nIt closes at dusk."


class Window:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.extractor, self.words, self.shelf = Lines(), Words(), Shelf()
        models = embedding_models(desk.repository, OneModel(self.words))
        self.preview = Preview(desk.repository, desk.blobs, self.extractor, models, cast("Index", self.shelf))

    async def __call__(self, **fields: Any) -> dict[str, Any]:
        return await self.preview(self.desk.tenant, orjson.dumps(fields))

    async def refused(self, **fields: Any) -> tuple[str, str | None]:
        """The code and the field."""
        answer = await self(**fields)
        assert answer["status"] == "rejected", answer
        assert answer["message"]
        return answer["code"], answer["field"]


@pytest.fixture
def show(memory: Memory, tenant: str) -> Window:
    return Window(Desk(memory, tenant))


async def test_a_text_is_shown_as_it_would_be_cut(show: Window) -> None:
    answer = await show(text=TEXT)
    assert (answer["status"], answer["embedding_model"], answer["total_segments"]) == ("ok", "words", 2)
    assert (answer["characters"], answer["previewed_characters"], answer["tokens"]) == (40, 40, 9)
    assert answer["warnings"] == []
    assert answer["segmentation"]["mode"] == "automatic"
    assert answer["segments"][1] == {
        "position": 1,
        "parent": None,
        "content": "It closes at dusk.",
        "answer": None,
        "tokens": 4,
        "page": None,
        "heading": None,
        "start_offset": 24,
        "end_offset": 42,
    }
    assert show.extractor.asked == [("text/plain", "text.txt")]


async def test_a_file_is_shown_as_a_text_is(show: Window) -> None:
    whole = await show(text=TEXT)
    digest = await show.desk.blobs.put(show.desk.tenant, TEXT.encode())
    assert await show(data=base64.b64encode(TEXT.encode()).decode(), name="a.md") == whole
    assert await show(digest=digest, name="file") == whole
    assert await show(digest=digest, name="file", media_type="x/odd") == whole
    assert [media_type for media_type, _ in show.extractor.asked[1:]] == [
        "text/markdown",
        "application/octet-stream",
        "x/odd",
    ]


async def test_a_page_of_the_segments_is_shown(show: Window) -> None:
    text = "\n".join(f"Rule {number}." for number in range(9))
    answer = await show(text=text, first=3, limit=2)
    assert [segment["position"] for segment in answer["segments"]] == [3, 4]
    assert answer["total_segments"] == 9
    assert (await show(text=text, first=9))["segments"] == []


async def test_the_rules_and_the_model_are_those_of_the_dataset_unless_others_are_given(show: Window) -> None:
    rules = {"mode": "custom", "max_tokens": 99}
    dataset = await show.desk.done("dataset.create", name="Rules")
    await show.desk.done("dataset.configure", dataset=dataset, segmentation=rules)
    assert (await show(text=TEXT, dataset=dataset))["segmentation"]["max_tokens"] == 99
    other = {"mode": "custom", "max_tokens": 33}
    assert (await show(text=TEXT, dataset=dataset, segmentation=other))["segmentation"]["max_tokens"] == 33
    assert [each.max_tokens for each in show.words.rules] == [99, 33]
    show.shelf.searched[dataset] = "another"
    answer = await show(text=TEXT, dataset=dataset)
    assert (answer["status"], "another" in answer["message"]) == ("unavailable", True)


async def test_of_a_long_text_the_beginning_is_cut(show: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "MOST_CHARACTERS", 25)
    answer = await show(text=TEXT)
    assert (answer["characters"], answer["previewed_characters"], answer["total_segments"]) == (40, 22, 1)


async def test_an_answer_has_a_size(show: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "MOST_BYTES", 200)
    answer = await show(text=TEXT)
    assert (len(answer["segments"]), answer["total_segments"]) == (1, 2)


async def test_what_is_refused_names_the_field(show: Window) -> None:
    dataset = await show.desk.done("dataset.create", name="Rules")
    theirs = await Desk(show.desk.server, f"{show.desk.tenant}x").done("dataset.create", name="Theirs")
    foreign = await show.desk.blobs.put("other", b"theirs")
    await show.desk.done("dataset.delete", dataset=dataset)
    assert await show.refused(text=TEXT, dataset=dataset) == ("not_found", "dataset")
    assert await show.refused(text=TEXT, dataset=theirs) == ("not_found", "dataset")
    assert await show.refused(text=TEXT, dataset=new_id()) == ("not_found", "dataset")
    assert await show.refused(digest=foreign) == ("not_found", "digest")
    assert await show.refused(data="?") == ("invalid", "data")
    assert (await show.refused(text=TEXT, data="eA=="))[0] == "invalid"
    assert (await show.refused())[0] == "invalid"
    assert await show.refused(text=TEXT, limit=501) == ("invalid", "limit")
    assert await show.refused(text=TEXT, colour="red") == ("invalid", "colour")
    assert await show.refused(text=TEXT, media_type="x/broken") == ("broken_file", None)
    answer = await show.preview(show.desk.tenant, b"{")
    assert answer["status"] == "rejected"


async def test_what_is_away_is_said_and_asked_for_again(show: Window, memory: Memory) -> None:
    memory.away = True
    answer = await show(digest="0" * 64)
    assert answer == {"status": "unavailable", "message": "The memory is away."}


async def test_a_fault_of_ours_is_an_answer(show: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show.words, "segment", lambda text, rules: 1 / 0)
    assert await show.refused(text=TEXT) == ("internal_error", None)


async def test_nothing_is_changed(show: Window, memory: Memory) -> None:
    dataset = await show.desk.done("dataset.create", name="Rules")
    before = deepcopy((memory.blobs, [stream.messages for stream in memory.streams.values()]))
    assert (await show(text=TEXT, dataset=dataset))["status"] == "ok"
    assert (memory.blobs, [stream.messages for stream in memory.streams.values()]) == before
    assert (show.shelf.writes, show.words.embedded) == ([], [])


async def test_a_preview_when_many_wait_is_refused_until_later(show: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, at_work, most = asyncio.Event(), 0, 0
    extract = show.extractor.extract

    async def slow(*given: Any) -> Any:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await goes_on.wait()
        at_work -= 1
        return await extract(*given)

    monkeypatch.setattr(show.extractor, "extract", slow)
    waiting = [asyncio.create_task(show(text=TEXT)) for _ in range(SHARE + QUEUED)]
    while at_work < SHARE:
        await asyncio.sleep(0)
    busy = await show(text=TEXT)
    assert (busy["status"], busy["code"]) == ("unavailable", "busy")
    other = asyncio.create_task(show.preview("other", orjson.dumps({"text": TEXT})))
    while at_work == SHARE:
        await asyncio.sleep(0)
    goes_on.set()
    assert (await other)["status"] == "ok", "another tenant's needs not wait"
    assert {answer["status"] for answer in await asyncio.gather(*waiting)} == {"ok"}
    assert most == SHARE + 1
    assert (await show(text=TEXT))["status"] == "ok"
