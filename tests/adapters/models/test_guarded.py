"""Providers behind the guard: what is refused, what is not shown, and what is not tried again."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from adapters.egress.client import MOST_BYTES, Egress
from adapters.models.kinds import EMBEDDERS, KINDS, SPEAKERS, TRANSCRIBERS
from adapters.models.rerank_api import RerankApi
from adapters.models.server import Patience
from handlers.ports.models import ChatMessage, ChatRequest, ModelError
from tests.chat_servers import LOOPBACK, Behaviour, Exchange, faulty_server

PATIENCE = Patience(connect=2, first_token=5, between_tokens=5, total=20)
TOKEN = "INTERNAL-ADMIN-TOKEN-4711"


async def chat(egress: Egress, url: str, kind: str = "openai") -> ModelError:
    model = KINDS[kind](egress, "acme", url, "key-of-the-tenant", PATIENCE)
    try:
        with pytest.raises(ModelError) as caught:
            async for _ in model.stream(ChatRequest("tiny", [ChatMessage("user", "Well?")], 16, {})):
                pass
    finally:
        await model.close()
    return caught.value


async def rerank(egress: Egress, url: str) -> ModelError:
    api = RerankApi(egress, "acme", url, "key-of-the-tenant", PATIENCE)
    try:
        with pytest.raises(ModelError) as caught:
            await api.rerank("tiny", "Well?", ["One.", "Two."])
    finally:
        await api.close()
    return caught.value


async def embed(egress: Egress, url: str) -> ModelError:
    api = EMBEDDERS["openai"](egress, "acme", url, "key-of-the-tenant", PATIENCE)
    try:
        with pytest.raises(ModelError) as caught:
            await api.embed("tiny", ["One."])
    finally:
        await api.close()
    return caught.value


async def transcribe(egress: Egress, url: str) -> ModelError:
    api = TRANSCRIBERS["openai"](egress, "acme", url, "key-of-the-tenant", PATIENCE)
    try:
        with pytest.raises(ModelError) as caught:
            await api.transcribe("tiny", b"RIFF", "audio/wav")
    finally:
        await api.close()
    return caught.value


async def speak(egress: Egress, url: str) -> ModelError:
    api = SPEAKERS["openai"](egress, "acme", url, "key-of-the-tenant", PATIENCE)
    try:
        with pytest.raises(ModelError) as caught:
            async for _ in api.speak("tiny", "Well?", voice="alloy"):
                pass
    finally:
        await api.close()
    return caught.value


Ask = Callable[[Egress, str], Awaitable[ModelError]]
CHATS = [partial(chat, kind=kind) for kind in KINDS]
asks = pytest.mark.parametrize(
    "ask", [*CHATS, rerank, embed, transcribe, speak], ids=[*KINDS, "rerank", "embed", "transcribe", "speak"]
)


@pytest.fixture
def _internal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.egress.client.is_public", lambda ip: False)


def answers(status: int, body: object) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(status, body)

    return behaviour


async def errs_in_its_stream(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.event({"error": {"message": TOKEN, "code": "500"}})
    await exchange.end()


async def speaks_another_protocol(exchange: Exchange) -> None:
    exchange.writer.write(f"-ERR {TOKEN}\r\n".encode())
    await exchange.writer.drain()


async def is_a_page(exchange: Exchange) -> None:
    await exchange.answer(200, f"<html>{TOKEN}", {"Content-Type": f"text/html; name={TOKEN}"})


@asks
@pytest.mark.usefixtures("_internal")
@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        *((answers(status, {"token": TOKEN}), str(status)) for status in (400, 401, 403, 404, 409, 413, 429, 500)),
        (answers(404, {"error": {"message": TOKEN, "code": TOKEN}}), "404"),
        (answers(302, TOKEN), "302"),
        (errs_in_its_stream, ""),
        (speaks_another_protocol, ""),
        (is_a_page, ""),
    ],
)
async def test_of_an_internal_server_only_status_and_code_are_shown(
    ask: Ask, behaviour: Behaviour, status: str
) -> None:
    async with faulty_server(behaviour) as server:
        error = await ask(LOOPBACK, server.url)
    assert TOKEN not in error.reason
    assert status in error.reason


@asks
async def test_a_refused_address_is_not_tried_again(ask: Ask) -> None:
    async with faulty_server(answers(200, {})) as server:
        error = await ask(Egress(), server.url)
        assert server.requests == []
    assert error.code == "unreachable"
    assert "HEADRACE_EGRESS_ALLOW" in error.reason
    assert "next try" not in error.reason


@asks
async def test_the_key_does_not_follow_a_redirect(ask: Ask) -> None:
    async with faulty_server(answers(200, {})) as other:

        async def redirects(exchange: Exchange) -> None:
            await exchange.answer(307, "", {"Location": other.url})

        async with faulty_server(redirects) as server:
            error = await ask(LOOPBACK, server.url)
            assert (len(server.requests), other.requests) == (1, [])
    assert "307" in error.reason


async def test_an_answer_without_end_ends_with_a_clear_error_and_is_asked_for_once() -> None:
    """An answer of comments, none of which is a part of the text."""

    async def floods(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.event({"choices": [{"index": 0, "delta": {"reasoning": "x" * 2**16}}]})

    async with faulty_server(floods) as server:
        error = await chat(LOOPBACK, server.url)
        assert len(server.requests) == 1
    assert (error.code, f"{MOST_BYTES:,} bytes" in error.reason) == ("too_large", True)


async def test_one_line_without_end_is_bounded() -> None:
    async def one_line(exchange: Exchange) -> None:
        await exchange.begin()
        part = json.dumps("x" * 2**16)[1:-1].encode()
        exchange.writer.write(b"6\r\ndata: \r\n")
        while True:
            exchange.writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            await exchange.writer.drain()

    async with faulty_server(one_line) as server, asyncio.timeout(30):
        error = await chat(LOOPBACK, server.url)
        assert len(server.requests) == 1
    assert error.code == "too_large"


def self_signed(folder: Path) -> ssl.SSLContext:
    """The TLS context of a server whose certificate no authority signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_certificate_that_is_not_valid_is_not_tried_again(tmp_path: Path) -> None:
    tries: list[str | None] = []
    context = self_signed(tmp_path)
    context.sni_callback = lambda _, name, __: tries.append(name)
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context) as server:
        error = await chat(LOOPBACK, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    assert (error.code, len(tries)) == ("unreachable", 1)
    assert "certificate" in error.reason
