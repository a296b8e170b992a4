"""Speech to text and text to speech, behind scripted servers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.models.audio_api import SpeechApi, TranscriptionApi
from adapters.models.kinds import SPEAKERS, TRANSCRIBERS
from adapters.models.server import Patience
from handlers.ports.models import ModelError
from tests.adapters.models.dialects import KEY
from tests.chat_servers import LOOPBACK, Behaviour, Exchange, FaultyServer, faulty_server, hangs

PATIENCE = Patience(first_token=10, between_tokens=10, total=30)
SHORT = Patience(first_token=0.3, between_tokens=0.3)
SOUND = b"RIFF\x00\r\n--sound--\xff"


@asynccontextmanager
async def transcriber(behaviour: Behaviour, base: str = "") -> AsyncIterator[tuple[TranscriptionApi, FaultyServer]]:
    async with faulty_server(behaviour) as server:
        patience = SHORT if behaviour is hangs else PATIENCE
        api = TRANSCRIBERS["openai"](LOOPBACK, "default", server.url + base, KEY, patience)
        try:
            yield api, server
        finally:
            await api.close()


@asynccontextmanager
async def speaker(
    behaviour: Behaviour, base: str = "", patience: Patience = PATIENCE
) -> AsyncIterator[tuple[SpeechApi, FaultyServer]]:
    async with faulty_server(behaviour) as server:
        patience = SHORT if behaviour is hangs else patience
        api = SPEAKERS["openai"](LOOPBACK, "default", server.url + base, KEY, patience)
        try:
            yield api, server
        finally:
            await api.close()


def hears(body: object, status: int = 200) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(status, body)

    return behaviour


def parts(exchange: Exchange) -> dict[str, tuple[str, bytes]]:
    """The head and the content of each part of a form, by its name."""
    found = re.search("boundary=(.+)", exchange.headers["content-type"])
    assert found
    pieces = exchange.raw.split(f"--{found[1]}".encode())[1:-1]
    heads = [piece.removeprefix(b"\r\n").partition(b"\r\n\r\n") for piece in pieces]
    names = [re.search(' name="([^"]+)"', head.decode()) for head, *_ in heads]
    return {
        name[1]: (head.decode(), content.removesuffix(b"\r\n"))
        for name, (head, _, content) in zip(names, heads, strict=True)
        if name
    }


# --- speech to text ------------------------------------------------------------------------------------------


async def test_a_recording_goes_as_a_form_and_its_text_comes_back() -> None:
    used = {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19}
    said = {"text": "It opens at six.", "language": "english", "duration": 2.5, "usage": used}
    async with transcriber(hears(said)) as (api, server):
        found = await api.transcribe("whisper", SOUND, "audio/x-wav", language="en", prompt="lock")
        [exchange] = server.requests
    assert (found.text, found.language, found.duration_s) == ("It opens at six.", "english", 2.5)
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (14, 5)
    assert exchange.target == "/v1/audio/transcriptions"
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    form = parts(exchange)
    fields = {name: content for name, (_, content) in form.items()}
    expected = {"model": b"whisper", "response_format": b"json", "language": b"en", "prompt": b"lock", "file": SOUND}
    assert fields == expected
    assert 'filename="audio.wav"' in form["file"][0]
    assert "Content-Type: audio/x-wav" in form["file"][0]


@pytest.mark.parametrize(
    ("media_type", "name"),
    [("audio/mpeg", "mp3"), ("audio/webm;codecs=opus", "webm"), ("audio/x-m4a", "m4a"), ("audio/ogg", "ogg")],
)
async def test_the_name_of_a_recording_has_the_ending_of_its_format(media_type: str, name: str) -> None:
    async with transcriber(hears({"text": ""})) as (api, server):
        found = await api.transcribe("whisper", SOUND, media_type)
        assert f'filename="audio.{name}"' in parts(server.requests[0])["file"][0]
        assert parts(server.requests[0]).keys() == {"model", "response_format", "file"}
    assert (found.text, found.usage, found.duration_s) == ("", None, None)


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (hears({"error": {"message": "Invalid file format."}}, 400), "bad_request"),
        (hears({"error": {"message": "No."}}, 401), "unauthorized"),
        (hears({"error": {"message": "Slow down.", "code": 429}}), "rate_limited"),
        (hears({"words": []}), "server_error"),
        (hears("{"), "server_error"),
        (hears([]), "server_error"),
        (hangs, "timeout"),
    ],
)
async def test_a_recording_that_is_not_transcribed(behaviour: Behaviour, code: str) -> None:
    async with transcriber(behaviour) as (api, _):
        with pytest.raises(ModelError) as caught:
            await api.transcribe("whisper", SOUND, "audio/wav")
    assert caught.value.code == code
    assert KEY not in caught.value.reason


# --- text to speech ------------------------------------------------------------------------------------------


def speaks(*pieces: str, end: bool = True, kind: str = "audio/mpeg") -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.begin(kind)
        for piece in pieces:
            await exchange.send(piece)
            await asyncio.sleep(0.01)
        if end:
            await exchange.end()

    return behaviour


async def heard(api: SpeechApi, pieces: list[bytes], **fields: Any) -> None:
    async for piece in api.speak("tts", "It opens at six.", voice="alloy", **fields):
        pieces.append(piece)


async def test_audio_comes_in_pieces() -> None:
    pieces: list[bytes] = []
    async with speaker(speaks("ID3", "sound", "end")) as (api, server):
        await heard(api, pieces, format="opus")
        [exchange] = server.requests
    assert b"".join(pieces) == b"ID3soundend"
    assert len(pieces) == 3
    assert exchange.target == "/v1/audio/speech"
    assert exchange.body == {"model": "tts", "input": "It opens at six.", "voice": "alloy", "response_format": "opus"}


@pytest.mark.parametrize(
    ("behaviour", "code", "arrived", "requests"),
    [
        (hears({"error": {"message": "Unknown voice."}}, 400), "bad_request", b"", 1),
        (hears({"error": {"message": "Slow down."}}, 429), "rate_limited", b"", 1),
        (hears({"error": {"message": "Slow down.", "code": 429}}), "rate_limited", b"", 1),
        (speaks(kind="text/html"), "server_error", b"", 1),
        (speaks(), "empty_answer", b"", 1),
        (speaks("ID3", end=False), "broken_off", b"ID3", 1),
        (hangs, "timeout", b"", 1),
    ],
)
async def test_a_text_that_is_not_spoken(behaviour: Behaviour, code: str, arrived: bytes, requests: int) -> None:
    pieces: list[bytes] = []
    async with speaker(behaviour) as (api, server):
        with pytest.raises(ModelError) as caught:
            await heard(api, pieces)
        assert len(server.requests) == requests
    assert (caught.value.code, b"".join(pieces)) == (code, arrived)
    assert KEY not in caught.value.reason


async def test_silence_in_the_middle_of_the_audio() -> None:
    async def falls_silent(exchange: Exchange) -> None:
        await exchange.begin("audio/mpeg")
        await exchange.send("ID3")
        await asyncio.Event().wait()

    pieces: list[bytes] = []
    async with speaker(falls_silent, patience=Patience(between_tokens=0.3)) as (api, _):
        with pytest.raises(ModelError, match="silent") as caught:
            await heard(api, pieces)
    assert (caught.value.code, pieces) == ("timeout", [b"ID3"])


async def test_deployments_of_azure() -> None:
    async with transcriber(hears({"text": "Six."}), "/openai/deployments") as (api, server):
        await api.transcribe("whisper", SOUND, "audio/wav")
        assert server.requests[0].target == "/v1/openai/deployments/whisper/audio/transcriptions"
    async with speaker(speaks("ID3"), "/openai/deployments") as (api, server):
        await heard(api, [])
        assert server.requests[0].target == "/v1/openai/deployments/tts/audio/speech"
        assert server.requests[0].headers["api-key"] == KEY
