"""Puts every model call on record: an event before it is sent, and one after it."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Unpack

import orjson

from domain.log import Metadata, commit_id
from domain.models.model_call import Broken, Completion, ModelCall, TokenUsage
from domain.models.passage import passage_id
from handlers.access.quota import Quota
from handlers.models.passages import Passages
from handlers.models.prompt import Record, likely
from handlers.ports.documents import Embedder, Vectors
from handlers.ports.filters import Check, Filter, Finding
from handlers.ports.log import TooLarge, Unavailable
from handlers.ports.models import ChatModel, ChatRequest, ChatUsage, Delta, ModelError, Reranker, Tool, ToolCall
from handlers.repository import Repository
from handlers.work.cause import Cause

PARTIAL = 64 * 1024
"""Bytes of UTF-8 that are kept of an answer that is too large to be recorded."""

MOST_CALLS = 10
"""Maximum number of calls that one question makes in a step: each of them may have to be paid for."""

LOST = "The worker died with the call in flight."

MESSAGE_TOKENS = 4
"""Tokens of a message in addition to its text, for its cost."""

ATTACHMENT_TOKENS = 1000
"""Tokens of a file in a message, for its cost: as of an image of a megapixel."""

OTHER_FIELDS = 32 * 1024
"""Bytes that are set aside for all else in an event with an answer."""


class ModelCalls:
    def __init__(self, repository: Repository, quota: Quota | None = None) -> None:
        """Without a quota, tokens are not counted."""
        self._repository = repository
        self._quota = quota
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
    ) -> str:
        """Record that the call is about to be sent, and return its id. Raises: TooLarge, Unavailable."""
        id = cause.call(step)
        at = datetime.now(UTC)

        def decide(call: ModelCall | None) -> ModelCall:
            return call or ModelCall.begin(
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
            )

        await self._repository.change(ModelCall, id, _metadata(cause, id, "request"), decide, new=True)
        return id

    async def complete(self, cause: Cause, id: str, **completion: Unpack[Completion]) -> None:
        """Raises: ModelError `too_large`, after the call is recorded as failed; Unavailable."""
        at = datetime.now(UTC)
        try:
            await self._end(cause, id, lambda call: call.complete(at, **completion))
        except TooLarge as error:
            reason = f"The answer cannot be recorded. {error}"
            await self.fail(
                cause,
                id,
                code="too_large",
                reason=reason,
                response=beginning(completion["response"]),
                reasoning=beginning(completion.get("reasoning", "")),
                usage={**completion["usage"], "raw": {}},
                duration_ms=completion["duration_ms"],
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
        **broken: Unpack[Broken],
    ) -> None:
        at = datetime.now(UTC)
        await self._end(
            cause, id, lambda call: call.fail(at, code=code, reason=reason, duration_ms=duration_ms, **broken)
        )

    async def cancel(self, cause: Cause, id: str, *, duration_ms: float, **broken: Unpack[Broken]) -> None:
        at = datetime.now(UTC)
        await self._end(cause, id, lambda call: call.cancel(at, duration_ms=duration_ms, **broken))

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
                id = cause.call(step, attempt)
                commits = await self._repository.commits(ModelCall, cause.metadata.tenant, id)
                if len(commits) == 1:
                    await self.fail(cause, id, code="lost", reason=LOST, response="")
                if not commits or commits[0].metadata.correlation != cause.metadata.correlation:
                    continue
                made[step] += 1
                for commit in commits[1:]:
                    [event] = commit.events
                    if isinstance(event, ModelCall.Completed):
                        completed[step] = id, event
        for attempt in range(1, cause.attempt):
            await asyncio.gather(*(self._lose(cause, name, attempt) for name in series))
        return replace(cause, completed=completed, made=made)

    async def next_attempt(self, cause: Cause, step: str) -> Cause:
        """Return the cause in the first attempt that has made no call in this step, for work that does not count its
        attempts, with the call that an earlier attempt completed. Raises: Unavailable."""
        attempt = 1
        while await self._repository.commits(ModelCall, cause.metadata.tenant, cause.call(step, attempt)):
            attempt += 1
        return await self.take_over(replace(cause, attempt=attempt), step)

    async def _lose(self, cause: Cause, name: str, attempt: int) -> None:
        """End the calls of a series that an earlier attempt left open."""
        for number in itertools.count():
            id = cause.call(f"{name}:{number}", attempt)
            commits = await self._repository.commits(ModelCall, cause.metadata.tenant, id)
            if not commits:
                return
            if len(commits) == 1:
                await self.fail(cause, id, code="lost", reason=LOST, response="")

    async def embed(
        self, cause: Cause, step: str, embedder: Embedder, token_ids: Sequence[Sequence[int]], *, urgent: bool = False
    ) -> tuple[Vectors, Coroutine[Any, Any, None]]:
        """Return the vectors, and a coroutine that records the end of the call: await it no later than their first use.

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
        return vectors, self.complete(
            cause,
            id,
            response="",
            finish_reason=None,
            usage=_usage(ChatUsage(tokens, 0)),
            first_token_ms=None,
            duration_ms=milliseconds(began),
        )

    async def rerank(
        self,
        cause: Cause,
        provider: str,
        reranker: Reranker,
        model: str,
        query: str,
        segments: Sequence[str],
        texts: Sequence[str],
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
        request = {"query": query, "segments": list(segments)}
        try:
            id = await self.request(
                cause, "rerank", kind="rerank", provider=provider, model=model, request=request, server=reranker.server
            )
        except TooLarge as error:
            raise _not_made(error) from error
        began = time.perf_counter()
        try:
            found = await reranker.rerank(model, query, texts)
        except ModelError as error:
            await self.fail(
                cause, id, code=error.code, reason=error.reason, response="", duration_ms=milliseconds(began)
            )
            raise
        except asyncio.CancelledError:
            await shielded(self.cancel(cause, id, response="", duration_ms=milliseconds(began)))
            raise
        guessed = ChatUsage(len(texts) * likely(query) + sum(map(likely, texts)), 0)
        await self.complete(
            cause,
            id,
            response=json.dumps(found.scores),
            finish_reason=None,
            usage=_usage(found.usage or guessed, estimated=found.usage is None),
            first_token_ms=None,
            duration_ms=milliseconds(began),
            response_id=found.response_id,
            response_model=found.model,
        )
        return found.scores

    async def check(self, cause: Cause, step: str, provider: str, server: Filter, check: Check) -> Finding:
        """Have a server check texts. Raises: ModelError, when the record says so too; Unavailable."""
        request = {"where": check.where, "texts": dict(check.texts)}
        try:
            id = await self.request(
                cause, step, kind="moderation", provider=provider, model=provider, request=request, server=server.server
            )
        except TooLarge as error:
            raise _not_made(error) from error
        began = time.perf_counter()
        try:
            found = await server.check(check)
        except ModelError as error:
            await self.fail(
                cause, id, code=error.code, reason=error.reason, response="", duration_ms=milliseconds(began)
            )
            raise
        except asyncio.CancelledError:
            await shielded(self.cancel(cause, id, response="", duration_ms=milliseconds(began)))
            raise
        await self.complete(
            cause,
            id,
            response=json.dumps({"flagged": found.flagged, **({"texts": found.texts} if found.texts else {})}),
            finish_reason=None,
            usage=_usage(ChatUsage(0, 0)),
            first_token_ms=None,
            duration_ms=milliseconds(began),
        )
        return found

    def chat(
        self,
        cause: Cause,
        provider: str,
        client: ChatModel,
        request: ChatRequest,
        record: Record,
        sent: Callable[[], object] = lambda: None,
        *,
        step: str = "chat",
        kind: str = "chat",
    ) -> Chat:
        """A recorded call of a chat model; the record is of the messages of the request.

        `sent` is called when the request is recorded, just before it is sent.
        """
        return Chat(self, cause, step, kind, provider, client, request, record, sent)

    async def record_passages(self, cause: Cause, passages: Mapping[str, str]) -> None:
        """Raises: TooLarge, Unavailable."""
        await self._passages.record(cause.metadata, passages)

    async def _end(self, cause: Cause, id: str, verb: Callable[[ModelCall], None]) -> None:
        def decide(call: ModelCall | None) -> ModelCall:
            if call is None:
                raise ModelError("not_found", f"Model call {id} was never requested.")
            verb(call)
            return call

        await self._repository.change(ModelCall, id, _metadata(cause, id, "end"), decide)


@dataclass(slots=True)
class Chat:
    """A call of a chat model: `said` is the answer so far, `reasoning` what came before it.

    When it has completed, `usage`, `finish_reason`, `tool_calls`, `state` and `logprobs` are as the model gave them.
    `sent` is called just before it is sent.
    """

    calls: ModelCalls
    cause: Cause
    step: str
    kind: str
    provider: str
    client: ChatModel
    request: ChatRequest
    record: Record
    sent: Callable[[], object]
    id: str = field(init=False)
    usage: TokenUsage | None = field(init=False, default=None)
    finish_reason: str | None = field(init=False, default=None)
    said: str = field(init=False, default="")
    reasoning: str = field(init=False, default="")
    tool_calls: Sequence[ToolCall] = field(init=False, default=())
    state: dict[str, Any] | None = field(init=False, default=None)
    logprobs: list[dict[str, Any]] | None = field(init=False, default=None)
    _size: int = field(init=False, default=0)
    _requested: bool = field(init=False, default=False)
    _began: float = field(init=False, default_factory=time.perf_counter)
    _first: float | None = field(init=False, default=None)
    _last: Delta = field(init=False, default=Delta())

    def __post_init__(self) -> None:
        self.id = self.cause.call(self.step)

    async def texts(self) -> AsyncGenerator[str]:
        """The answer as it comes; closed or cancelled before its end, the call is cancelled.

        Where what was yielded turns out to be reasoning, `said` begins again with the next text.

        An answer that is too large to be recorded is broken off; a request that is too large is not sent. A call that
        an earlier attempt completed is not repeated. Raises: ModelError.
        """
        if self.step in self.cause.completed:
            self.id, made = self.cause.completed[self.step]
            self.sent()
            self.said = made.response
            yield made.response
            self.usage, self.finish_reason, self.reasoning = made.usage, made.finish_reason, made.reasoning
            self.tool_calls = [ToolCall(**call) for call in made.tool_calls or ()]
            self.state, self.logprobs = made.state, made.logprobs
            return
        _must_end(self.cause, self.step)
        try:
            await self._record()
            async with aclosing(self.client.stream(self.request)) as deltas:
                async for delta in deltas:
                    for text in self._take(delta):
                        yield text
        except TooLarge as error:
            raise _not_made(error) from error
        except ModelError as error:
            await self._fail(error.code, error.reason)
            raise
        except (GeneratorExit, asyncio.CancelledError):
            elapsed = milliseconds(self._began)
            broken = self._broken(counts=self._requested)
            await self.calls.cancel(self.cause, self.id, duration_ms=elapsed, **broken)
            await self._spend(broken.get("usage"))
            raise
        except Exception as error:
            if self._requested:
                await self._fail("internal_error", f"{type(error).__name__}: {error}"[:1000])
            raise
        await self._complete()

    async def _record(self) -> None:
        """Record the request. Raises: TooLarge, Unavailable."""
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
                provider=self.provider,
                model=self.request.model,
                request=request,
                server=self.client.server,
            )
        )
        self._requested = True
        self.sent()
        self._began = time.perf_counter()

    def _take(self, delta: Delta) -> Iterator[str]:
        """Yield the new text of a delta. Raises: ModelError `too_large`."""
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
            self.reasoning, self.said, self._first = self.reasoning + self.said, "", None
        self._size += len(orjson.dumps(delta.text)) + len(orjson.dumps(delta.reasoning)) - 4  # quotes
        if delta.tool_calls or delta.state or delta.logprobs:
            asked = [call._asdict() for call in delta.tool_calls]
            self._size += len(orjson.dumps([asked, delta.state, delta.logprobs]))
        if self._size > self.calls.longest:
            said, self.said = self.said, beginning(self.said + delta.text)
            self.reasoning = beginning(self.reasoning + delta.reasoning)
            if rest := self.said[len(said) :]:
                yield rest
            raise _broken_off(self._size, self.calls.longest)
        self.reasoning += delta.reasoning
        if delta.text:
            self._first = self._first or milliseconds(self._began)
            self.said += delta.text
            yield delta.text

    async def _fail(self, code: str, reason: str) -> None:
        elapsed = milliseconds(self._began)
        arrived = bool(self.said or self.reasoning or self._last.usage)
        broken = self._broken(counts=arrived)
        await self.calls.fail(self.cause, self.id, code=code, reason=reason, duration_ms=elapsed, **broken)
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


def _must_end(cause: Cause, step: str) -> None:
    """Raises: ModelError `lost` when earlier attempts have made the call too often."""
    if (made := cause.made.get(step, 0)) >= MOST_CALLS:
        raise ModelError("lost", f"The call was made {made} times, and no attempt came to its end.")


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


async def shielded(recording: Awaitable[object]) -> None:
    """Let the recording end even when the caller is cancelled: a record that is half made stays open."""
    task = asyncio.ensure_future(recording)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        task.result()
        raise


def _metadata(cause: Cause, call: str, step: str) -> Metadata:
    return cause.metadata.caused(commit_id(cause.metadata.id, f"{call}:{step}"))


def milliseconds(began: float) -> float:
    """Milliseconds since a reading of time.perf_counter()."""
    return round((time.perf_counter() - began) * 1000, 3)
