"""Faults: the reason why a request to a model's server failed, without the key that was sent with it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ssl import SSLCertVerificationError
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import httpx2

from adapters.egress.client import Refused, TooLarge
from adapters.models.chunk import ERRORS
from adapters.models.wordings import BUSY, FILTER_CODES, KINDS, NO_CREDIT, TOO_LONG, TOO_LONG_CODES, UNSUPPORTED
from handlers.ports.models import ModelError

LONGEST = 300
"""Maximum number of characters quoted from a server's error."""

MOST = 10_000
"""Maximum number of characters that are read of a server's error."""

WITHHELD = "its answer is not shown, since it is not a public server; look into its own log."

SHORTEST_SECRET = 8
"""Minimum number of consecutive characters of a key that are hidden."""

_RETRY = re.compile(r'"retryDelay": "([0-9.]{1,12})s"')

_TITLE = re.compile(r"<(title|h1)\b[^<>]*>([^<]{1,300})", re.IGNORECASE)


class ServerError(Exception):
    """An error that a server reports, with its body: by the status of a response, or within a stream."""

    def __init__(self, body: object, response: httpx2.Response | None = None) -> None:
        super().__init__("an error" if response is None else f"status {response.status_code}")
        self.body = body
        self.response = response

    @property
    def codes(self) -> set[str]:
        """Its code and its type."""
        inner = self.body.get("error") if isinstance(self.body, dict) else None
        fields = inner if isinstance(inner, dict) else self.body if isinstance(self.body, dict) else {}
        return {str(fields[name]) for name in ("code", "type") if fields.get(name)}


class Fault(NamedTuple):
    """`code` and `reason` as in ModelError; a `passing` fault is worth a retry, after `pause` seconds if given.

    `said` is what the server said, which must be neither shown nor logged. `outage`: the server did not answer, or
    answered that it cannot.
    """

    code: str
    reason: str
    passing: bool = False
    pause: float | None = None
    said: str = ""
    outage: bool = False

    @property
    def error(self) -> ModelError:
        return ModelError(self.code, self.reason)


def fault_of(error: Exception, server: str, key: str, *, answering: bool, begun: bool, internal: bool) -> Fault:
    """The fault of an error; `answering`: the server had accepted the request, `begun`: it had begun to answer.

    `internal`: the server is not public, and its words are not part of the reason.
    """
    said = _cut(redact(_said(error)[:MOST], key))
    shown = said if _is_own(error) or not internal else WITHHELD
    return _classified(error, server, said, shown, answering=answering, begun=begun)._replace(said=said)


def _classified(error: Exception, server: str, said: str, shown: str, *, answering: bool, begun: bool) -> Fault:
    if isinstance(error, ServerError) and error.response is not None:
        if error.response.status_code < 400:
            return _redirected(error.response, server, internal=shown == WITHHELD)
        return _of_status(error.response.status_code, said, shown, server, error)
    if any(isinstance(each, TooLarge) for each in _chain(error)):
        return Fault("too_large", f"{server} sent too large an answer: {shown}")
    if begun:
        return Fault("broken_off", f"{server} broke off its answer: {shown}")
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL):
        if answering:
            return Fault("broken_off", f"{server} broke off before its answer: {shown}", passing=True, outage=True)
        passing = not any(map(_lasts, _chain(error)))
        return Fault("unreachable", f"{server} cannot be reached: {shown}", passing, outage=passing)
    if isinstance(error, ServerError):
        status = 400 if TOO_LONG.search(said) else _status(error.body)
        return _of_status(status, said, shown, server, error)
    return Fault("server_error", f"{server} sent something that is not part of an answer: {shown}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from; a pool of connections hides its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _lasts(error: BaseException) -> bool:
    """True if the same request would fail again."""
    return isinstance(
        error, Refused | SSLCertVerificationError | httpx2.UnsupportedProtocol | httpx2.LocalProtocolError
    )


def _is_own(error: Exception) -> bool:
    """True if an error says why there is no connection, in our words or those of this machine."""
    return any(isinstance(each, TooLarge | httpx2.ConnectError | httpx2.ConnectTimeout) for each in _chain(error))


def _status(body: object) -> int:
    """The status that an error within a stream stands for."""
    inner = body.get("error") if isinstance(body, dict) else None
    for each in (inner, body):
        fields = each if isinstance(each, dict) else {}
        for value in map(str, (fields.get(name) for name in ("code", "status", "status_code", "type", "error_type"))):
            if re.fullmatch("[45][0-9][0-9]", value):
                return int(value)
            if found := KINDS.get(value.lower()):
                return found
    return 500


def _redirected(answer: httpx2.Response, server: str, *, internal: bool) -> Fault:
    """A redirect is not followed: the key would go along. An internal server may not name another host."""
    start = f"{server} redirects to another address ({answer.status_code}), which is not followed"
    url = answer.request.url
    try:
        to = url.join(answer.headers.get("location", ""))
    except (httpx2.InvalidURL, ValueError):
        to = url
    if to == url or to.scheme not in ("http", "https") or (internal and to.host != url.host):
        return Fault("bad_request", f"{start}.")
    ending = url.path[len(urlsplit(server).path.rstrip("/")) :]
    port = f":{to.port}" if to.port else ""
    host = f"[{to.host}]" if ":" in to.host else to.host
    there = f"{to.scheme}://{host}{port}{to.path}"[:LONGEST]
    return Fault("bad_request", f"{start}: {there}. Register {there.removesuffix(ending)} if that is the server.")


def _of_status(status: int, said: str, shown: str, server: str, error: ServerError) -> Fault:
    codes, pause = error.codes, _pause(error)
    if status == 402 or (status < 500 and ("insufficient_quota" in codes or NO_CREDIT.search(said))):
        return Fault("payment_required", f"{server} wants the account to be paid for ({status}): {shown}")
    if status in (401, 403):
        return Fault("unauthorized", f"{server} refused the key ({status}): {shown}")
    if UNSUPPORTED.search(said):  # with any status: llama.cpp answers 500, OpenRouter 404
        return Fault("unsupported", f"{server} cannot do what the request needs ({status}): {shown}")
    if status == 404:
        return Fault("not_found", f"{server} does not have this model or address (404): {shown}")
    if status == 429:
        return Fault("rate_limited", f"{server} takes no more requests for now (429): {shown}", True, pause)
    if status <= 500 and (status == 413 or codes & TOO_LONG_CODES or TOO_LONG.search(said)):
        return Fault("context_length_exceeded", f"The prompt is too long for {server} ({status}): {shown}")
    if status < 500 and codes & FILTER_CODES:
        return Fault("content_filter", f"The filter of {server} did not let the prompt pass ({status}): {shown}")
    if status == 529 or (status == 503 and BUSY.search(said)):
        return Fault("overloaded", f"{server} is overloaded ({status}): {shown}", True, pause, outage=True)
    if status >= 500 or status in (408, 409, 425):
        return Fault("server_error", f"{server} failed ({status}): {shown}", True, pause, outage=status >= 500)
    return Fault("bad_request", f"{server} refused the request ({status}): {shown}")


def _pause(error: ServerError) -> float | None:
    """The seconds of a Retry-After header (a number or a date), or of Google's RetryInfo; None for neither."""
    after = error.response.headers.get("retry-after", "") if error.response is not None else ""
    try:
        if not after and (found := _RETRY.search(json.dumps(error.body)[:MOST])):
            return float(found[1])
        return max(0.0, float(after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _said(error: Exception) -> str:
    if isinstance(error, httpx2.ConnectTimeout):
        return "no connection was accepted in time."
    if isinstance(error, ServerError):
        body: object = error.body
        while isinstance(body, dict | list):
            inner = body[0] if isinstance(body, list) and len(body) == 1 else None
            if isinstance(body, dict):
                inner = next((body[name] for name in ("error", *ERRORS) if body.get(name)), None)
            body = json.dumps(body) if inner is None else inner
        return _plain(str(body)) if body else f"an error without words ({error})."
    return str(error) or type(error).__name__


def _plain(text: str) -> str:
    """The title of a web page; any other text as it is."""
    if "<" not in text[:100]:
        return text
    text = text[:MOST]
    if found := _TITLE.search(text):
        return " ".join(html.unescape(found[2]).split())
    return " ".join(html.unescape(re.sub(r"<[^<>]*>", " ", text)).split()) or "a page without text."


def redact(text: str, key: str) -> str:
    """The text with stars in place of the key and of every part of it with eight characters or more."""
    for secret in {key, quote(key, safe=""), json.dumps(key)[1:-1]} - {""}:
        size = min(SHORTEST_SECRET, len(secret))
        parts = {secret[start : start + size] for start in range(len(secret) - size + 1)}
        hidden = {
            place
            for start in range(len(text) - size + 1)
            if text[start : start + size] in parts
            for place in range(start, start + size)
        }
        if hidden:
            text = re.sub("\0+", "***", "".join("\0" if place in hidden else sign for place, sign in enumerate(text)))
    return text


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
