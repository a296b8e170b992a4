"""`make demo`: a knowledge base of the example folder, an app, three questions, three cited answers.

Where the packages of the embedded model are installed, a second app has it generate an answer from the same documents.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from adapters.jetstream.client import Client, Frame, rejection
from adapters.jetstream.sessions import Sessions
from ops import terminal
from ops.bus import connect
from ops.servers import model
from ops.settings import READER, Settings, without_secrets
from ops.supervisor import PROVIDER

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMESPACE = UUID("6f1d7f6e-8f5c-5d0a-9c3e-0d6b1b2f7a10")
"""Namespace of the demo's ids, which are derived from names: running the demo twice changes nothing."""

QUESTIONS = 3

GENERATED = "Where can anglers buy day tickets, and what do they cost?"

GENERATOR: dict[str, Any] = {
    "prompt": "Answer the question in one sentence, with the words of the text.",
    "retrieval": {"top_k": 1},
    "model": {
        "provider": PROVIDER,
        "name": model.NAME,
        "context_window": model.WINDOW,
        "max_tokens": 80,
        "parameters": {"temperature": 0},
    },
}
"""Configuration for a model of 135 million parameters: it reads one passage best, and takes short instructions."""

console = Console(highlight=False, soft_wrap=True)


async def main() -> int:
    """Run the demo. Return 0 when every answer is right and cites its source; a generated one may be anything."""
    settings = Settings.load()
    try:
        headrace("up", "--detach", *(["--model"] if model.installed() else []))
        generates = model.MODEL in settings.running()["processes"]  # it may run already, without the model
        async with await connect(settings.located("nats")) as client:
            dataset = await send(client, "dataset.create", "millbrook", {"name": "Millbrook Weir handbook"})
            await ingest(client, settings.located("postgres", role=READER).postgres_url, dataset)
            app = await send(client, "app.create", "assistant", {"name": "Handbook assistant"})
            await send(client, "app.configure", "configuration", {"app": app, "datasets": [dataset]})
            questions = json.loads((EXAMPLES / "questions.json").read_text(encoding="utf-8"))[:QUESTIONS]
            right = [is_right(question, await ask(client, app, question["question"])) for question in questions]
            if generates:
                right.append(await generated(client, dataset))
            look_further(settings, app, await Sessions(client.connection).link(settings.viewer))
        if sys.stdin.isatty():
            console.print("\n[dim]Headrace runs until you press ctrl-C; its data are kept in .headrace.[/]")
            with suppress(asyncio.CancelledError):
                await interrupted()
    finally:
        headrace("down")
    return 0 if all(right) else 1


def headrace(*arguments: str) -> None:
    """Run the command line in a subprocess, as a user does. Raises: SystemExit when it fails."""
    done = subprocess.run([sys.executable, "-m", "ops.cli", *arguments], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


async def send(client: Client, name: str, what: str, payload: dict[str, Any]) -> str:
    """Send a command with an id derived from `what`. Return the id of the aggregate it changed. Raises: SystemExit."""
    outcome = await client.send(name, payload, str(uuid5(NAMESPACE, what)))
    if outcome["status"] == "rejected":
        raise SystemExit(f"{name} was rejected: {rejection(outcome)}")
    console.print(f"[green]✓[/] {name} [dim]{escape(json.dumps(payload))}[/]")
    return str(next(iter(outcome["ids"].values())))


async def ingest(client: Client, postgres_url: str, dataset: str) -> None:
    """Upload the folder and wait until every document is indexed. Raises: SystemExit when one fails."""
    files = sorted((EXAMPLES / "handbook").iterdir())
    with terminal.progress(console) as progress:
        uploading = progress.add_task("upload   documents", total=len(files))
        for file in files:
            data = file.read_bytes()
            digest = await client.upload_blob(data)
            id = str(uuid5(NAMESPACE, f"{file.name}:{hashlib.sha256(data).hexdigest()}"))
            await client.send("document.upload", {"dataset": dataset, "name": file.name, "digest": digest}, id)
            progress.advance(uploading)
        indexing = progress.add_task("index    segments", total=None)
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
            while True:
                row = await (await connection.execute(_PROGRESS, {"dataset": dataset})).fetchone()
                documents, ended, failed, done, total = row or (0, 0, 0, 0, 0)
                progress.update(indexing, completed=int(done), total=int(total) or None)
                if documents == ended == len(files):
                    break
                await asyncio.sleep(0.1)
    if failed:
        raise SystemExit(f"{failed} documents failed: headrace sql 'select name, error from headrace.documents'")


_PROGRESS = """
SELECT count(*), count(*) FILTER (WHERE indexing_status IN ('completed', 'error')),
       count(*) FILTER (WHERE indexing_status = 'error'),
       coalesce(sum(completed_segments), 0), coalesce(sum(total_segments), 0)
FROM headrace.documents WHERE dataset_id = %(dataset)s
"""


async def generated(client: Client, dataset: str) -> bool:
    """Ask a second app, of the embedded model. Return True when it answers: its words are its own."""
    console.print(f"\n[bold]A small language model[/] [dim]({model.NAME}, on this machine)[/]")
    app = await send(client, "app.create", "generator", {"name": "Handbook assistant that generates"})
    await send(client, "app.configure", "generator configuration", {"app": app, "datasets": [dataset], **GENERATOR})
    return bool((await ask(client, app, GENERATED))["type"] == "answered")


async def ask(client: Client, app: str, question: str) -> Frame:
    """Stream an answer and its citations to the terminal. Return the last frame."""
    console.print(f"\n[bold cyan]? {escape(question)}[/]")
    answer, last = "", Frame()
    with Live(console=console, refresh_per_second=20, transient=True) as live:
        async for frame in client.ask(app, question, user="demo"):
            last = frame
            answer = frame.get("answer") or answer + frame.get("text", "")
            live.update(Text(answer))
    console.print(Text(answer))
    if last["type"] != "answered":
        console.print(f"[red]{last['type']}: {escape(str(last.get('reason')))}[/]")
    for citation in last.get("citations", []):
        place = f"page {citation['page']}" if citation["page"] else citation["heading"]
        console.print(
            f"  [dim]\\[{citation['position']}] {escape(citation['document_name'])}, {escape(str(place))}:[/]"
        )
        console.print(f"      [italic]“{escape(citation['sentence'])}”[/]")
    return last


def is_right(question: dict[str, Any], answered: Frame) -> bool:
    """True when the answer contains the expected facts and cites the place that states them."""
    if answered["type"] != "answered":
        return False
    cited = any(
        citation["document_name"] == question["document"]
        and citation["page"] == question["page"]
        and (question["heading"] or "") in (citation["heading"] or "")
        for citation in answered["citations"]
    )
    return cited and all(fact in answered["answer"] for fact in question["answer"])


def look_further(settings: Settings, app: str, viewer: str) -> None:
    again = ".venv/bin/headrace up --model" if model.installed() else "make up"
    console.print(f"""
[bold]Look further[/] [dim](while it runs; `{again}` starts it again)[/]
  SQL   psql "{escape(reader(settings))}"   [dim](schema headrace; every column is commented)[/]
  bus   eval "$(.venv/bin/headrace env)" && nats sub 'live.default.>'   [dim](as the tenant, by NATS_URL)[/]
  see   {viewer}
        [dim](every call that was made for these answers; the link works once, `headrace viewer link` prints another)[/]
  try   .venv/bin/headrace ask {app} "How long is the oil boom?"
        .venv/bin/headrace sql "select name, indexing_status, total_segments from headrace.documents"
        .venv/bin/headrace sql "select kind, model, status, duration_ms from headrace.model_calls order by created_at"
        .venv/bin/headrace tail
        .venv/bin/headrace doctor""")


def reader(settings: Settings) -> str:
    """Connection string of a login that may only read; its password is in a file of the home."""
    if settings.postgres_url:
        return without_secrets(settings.postgres_url)
    login = conninfo_to_dict(settings.located("postgres", role=READER).postgres_url)
    return make_conninfo(
        host=str(login["host"]),
        port=str(login["port"]),
        dbname=str(login["dbname"]),
        user=str(login["user"]),
        passfile=str(settings.home / "pgpass"),
    )


async def interrupted() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
