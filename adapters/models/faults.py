"""Faults: the reason why a request to a model's server failed, without the key that was sent with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ssl import SSLCertVerificationError
from typing import NamedTuple
from urllib.parse import quote

import httpx2
from openai import APIConnectionError, APIError, APIStatusError

from adapters.egress.client import Refused, TooLarge
from handlers.ports.models import ModelError

LONGEST = 300
"""Maximum number of characters quoted from a server's error."""

MOST = 10_000
"""Maximum number of characters that are read of a server's error."""

WITHHELD = "its answer is not shown, since it is not a public server; look into its own log."

SHORTEST_SECRET = 8
"""Minimum number of consecutive characters of a key that are hidden."""

_TOO_LONG = re.compile(
    r"context.?(?:length|window|size)|maximum (?:context|prompt|sequence)|too many (?:input )?tokens"
    r"|(?:prompt|input) is too long",
    re.IGNORECASE,
)


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
    if isinstance(error, APIStatusError):
        return _of_status(error.status_code, said, shown, server, error.response.headers, error.code)
    if any(isinstance(each, TooLarge) for each in _chain(error)):
        return Fault("too_large", f"{server} sent too large an answer: {shown}")
    if begun:
        return Fault("broken_off", f"{server} broke off its answer: {shown}")
    if isinstance(error, APIConnectionError | httpx2.HTTPError):
        if answering:
            return Fault("broken_off", f"{server} broke off before its answer: {shown}", passing=True, outage=True)
        passing = not any(map(_lasts, _chain(error)))
        return Fault("unreachable", f"{server} cannot be reached: {shown}", passing, outage=passing)
    if isinstance(error, APIError):
        status = int(error.code) if error.code and re.fullmatch("[45][0-9][0-9]", error.code) else 500
        return _of_status(400 if _TOO_LONG.search(said) else status, said, shown, server, {}, error.code)
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


def _of_status(status: int, said: str, shown: str, server: str, headers: Mapping[str, str], code: str | None) -> Fault:
    if status < 400:
        return Fault("bad_request", f"{server} redirects to another address ({status}), which is not followed.")
    if status in (401, 403):
        return Fault("unauthorized", f"{server} refused the key ({status}): {shown}")
    if status == 404:
        return Fault("not_found", f"{server} does not have this model or address (404): {shown}")
    if status == 429:
        passing = code != "insufficient_quota"
        reason = f"{server} takes no more requests for now (429): {shown}"
        return Fault("rate_limited", reason, passing, _pause(headers))
    if status >= 500 or status in (408, 409, 425):
        reason = f"{server} failed ({status}): {shown}"
        return Fault("server_error", reason, True, _pause(headers), outage=status >= 500)
    if status == 413 or code == "context_length_exceeded" or _TOO_LONG.search(said):
        return Fault("context_length_exceeded", f"The prompt is too long for {server} ({status}): {shown}")
    return Fault("bad_request", f"{server} refused the request ({status}): {shown}")


def _pause(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After header, which holds a number or a date; None for neither."""
    after = headers.get("retry-after", "")
    try:
        return max(0.0, float(after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _said(error: Exception) -> str:
    if isinstance(error, APIConnectionError):
        cause = error.__cause__
        if isinstance(cause, httpx2.ConnectTimeout):
            return "no connection was accepted in time."
        return str(cause) or type(cause).__name__
    if isinstance(error, APIError):
        body: object = error.body
        while isinstance(body, dict):
            body = next((body[name] for name in ("error", "message", "detail") if body.get(name)), json.dumps(body))
        return str(body) if isinstance(body, str) and body else json.dumps(body) if body else error.message
    return str(error)


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
