"""The workflows among the examples: imported, published and run by the command line, with a scripted model."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid5
from xml.etree import ElementTree

import pytest

from ops.demo import EXAMPLES, NAMESPACE
from ops.servers.model import EmbeddedModel
from ops.supervisor import PROVIDER
from tests.chat_servers import Exchange, faulty_server
from tests.journeys.stack import PATIENCE_S, Row, Stack
from tests.journeys.test_dsl import Shell, shell

__all__ = ["shell"]

FOLDER = EXAMPLES / "workflows"
TICKETS = "http://127.0.0.1:8077/tickets"
"""The address in the file."""

Script = Callable[[str, str], str]
"""The words of a model, by the first and the last message that it was sent."""


@asynccontextmanager
async def scripted(stack: Stack, says: Script) -> AsyncIterator[list[str]]:
    """The model of the examples, which says what the script has for it; the first messages that it was sent."""
    heard: list[str] = []

    async def answer(exchange: Exchange) -> None:
        first, last = (exchange.body["messages"][at]["content"] for at in (0, -1))
        heard.append(first)
        await exchange.finish(says(first, last))

    async with faulty_server(answer) as server:
        await stack.send("provider.register", name=PROVIDER, base_url=server.url, key="k")
        yield heard


@asynccontextmanager
async def ticket_server() -> AsyncIterator[str]:
    """The ticket server of the examples; its address."""
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        str(FOLDER / "tickets.py"),
        "0",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert server.stdout
        yield (await server.stdout.readline()).decode().strip()
    finally:
        server.kill()
        await server.wait()


@pytest.fixture(scope="module")
async def handbook(headrace: Stack) -> str:
    """The knowledge base of the demo, with the documents that the examples need."""
    id = str(uuid5(NAMESPACE, "millbrook"))
    outcome = await headrace.client.send("dataset.create", {"name": "Millbrook Weir handbook"}, id, wait=PATIENCE_S)
    assert outcome["status"] == "accepted", outcome
    files = [EXAMPLES / "handbook" / name for name in ("safety-rules.html", "tariffs.html")]
    await headrace.ended(await headrace.upload(id, *files))
    return id


async def published(stack: Stack, shell: Shell, file: Path) -> str:
    """The app of a file, whose report is clean."""
    code, [report] = await shell("dsl", "import", str(file), "--check")
    assert (code, report["status"], report["notes"]) == (0, "runs", []), report
    assert not [reason for part in report["parts"] for reason in part["reasons"]]
    code, [made] = await shell("dsl", "import", str(file))
    assert code == 0
    await stack.until("SELECT * FROM headrace.workflows WHERE app_id = %(app)s", app=made["app"])
    code, [outcome] = await shell("workflow", "publish", made["app"])
    assert (code, outcome["status"]) == (0, "accepted")
    return str(made["app"])


async def answered(stack: Stack, app: str, query: str) -> Row:
    """The last frame of an answer."""
    frame = (await stack.ask(app, query, user="ada"))[-1]
    assert frame["type"] == "answered", frame
    return dict(frame)


def desk(first: str, last: str) -> str:
    if "categories" not in first:
        return "At night a kilowatt-hour costs 16.9 cents." if "none" in first else "Your ticket is No. 1."
    mood = "upset" if "wrong" in json.loads(last)["text"] else "calm"
    return json.dumps({"keywords": [], "category_id": mood, "category_name": mood})


@pytest.mark.usefixtures("handbook")
async def test_the_support_desk_answers_hands_over_and_opens_a_ticket(
    headrace: Stack, shell: Shell, tmp_path: Path
) -> None:
    async with ticket_server() as tickets, scripted(headrace, desk) as heard:
        file = tmp_path / "support-desk.yml"
        file.write_text((FOLDER / "support-desk.yml").read_text("utf-8").replace(TICKETS, tickets), "utf-8")
        app = await published(headrace, shell, file)
        frames = await headrace.ask(app, "What does a kilowatt-hour cost at night?", user="ada")
        talk = frames[0]["conversation"]
        assert frames[-1]["answer"] == "At night a kilowatt-hour costs 16.9 cents."
        assert "tariffs.html" in {each["document_name"] for each in frames[-1]["citations"]}

        asking = asyncio.create_task(headrace.ask(app, 'My bill is "wrong" again!', user="ada", conversation=talk))
        form, run = await waiting(headrace, app)
        assert "for the 1. time" in form["rendered_content"]
        code, [outcome] = await shell("run", "answer", run, "person", "ticket", "note=We look at it today.")
        assert (code, outcome["status"]) == (0, "accepted")
        frames = await asking
        assert frames[-1]["answer"] == "We look at it today.\n\nYour ticket: No. 1."
        effects = "SELECT * FROM headrace.effects WHERE cause_id = %(run)s"
        [effect] = await headrace.until(effects, lambda rows: [row["status"] for row in rows] == ["completed"], run=run)
        assert (effect["method"], effect["status_code"]) == ("POST", 201)

        frames = await headrace.ask(app, "What is my ticket?", user="ada", conversation=talk)
        assert frames[-1]["answer"] == "Your ticket is No. 1."
        assert "open ticket: No. 1" in heard[-1]


async def waiting(stack: Stack, app: str) -> tuple[Row, str]:
    """The form that a run of the app waits for, and the run."""
    [run] = await stack.until(
        "SELECT * FROM headrace.workflow_runs WHERE app_id = %(app)s AND status = 'paused'", app=app
    )
    forms = "SELECT * FROM headrace.human_input_forms WHERE workflow_run_id = %(run)s"
    [form] = await stack.until(forms, run=run["id"])
    return form, str(run["id"])


@pytest.mark.usefixtures("handbook")
async def test_a_desk_whose_model_cannot_classify_answers(headrace: Stack, shell: Shell) -> None:
    """As the packaged model, which says what it likes."""
    said = "I like water."
    async with scripted(headrace, lambda first, last: said):
        app = await published(headrace, shell, FOLDER / "support-desk.yml")
        assert (await answered(headrace, app, "My bill is wrong!"))["answer"] == said


def database(path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript((FOLDER / "works.sql").read_text("utf-8"))
    connection.close()
    return path


STATEMENTS = {
    "Who made most?": "```sql\nSELECT machine, sum(kwh) FROM generation GROUP BY machine ORDER BY 2 DESC;\n```",
    "Forget all.": "DELETE FROM generation",
    "Two at once.": "SELECT 1; SELECT 2",
    "What is gone?": "SELECT * FROM gone",
}


async def test_the_data_analyst_gives_a_table_and_a_picture_or_a_reason(
    headrace: Stack, shell: Shell, tmp_path: Path
) -> None:
    code, [outcome] = await shell("toolset", "register", "works", "sql", str(database(tmp_path / "works.db")))
    assert (code, outcome["status"]) == (0, "accepted")
    await headrace.until("SELECT * FROM headrace.toolsets WHERE id = 'works' AND tool_count = 1")
    async with scripted(headrace, lambda first, last: STATEMENTS[last]):
        app = await published(headrace, shell, FOLDER / "data-analyst.yml")

        async def outputs(question: str) -> Row:
            code, [found] = await shell("run", "start", app, f"question={question}", "--follow")
            assert (code, found["error"]) == (0, None)
            return {name: value["data"] for name, value in found["outputs"].items()}

        found = await outputs("Who made most?")
        assert found["table"].splitlines()[2] == "| Agnes | 343000.0 |"
        assert found["rows"] == 3
        picture = ElementTree.fromstring(found["picture"])
        lengths = [float(bar.get("width", "")) for bar in picture.iter("{http://www.w3.org/2000/svg}rect")]
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] == pytest.approx(2.02 * lengths[1], rel=0.01)

        assert (await outputs("Forget all."))["reason"] == "The model wrote no SELECT."
        assert (await outputs("Two at once."))["reason"] == "The model wrote more than one statement."
        refused = await outputs("What is gone?")
        assert ("no such table: gone" in refused["reason"], "table" in refused) == (True, False)


FACTS = {
    "Two of us clean the rake from the crest.": {"place": "crest", "people": 2, "wind": 20, "river": 0.8},
    "I do it alone, in a storm.": {"place": "crest", "people": 1, "wind": 62, "river": 0.8},
}


def adviser(first: str, last: str) -> str:
    if "passages" in first:
        return "Wear a life jacket."
    said = last.rpartition("Text:\n")[2]
    return json.dumps({**FACTS[said], "electrician": False}) if said in FACTS else "I cannot say."


@pytest.mark.usefixtures("handbook")
async def test_the_safety_adviser_advises_and_refuses(headrace: Stack, shell: Shell) -> None:
    async with scripted(headrace, adviser) as heard:
        app = await published(headrace, shell, FOLDER / "safety-adviser.yml")
        allowed, forbidden = FACTS
        advice = await answered(headrace, app, allowed)
        assert advice["answer"] == "Wear a life jacket."
        assert "Working alone" in heard[-1]
        refusal = await answered(headrace, app, forbidden)
        assert "At least two people work in this place: crest." in refusal["answer"]
        assert "it is 62." in refusal["answer"]
        assert "safety-rules.html" in {each["document_name"] for each in refusal["citations"]}
        unknown = await answered(headrace, app, "May I?")
        assert "I must know the place" in unknown["answer"]


@pytest.mark.long
@pytest.mark.usefixtures("handbook")
async def test_they_end_with_the_model_that_comes_along(
    headrace: Stack, shell: Shell, tmp_path: Path, small_model: EmbeddedModel
) -> None:
    """Its words are its own; each path ends, with an answer, a refusal or a reason."""
    await shell("toolset", "register", "works", "sql", str(database(tmp_path / "works.db")))
    await headrace.until("SELECT * FROM headrace.toolsets WHERE id = 'works' AND tool_count = 1")
    await headrace.send("provider.register", name=PROVIDER, base_url=small_model.url, key=small_model.key)
    desk = await published(headrace, shell, FOLDER / "support-desk.yml")
    asked = await headrace.client.send("message.send", {"app": desk, "query": "What is a share?", "user": "ada"})
    assert asked["status"] == "accepted"
    await headrace.until(
        "SELECT * FROM headrace.workflow_runs WHERE app_id = %(app)s AND status = ANY(%(ends)s)",
        app=desk,
        ends=["succeeded", "partial-succeeded", "paused"],  # a model may take the question for a complaint
    )
    adviser = await published(headrace, shell, FOLDER / "safety-adviser.yml")
    assert (await answered(headrace, adviser, next(iter(FACTS))))["answer"]
    analyst = await published(headrace, shell, FOLDER / "data-analyst.yml")
    code, [found] = await shell("run", "start", analyst, "question=Which machine made most?", "--follow")
    assert (code, {"table", "reason"} & set(found["outputs"]) != set()) == (0, True)
