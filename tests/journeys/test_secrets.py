"""A marked key of a provider, which repeats it wherever it can, is nowhere afterwards."""

from __future__ import annotations

import asyncio

import psycopg
from nats.js.errors import NotFoundError

from tests.chat_servers import Exchange, faulty_server
from tests.journeys.stack import Stack
from tests.journeys.test_models import provider_of

KEY = "sk-marked-everywhere-0042"


async def repeats(exchange: Exchange) -> None:
    """Repeats the key: the first time in an error, then in every field of an answer, and between two pieces of it."""
    key = exchange.headers["authorization"].removeprefix("Bearer ")
    if exchange.number == 1:
        await exchange.fail(401, f"Incorrect API key provided: {key}.", key)
        return
    await exchange.begin()
    delta = {"reasoning_content": f"The key is {key}."}
    await exchange.event({"id": key, "model": f"small-{key}", "choices": [{"index": 0, "delta": delta}]})
    for piece in ("You sent ", key[:9], key[9:], f", I repeat: {key}", "."):
        await exchange.say(piece)
    await exchange.say(finish=f"stop:{key}")
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "billed_to": key}
    await exchange.event({"choices": [], "usage": usage, "system_fingerprint": key})
    await exchange.event("[DONE]")
    await exchange.end()


async def test_a_marked_key_is_in_no_stream_table_file_frame_or_log(headrace: Stack) -> None:
    app = await headrace.make("app.create", name="parrot")
    async with faulty_server(repeats) as server:
        provider = provider_of(server.url)
        await headrace.send("provider.register", name=provider, base_url=server.url, key=KEY)
        await headrace.refused("provider.register", name="other", base_url=server.url, key=KEY, extra=KEY)
        await headrace.send("app.configure", app=app, model={"provider": provider, "name": "small"})
        failed = await headrace.ask(app, "Which key did I send?")
        frames = await headrace.ask(app, "And now?")
        assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in server.requests)
    assert (failed[-1]["type"], failed[-1]["code"]) == ("failed", "unauthorized")
    assert (frames[-1]["type"], frames[-1]["answer"]) == ("answered", "You sent ***, I repeat: ***.")
    [call] = await headrace.until(
        "SELECT * FROM headrace.model_calls WHERE cause_id = %(id)s AND status = 'completed'", id=frames[0]["message"]
    )
    assert (call["reasoning"], call["response_id"], call["response_model"]) == ("The key is ***.", "***", "small-***")
    assert (call["finish_reason"], call["usage"]["billed_to"]) == ("stop:***", "***")
    assert KEY not in str([failed, frames])
    assert await in_streams(headrace, KEY) == []
    assert await in_tables(headrace, KEY) == []
    home = headrace.settings.home
    files = [file for file in home.rglob("*") if file.is_file() and "secret" not in file.name]
    assert len(files) > 10
    assert [file for file in files if KEY.encode() in file.read_bytes()] == []


async def in_streams(stack: Stack, secret: str) -> list[str]:
    """Messages with the secret, of all streams; a command is gone once it has its outcome."""
    js, found, read = stack.client.connection.jetstream(), [], 0
    for info in await js.streams_info():
        sequence = info.state.first_seq
        while sequence <= info.state.last_seq:
            try:
                message = await js.get_msg(str(info.config.name), sequence, next=True, subject=">")
            except NotFoundError:
                break
            read += 1
            if secret.encode() in (message.data or b"") or secret in str(message.headers):
                found.append(f"{info.config.name} {message.seq} {message.subject}")
            sequence = int(message.seq or sequence) + 1
    assert read > 20
    return found


async def in_tables(stack: Stack, secret: str) -> list[str]:
    """Tables with the secret, of all schemas."""
    await asyncio.sleep(0)
    async with await psycopg.AsyncConnection.connect(stack.postgres_url) as connection:
        tables = await (
            await connection.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname ^@ 'headrace'"
            )
        ).fetchall()
        assert len(tables) > 20
        found = []
        for (table,) in tables:
            query = f"SELECT count(*) FROM {table} row WHERE strpos(row::text, '{secret}') > 0"
            [[count]] = await (await connection.execute(query.encode())).fetchall()
            if count:
                found.append(table)
        return found
