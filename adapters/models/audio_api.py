"""Speech to text and text to speech behind a server with OpenAI's addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Any

import httpx2
import orjson

from adapters.egress.client import Egress
from adapters.models.chunk import error_in, name_of, storable
from adapters.models.faults import Fault, ServerError
from adapters.models.openai_compatible import azure_headers, deployed
from adapters.models.openai_request import AUDIO
from adapters.models.server import PATIENCE, Failed, ModelServer, Patience
from adapters.models.token_usage import usage_of
from handlers.ports.models import Transcription
from handlers.ports.outages import Outages

TRANSCRIPTIONS, SPEECH = "/audio/transcriptions", "/audio/speech"

MOST_BYTES = 4 * 2**20
"""Maximum size of a transcription, in bytes."""

END: Any = object()


class TranscriptionApi:
    """The transcribers of one server."""

    def __init__(
        self,
        egress: Egress,
        tenant: str,
        base_url: str,
        key: str = "",
        patience: Patience = PATIENCE,
        outages: Outages | None = None,
    ) -> None:
        """Raises: ModelError `unreachable` when the base URL is invalid."""
        self._base_url = base_url
        headers = azure_headers(base_url, key)
        self._at = ModelServer(egress, tenant, base_url, key, patience, TRANSCRIPTIONS, outages, headers)
        self.server, self.close = self._at.name, self._at.close
        self.rest = self._at.rest

    async def transcribe(
        self, model: str, audio: bytes, media_type: str, *, language: str = "", prompt: str = ""
    ) -> Transcription:
        media_type = media_type.partition(";")[0]
        ending = AUDIO.get(media_type, media_type.partition("/")[2].removeprefix("x-"))
        fields = {"model": model, "response_format": "json", "language": language, "prompt": prompt}
        form = httpx2.Request(
            "POST",
            self._at.address,
            data={name: value for name, value in fields.items() if value},
            files={"file": (f"audio.{ending}", audio, media_type)},
        )
        content = form.read()

        def send() -> Awaitable[httpx2.Response]:
            path = deployed(self._base_url, model, TRANSCRIPTIONS)
            return self._at.post(path=path, content=content, content_type=form.headers["Content-Type"])

        return await self._at.ask(send, read, MOST_BYTES)


def read(answer: str) -> Transcription:
    """Raises: ValueError when there is no text in a server's answer; ServerError for an error in it."""
    said = orjson.loads(answer)
    if error := error_in(said):
        raise ServerError(error)
    if not isinstance(said, dict) or not isinstance(said.get("text"), str):
        raise ValueError("an answer without a text.")
    duration = said.get("duration")
    return Transcription(
        storable(said["text"]),
        name_of(said.get("language")),
        float(duration) if isinstance(duration, int | float) and not isinstance(duration, bool) else None,
        usage_of(said.get("usage")),
    )


class SpeechApi:
    """The speakers of one server."""

    def __init__(
        self,
        egress: Egress,
        tenant: str,
        base_url: str,
        key: str = "",
        patience: Patience = PATIENCE,
        outages: Outages | None = None,
    ) -> None:
        """Raises: ModelError `unreachable` when the base URL is invalid."""
        self._base_url = base_url
        self._patience = patience
        headers = azure_headers(base_url, key)
        self._at = ModelServer(egress, tenant, base_url, key, patience, SPEECH, outages, headers)
        self.server, self.close = self._at.name, self._at.close
        self.rest = self._at.rest

    async def speak(self, model: str, text: str, *, voice: str, format: str = "mp3") -> AsyncGenerator[bytes, None]:
        body = {"model": model, "input": text, "voice": voice, "response_format": format}
        async with aclosing(self._at.once(lambda deadline: self._try(body, deadline))) as pieces:
            async for piece in pieces:
                yield piece

    async def _try(self, body: dict[str, str], deadline: float) -> AsyncGenerator[bytes, None]:
        """One request and its answer. Raises: Failed."""
        now = asyncio.get_running_loop().time
        response: httpx2.Response | None = None
        begun, fault = False, None
        call = await self._at.begin()
        try:
            async with asyncio.timeout_at(min(now() + self._patience.first_token, deadline)):
                response = await self._at.post(body, deployed(self._base_url, body["model"], SPEECH))
                await _refuse_text(response)
            async with aclosing(response.aiter_bytes()) as pieces:
                while True:
                    patience = self._patience.between_tokens if begun else self._patience.first_token
                    async with asyncio.timeout_at(min(now() + patience, deadline)):
                        piece = await anext(pieces, END)
                    if piece is END:
                        break
                    if piece and not begun:
                        begun = True
                        await call.answered()
                    yield piece
        except TimeoutError:
            fault = Fault("timeout", f"{self._at.address} fell silent, or did not finish in time.", outage=not begun)
        except (ServerError, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            fault = self._at.fault(error, answering=response is not None, begun=begun)
        finally:
            if response is not None:
                await response.aclose()
        if not begun:
            fault = fault or Fault("empty_answer", f"{self._at.address} sent no audio.")
        if fault:
            await call.failed(fault)
            raise Failed(fault)


async def _refuse_text(response: httpx2.Response) -> None:
    """Raises: ServerError for an error with a good status; ValueError for a web page."""
    kind = response.headers.get("content-type", "").lower()
    if kind.startswith("application/json"):
        said = orjson.loads(await response.aread())
        raise ServerError(error_in(said) or said)
    if kind.startswith("text/"):
        raise ValueError(f"{kind} is no audio.")
