"""Commands that talk to the bus and the tables: send, upload, preview, ask, search, tail, sql, asyncapi."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import psycopg
import typer
from rich.table import Table
from rich.text import Text

from adapters.jetstream.client import Client, Commit, Frame, Outcome
from domain.access.actor import ANON
from domain.aggregate import sentence
from domain.excerpt import excerpt
from handlers.media_types import media_type_of
from ops import terminal
from ops.cli.frame import (
    Failed,
    Home,
    Json,
    Tenant,
    Wait,
    app,
    conclude,
    connected,
    read_text,
    run,
    until_stopped,
)
from ops.cli.upload import read
from ops.logs import SECRET_NAME
from ops.settings import READER, Settings
from ops.terminal import clean, emit, one_line, out, say, show

LARGEST_PREVIEW = 700 * 2**10
"""Maximum size of a file, in bytes, that is sent within the request for its preview."""


@app.command(
    epilog="Examples: [bold]headrace send app.create name=Porter[/] · "
    "[bold]headrace send app.configure app=ID model.provider=openai model.name=gpt-5 datasets:='\\[\"ID\"]'[/] · "
    "[bold]headrace send dataset.create --data dataset.json[/] · "
    "[bold]headrace send provider.register name=openai base_url=https://host/v1 key@=-[/]"
)
def send(
    name: Annotated[str, typer.Argument(help="Command as noun.verb.", metavar="NOUN.VERB")],
    pairs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Fields: key=text, key:=JSON or key@=FILE (- asks for it); a.b=… sets b inside a.",
            metavar="KEY=VALUE…",
            show_default=False,
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="File with the payload as JSON; - reads standard input.")] = None,
    id: Annotated[
        str | None, typer.Option(help="Command id, a UUID; sending the same id again changes nothing.")
    ] = None,
    actor: Annotated[str, typer.Option(help="Actor that sends it: a_<account>, k_<key>, s_<service>, or anon.")] = ANON,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Send a command and print its outcome, with the id of what it created."""
    settings = Settings.load(home=home, tenant=tenant)
    payload = merged(read_payload(data) if data else {}, pairs or [])
    for secret in named_secrets(pairs or []):
        terminal.complain(f"{secret} is in the history of your shell and in the list of processes: use {secret}@=-.")

    async def work() -> Outcome:
        async with connected(settings) as client:
            return await Client(client.connection, client.tenant, actor).send(name, payload, id, wait)

    conclude(run(work()), as_json)


@app.command(
    epilog="Examples: [bold]headrace upload handbook/ --dataset ID --wait[/] · "
    "[bold]headrace upload a.pdf b.md --dataset ID --metadata '{\"year\": 2026}'[/] · "
    '[bold]headrace upload faq.csv --dataset ID --rules \'{"mode": "question_answer"}\'[/]'
)
def upload(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders; a folder is uploaded with all files in it.")],
    dataset: Annotated[str, typer.Option(help="Dataset id.")],
    rules: Annotated[
        str | None, typer.Option(help="Segmentation rules for these files, as JSON; see [bold]preview[/].")
    ] = None,
    metadata: Annotated[str | None, typer.Option(help="Metadata of the documents, as JSON.")] = None,
    user: Annotated[
        str | None, typer.Option(help="End user who uploads the files: they go when the user is erased.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every document is indexed.")] = False,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Upload files to a dataset."""
    from ops.cli.upload import Upload

    settings = Settings.load(home=home, tenant=tenant)
    files = list(files_in(paths))
    fields = {
        "segmentation": from_json("--rules", rules),
        "metadata": from_json("--metadata", metadata),
        "user": user,
    }

    async def work() -> list[dict[str, Any]]:
        with terminal.bars(as_json) as progress:
            async with connected(settings) as client:
                job = Upload(client, dataset, progress, **fields)
                await job.send(files)
                if wait:
                    await job.follow()
                return job.documents

    documents = run(work())
    for document in documents:
        if as_json:
            emit(document)
        else:
            show_document(document)
    if any(document["status"] in ("rejected", "error") for document in documents):
        raise typer.Exit(1)


@app.command(
    epilog="Examples: [bold]headrace preview handbook.pdf --dataset ID[/] · "
    '[bold]headrace preview faq.csv --rules \'{"mode": "question_answer"}\'[/]'
)
def preview(
    file: Annotated[Path, typer.Argument(help="File to segment; with --digest, only its name is used.")],
    dataset: Annotated[str | None, typer.Option(help="Dataset id; its embedding model and rules are used.")] = None,
    rules: Annotated[
        str | None, typer.Option(help="Segmentation rules to try, as JSON, instead of the dataset's.")
    ] = None,
    digest: Annotated[str | None, typer.Option(help="SHA-256 of a file that is already in the object store.")] = None,
    first: Annotated[int, typer.Option(min=0, help="Position of the first segment to show.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Maximum number of segments to show.")] = 20,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show the segments that a file would be split into; no document is made.

    A file larger than 700 KiB is put into the object store.
    """
    from ops.cli.upload import read, readable_name

    settings = Settings.load(home=home, tenant=tenant)
    request: dict[str, Any] = {"dataset": dataset, "name": readable_name(file), "first": first, "limit": limit}
    if rules:
        request["segmentation"] = from_json("--rules", rules)
    data = b""
    try:
        data = b"" if digest else read(file)
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise Failed(f"{file} cannot be read: {error}.") from error

    async def work() -> dict[str, Any]:
        async with connected(settings) as client:
            if digest or len(data) > LARGEST_PREVIEW:
                return await client.preview(request | {"digest": digest or await client.upload_blob(data)})
            return await client.preview(request | {"data": b64encode(data).decode()})

    answer = run(work())
    if as_json:
        emit(answer)
    elif answer["status"] == "ok":
        show_preview(answer)
    else:
        terminal.complain(sentence(answer["message"], answer.get("field")))
    if answer["status"] != "ok":
        raise typer.Exit(1)


@app.command(
    epilog='Examples: [bold]headrace ask APP "How long is the oil boom?"[/] · '
    '[bold]headrace ask APP "And in winter?" --conversation ID --input season=winter[/] · '
    '[bold]headrace ask APP "And in summer?" --conversation ID --after MESSAGE[/] · '
    '[bold]headrace ask APP "What does it cost?" --file offer.pdf[/]'
)
def ask(
    app_id: Annotated[str, typer.Argument(help="App id.", metavar="APP")],
    question: Annotated[str, typer.Argument(help="Question.")],
    conversation: Annotated[str | None, typer.Option(help="Id of the conversation to continue.")] = None,
    after: Annotated[
        str | None, typer.Option(help="Id of the message of the conversation to continue after; default: the newest.")
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Variable of the app, as name=value; repeatable.")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file", help="File of the question: a path, or an address that a worker fetches it from; repeatable."
        ),
    ] = None,
    user: Annotated[str, typer.Option(help="End user id.")] = "cli",
    patience: Annotated[float, typer.Option(min=1, help="Maximum silence, in seconds, before giving up.")] = 300.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Ask an app a question; print the answer as it streams, then its citations."""
    settings = Settings.load(home=home, tenant=tenant)
    values = {name: str(value) for name, value in merged({}, inputs or []).items()}

    async def work() -> Frame:
        printer = AnswerPrinter()
        frame: Frame = {}
        async with connected(settings) as client:
            packed = [await question_file(client, file) for file in files or ()]
            async for frame in client.ask(
                app_id,
                question,
                conversation=conversation,
                after=after,
                inputs=values,
                user=user,
                files=packed,
                patience=patience,
            ):
                if as_json:
                    emit(frame)
                else:
                    printer.show(frame)
        return frame

    if run(work())["type"] != "answered":
        raise typer.Exit(1)


async def question_file(client: Client, file: str) -> dict[str, Any]:
    """The entry of a file in `files`; that of an address has the type of its name. Raises: Failed."""
    if file.startswith(("http://", "https://")):
        media_type = media_type_of(urlsplit(file).path) or ""
        kind = media_type.partition("/")[0]
        return {"type": kind if kind in ("image", "audio") else "document", "url": file}
    try:
        return await client.pack_file(await asyncio.to_thread(read, Path(file)), Path(file).name)
    except (OSError, ValueError) as error:
        raise Failed(f"{file} cannot be read: {error}.") from error


@app.command(
    epilog='Examples: [bold]headrace search DATASET "How long is the oil boom?"[/] · '
    "[bold]headrace search DATASET boom --mode full_text --top-k 20 --json[/] · "
    "[bold]headrace search DATASET boom --set neighbours:=1 --set rerank.provider=builtin[/]"
)
def search(
    dataset: Annotated[str, typer.Argument(help="Dataset ids, separated by commas.", metavar="DATASET")],
    question: Annotated[str, typer.Argument(help="Query.")],
    mode: Annotated[str, typer.Option(help="Retrieval mode: hybrid, semantic or full_text.")] = "hybrid",
    top_k: Annotated[int, typer.Option(help="Maximum number of segments to return.")] = 10,
    settings_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Retrieval setting, as key=text or key:=JSON; repeatable."),
    ] = None,
    user: Annotated[str, typer.Option(help="End user id.")] = "cli",
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Search datasets and print the hits with their ranks and scores. The retrieval is recorded."""
    settings = Settings.load(home=home, tenant=tenant)
    retrieval = merged({"mode": mode, "top_k": top_k}, settings_ or [])

    async def work() -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
        async with connected(settings) as client:
            made = await client.search(dataset.split(","), question, retrieval=retrieval, user=user)
        ids = [hit["segment"] for hit in made["hits"]]
        if as_json:
            return made, {}
        return made, await texts_of(settings.located("postgres", role=READER).postgres_url, client.tenant, ids)

    made, texts = run(work())
    if as_json:
        emit(made)
    else:
        show_retrieval(made, texts)
    if made["code"]:
        raise typer.Exit(1)


async def texts_of(url: str, tenant: str, segments: list[str]) -> dict[str, tuple[str, str]]:
    """Document name and text by segment id, of the segments that are in the tables. Raises: Failed."""
    from projections.document_segments import TEXTS  # SQLAlchemy would slow down all commands

    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
            await connection.execute("SET LOCAL ROLE headrace_reader")
            rows = await (await connection.execute(TEXTS, {"tenant": tenant, "ids": segments})).fetchall()
    except psycopg.Error as error:
        raise Failed(f"PostgreSQL: {one_line(error)}") from error
    return {id: (name, content) for id, name, content, *_ in rows}


@app.command(epilog="Examples: [bold]headrace tail[/] · [bold]headrace tail --noun document --since 1 --json[/]")
def tail(
    noun: Annotated[
        str | None, typer.Option(help="Only events of this noun: app, dataset, document, conversation …")
    ] = None,
    since: Annotated[int | None, typer.Option(min=1, help="Sequence of the log to start from; default: now.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this number of commits.")] = None,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Print the tenant's events as they happen."""
    settings = Settings.load(home=home, tenant=tenant)

    async def work() -> None:
        seen = 0
        async with connected(settings) as client, aclosing(client.commits(noun or "*", since=since)) as commits:
            async for commit in commits:
                if as_json:
                    emit(asdict(commit))
                else:
                    show_commit(commit)
                seen += 1
                if seen == count:
                    break

    run(until_stopped(work()))


@app.command(
    epilog='Examples: [bold]headrace sql "select name, indexing_status from headrace.documents"[/] · '
    '[bold]headrace sql --json "select * from headrace.model_calls"[/]'
)
def sql(
    query: Annotated[str, typer.Argument(help="One statement, read only.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Run a query on the tables, as the role headrace_reader."""
    url = Settings.load(home=home).located("postgres", role=READER).postgres_url
    names, rows = run(read_tables(url, query))
    if as_json:
        for row in rows:
            emit(dict(zip(names, row, strict=True)))
        return
    terminal.show_rows(names, rows)


async def read_tables(url: str, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The column names and rows of one statement. Raises: Failed."""
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
            await connection.set_read_only(True)
            await connection.execute("SET LOCAL ROLE headrace_reader; SET LOCAL search_path = headrace, public")
            cursor = connection.cursor()
            # A prepared statement is a single one: anything after a semicolon is refused.
            await cursor.execute(query.encode(), prepare=True)
            names = [column.name for column in cursor.description or []]
            return names, await cursor.fetchall() if names else []
    except psycopg.Error as error:
        raise Failed(f"PostgreSQL: {one_line(error)}") from error


@app.command(
    epilog="Examples: [bold]headrace asyncapi > asyncapi.json[/] · [bold]headrace asyncapi --schemas docs/schemas[/]"
)
def asyncapi(
    schemas: Annotated[
        Path | None, typer.Option(help="Write a JSON Schema of every command and event to this folder instead.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the AsyncAPI 3 document of all commands, events, outcomes and live frames."""
    from importlib.metadata import version

    from ops.asyncapi import document, write_schemas

    if schemas is None:
        contract = document(version("headrace"))
        sys.stdout.write(json.dumps(contract, indent=None if as_json else 2, ensure_ascii=False) + "\n")
        return
    written = write_schemas(schemas)
    if as_json:
        emit({"written": [str(path) for path in written]})
    else:
        say(f"Wrote {len(written)} schemas to {schemas}.")


def merged(payload: dict[str, Any], pairs: Iterable[str]) -> dict[str, Any]:
    """The payload with `key=text`, `key:=JSON` and `key@=FILE` added; `a.b=…` sets `b` inside `a`.

    Raises: BadParameter, Failed.
    """
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.rstrip(":@"):
            raise typer.BadParameter(f"{key!r} is not like key=text, key:=JSON or key@=FILE.")
        value: Any = text
        if key.endswith("@"):
            key = key[:-1]
            value = read_text(key, text)
        if key.endswith(":"):
            key = key[:-1]
            try:
                value = json.loads(text)
            except ValueError:
                raise typer.BadParameter(f"{text!r}, the value of {key}, is not JSON.") from None
        *outer, last = key.split(".")
        place = payload
        for part in outer:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"{key}: {part} already has a value that is no object.")
        place[last] = value
    return payload


def named_secrets(pairs: Iterable[str]) -> list[str]:
    """The fields with a secret among these pairs, whose values are on the command line."""
    found = [pair.partition("=") for pair in pairs]
    names = [key.rstrip(":") for key, _, value in found if value and not key.endswith("@")]
    return [name for name in names if SECRET_NAME.search(name.rpartition(".")[2])]


def read_payload(data: str) -> dict[str, Any]:
    try:
        payload = json.loads(sys.stdin.read() if data == "-" else Path(data).read_text(encoding="utf-8"))
    except OSError as error:
        raise Failed(f"{data} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise Failed(f"{data} is not JSON: {error}.") from error
    if not isinstance(payload, dict):
        raise Failed(f"{data} does not hold a JSON object.")
    return payload


def from_json(option: str, value: str | None) -> Any:
    """Value of an option that holds JSON; None when it is not given. Raises: Failed."""
    try:
        return None if value is None else json.loads(value)
    except ValueError as error:
        raise Failed(f"{option} is not JSON: {error}.") from error


def files_in(paths: Iterable[Path]) -> Iterable[Path]:
    """The files, and all files in the folders except hidden ones. Raises: Failed."""
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            yield from (file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts))
        elif path.is_file():
            yield path
        else:
            raise Failed(f"{path} does not exist.")


def show_retrieval(made: dict[str, Any], texts: dict[str, tuple[str, str]]) -> None:
    """Print the hits, best first; `texts` has document name and text by segment id."""
    table = Table("rank", "score", "semantic", "full text", "fused", "reranked", "document", "page", "text")
    for hit in made["hits"]:
        name, text = texts.get(hit["segment"], ("", ""))
        score = hit["score"] if hit["rerank_score"] is None else hit["rerank_score"]
        ranks = [hit[name] for name in ("semantic_rank", "full_text_rank", "fusion_rank", "rerank_rank")]
        cells = [hit["rank"] or hit["dropped"], f"{score:.4f}", *ranks, name, hit["page"], " ".join(text.split())[:80]]
        style = None if hit["rank"] else "dim"
        table.add_row(*(Text("" if cell is None else clean(str(cell))) for cell in cells), style=style)
    show(table)
    for fault in made["faults"]:
        show(Text(clean(f"Skipped {fault['step']}: {fault['code']}"), "yellow"))
    if made["code"]:
        show(Text(clean(f"✗ {made['code']} {made['reason']}"), "red"))
    only = "" if made["documents"] is None else f" in {made['documents']} documents"
    show(Text(f"{len(made['hits'])} found{only} in {made['duration_ms']:.0f} ms; retrieval {made['id']}", "dim"))


def show_document(document: dict[str, Any]) -> None:
    """Print a line of an upload."""
    mark = Text("✗ ", "red") if document["status"] in ("rejected", "error") else Text("✓ ", "green")
    show(mark + Text(clean(f"{document['name']}  {document['document'] or ''}  {document['status']}")))
    if document["reason"]:
        show(Text(clean(f"  {document['reason']}"), "red"))
    show_warnings(document["warnings"])


def show_warnings(warnings: Iterable[str]) -> None:
    """Print what was guessed or left out in a text."""
    for warning in warnings:
        show(Text(clean(f"  {warning}"), "yellow"))


def show_preview(answer: dict[str, Any]) -> None:
    """Print the segments of a preview, children below their parents."""
    for segment in answer["segments"]:
        indent = "" if segment["parent"] is None else "  "
        page = f"page {segment['page']}" if segment["page"] else None
        place = " · ".join(filter(None, (f"{segment['tokens']} tokens", page, segment["heading"])))
        show(Text(clean(f"{indent}{segment['position']}  {place}"), "dim"))
        for text in filter(None, (segment["content"], segment["answer"])):
            show(Text(clean("\n".join(f"{indent}   {line}" for line in text.splitlines()))))
    total, read = answer["total_segments"], answer["previewed_characters"]
    whole = "" if read == answer["characters"] else f" of the first {read:,} of {answer['characters']:,} characters"
    show(Text(f"{total} segment{'' if total == 1 else 's'}{whole}, {answer['tokens']:,} tokens", "dim"))
    show_warnings(answer["warnings"])


def show_commit(commit: Commit) -> None:
    for event in commit.events:
        line = Text(f"{commit.sequence:>8}  {commit.at}  ", "dim") + Text(event["type"], "bold")
        show(line + Text(clean(f"  {commit.noun} {commit.id}")))


SHOWN = 200
"""Characters of a tool's result that are printed."""


class AnswerPrinter:
    """Prints an answer as it grows."""

    def __init__(self) -> None:
        self.printed = ""
        self.attempt = 1

    def show(self, frame: Frame) -> None:
        match frame["type"]:
            case "restarted" | "token" if frame["attempt"] > self.attempt:
                self._write("\n[again]\n" if self.printed else "")
                self.attempt, self.printed = frame["attempt"], ""
                self.show(frame)
            case "restarted":
                self._write("\n[again]\n" if self.printed else "")
                self.printed = ""
            case "token":
                self.printed += frame["text"]
                self._write(frame["text"])
            case "thought":
                show(Text(clean(frame["text"]), "dim"))
            case "tool":
                show(Text(clean(f"→ {frame['name']} {frame['arguments']}"), "dim"))
            case "observation":
                show(Text(clean(f"  {frame['status']}: {excerpt(frame['text'], SHOWN)}"), "dim"))
            case "question":
                show(Text(clean(f"  {frame['name']} asks: {frame['text']}"), "yellow"))
                show(Text(clean(f"  Answer by tool_call.release or tool_call.refuse of {frame['call']}."), "yellow"))
            case "held":
                calls = ", ".join(frame["calls"])
                show(Text(clean(f"It waits for tool_call.release or tool_call.refuse of {calls}."), "yellow"))
            case "replaced":
                self._write("\n[withdrawn]\n" if self.printed else "")
                self.printed = ""
            case "answered" | "stopped":
                rest = frame["answer"].removeprefix(self.printed)
                self._write(f"\n{rest}\n" if self.printed and rest == frame["answer"] else f"{rest}\n")
                for citation in frame.get("citations", []):
                    show_citation(citation)
            case "failed":
                self._write("\n" if self.printed else "")
                show(Text(clean(f"✗ no answer ({frame['code']}): {frame['reason']}"), "red"))
        if frame["type"] == "stopped":
            show(Text("stopped", "yellow"))

    def _write(self, text: str) -> None:
        out.print(Text(clean(text)), end="", soft_wrap=True)


def show_citation(citation: dict[str, Any]) -> None:
    place = [f"page {citation['page']}"] if citation["page"] else []
    place += [citation["heading"]] if citation["heading"] else []
    source = ", ".join([citation["document_name"], *place])
    show(Text(clean(f"  [{citation['position']}] {source}: “{citation['sentence']}”"), "dim"))
