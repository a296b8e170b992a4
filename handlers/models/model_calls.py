"""Puts every model call on record: an event before it is sent, and one after it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeVar, Unpack

import orjson

from domain.log import Commit, Metadata, commit_id
from domain.models.model_call import Broken, Completion, ModelCall, TokenUsage, Try
from domain.models.passage import passage_id
from handlers.access.quota import Quota
from handlers.cause import Cause
from handlers.models.choose import Course, Way
from handlers.models.filters import NOT_FILTERED, CallFilters, Filtered, Texts, filters_of
from handlers.models.grants import NOTHING, Grants, Reservation
from handlers.models.passages import Passages
from handlers.models.prompt import Record, likely, literal
from handlers.ports.documents import Embedder, Vectors
from handlers.ports.filters import Check, Filter, Finding
from handlers.ports.log import TooLarge, Unavailable
from handlers.ports.models import (
    ChatMessage,
    ChatModel,
    ChatRequest,
    ChatUsage,
    Client,
    Delta,
    ModelError,
    Reranker,
    Tool,
    ToolCall,
)
from handlers.ports.plugins import Plugins
from handlers.repository import Repository

C = TypeVar("C", bound=Client)

T = TypeVar("T")

PARTIAL = 64 * 1024
"""Bytes of UTF-8 that are kept of an answer that is too large to be recorded."""

MOST_CALLS = 10
"""Maximum number of calls that one question makes in a step: each of them may have to be paid for."""

MESSAGE_TOKENS = 4
"""Tokens of a message in addition to its text, for its cost."""

ATTACHMENT_TOKENS = 1000
"""Tokens of a file in a message, for its cost: as of an image of a megapixel."""

MOST_MESSAGE_TOKENS, MOST_IMAGE_TOKENS = 16, 16_000
"""Maximum of these tokens, for quotas, and of those of an image."""

OTHER_FIELDS = 32 * 1024
"""Bytes that are set aside for all else in an event with an answer."""


class ModelCalls:
    def __init__(self, repository: Repository, quota: Quota | None = None, grants: Grants | None = None) -> None:
        """Without a quota, tokens are not counted for limits; without grants, no quota holds.

        `plugins` are set by roles that host them: their filters stand in the way of calls.
        """
        self.plugins: Plugins | None = None
        self._repository = repository
        self._quota = quota
        self._grants = grants
        self._passages = Passages(repository)

    @property
    def longest(self) -> int:
        """Bytes of JSON that an answer may have: a commit has room for it when it is sealed, a third larger."""
        return self._repository.largest * 3 // 4 - OTHER_FIELDS

    async def request(
        self,
        cause: Cause,
        step: str,
        *,
        kind: str,
        provider: str,
        model: str,
        request: dict[str, Any],
        server: str = "",
        route: Try | None = None,
        number: int = 1,
        reservation: Reservation = NOTHING,
        filtered: Filtered = NOT_FILTERED,
    ) -> str:
        """Record that the call is about to be sent, and return its id.

        Raises: ModelError `quota_exceeded`, when that took longer than the leases of the reservation last; TooLarge,
        Unavailable.
        """
        id = cause.call(step, number=number)
        at = datetime.now(UTC)

        def decide(call: ModelCall | None) -> ModelCall:
            if call is not None:
                return call
            call = ModelCall.begin(
                ModelCall.Requested,
                id,
                at,
                kind=kind,
                provider=provider,
                model=model,
                cause_noun=cause.noun,
                cause_id=cause.id,
                attempt=cause.attempt,
                server=server,
                request=request,
                route=route,
            )
            call.reserve(at, reservation.grants)
            call.filter(at, plugins=filtered.runs, original=filtered.original)
            return call

        try:
            await self._repository.change(ModelCall, id, _metadata(cause, id, "request"), decide, new=True)
        except TooLarge:
            reservation.release()
            raise
        except BaseException:
            reservation.abandon()
            raise
        if reservation.has_run_out:
            await self._late(cause, id, reservation)
        return id

    async def _late(self, cause: Cause, id: str, reservation: Reservation) -> None:
        """Others may have granted again what the call would use. Raises: ModelError."""
        error = ModelError(
            "quota_exceeded", "The model was not called: the request was recorded too late for its lease."
        )
        at = datetime.now(UTC)

        def fail(call: ModelCall) -> None:
            call.fail(at, code=error.code, reason=error.reason, duration_ms=None, response="")

        await self._end(cause, id, fail, reservation, None, sent=False)
        raise error

    async def reserve(
        self, cause: Cause, provider: str, server: str, model: str, prompt_tokens: int, max_tokens: int
    ) -> Reservation:
        """Reserve the most that a call may use of the hard quotas that hold for it.

        Raises: ModelError `quota_exceeded`, `unpriced`; Unavailable.
        """
        if self._grants is None:
            return NOTHING
        return await self._grants.reserve(
            cause, provider, server, model, prompt_tokens=prompt_tokens, max_tokens=max_tokens
        )

    async def complete(
        self,
        cause: Cause,
        id: str,
        *,
        at: datetime | None = None,
        reservation: Reservation = NOTHING,
        filtered: Filtered = NOT_FILTERED,
        **completion: Unpack[Completion],
    ) -> None:
        """Record that the call ended well, `at` this time, now by default.

        Raises: ModelError `too_large`, after the call is recorded as failed; Unavailable.
        """
        at, usage = at or datetime.now(UTC), completion["usage"]
        try:
            await self._end(cause, id, lambda call: call.complete(at, **completion), reservation, usage, filtered)
        except TooLarge as error:
            reason = f"The answer cannot be recorded. {error}"
            await self.fail(
                cause,
                id,
                code="too_large",
                reason=reason,
                response=beginning(completion["response"]),
                reasoning=beginning(completion.get("reasoning", "")),
                usage={**usage, "raw": {}},
                duration_ms=completion["duration_ms"],
                reservation=reservation,
                filtered=filtered,
            )
            raise ModelError("too_large", reason) from error

    async def fail(
        self,
        cause: Cause,
        id: str,
        *,
        code: str,
        reason: str,
        duration_ms: float | None = None,
        reservation: Reservation = NOTHING,
        filtered: Filtered = NOT_FILTERED,
        **broken: Unpack[Broken],
    ) -> None:
        at = datetime.now(UTC)

        def fail(call: ModelCall) -> None:
            call.fail(at, code=code, reason=reason, duration_ms=duration_ms, **broken)

        await self._end(cause, id, fail, reservation, broken.get("usage"), filtered)

    async def cancel(
        self,
        cause: Cause,
        id: str,
        *,
        duration_ms: float,
        reservation: Reservation = NOTHING,
        filtered: Filtered = NOT_FILTERED,
        **broken: Unpack[Broken],
    ) -> None:
        at = datetime.now(UTC)

        def cancel(call: ModelCall) -> None:
            call.cancel(at, duration_ms=duration_ms, **broken)

        await self._end(cause, id, cancel, reservation, broken.get("usage"), filtered)

    async def spend(self, cause: Cause, tokens: int) -> None:
        """Count the tokens of a call of a chat model for the limits of its tenant."""
        if self._quota:
            await self._quota.spend(cause.metadata, cause.app, tokens)

    async def take_over(self, cause: Cause, *steps: str, series: Sequence[str] = ()) -> Cause:
        """Return the cause with the calls of earlier attempts that completed, since these are not repeated.

        Each of `series` stands for steps `<name>:0`, `<name>:1` and so on, whose calls are repeated in any case.
        Calls that an earlier attempt left open end as `lost`: whether the model answered is unknown. Calls made before
        a person asked again belong to another correlation, and are repeated.
        """
        completed, made = dict(cause.completed), Counter(cause.made)
        for step in steps:
            for attempt in range(1, cause.attempt):
                begun = False
                async for id, commits in self._tries(cause, step, attempt):
                    if commits[0].metadata.correlation != cause.metadata.correlation:
                        continue
                    begun = True
                    for commit in commits[1:]:
                        for event in commit.events:
                            if isinstance(event, ModelCall.Completed):
                                completed[step] = id, event
                made[step] += begun
        for attempt in range(1, cause.attempt):
            await asyncio.gather(*(self._lose_series(cause, name, attempt) for name in series))
        return replace(cause, completed=completed, made=made)

    async def next_attempt(self, cause: Cause, *steps: str) -> Cause:
        """Return the cause in the first attempt that has made no call in the first of these steps, with the calls that
        earlier attempts completed: for work that does not count its attempts. Raises: Unavailable."""
        attempt = 1
        while await self._repository.commits(ModelCall, cause.metadata.tenant, cause.call(steps[0], attempt)):
            attempt += 1
        return await self.take_over(replace(cause, attempt=attempt), *steps)

    async def _lose_series(self, cause: Cause, name: str, attempt: int) -> None:
        """End the calls of a series that an earlier attempt left open."""
        for number in count():
            if not [id async for id, _ in self._tries(cause, f"{name}:{number}", attempt)]:
                return

    async def _tries(self, cause: Cause, step: str, attempt: int) -> AsyncGenerator[tuple[str, Sequence[Commit]]]:
        """The tries of an attempt with their commits. One that is open ends as `lost`."""
        for number in count(1):
            id = cause.call(step, attempt, number)
            commits = await self._repository.commits(ModelCall, cause.metadata.tenant, id)
            if not commits:
                return
            if len(commits) == 1:
                await self.lose(cause, id)
            yield id, commits

    async def last(self, cause: Cause, step: str) -> str | None:
        """The id of the last try of a step; None where there was none."""
        found = None
        for number in count(1):
            id = cause.call(step, number=number)
            if not await self._repository.commits(ModelCall, cause.metadata.tenant, id):
                break
            found = id
        return found

    async def lose(self, cause: Cause, id: str) -> None:
        """End a call whose worker died: all that was reserved for it counts as used."""
        at, reason = datetime.now(UTC), "The worker died with the call in flight."
        await self._end(cause, id, lambda call: call.lose(at, reason))

    async def embed(
        self, cause: Cause, step: str, embedder: Embedder, token_ids: Sequence[Sequence[int]], *, urgent: bool = False
    ) -> tuple[Vectors, Coroutine[Any, Any, None]]:
        """Return the vectors, and a coroutine that records the end of the call: await it before the work that it serves
        ends.

        Raises: Unavailable, when the record says so too.
        """
        tokens = sum(map(len, token_ids))
        request = {"texts": len(token_ids), "tokens": tokens}
        provider, model = "builtin", embedder.identity
        id = await self.request(cause, step, kind="embedding", provider=provider, model=model, request=request)
        began = time.perf_counter()
        try:
            vectors = await embedder.embed(token_ids, tenant=cause.metadata.tenant, urgent=urgent)
        except Unavailable as error:
            await self.fail(
                cause, id, code="unreachable", reason=str(error), response="", duration_ms=milliseconds(began)
            )
            raise
        except asyncio.CancelledError:
            await shielded(self.cancel(cause, id, response="", duration_ms=milliseconds(began)))
            raise
        return vectors, self.complete(
            cause,
            id,
            at=datetime.now(UTC),
            response="",
            finish_reason=None,
            usage=_usage(ChatUsage(tokens, 0)),
            first_token_ms=None,
            duration_ms=milliseconds(began),
        )

    async def rerank(
        self, cause: Cause, course: Course[Reranker], query: str, segments: Sequence[str], texts: Sequence[str]
    ) -> list[float]:
        """Score how well each text answers the query; `segments` are the ids of the texts, recorded in their place.

        Raises: ModelError, when the record says so too, but for a query that is too large for one; Unavailable, when
        there is none.
        """
        if "rerank" in cause.completed:
            _, made = cause.completed["rerank"]
            scores: list[float] = json.loads(made.response or "[]")
            if len(scores) == len(segments):
                return scores
        _must_end(cause, "rerank")

        async def send(way: Way[Reranker], call: Recorded, given: Texts) -> list[float]:
            found = await way.client.rerank(way.model, given["query"], given["texts"])
            guessed = ChatUsage(len(texts) * likely(query) + sum(map(likely, texts)), 0)
            call.response, call.estimated = json.dumps(found.scores), found.usage is None
            call.usage = found.usage or guessed
            call.response_id, call.response_model = found.response_id, found.model
            return found.scores

        def request(given: Texts) -> dict[str, Any]:
            return {"query": given["query"], "segments": list(segments)}

        most = len(texts) * most_tokens(query) + sum(map(most_tokens, texts))
        given = {"query": query, "texts": list(texts)}
        return await self.tried(cause, "rerank", course, send, kind="rerank", texts=given, request=request, most=most)

    async def check(self, cause: Cause, step: str, course: Course[Filter], check: Check) -> Finding:
        """Have a server check texts. Raises: ModelError, when the record says so too; Unavailable."""

        async def send(way: Way[Filter], call: Recorded, _: Texts) -> Finding:
            found = await way.client.check(check)
            call.response = json.dumps({"flagged": found.flagged, **({"texts": found.texts} if found.texts else {})})
            call.estimated = False
            return found

        request = {"where": check.where, "texts": dict(check.texts)}
        return await self.tried(cause, step, course, send, kind="moderation", texts=None, request=lambda _: request)

    async def tried(
        self,
        cause: Cause,
        step: str,
        course: Course[C],
        send: Callable[[Way[C], Recorded, Texts], Awaitable[T]],
        *,
        kind: str,
        texts: Texts | None,
        request: Callable[[Texts], dict[str, Any]],
        answers: bool = False,
        most: int = 0,
        numbers: Iterator[int] | None = None,
    ) -> T:
        """Try a call on its course: each try is recorded before it is sent, with the next of the numbers.

        It is sent with its texts, and recorded by them, as filters leave them; None: it meets no filter. With
        `answers`, the response is a text, which filters may change. Once a part of an answer has arrived, there is no
        other try.

        Raises: ModelError, when no way is left; Unavailable, when a try could not be recorded.
        """
        numbers = numbers or count(1)
        while True:
            way, routed = await course.next()
            call: Recorded | None = None
            try:
                number = next(numbers)
                id, given = cause.call(step, number=number), texts or {}
                filters = None if texts is None else await self.filters(cause, kind, way.provider, way.model, id)
                given, stopped = await _filtered(filters, given)
                async with self.recorded(
                    cause,
                    step,
                    kind=kind,
                    provider=way.provider,
                    model=way.model,
                    server="" if stopped else way.client.server,
                    request=request(given),
                    most=0 if stopped else most,
                    route=routed,
                    number=number,
                    filtered=filters.take_record() if filters else NOT_FILTERED,
                ) as call:
                    if stopped:
                        raise stopped
                    try:
                        found = await send(way, call, given)
                        if filters and answers:
                            call.response = await filters.after_text(call.response)
                    except ModelError as error:
                        if filters:
                            await filters.failed(error)
                        raise
                    finally:
                        call.filtered = filters.take_record() if filters else NOT_FILTERED
                await course.answered(way, None, call.tokens)
                return found
            except ModelError as error:
                if call is None:
                    raise
                await course.failed(way, call.id, error, arrived=call.first_ms is not None)
            finally:
                course.left(way)

    async def check_by_plugin(self, cause: Cause, step: str, name: str, check: Check) -> Finding:
        """Have a plugin check texts. Raises: ModelError, of which only `not_found` is not recorded; Unavailable."""
        enabled = await self.plugins.enabled(cause.metadata.tenant) if self.plugins else ()
        plugin = next((each for each in enabled if each.name == name and "check" in each.manifest["hooks"]), None)
        if self.plugins is None or plugin is None:
            raise ModelError("not_found", f"The tenant has enabled no plugin {name} with the hook check.")
        async with self.recorded(
            cause,
            step,
            kind="moderation",
            provider="plugin",
            model=name,
            server="",
            request={"where": check.where, "texts": dict(check.texts)},
        ) as call:
            about = {"id": call.id, "app": check.app, "where": check.where}
            filters = CallFilters(self.plugins, [plugin], about, closed=True)
            try:
                found = await filters.check(check)
            finally:
                call.filtered = filters.take_record()
            call.response = json.dumps({"flagged": found.flagged, **({"texts": found.texts} if found.texts else {})})
            call.estimated = False
        return found

    @asynccontextmanager
    async def recorded(
        self,
        cause: Cause,
        step: str,
        *,
        kind: str,
        provider: str,
        model: str,
        server: str,
        request: dict[str, Any],
        most: int = 0,
        route: Try | None = None,
        number: int = 1,
        filtered: Filtered = NOT_FILTERED,
    ) -> AsyncIterator[Recorded]:
        """Record a call of at most these tokens before it is sent, within the context, and its end after it.

        Raises: ModelError, when the record says so too, but for a request that is too large for one; Unavailable, when
        there is none.
        """
        reservation = await self.reserve(cause, provider, server, model, most, 0)
        try:
            id = await self.request(
                cause,
                step,
                kind=kind,
                provider=provider,
                model=model,
                request=request,
                server=server,
                route=route,
                number=number,
                reservation=reservation,
                filtered=filtered,
            )
        except TooLarge as error:
            raise _not_made(error) from error
        call = Recorded(id)
        code, reason = "erased", "The person was erased before the answer was stored."
        try:
            yield call
        except (ModelError, KeyError) as error:
            if isinstance(error, ModelError):
                code, reason = error.code, error.reason
            elapsed = milliseconds(call.began)
            await self.fail(
                cause,
                id,
                code=code,
                reason=reason,
                response="",
                duration_ms=elapsed,
                reservation=reservation,
                filtered=call.filtered,
            )
            raise
        except asyncio.CancelledError:
            elapsed, filtered = milliseconds(call.began), call.filtered
            await shielded(
                self.cancel(cause, id, response="", duration_ms=elapsed, reservation=reservation, filtered=filtered)
            )
            raise
        await shielded(
            self.complete(
                cause,
                id,
                response=call.response,
                finish_reason=None,
                usage=_usage(call.usage, estimated=call.estimated),
                first_token_ms=call.first_ms,
                duration_ms=milliseconds(call.began),
                response_id=call.response_id,
                response_model=call.response_model,
                reservation=reservation,
                filtered=call.filtered,
            )
        )

    def chat(
        self,
        cause: Cause,
        course: Course[ChatModel],
        request: ChatRequest,
        record: Record,
        sent: Callable[[], object] = lambda: None,
        *,
        step: str = "chat",
        kind: str = "chat",
    ) -> Chat:
        """A recorded call of a chat model; the record is of the messages of the request.

        The course names the model, whatever model the request names. `sent` is called when the request is recorded,
        just before it is sent.
        """
        return Chat(self, cause, step, kind, course, request, record, sent)

    async def filters(self, cause: Cause, kind: str, provider: str, model: str, id: str) -> CallFilters | None:
        """The filters of plugins for a call; None for none, and for a check of a provider. Raises: Unavailable."""
        if cause.noun == "provider":
            return None
        about = {"id": id, "kind": kind, "provider": provider, "model": model, "app": cause.app}
        return await filters_of(self.plugins, cause.metadata.tenant, about)

    async def record_passages(self, cause: Cause, passages: Mapping[str, str]) -> None:
        """Raises: TooLarge, Unavailable."""
        await self._passages.record(cause.metadata, passages)

    async def _end(
        self,
        cause: Cause,
        id: str,
        verb: Callable[[ModelCall], None],
        reservation: Reservation | None = None,
        usage: TokenUsage | None = None,
        filtered: Filtered = NOT_FILTERED,
        *,
        sent: bool = True,
    ) -> None:
        """Record an end, with what is charged to quotas; without a reservation, that is all that was reserved."""
        at = datetime.now(UTC)

        def decide(call: ModelCall | None) -> ModelCall:
            if call is None:
                raise ModelError("not_found", f"Model call {id} was never requested.")
            if call.status == "requested":
                verb(call)
                call.filter(at, plugins=filtered.runs, original=filtered.original)
                if reservation:
                    reservation.charge(call, at, usage, sent=sent)
            return call

        try:
            change = await self._repository.change(ModelCall, id, _metadata(cause, id, "end"), decide)
        except TooLarge:
            raise
        except BaseException:
            if reservation:
                reservation.abandon()
            raise
        if reservation:
            reservation.settle(change.aggregate)


@dataclass(slots=True)
class Recorded:
    """A call that was sent: its id, and what came back, to be recorded when its context ends.

    `estimated` is false where the server has counted the tokens.
    """

    id: str
    began: float = field(default_factory=time.perf_counter)
    response: str = ""
    usage: ChatUsage = field(default_factory=lambda: ChatUsage(0, 0))
    estimated: bool = True
    first_ms: float | None = None
    response_id: str | None = None
    response_model: str | None = None
    filtered: Filtered = NOT_FILTERED

    @property
    def tokens(self) -> int:
        return self.usage.prompt_tokens + self.usage.completion_tokens


@dataclass(slots=True)
class Chat:
    """A call of a chat model: `said` is the answer so far, `reasoning` what came before it.

    It may take several tries, each a recorded call; all values are those of the last one, whose number is `number`.
    When it has completed, `usage`, `finish_reason`, `tool_calls`, `state` and `logprobs` are as the model gave them.
    `sent` is called just before it is sent.
    """

    calls: ModelCalls
    cause: Cause
    step: str
    kind: str
    course: Course[ChatModel]
    request: ChatRequest
    record: Record
    sent: Callable[[], object]
    id: str = field(init=False)
    number: int = field(init=False, default=0)
    usage: TokenUsage | None = field(init=False, default=None)
    finish_reason: str | None = field(init=False, default=None)
    said: str = field(init=False, default="")
    reasoning: str = field(init=False, default="")
    tool_calls: Sequence[ToolCall] = field(init=False, default=())
    state: dict[str, Any] | None = field(init=False, default=None)
    logprobs: list[dict[str, Any]] | None = field(init=False, default=None)
    recalled: bool = field(init=False, default=False)
    """An earlier attempt completed it."""
    _size: int = field(init=False, default=0)
    _requested: bool = field(init=False, default=False)
    _began: float = field(init=False, default_factory=time.perf_counter)
    _first: float | None = field(init=False, default=None)
    _last: Delta = field(init=False, default=Delta())
    _reservation: Reservation = field(init=False, default=NOTHING)
    _filters: CallFilters | None = field(init=False, default=None)
    _asked: ChatRequest = field(init=False)
    _asked_record: Record = field(init=False)

    def __post_init__(self) -> None:
        self.id = self.cause.call(self.step)
        self._asked, self._asked_record = self.request, self.record

    async def texts(self) -> AsyncGenerator[str]:
        """The answer as it comes; closed or cancelled before its end, the call is cancelled.

        Where what was yielded turns out to be reasoning, or another model begins again, so does `said`.

        An answer that is too large to be recorded is broken off; a request that is too large is not sent. A call that
        an earlier attempt completed is not repeated. Raises: ModelError.
        """
        if self.step in self.cause.completed:
            self.id, made = self.cause.completed[self.step]
            self.recalled = True
            self.sent()
            self.said = made.response
            yield made.response
            self.usage, self.finish_reason, self.reasoning = made.usage, made.finish_reason, made.reasoning
            self.tool_calls = [ToolCall(**call) for call in made.tool_calls or ()]
            self.state, self.logprobs = made.state, made.logprobs
            return
        _must_end(self.cause, self.step)
        while True:
            way, routed = await self.course.next()
            self._begin(way)
            try:
                async with aclosing(self._try(way, routed)) as texts:
                    async for text in texts:
                        yield text
                used = self.usage["prompt_tokens"] + self.usage["completion_tokens"] if self.usage else 0
                await self.course.answered(way, self._first, used)
                return
            except ModelError as error:
                await self.course.failed(way, self.id, error, arrived=bool(self.said or self.reasoning))
            finally:
                self.course.left(way)

    async def up_to(self, longest: int) -> str:
        """The answer, which is broken off once it has more than this number of characters. Raises: ModelError."""
        async with aclosing(self.texts()) as texts:
            async for _ in texts:
                if len(self.said) > longest:
                    break
        return self.said

    def _begin(self, way: Way[ChatModel]) -> None:
        """Begin a try, with nothing of the one before."""
        self.number += 1
        self.id = self.cause.call(self.step, number=self.number)
        self.request, self.record = replace(self._asked, model=way.model), self._asked_record
        self.said = self.reasoning = ""
        self._size, self._requested, self._first, self._last = 0, False, None, Delta()
        self._began, self._reservation = time.perf_counter(), NOTHING

    async def _try(self, way: Way[ChatModel], routed: Try | None) -> AsyncGenerator[str]:
        self._filters = await self.calls.filters(self.cause, self.kind, way.provider, way.model, self.id)
        if self._filters and not await self._pass(way, routed):
            yield self.said
            return
        await self._reserve(way, routed)
        try:
            await self._record(way, routed)
            self.sent()
            self._began = time.perf_counter()
            async with aclosing(self._texts(way)) as texts:
                async for text in texts:
                    yield text
        except TooLarge as error:
            self._reservation.release()
            raise _not_made(error) from error
        except ModelError as error:
            if self._requested:
                if self._filters:
                    await self._filters.failed(error)
                await self._fail(error.code, error.reason)
            self._reservation.release()
            raise
        except (GeneratorExit, asyncio.CancelledError):
            elapsed = milliseconds(self._began)
            broken = self._broken(counts=self._requested)
            await self.calls.cancel(
                self.cause,
                self.id,
                duration_ms=elapsed,
                reservation=self._reservation,
                filtered=self._filtered(),
                **broken,
            )
            await self._spend(broken.get("usage"))
            raise
        except Exception as error:
            if self._requested:
                await self._fail("internal_error", f"{type(error).__name__}: {error}"[:1000])
            self._reservation.release()
            raise
        await self._complete()

    async def _pass(self, way: Way[ChatModel], routed: Try | None) -> bool:
        """Have the filters handle the request; return whether the model must be called with it.

        A filter that answers or refuses ends the call, which is recorded and not sent. Raises: ModelError.
        """
        assert self._filters is not None
        asked, stopped = self.request, None
        try:
            self.request = await self._filters.before(asked)
        except ModelError as error:
            stopped = error
        if self.request.messages != asked.messages:
            self.record = Record([literal(message, {}) for message in self.request.messages], {})
        if stopped is None and self._filters.answer is None:
            return True
        try:
            await self._record(way, routed, server="")
        except TooLarge as error:
            raise _not_made(error) from error
        self._last = Delta(finish_reason="plugin", usage=ChatUsage(0, 0))
        if stopped:
            await self._fail(stopped.code, stopped.reason)
            raise stopped
        self.said = self._filters.answer or ""
        await self._complete()
        return False

    async def _texts(self, way: Way[ChatModel]) -> AsyncGenerator[str]:
        """The answer as it comes, and as the filters leave it. Raises: ModelError."""
        filters = self._filters if self._filters and self._filters.watches_answer else None
        async with aclosing(way.client.stream(self.request)) as deltas:
            async for delta in deltas:
                for text in self._take(delta, filters):
                    yield text
                if filters and (text := await filters.release(last=False)):
                    self.said += text
                    yield text
                if filters and filters.answer is not None:
                    break
        if filters and filters.answer is None and (text := await filters.release(last=True)):
            self.said += text
            yield text
        if filters and filters.answer is not None:  # in place of all that came before
            self.said = filters.answer
            yield self.said

    async def _reserve(self, way: Way[ChatModel], routed: Try | None) -> None:
        """Reserve what the try may use; record one that is refused for its model, so that the next can name it.

        Raises: ModelError, Unavailable.
        """
        prompt = sum(map(_most, self.request.messages)) + most_tokens(tools_text(self.request.tools))
        try:
            self._reservation = await self.calls.reserve(
                self.cause, way.provider, way.client.server, way.model, prompt, self.request.max_tokens
            )
        except ModelError as error:
            if routed and error.refuses_model:
                await shielded(self._refuse(way, routed, error))
            raise

    async def _refuse(self, way: Way[ChatModel], routed: Try, error: ModelError) -> None:
        """Raises: ModelError, Unavailable."""
        try:
            await self._record(way, routed)
        except TooLarge as large:
            raise _not_made(large) from large
        await self._fail(error.code, error.reason)

    async def _record(self, way: Way[ChatModel], routed: Try | None, server: str | None = None) -> None:
        """Record the request; `server` is that of the model by default. Raises: TooLarge, Unavailable."""
        tools, schema = tools_text(self.request.tools), self.request.schema
        request = {
            "messages": list(self.record.messages),
            "max_tokens": self.request.max_tokens,
            "parameters": self.request.parameters,
            "tools": f"passage/{passage_id(tools)}" if tools else None,
            "tool_choice": self.request.tool_choice if tools else None,
            "response_format": {"type": "json_schema", "schema": schema} if schema else None,
            "context_window": self.request.context_window,
        }
        quoted = {passage_id(tools): tools} if tools else {}
        await self.calls.record_passages(self.cause, {**self.record.passages, **quoted})
        await shielded(
            self.calls.request(
                self.cause,
                self.step,
                kind=self.kind,
                provider=way.provider,
                model=way.model,
                request=request,
                server=way.client.server if server is None else server,
                route=routed,
                number=self.number,
                reservation=self._reservation,
                filtered=self._filtered(),
            )
        )
        self._requested = True

    def _filtered(self) -> Filtered:
        return self._filters.take_record() if self._filters else NOT_FILTERED

    def _take(self, delta: Delta, filters: CallFilters | None = None) -> Iterator[str]:
        """Yield the new text of a delta, or have the filters hold it. Raises: ModelError `too_large`."""
        last = self._last
        self._last = Delta(
            "",
            delta.finish_reason or last.finish_reason,
            delta.usage or last.usage,
            delta.response_id or last.response_id,
            delta.model or last.model,
            tool_calls=delta.tool_calls or last.tool_calls,
            state=delta.state or last.state,
            logprobs=delta.logprobs or last.logprobs,
        )
        if delta.unsaid:
            self.reasoning += filters.said if filters else self.said
            self.said, self._first = "", None
            if filters:
                filters.restart()
        self._size += len(orjson.dumps(delta.text)) + len(orjson.dumps(delta.reasoning)) - 4  # quotes
        if delta.tool_calls or delta.state or delta.logprobs:
            asked = [call._asdict() for call in delta.tool_calls]
            self._size += len(orjson.dumps([asked, delta.state, delta.logprobs]))
        if self._size > self.calls.longest:
            if filters:
                raise _broken_off(self._size, self.calls.longest)
            said, self.said = self.said, beginning(self.said + delta.text)
            self.reasoning = beginning(self.reasoning + delta.reasoning)
            if rest := self.said[len(said) :]:
                yield rest
            raise _broken_off(self._size, self.calls.longest)
        self.reasoning += delta.reasoning
        if delta.text:
            self._first = self._first or milliseconds(self._began)
            if filters:
                filters.hold(delta.text)
            else:
                self.said += delta.text
                yield delta.text

    async def _fail(self, code: str, reason: str) -> None:
        elapsed = milliseconds(self._began)
        arrived = bool(self.said or self.reasoning or self._last.usage)
        broken = self._broken(counts=arrived)
        await self.calls.fail(
            self.cause,
            self.id,
            code=code,
            reason=reason,
            duration_ms=elapsed,
            reservation=self._reservation,
            filtered=self._filtered(),
            **broken,
        )
        await self._spend(broken.get("usage"))

    def _broken(self, *, counts: bool) -> Broken:
        """Return the part that has arrived, with its tokens if it `counts`."""
        return Broken(response=self.said, reasoning=self.reasoning, usage=self.counted() if counts else None)

    async def _complete(self) -> None:
        usage = self.counted()
        try:
            await shielded(
                self.calls.complete(
                    self.cause,
                    self.id,
                    response=self.said,
                    reasoning=self.reasoning,
                    finish_reason=self._last.finish_reason,
                    usage=usage,
                    first_token_ms=self._first,
                    duration_ms=milliseconds(self._began),
                    response_id=self._last.response_id,
                    response_model=self._last.model,
                    tool_calls=[call._asdict() for call in self._last.tool_calls] or None,
                    state=self._last.state,
                    logprobs=self._last.logprobs,
                    reservation=self._reservation,
                    filtered=self._filtered(),
                )
            )
        finally:
            await self._spend(usage)
        self.usage, self.finish_reason = usage, self._last.finish_reason
        self.tool_calls, self.state, self.logprobs = self._last.tool_calls, self._last.state, self._last.logprobs

    def counted(self) -> TokenUsage:
        """The tokens so far, estimated unless the server has counted them."""
        if self._last.usage:
            return _usage(self._last.usage)
        reasoning = likely(self.reasoning)
        answer = likely(self.said) + sum(map(_size, self._last.tool_calls))
        guessed = ChatUsage(likely_prompt(self.request), answer + reasoning, reasoning_tokens=reasoning or None)
        return _usage(guessed, estimated=True)

    async def _spend(self, usage: TokenUsage | None) -> None:
        if usage:
            await self.calls.spend(self.cause, usage["prompt_tokens"] + usage["completion_tokens"])


async def _filtered(filters: CallFilters | None, texts: Texts) -> tuple[Texts, ModelError | None]:
    """The texts of a call as its filters leave them, and the error where one refuses it."""
    if filters is None:
        return texts, None
    try:
        return await filters.before_texts(texts), None
    except ModelError as error:
        return texts, error


def tools_text(tools: Sequence[Tool]) -> str:
    """The list of tools as it is recorded, once for all calls with it; empty for none."""
    return orjson.dumps([tool._asdict() for tool in tools], option=orjson.OPT_SORT_KEYS).decode() if tools else ""


def likely_prompt(request: ChatRequest) -> int:
    """The likeliest number of tokens of a prompt, for its cost."""
    return likely(tools_text(request.tools)) + sum(
        likely(message.content)
        + MESSAGE_TOKENS
        + ATTACHMENT_TOKENS * len(message.attachments)
        + sum(map(_size, message.tool_calls))
        for message in request.messages
    )


def _size(call: ToolCall) -> int:
    """The likeliest number of tokens of a call of a tool."""
    return likely(call.name) + likely(call.arguments) + MESSAGE_TOKENS


def _most(message: ChatMessage) -> int:
    """The most tokens that a message may have."""
    asked = sum(most_tokens(call.name + call.arguments) for call in message.tool_calls)
    files = (MOST_IMAGE_TOKENS if each.kind == "image" else len(each.data) // 2 for each in message.attachments)
    return most_tokens(message.content) + MOST_MESSAGE_TOKENS + asked + sum(files)


def _must_end(cause: Cause, step: str) -> None:
    """Raises: ModelError `lost` when earlier attempts have made the call too often."""
    if (made := cause.made.get(step, 0)) >= MOST_CALLS:
        raise ModelError("lost", f"The call was made {made} times, and no attempt came to its end.")


def most_tokens(text: str) -> int:
    """The maximum number of tokens of a text: every token takes a byte at least."""
    return len(text.encode(errors="replace"))


def _usage(counted: ChatUsage, *, estimated: bool = False) -> TokenUsage:
    return TokenUsage(
        prompt_tokens=counted.prompt_tokens,
        completion_tokens=counted.completion_tokens,
        estimated=estimated,
        cached_tokens=counted.cached_tokens,
        cache_write_tokens=counted.cache_write_tokens,
        reasoning_tokens=counted.reasoning_tokens,
        raw=counted.raw,
    )


def beginning(text: str) -> str:
    """Return the part that is kept of an answer too large to be recorded, cut at a character."""
    return text[:PARTIAL].encode(errors="replace")[:PARTIAL].decode(errors="ignore")


def _broken_off(size: int, limit: int) -> ModelError:
    return ModelError(
        "too_large",
        f"The answer was broken off at {size:,} bytes, since at most {limit:,} can be recorded: ask for a shorter one, "
        "or set a smaller model.max_tokens.",
    )


def _not_made(error: TooLarge) -> ModelError:
    """Why a call was not made whose request cannot be recorded."""
    return ModelError(
        "too_large",
        f"The model was not called, since what it would be sent cannot be recorded: {error.size:,} bytes, at most "
        f"{error.limit:,} fit. Send less: set a smaller model.context_window or retrieval.top_k, or ask a shorter "
        "question.",
    )


async def shielded(recording: Awaitable[T]) -> T:
    """Let the recording end even when the caller is cancelled: a record that is half made stays open."""
    task = asyncio.ensure_future(recording)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        task.result()
        raise


def _metadata(cause: Cause, call: str, step: str) -> Metadata:
    return cause.metadata.caused(commit_id(cause.metadata.id, f"{call}:{step}"))


def milliseconds(began: float) -> float:
    """Milliseconds since a reading of time.perf_counter()."""
    return round((time.perf_counter() - began) * 1000, 3)
