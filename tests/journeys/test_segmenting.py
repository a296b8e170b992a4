"""Rules that are changed, and documents that are reprocessed, with a worker killed in the middle of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from handlers.ports.index import Index
from ops.index_choice import open_index
from ops.settings import Settings
from tests.journeys.stack import PATIENCE_S, Row, Stack

PARAGRAPHS = 300
CUSTOM = {"mode": "custom", "separator": "\n\n", "max_tokens": 64, "cleanup": ["remove_extra_spaces"]}


def handbook() -> str:
    return "\n\n".join(
        f"Rule {number}. The sluice  keeper opens gate {number} when the water is {number} centimetres high."
        for number in range(PARAGRAPHS)
    )


async def kept(index: Index, dataset: str) -> set[str]:
    """The ids that the index holds of a dataset."""
    async with aclosing(index.contents()) as chunks:
        return {id async for chunk in chunks for _, of, id in chunk if of == dataset}


async def shown(stack: Stack, dataset: str) -> set[str]:
    """The ids that the tables say can be found."""
    rows = await stack.sql(
        "SELECT id FROM headrace.document_segments WHERE dataset_id = %(dataset)s"
        " UNION ALL SELECT id FROM headrace.child_chunks WHERE dataset_id = %(dataset)s",
        dataset=dataset,
    )
    return {row["id"] for row in rows}


async def cut_sizes(stack: Stack, dataset: str) -> list[int]:
    rows = await stack.sql(
        "SELECT count(*) FROM headrace.document_segments WHERE dataset_id = %(dataset)s GROUP BY cut_id ORDER BY 1",
        dataset=dataset,
    )
    return [row["count"] for row in rows]


async def found(index: Index, stack: Stack, dataset: str, query: str) -> list[str]:
    [model] = (await index.models(stack.tenant, [dataset])).values()
    hits = await index.search(stack.tenant, [dataset], query, None, model=model, mode="full_text", top_k=5)
    return [hit.entry.content for hit in hits]


@asynccontextmanager
async def always_found(index: Index, stack: Stack, dataset: str, query: str) -> AsyncIterator[list[int]]:
    """Look again and again meanwhile; how often something was found is in the list, never 0."""
    counts: list[int] = []

    async def look() -> None:
        while True:
            counts.append(len(await found(index, stack, dataset, query)))
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    try:
        yield counts
    finally:
        looking.cancel()
        await asyncio.wait([looking])
    assert counts
    assert min(counts) > 0


async def in_line(index: Index, stack: Stack, dataset: str, size: int) -> set[str]:
    """Return the ids, once index and tables hold the same `count` of them."""
    async with asyncio.timeout(PATIENCE_S):
        while (ids := await kept(index, dataset)) != await shown(stack, dataset) or len(ids) != size:
            await asyncio.sleep(0.05)
    return ids


async def test_what_is_reprocessed_is_found_all_the_time_and_the_old_is_gone_at_the_end(headrace: Stack) -> None:
    dataset = await headrace.make("dataset.create", name="rules")
    document = await headrace.make("document.upload", dataset=dataset, name="rules.txt", text=handbook())
    await headrace.ended([document])
    async with open_index(headrace.settings) as index:
        [before] = await cut_sizes(headrace, dataset)
        old = await in_line(index, headrace, dataset, before)
        assert before < PARAGRAPHS
        await headrace.send("dataset.configure", dataset=dataset, segmentation=CUSTOM)
        async with always_found(index, headrace, dataset, "sluice keeper gate 7"):
            await headrace.send("dataset.reprocess", dataset=dataset)
            await headrace.until(
                "SELECT FROM headrace.documents WHERE id = %(id)s AND attempt = 2 AND completed_segments > 0",
                id=document,
            )
            headrace.signal("embed", signal.SIGSTOP)
            try:
                await headrace.kill("ingest")
                assert old <= await kept(index, dataset)
                await headrace.start("ingest")
            finally:
                headrace.signal("embed", signal.SIGCONT)
            await headrace.ended([document])
            new = await in_line(index, headrace, dataset, PARAGRAPHS)
        assert not old & new
        assert await cut_sizes(headrace, dataset) == [PARAGRAPHS]
        best = await found(index, headrace, dataset, "gate 7 centimetres")
        assert best[0] == "Rule 7. The sluice keeper opens gate 7 when the water is 7 centimetres high."
    [row] = await headrace.sql("SELECT * FROM headrace.documents WHERE id = %(id)s", id=document)
    assert (row["indexing_status"], row["completed_segments"], row["segmentation"]) == ("completed", PARAGRAPHS, None)
    [rules] = await headrace.sql("SELECT segmentation FROM headrace.datasets WHERE id = %(id)s", id=dataset)
    assert {**rules["segmentation"], **CUSTOM} == rules["segmentation"]


async def test_small_segments_with_parents_and_questions_with_answers(headrace: Stack) -> None:
    dataset = await headrace.make("dataset.create", name="forms")
    family = {"mode": "parent_child", "separator": "\n", "max_tokens": 32}
    text = "The boat house.\nIt is locked at nine.\n\nThe lock opens at six."
    small = await headrace.make("document.upload", dataset=dataset, name="a.txt", text=text, segmentation=family)
    faq = await headrace.make(
        "document.upload",
        dataset=dataset,
        name="faq.csv",
        text="question,answer\nWho keeps the lock?,Ada does.\nWhere is the key?,On the hook.\n",
        segmentation={"mode": "question_answer"},
    )
    rows = await headrace.ended([small, faq])
    assert (rows[small]["doc_form"], rows[faq]["doc_form"]) == ("hierarchical_model", "qa_model")
    [parent] = await headrace.sql("SELECT * FROM headrace.document_segments WHERE document_id = %(id)s", id=small)
    children = await headrace.sql(
        "SELECT * FROM headrace.child_chunks WHERE segment_id = %(id)s ORDER BY position", id=parent["id"]
    )
    assert [row["content"] for row in children] == [
        "The boat house.",
        "It is locked at nine.",
        "The lock opens at six.",
    ]
    async with open_index(headrace.settings) as index:
        await in_line(index, headrace, dataset, 6)
        [model] = (await index.models(headrace.tenant, [dataset])).values()
        search = {"model": model, "mode": "full_text", "top_k": 5}
        [locked, *_] = await index.search(headrace.tenant, [dataset], "locked at nine", None, **search)  # type: ignore[arg-type]
        assert (locked.entry.content, locked.entry.parent) == ("It is locked at nine.", parent["position"])
        [key] = await index.search(headrace.tenant, [dataset], "key", None, **search)  # type: ignore[arg-type]
        assert (key.entry.content, key.entry.answer) == ("Where is the key?", "On the hook.")


async def preview(settings: Settings, *arguments: str) -> tuple[int, Row]:
    """Return the status and the output of `headrace preview`."""
    environment = os.environ | {name: value for name, value in settings.variables().items() if value}
    command = [sys.executable, "-m", "ops.cli", "preview", *arguments, "--json"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)
    out, errors = await process.communicate()
    assert out, errors
    printed: Row = json.loads(out)
    return process.returncode or 0, printed


async def test_a_preview_says_how_it_would_be_and_changes_nothing(headrace: Stack, tmp_path: Path) -> None:
    dataset = await headrace.make("dataset.create", name="previewed")
    await headrace.send("dataset.configure", dataset=dataset, segmentation=CUSTOM)
    file = tmp_path / "faq.md"
    file.write_text("# Times\n\nQ: When does  it open?\n\nA: At six.\n")
    stream = headrace.client.stream

    async def written() -> list[int]:
        names = ("EVENTS", "COMMANDS", "OBJ_blobs", "OUTCOMES")
        return [(await stream.stream_info(name)).state.last_seq for name in names]

    before = await written()
    status, answer = await preview(headrace.settings, str(file), "--dataset", dataset)
    assert (status, answer["status"], answer["segmentation"]["mode"]) == (0, "ok", "custom")
    assert [(it["content"], it["heading"]) for it in answer["segments"]] == [
        ("Times\n\nQ: When does it open?", "Times"),
        ("A: At six.", "Times"),
    ]
    options = ("--rules", '{"mode": "question_answer"}', "--limit", "1")
    status, answer = await preview(headrace.settings, str(file), *options)
    assert (status, answer["total_segments"]) == (0, 1)
    assert [(it["content"], it["answer"]) for it in answer["segments"]] == [("When does it open?", "At six.")]

    async def refused(**request: Any) -> tuple[str, str | None]:
        answer = await headrace.client.preview(request)
        assert answer["status"] == "rejected", answer
        return answer["code"], answer["field"]

    assert await refused(text="x", segmentation={"mode": "custom", "max_tokens": 1}) == (
        "invalid",
        "segmentation.max_tokens",
    )
    assert await refused(text="x", segmentation={"mode": "question_answer"}) == ("no_questions", None)
    assert await refused(text="x", digest="a" * 64) == ("invalid", "text")
    assert await refused(digest="a" * 64) == ("not_found", "digest")
    assert await refused(data="no base64") == ("invalid", "data")
    assert await refused(text="x", dataset="019aa2f0-0001-7c00-8a00-4d696c6c6272") == ("not_found", "dataset")
    assert await refused(data="UEsDBA==", name="a.docx") == ("broken_file", None)
    assert await written() == before
