"""Answers of chat models behind a real server of the OpenAI protocol, and behind servers that misbehave."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chat_servers import (
    Behaviour,
    Exchange,
    breaks_off,
    drips,
    fails,
    faulty_server,
    hangs,
    hangs_mid_stream,
    liar,
)
from tests.journeys.stack import Row, Stack

KEY = "sk-never-to-be-seen-3141592653"


async def app_on(headrace: Stack, base_url: str, model: str, **more: object) -> str:
    """An app whose model is at this address, of a provider that goes by the address."""
    provider = provider_of(base_url)
    await headrace.send("provider.register", name=provider, base_url=base_url, key=KEY)
    app = await headrace.make("app.create", name="talker")
    await headrace.send("app.configure", app=app, model={"provider": provider, "name": model, **more})
    return app


def provider_of(base_url: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", base_url.removeprefix("http://"))


async def calls_of(headrace: Stack, message: str, status: str) -> list[Row]:
    statement = "SELECT * FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat' AND status = %(status)s"
    return await headrace.until(statement, id=message, status=status)


async def test_tokens_arrive_before_the_answer_is_complete(
    headrace: Stack, serving_url: str, serving_model: str
) -> None:
    app = await app_on(headrace, serving_url, serving_model, max_tokens=24)
    frames = await headrace.ask(app, "Tell me about rivers.")
    kinds = [frame["type"] for frame in frames]
    assert kinds[-1] == "answered", frames[-1]
    assert kinds.count("token") > 3
    assert "".join(frame["text"] for frame in frames if frame["type"] == "token") == frames[-1]["answer"]
    [call] = await calls_of(headrace, frames[0]["message"], "completed")
    assert call["completion_tokens"] > 3
    assert 0 < call["first_token_ms"] < call["duration_ms"]


@pytest.fixture(scope="module")
async def impatient(headrace: Stack) -> AsyncIterator[Stack]:
    """The same Headrace with an answering worker that waits a second for a silent model."""
    await headrace.kill("answer")
    await headrace.start("answer", HEADRACE_MODEL_TIMEOUT_S="1")
    yield headrace
    await headrace.kill("answer")
    await headrace.start("answer")


@pytest.mark.parametrize(
    ("behaviour", "code", "partial"),
    [
        (hangs, "timeout", ""),
        (hangs_mid_stream, "timeout", "Half of "),
        (fails, "server_error", ""),
        (breaks_off, "broken_off", "Half of "),
    ],
)
async def test_a_misbehaving_server_ends_in_a_recorded_failure(
    impatient: Stack, behaviour: Behaviour, code: str, partial: str
) -> None:
    async with faulty_server(behaviour) as server:
        app = await app_on(impatient, server.url, "any")
        frames = await impatient.ask(app, "Anything?")
    assert (frames[-1]["type"], frames[-1]["code"]) == ("failed", code)
    assert frames[-1]["reason"]
    message = frames[0]["message"]
    [row] = await impatient.until("SELECT * FROM headrace.messages WHERE id = %(id)s AND status = 'failed'", id=message)
    assert row["answer"] == partial
    calls = await calls_of(impatient, message, "failed")
    assert {(call["error_code"], call["response"]) for call in calls} == {(code, partial)}
    assert [call["try"] for call in sorted(calls, key=lambda call: call["try"])] == [*range(1, len(calls) + 1)]


async def test_a_stopped_answer_keeps_what_had_arrived(headrace: Stack) -> None:
    async with faulty_server(drips) as server:
        app = await app_on(headrace, server.url, "any")
        said = ""
        async for frame in headrace.client.ask(app, "Never end."):
            if frame["type"] == "accepted":
                accepted = frame
            said += frame.get("text", "")
            if said.count("drop") == 5 and frame["type"] == "token":
                ids = {"conversation": accepted["conversation"], "message": accepted["message"]}
                await headrace.send("message.stop", **ids)
        assert frame["type"] == "stopped"
        assert frame["answer"].count("drop") >= 5
        async with asyncio.timeout(10):
            await server.hung_up.wait()
    [row] = await headrace.until(
        "SELECT * FROM headrace.messages WHERE id = %(id)s AND status = 'stopped'", id=accepted["message"]
    )
    assert row["answer"] == frame["answer"]
    [call] = await calls_of(headrace, accepted["message"], "cancelled")
    assert call["tokens_estimated"]
    assert call["prompt_tokens"] > 0
    assert 4 <= call["completion_tokens"] <= 3 * frame["answer"].count("drop")


async def test_reasoning_is_kept_with_the_call_and_not_said_again(headrace: Stack) -> None:
    async def thinks(exchange: Exchange) -> None:
        await exchange.begin()
        for text in ("<thi", "nk>41", "+1.</think>\n\n", "It is ", "42."):
            await exchange.say(text)
        await exchange.say(finish="length")
        await exchange.event("[DONE]")
        await exchange.end()

    async with faulty_server(thinks) as server:
        app = await app_on(headrace, server.url, "any")
        frames = await headrace.ask(app, "What is it?")
        assert frames[-1]["type"] == "answered", frames[-1]
        assert (frames[-1]["answer"], frames[-1]["finish_reason"]) == ("It is 42.", "length")
        again = await headrace.ask(app, "And half of it?", conversation=frames[0]["conversation"])
        assert again[-1]["type"] == "answered", again[-1]
        said = server.requests[-1].body["messages"]
    assert {"role": "assistant", "content": "It is 42."} in said
    assert "41" not in str(said)
    message = frames[0]["message"]
    [row] = await headrace.until(
        "SELECT * FROM headrace.messages WHERE id = %(id)s AND status = 'answered'", id=message
    )
    assert (row["answer"], row["finish_reason"]) == ("It is 42.", "length")
    [call] = await calls_of(headrace, message, "completed")
    assert (call["reasoning"], call["response"]) == ("41+1.", "It is 42.")
    assert 0 < call["reasoning_tokens"] < call["completion_tokens"]


async def test_branches_names_pins_and_completions_are_in_the_tables(headrace: Stack) -> None:
    async def answers(exchange: Exchange) -> None:
        asked = exchange.body["messages"][-1]["content"]
        await exchange.begin()
        await exchange.say("Opening times" if asked.startswith("Question: ") else f"To {asked}")
        await exchange.say(finish="stop")
        await exchange.event("[DONE]")
        await exchange.end()

    async with faulty_server(answers) as server:
        app = await app_on(headrace, server.url, "any")
        model = {"provider": provider_of(server.url), "name": "any"}
        await headrace.send("app.configure", app=app, model=model, features={"name_conversations": True})
        [accepted, *_] = await headrace.ask(app, "1?")
        talk, first = {"conversation": accepted["conversation"]}, accepted["message"]
        [second, *_] = await headrace.ask(app, "2?", **talk)
        again = await headrace.send("message.regenerate", **talk, message=second["message"])
        ids = {"id": again["ids"]["message"]}
        await headrace.until("SELECT FROM headrace.messages WHERE id = %(id)s AND status = 'answered'", **ids)
        [third, *_, answered] = await headrace.ask(app, "3?", after=ids["id"], **talk)
        assert answered["answer"] == "To 3?"
        prompts = [[message["content"] for message in each.body["messages"]][1:] for each in server.requests]
        [sent] = [prompt for prompt in prompts if prompt[-1] == "3?"]
        assert sent == ["1?", "To 1?", "2?", "To 2?", "3?"]
        for name in ("conversation.pin", "message.save"):
            await headrace.send(name, **talk, **({"message": first} if name == "message.save" else {}))
        slogans = await headrace.make("app.create", name="slogans", mode="completion")
        variables = [{"name": "topic", "required": True}]
        await headrace.send("app.configure", app=slogans, model=model, variables=variables)
        [_, *_, slogan] = await headrace.ask(slogans, "", inputs={"topic": "locks"})
        assert slogan["answer"] == "To locks"
    named = "SELECT FROM headrace.conversations WHERE id = %(conversation)s AND name = 'Opening times'"
    await headrace.until(f"{named} AND dialogue_count = 4", **talk)
    rows = await headrace.sql(
        "SELECT id, parent_message_id, repeated_message_id FROM headrace.messages"
        " WHERE conversation_id = %(conversation)s ORDER BY created_at",
        **talk,
    )
    assert [tuple(row.values()) for row in rows] == [
        (first, None, None),
        (second["message"], first, None),
        (ids["id"], first, second["message"]),
        (third["message"], ids["id"], None),
    ]
    [call] = await calls_of(headrace, third["message"], "completed")
    [prompt] = await headrace.until("SELECT * FROM headrace.model_call_requests WHERE id = %(id)s", id=call["id"])
    assert [message["content"] for message in prompt["request"]["messages"]][1:] == sent
    for table in ("pinned_conversations", "saved_messages"):
        await headrace.until(f"SELECT FROM headrace.{table} WHERE conversation_id = %(conversation)s", **talk)


async def test_an_answer_without_a_word_says_why(headrace: Stack) -> None:
    async def withholds(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.say(finish="content_filter")
        await exchange.event("[DONE]")
        await exchange.end()

    async with faulty_server(withholds) as server:
        frames = await headrace.ask(await app_on(headrace, server.url, "any"), "What is it?")
    assert (frames[-1]["type"], frames[-1]["code"]) == ("failed", "content_filter")
    [call] = await calls_of(headrace, frames[0]["message"], "completed")
    assert call["finish_reason"] == "content_filter"


def files_with(text: bytes, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


async def test_a_key_is_nowhere_in_clear(headrace: Stack) -> None:
    await app_on(headrace, "http://127.0.0.1:9/v1", "any")
    assert files_with(KEY.encode(), headrace.settings.home) == []
    assert files_with(b"level", headrace.settings.home) != []
    for stream in ("EVENTS", "OUTCOMES"):
        last = (await headrace.client.stream.stream_info(stream)).state.last_seq
        for sequence in range(max(1, last - 20), last + 1):
            message = await headrace.client.stream.get_msg(stream, sequence, direct=True)
            assert KEY.encode() not in (message.data or b"")


async def test_a_server_that_lies_about_its_abilities_is_found_out_when_it_is_registered(headrace: Stack) -> None:
    async with faulty_server(liar) as server:
        name = provider_of(server.url)
        trace = (await headrace.send("provider.register", name=name, base_url=server.url, key=KEY, check=True))[
            "command"
        ]
        found = "SELECT * FROM headrace.providers WHERE id = %(id)s AND check_status = 'ok'"
        [provider] = await headrace.until(found, id=name)
    assert (provider["check_trace_id"], provider["checked_model"], provider["models"]) == (trace, "liar", 1)
    assert provider["limits"] == {"requests_per_minute": 600}
    [credential] = await headrace.sql("SELECT * FROM headrace.provider_credentials WHERE provider_id = %(id)s", id=name)
    assert (credential["status"], credential["hint"]) == ("works", KEY[-4:])
    measured = "SELECT * FROM headrace.provider_models WHERE provider_id = %(id)s AND checked_at IS NOT NULL"
    [model] = await headrace.until(measured, id=name)
    lacking = dict.fromkeys(("tools", "forced_tool", "image", "long_prompt"), False)
    assert model["abilities"] == {"usage": True, "schema": True, **lacking}
    assert (model["context_window"], model["sources"]["context_window"]) == (4096, "measured")
    calls = "SELECT * FROM headrace.model_calls WHERE cause_noun = 'provider' AND correlation_id = %(trace)s"
    made = await headrace.sql(f"{calls} ORDER BY created_at", trace=trace)
    assert [call["status"] for call in made] == ["completed"] * 4 + ["failed", "completed"]
    assert (made[4]["error_code"], made[1]["request"]["tool_choice"]) == ("bad_request", "auto")
    [seen] = await headrace.until("SELECT * FROM headrace.traces WHERE id = %(trace)s", trace=trace)
    assert (seen["kind"], seen["name"], seen["model_calls"]) == ("check", "provider.check", 6)


async def test_a_removed_provider_answers_no_more(headrace: Stack) -> None:
    gone = "http://127.0.0.1:9/gone/v1"
    app = await app_on(headrace, gone, "any")
    await headrace.send("provider.remove", provider=provider_of(gone))
    frames = await headrace.ask(app, "Anyone there?")
    assert (frames[-1]["type"], frames[-1]["code"]) == ("failed", "not_found")
