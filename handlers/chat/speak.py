"""Speaks a text by recorded calls, one for each part, and records the audio."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

from domain.chat.speech import Speech
from domain.log import Commit
from handlers.cause import Cause
from handlers.files import Files
from handlers.models.choose import Choose, Way
from handlers.models.filters import Texts
from handlers.models.model_calls import ModelCalls, Recorded, milliseconds, most_tokens
from handlers.models.prompt import likely
from handlers.ports.log import Live
from handlers.ports.models import ChatUsage, ModelError, Speaker
from handlers.repository import Repository
from handlers.work.attempt import Attempt, Ended
from handlers.work.work import WORKS

PART = 4000
"""Maximum characters of a part of a text that is spoken by one call: servers take about 4,096."""

FRAME = 256 * 1024
"""Maximum bytes of audio in a live frame."""

FORMAT, MEDIA_TYPE = "mp3", "audio/mpeg"
"""A format whose parts can follow one another in one file."""


@dataclass(frozen=True, slots=True)
class Speak:
    repository: Repository
    calls: ModelCalls
    files: Files
    choose: Choose[Speaker]
    live: Live
    limit_s: float = 600.0

    async def __call__(self, commit: Commit) -> None:
        """Speak what was requested. Raises: Unavailable."""
        tenant, id = commit.subject.tenant, commit.subject.id
        known = await self.repository.get(Speech, tenant, id)
        if known is None or known.ended:
            return
        attempt = Attempt[Speech](self.repository, WORKS["speak"], commit, id).go_on(known)
        with suppress(Ended):
            await self._speak(attempt)

    async def _speak(self, attempt: Attempt[Speech]) -> None:
        """Complete or fail: errors of models and timeouts are outcomes."""
        texts = parts(attempt.aggregate.text)
        if not texts:
            await self._fail(attempt, "erased", "The user was erased before the text was spoken.")
            return
        cause = await self.calls.next_attempt(attempt.cause, *map(_step, range(len(texts))))
        cause = replace(cause, app=attempt.aggregate.app)
        try:
            async with asyncio.timeout(self.limit_s):
                await self._complete(attempt, cause, texts)
        except ModelError as error:
            await self._fail(attempt, error.code, error.reason)
        except KeyError:
            await self._fail(attempt, "erased", "The user was erased before the text was spoken.")
        except TimeoutError:
            await self._fail(attempt, "timeout", f"The speech took longer than {self.limit_s:g} s.")

    async def _complete(self, attempt: Attempt[Speech], cause: Cause, texts: list[str]) -> None:
        """Raises: ModelError; KeyError when the person was erased."""
        audio, calls, frames = bytearray(), list[str](), 0
        for number, text in enumerate(texts):
            if (step := _step(number)) in cause.completed:
                call, made = cause.completed[step]
                spoken = await self.files.get(attempt.tenant, attempt.metadata.person, "file", made.response)
            else:
                call, spoken, frames = await self._part(attempt, cause, step, text, frames)
            audio += spoken
            calls.append(call)
        digest = await self._stored(attempt, bytes(audio))
        size = len(audio)
        await attempt.step(
            "complete",
            lambda known, at: known.complete(at, digest=digest, media_type=MEDIA_TYPE, size=size, model_calls=calls),
        )
        await self._send(attempt, {"type": "spoken", "digest": digest, "media_type": MEDIA_TYPE, "size": size})

    async def _part(
        self, attempt: Attempt[Speech], cause: Cause, step: str, text: str, frames: int
    ) -> tuple[str, bytes, int]:
        """The call for a part of the text, its audio, and the number of frames that were sent so far."""
        known, tokens = attempt.aggregate, likely(text)

        async def send(way: Way[Speaker], call: Recorded, given: Texts) -> tuple[Recorded, bytes, int]:
            audio, sent = bytearray(), frames
            async with aclosing(way.client.speak(way.model, given["text"], voice=known.voice, format=FORMAT)) as pieces:
                async for piece in pieces:
                    call.first_ms = call.first_ms or milliseconds(call.began)
                    audio += piece
                    for start in range(0, len(piece) if known.autoplay else 0, FRAME):
                        await self._send(attempt, _frame(sent, piece[start : start + FRAME]))
                        sent += 1
            call.response = await self._stored(attempt, bytes(audio))
            call.usage = ChatUsage(tokens, 0)
            return call, bytes(audio), sent

        course = self.choose.of(attempt.tenant, known.provider, known.model, tokens)
        call, audio, frames = await self.calls.tried(
            cause,
            step,
            course,
            send,
            kind="speech",
            texts={"text": text},
            request=lambda given: {**given, "voice": known.voice, "format": FORMAT},
            most=most_tokens(text),
        )
        await self.calls.spend(cause, call.tokens)
        return call.id, audio, frames

    async def _stored(self, attempt: Attempt[Speech], audio: bytes) -> str:
        return await self.files.put(attempt.tenant, attempt.metadata.person, "file", audio)

    async def _fail(self, attempt: Attempt[Speech], code: str, reason: str) -> None:
        await attempt.step("fail", lambda known, at: known.fail(at, code=code, reason=reason[:1000]))
        await self._send(attempt, {"type": "failed", "code": code, "reason": reason[:1000]})

    async def _send(self, attempt: Attempt[Speech], frame: dict[str, Any]) -> None:
        conversation = attempt.aggregate.conversation or attempt.item
        await self.live.publish(attempt.tenant, conversation, attempt.item, frame)


def _step(number: int) -> str:
    return f"speak:{number}"


def _frame(index: int, audio: bytes) -> dict[str, Any]:
    return {"type": "audio", "index": index, "audio": b64encode(audio).decode(), "media_type": MEDIA_TYPE}


def parts(text: str) -> list[str]:
    """The parts of a text that are spoken one after another; each ends after a line, a sentence or a word if it can."""
    found, rest = list[str](), text.strip()
    while len(rest) > PART:
        beginning = rest[:PART]
        ends = (beginning.rfind(mark) + len(mark) for mark in ("\n", ". ", "! ", "? ", "。", " "))
        end = next((end for end in ends if end > PART // 2), PART)
        found.append(rest[:end].strip())
        rest = rest[end:].strip()
    return [part for part in (*found, rest) if part]
