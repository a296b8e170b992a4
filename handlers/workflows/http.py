"""Requests to servers, each recorded before it is sent; secrets are put in where it is sent."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from domain.log import commit_id
from domain.workflows.effect import Effect
from domain.workflows.effect import Response as Responded
from domain.workflows.node_type import Trouble
from domain.workflows.nodes.http_request import FILE_ERROR, MOST_BINARY
from domain.workflows.requests import HttpAnswer, HttpRequest
from domain.workflows.run import RecordedCall
from domain.workflows.values import File, as_objects
from handlers.files import Files
from handlers.models.model_calls import milliseconds, shielded
from handlers.ports.files import Fetch, NotFetched
from handlers.ports.http import Http, NoResponse, Response, Sending, Upload
from handlers.ports.log import TooLarge
from handlers.repository import Repository
from handlers.workflows.execution import Execution
from handlers.workflows.run_files import made, read
from handlers.workflows.secrets import in_json

IDEMPOTENT: Final = frozenset({"GET", "HEAD"})
KEY: Final = "Idempotency-Key"

UNKNOWN: Final = "It is unknown whether the request did something: the worker died during it, and it is not sent again."
LOST: Final = "LostError"
"""The type of the error of such a step."""


@dataclass(frozen=True, slots=True)
class SendHttp:
    repository: Repository
    files: Files
    http: Http
    fetch: Fetch

    async def __call__(self, execution: Execution) -> HttpAnswer | Trouble:
        """Raises: TooLarge; Erased; Unavailable."""
        id = execution.cause.call("http", 1)
        execution.made.append(RecordedCall(noun=Effect.TOPIC, id=id))
        effect = await self._requested(execution, id)
        if effect.status == "requested":
            effect = await self._send(execution, id)
        if effect.response:
            return await self._answer(execution, effect.response)
        if effect.status == "cancelled":
            return Trouble(UNKNOWN, LOST)
        return Trouble(effect.reason, LOST if effect.code == "lost" else "")

    async def _requested(self, execution: Execution, id: str) -> Effect:
        """The request, recorded before it is sent; or as an earlier attempt left it."""
        cause, request = execution.cause, execution.request

        def decide(effect: Effect | None, at: datetime) -> Effect:
            if effect is None:
                return Effect.begin(
                    Effect.Requested,
                    id,
                    at,
                    kind="http",
                    method=request.method,
                    server=_server(request.url),
                    request=_recorded(request),
                    cause_noun=cause.noun,
                    cause_id=cause.id,
                    step=execution.call.name,
                    app=execution.around.app,
                    attempt=cause.attempt,
                    idempotent=_idempotent(execution),
                )
            if effect.idempotent:
                effect.begin_again(at, attempt=cause.attempt)
            elif effect.attempt < cause.attempt:
                effect.lose(at, UNKNOWN)
            return effect

        return await self._change(execution, id, "request", decide)

    async def _send(self, execution: Execution, id: str) -> Effect:
        began = time.perf_counter()
        try:
            sending = await self._sending(execution)
            response = await self.http(execution.tenant, sending, MOST_BINARY)
        except asyncio.CancelledError:
            elapsed = milliseconds(began)
            await shielded(self._end(execution, id, lambda effect, at: effect.cancel(at, duration_ms=elapsed)))
            raise
        except (NoResponse, NotFetched) as error:
            return await self._fail(execution, id, error.code, error.reason, began)
        elapsed = milliseconds(began)
        responded = await self._responded(execution, response, elapsed)
        try:
            return await shielded(self._end(execution, id, lambda effect, at: effect.complete(at, **responded)))
        except TooLarge as error:
            return await self._fail(execution, id, "too_large", f"The response cannot be recorded. {error}", began)

    async def _fail(self, execution: Execution, id: str, code: str, reason: str, began: float) -> Effect:
        words, elapsed = execution.around.secrets.withheld(reason)[:1000], milliseconds(began)
        return await self._end(
            execution, id, lambda effect, at: effect.fail(at, code=code, reason=words, duration_ms=elapsed)
        )

    async def _end(self, execution: Execution, id: str, verb: Callable[[Effect, datetime], None]) -> Effect:
        def decide(effect: Effect | None, at: datetime) -> Effect:
            assert effect is not None
            verb(effect, at)
            return effect

        return await self._change(execution, id, f"end:{execution.cause.attempt}", decide)

    async def _change(
        self, execution: Execution, id: str, step: str, decide: Callable[[Effect | None, datetime], Effect]
    ) -> Effect:
        at, cause = datetime.now(UTC), execution.cause
        metadata = cause.metadata.caused(commit_id(cause.metadata.id, f"{id}:{step}:{cause.attempt}"))
        new = step == "request" and cause.attempt == 1
        change = await self.repository.change(Effect, id, metadata, lambda known: decide(known, at), new=new)
        return change.aggregate

    # --- the request

    async def _sending(self, execution: Execution) -> Sending:
        """The request as it is sent, with its secrets and files. Raises: NotFetched; Erased; Unavailable."""
        request: HttpRequest = execution.request
        secrets = execution.around.secrets
        headers = {name: secrets.revealed(value) for name, value in request.headers.items()}
        if request.basic:
            name, key = request.basic[0], secrets.revealed(request.basic[1])
            headers[name] = f"Basic {b64encode(key.encode()).decode() if ':' in key else key}"
        if request.method not in IDEMPOTENT and KEY.lower() not in {name.lower() for name in headers}:
            headers[KEY] = commit_id(execution.cause.id, f"{execution.call.key}/key")
        text, content = request.text, None
        if text is not None:
            kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
            content = secrets.revealed(text, in_json if "json" in kind else str).encode(errors="replace")
        elif request.file:
            content = (await read(execution, self.fetch, request.file, MOST_BINARY)).data
        uploads = [
            Upload(
                name,
                file.filename or "file",
                file.mime_type or "application/octet-stream",
                (await read(execution, self.fetch, file, MOST_BINARY)).data,
            )
            for name, file in request.files
        ]
        return Sending(
            request.method,
            secrets.revealed(request.url),
            [(secrets.revealed(name), secrets.revealed(value)) for name, value in request.params],
            headers,
            content,
            [(name, secrets.revealed(value)) for name, value in request.fields or ()],
            uploads,
            request.form == "multipart",
            request.connect_s,
            request.read_s,
            request.write_s,
        )

    # --- the response

    async def _responded(self, execution: Execution, response: Response, elapsed: float) -> Responded:
        """The response as it is recorded, without secrets. Raises: Erased; Unavailable."""
        withheld, digest, text = execution.around.secrets.withheld, None, ""
        try:
            text = withheld(response.body.decode())
        except UnicodeDecodeError:
            digest = await self.files.put(execution.tenant, execution.person, "file", response.body)
        return Responded(
            status=response.status,
            headers=withheld(dict(response.headers)),
            body=text,
            digest=digest,
            size=len(response.body),
            duration_ms=elapsed,
        )

    async def _answer(self, execution: Execution, responded: Responded) -> HttpAnswer | Trouble:
        """Raises: Erased; Unavailable."""
        digest, headers = responded["digest"], responded["headers"]
        try:
            body = (
                await self.files.get(execution.tenant, execution.person, "file", digest)
                if digest
                else responded["body"].encode()
            )
        except (KeyError, ValueError):
            return Trouble("The response is not there any more.", FILE_ERROR)
        if not digest and _names_file(headers):
            digest = await self.files.put(execution.tenant, execution.person, "file", body)
        return HttpAnswer(responded["status"], headers, body, _made(headers, digest, len(body)) if digest else None)


def _recorded(request: HttpRequest) -> dict[str, Any]:
    """The request as it is recorded: with marks in the place of secrets."""
    body = {
        "text": request.text,
        "fields": [list(each) for each in request.fields] if request.fields is not None else None,
        "files": [[name, as_objects(file)] for name, file in request.files] or None,
        "file": as_objects(request.file) if request.file else None,
    }
    sent: dict[str, Any] = {
        "url": request.url,
        "params": [list(each) for each in request.params],
        "headers": dict(request.headers),
    }
    if request.basic:
        sent["headers"][request.basic[0]] = f"Basic {request.basic[1]}"
    return {**sent, **{name: value for name, value in body.items() if value is not None}}


def _idempotent(execution: Execution) -> bool:
    """Test for a request that may be sent twice: by its method, or since its node says so."""
    return execution.request.method in IDEMPOTENT or execution.call.node.data.get("idempotent") is True


def _server(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return ""
    return f"{parts.hostname or ''}:{port}"


def _names_file(headers: Mapping[str, str]) -> bool:
    kind = next((value for name, value in headers.items() if name.lower() == "content-disposition"), "")
    return "attachment" in kind.lower() or "filename=" in kind.lower()


def _made(headers: Mapping[str, str], digest: str, size: int) -> File:
    lower = {name.lower(): value for name, value in headers.items()}
    media_type = lower.get("content-type", "").partition(";")[0].strip() or None
    name = lower.get("content-disposition", "").partition("filename=")[2].partition(";")[0].strip('" ') or None
    return made(digest, size, name, media_type)
