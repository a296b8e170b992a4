"""Transcribes a recording by a recorded call, and records its text."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

from domain.chat.transcription import Transcription
from domain.log import Commit
from handlers.cause import Cause
from handlers.files import Files
from handlers.models.choose import Choose, Way
from handlers.models.filters import Texts
from handlers.models.model_calls import ModelCalls, Recorded
from handlers.models.prompt import file_tokens, likely
from handlers.ports.log import Live
from handlers.ports.models import ChatUsage, ModelError, Transcriber
from handlers.ports.models import Transcription as Heard
from handlers.repository import Repository
from handlers.work.attempt import Attempt, Ended
from handlers.work.work import WORKS

STEP = "transcribe"


@dataclass(frozen=True, slots=True)
class Transcribe:
    repository: Repository
    calls: ModelCalls
    files: Files
    choose: Choose[Transcriber]
    live: Live
    limit_s: float = 600.0

    async def __call__(self, commit: Commit) -> None:
        """Transcribe what was requested. Raises: Unavailable."""
        tenant, id = commit.subject.tenant, commit.subject.id
        known = await self.repository.get(Transcription, tenant, id)
        if known is None or known.ended:
            return
        attempt = Attempt[Transcription](self.repository, WORKS["transcribe"], commit, id).go_on(known)
        with suppress(Ended):
            await self._transcribe(attempt)

    async def _transcribe(self, attempt: Attempt[Transcription]) -> None:
        """Complete or fail: errors of models and timeouts are outcomes."""
        cause = await self.calls.next_attempt(attempt.cause, STEP)
        try:
            async with asyncio.timeout(self.limit_s):
                await self._complete(attempt, replace(cause, app=attempt.aggregate.app))
        except ModelError as error:
            await self._fail(attempt, error.code, error.reason)
        except KeyError:
            await self._fail(attempt, "erased", "The user was erased before there was a text.")
        except TimeoutError:
            await self._fail(attempt, "timeout", f"The transcription took longer than {self.limit_s:g} s.")

    async def _complete(self, attempt: Attempt[Transcription], cause: Cause) -> None:
        """Raises: ModelError; KeyError when the recording cannot be read any more."""
        language: str | None = None
        seconds: float | None = None
        if STEP in cause.completed:
            call, made = cause.completed[STEP]
            text = made.response
        else:
            call, text, language, seconds = await self._call(attempt, cause)
        await attempt.step(
            "complete",
            lambda known, at: known.complete(at, text=text, spoken_language=language, seconds=seconds, model_call=call),
        )
        await self._send(attempt, {"type": "transcribed", "text": text})

    async def _call(self, attempt: Attempt[Transcription], cause: Cause) -> tuple[str, str, str | None, float | None]:
        """The call, and the text, language and length of the recording."""
        known = attempt.aggregate
        audio = await self.files.get(attempt.tenant, attempt.metadata.person, "file", known.digest)
        request = {"file": known.digest, "media_type": known.media_type, "size": known.size, "language": known.language}

        async def send(way: Way[Transcriber], call: Recorded, _: Texts) -> tuple[Recorded, Heard]:
            found = await way.client.transcribe(way.model, audio, known.media_type, language=known.language)
            call.response, call.estimated = found.text, found.usage is None
            call.usage = found.usage or ChatUsage(0, likely(found.text))
            return call, found

        most = file_tokens("audio", known.size)
        course = self.choose.of(attempt.tenant, known.provider, known.model, most)
        call, found = await self.calls.tried(
            cause,
            STEP,
            course,
            send,
            kind="transcription",
            texts={},
            request=lambda _: request,
            answers=True,
            most=most,
        )
        await self.calls.spend(cause, call.tokens)
        return call.id, call.response, found.language, found.duration_s

    async def _fail(self, attempt: Attempt[Transcription], code: str, reason: str) -> None:
        await attempt.step("fail", lambda known, at: known.fail(at, code=code, reason=reason[:1000]))
        await self._send(attempt, {"type": "failed", "code": code, "reason": reason[:1000]})

    async def _send(self, attempt: Attempt[Transcription], frame: dict[str, object]) -> None:
        await self.live.publish(attempt.tenant, attempt.item, attempt.item, frame)
