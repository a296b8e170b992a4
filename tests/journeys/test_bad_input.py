"""Mistakes of users, one test each: a clear outcome is recorded, and nothing crashes."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest
from reportlab.pdfgen.canvas import Canvas

from domain.aggregate import new_id
from tests.journeys.stack import Row, Stack


@pytest.fixture(scope="module")
async def dataset(headrace: Stack) -> str:
    return await headrace.make("dataset.create", name="bad input")


async def raw(headrace: Stack, subject: str, payload: bytes) -> dict[str, Any]:
    """The outcome of a payload that no decent client would send."""
    id = new_id()
    await headrace.client.stream.publish(subject, payload, headers={"Headrace-Id": id})
    async with asyncio.timeout(20):
        while (outcome := await headrace.client.outcome(id)) is None:
            await asyncio.sleep(0.02)
    [row] = await headrace.until("SELECT * FROM headrace.commands WHERE id = %(id)s", id=id)
    assert (row["status"], row["code"], row["message"]) == (outcome["status"], outcome["code"], outcome["message"])
    return outcome


async def uploaded(headrace: Stack, dataset: str, name: str, data: bytes) -> Row:
    """The row of a document once it has ended."""
    digest = await headrace.client.upload_blob(data)
    id = await headrace.make("document.upload", dataset=dataset, name=name, digest=digest)
    return (await headrace.ended([id]))[id]


async def test_an_unknown_command(headrace: Stack) -> None:
    outcome = await raw(headrace, "cmd.default.anon.app.explode", b"{}")
    assert outcome["code"] == "unknown_command"
    assert "app.create" in outcome["message"]


async def test_broken_json(headrace: Stack) -> None:
    outcome = await raw(headrace, "cmd.default.anon.app.create", b'{"name": "half')
    assert outcome["code"] == "broken_json"
    assert outcome["excerpt"] == '{"name": "half'


async def test_two_megabytes(headrace: Stack) -> None:
    outcome = await raw(headrace, "cmd.default.anon.app.create", json.dumps({"name": "x" * 2_000_000}).encode())
    assert outcome["code"] == "too_large"
    assert "1,048,576" in outcome["message"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"name": 7}, "name"), ({"name": None}, "name"), ({}, "name"), ({"name": "a", "colour": "red"}, "colour")],
)
async def test_wrong_types(headrace: Stack, fields: dict[str, Any], field: str) -> None:
    outcome = await headrace.refused("app.create", **fields)
    assert (outcome["code"], outcome["field"]) == ("invalid", field)
    assert not outcome["message"].startswith(field)


@pytest.mark.parametrize(
    ("command", "fields", "field"),
    [
        ("app.configure", {"app": new_id()}, "app"),
        ("document.upload", {"dataset": new_id(), "name": "a.txt", "text": "a"}, "dataset"),
        ("message.send", {"app": new_id(), "query": "?"}, "app"),
        ("message.rate", {"conversation": new_id(), "message": new_id(), "rating": "like"}, "conversation"),
        ("provider.remove", {"provider": "nobody"}, "provider"),
    ],
)
async def test_unknown_ids(headrace: Stack, command: str, fields: dict[str, Any], field: str) -> None:
    outcome = await headrace.refused(command, **fields)
    assert (outcome["code"], outcome["field"]) == ("not_found", field)
    assert fields[field] in outcome["message"]


async def test_a_pdf_that_is_none(headrace: Stack, dataset: str) -> None:
    row = await uploaded(headrace, dataset, "report.pdf", b"I am not a PDF, honestly.")
    assert (row["indexing_status"], row["error_stage"], row["error_code"]) == ("error", "parsing", "broken_file")
    assert row["error"]


async def test_a_failed_document_can_be_retried_and_deleted(headrace: Stack, dataset: str) -> None:
    id = str((await uploaded(headrace, dataset, "again.pdf", b"Not a PDF either."))["id"])
    await headrace.send("document.retry", document=id)
    failed = "SELECT FROM headrace.documents WHERE id = %(id)s AND attempt = 2 AND error IS NOT NULL"
    await headrace.until(failed, id=id)
    await headrace.send("document.delete", document=id)
    await headrace.until("SELECT FROM headrace.documents WHERE id = %(id)s", lambda rows: not rows, id=id)
    assert (await headrace.refused("document.retry", document=id))["code"] == "not_found"


async def test_an_empty_file(headrace: Stack, dataset: str) -> None:
    row = await uploaded(headrace, dataset, "empty.txt", b"")
    assert (row["indexing_status"], row["error_code"]) == ("error", "empty_file")


async def test_a_pdf_of_300_pages(headrace: Stack, dataset: str) -> None:
    data = io.BytesIO()
    canvas = Canvas(data)
    for page in range(1, 301):
        canvas.drawString(72, 700, f"Page {page} tells that pump number {page} was checked on day {page}.")
        canvas.showPage()
    canvas.save()
    row = await uploaded(headrace, dataset, "long.pdf", data.getvalue())
    assert row["indexing_status"] == "completed", row
    assert row["pages"] == 300
    [last] = await headrace.sql(
        "SELECT max(page) AS page, count(*) FROM headrace.document_segments WHERE document_id = %(id)s", id=row["id"]
    )
    assert last["count"] == row["total_segments"]
    assert last["page"] == 300


async def test_a_name_with_path_parts(headrace: Stack, dataset: str) -> None:
    row = await uploaded(headrace, dataset, "../../etc/passwd.txt", b"Nothing to see here, move along.")
    assert (row["name"], row["indexing_status"]) == ("passwd.txt", "completed")
    outcome = await headrace.refused("document.upload", dataset=dataset, name="../..", text="a")
    assert outcome["field"] == "name"


async def test_nul_bytes(headrace: Stack, dataset: str) -> None:
    outcome = await headrace.refused("app.create", name="a\0b")
    assert (outcome["code"], outcome["field"]) == ("invalid", "name")
    row = await uploaded(headrace, dataset, "nul.txt", b"The dam\0 holds 12\0 gates.")
    assert row["indexing_status"] == "completed"
    content = "SELECT content FROM headrace.document_segments WHERE document_id = %(id)s"
    [segment] = await headrace.sql(content, id=row["id"])
    assert "\0" not in segment["content"]
    assert "holds" in segment["content"]


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        ("水門の鍵は三番の棚にあります。発電機は四台です。", "水門の鍵はどこにありますか。", "三番の棚"),
        ("مفتاح البوابة في الرف الثالث. عدد المولدات أربعة.", "أين مفتاح البوابة؟", "الرف الثالث"),
    ],
    ids=["japanese", "arabic"],
)
async def test_other_scripts(headrace: Stack, text: str, question: str, answer: str) -> None:
    dataset = await headrace.make("dataset.create", name="語 لغة")
    row = await uploaded(headrace, dataset, "鍵 مفتاح.txt", text.encode())
    assert (row["name"], row["indexing_status"]) == ("鍵 مفتاح.txt", "completed")
    app = await headrace.make("app.create", name="многоязычный")
    await headrace.send("app.configure", app=app, datasets=[dataset])
    frames = await headrace.ask(app, question)
    assert answer in frames[-1]["answer"]


async def test_a_hundred_commands_at_once_on_one_aggregate(headrace: Stack) -> None:
    app = await headrace.make("app.create", name="popular")
    outcomes = await asyncio.gather(
        *(headrace.client.send("app.configure", {"app": app, "prompt": f"p{n}"}, wait=60) for n in range(100))
    )
    assert {outcome["status"] for outcome in outcomes} == {"accepted"}
    assert sorted(outcome["version"] for outcome in outcomes) == list(range(2, 102))
    rows = await headrace.until(
        "SELECT number FROM headrace.app_model_configs WHERE app_id = %(app)s ORDER BY number",
        lambda rows: len(rows) == 100,
        app=app,
    )
    assert [row["number"] for row in rows] == list(range(1, 101))
