"""Logs: human-readable in a terminal, JSON elsewhere, with the bound context and without secrets.

Bind with `structlog.contextvars.bound_contextvars(tenant=…, correlation=…, command=…)`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, TextIO
from urllib.parse import quote, unquote, urlsplit

import structlog
from pydantic import SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

from ops.settings import Settings

REDACTED = "[redacted]"
SECRET_NAME = re.compile(r"(^|[_-])(key|api_?key|secret|password|verifier|authorization)$", re.IGNORECASE)
SECRET_TEXT = re.compile(
    r"(?<=://)([^:/@\s]*):[^@/\s]+@|\b(Bearer) [\w.~+/=-]+|\b(password)=(?:'[^']*+'|[^\s']++)", re.IGNORECASE
)

SHORTEST = 8
"""Minimum length of a secret that is looked for in texts, in characters: a shorter one may be a word."""

FILES = ("secret.key", "jetstream.key", "nats.key", "archive.key", "view.token", "postgres.password")
"""Secrets in the home."""


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Send the logs of structlog and of the standard library to `stream` (standard error)."""
    stream = stream or sys.stderr
    human = settings.log_format == "human" or (settings.log_format == "auto" and stream.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        Redaction(secrets_of(settings)),
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if human
        else structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def secrets_of(settings: Settings) -> set[str]:
    """The secrets of the settings and the home, and the passwords in addresses."""
    values = [getattr(settings, name) for name in Settings.model_fields]
    known = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
    addresses = [address for value in values if isinstance(value, str) and "@" in value for address in value.split(",")]
    for address in addresses:
        with suppress(ValueError):
            known |= {urlsplit(address).password or ""}
    for name in FILES:
        with suppress(OSError, UnicodeDecodeError):
            known |= set((settings.home / name).read_text("utf-8").split())
    parts = {part.strip() for secret in known for part in (secret, *secret.split(","), secret.partition("=")[2])}
    return {form for part in parts for form in (part, quote(part, safe=""), unquote(part)) if len(form) >= SHORTEST}


class Redaction:
    """A processor that redacts the values of names such as `api_key`, and secrets inside texts."""

    def __init__(self, known: Collection[str] = ()) -> None:
        """`known` are secrets to find wherever they are; passwords in addresses and tokens are found by their form."""
        self._known = sorted(known, key=len, reverse=True)  # a secret may be a part of another

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {name: self._value(name, value) for name, value in event.items()}

    def text(self, text: str) -> str:
        for secret in self._known:
            text = text.replace(secret, REDACTED)
        return SECRET_TEXT.sub(_without, text)

    def _value(self, name: object, value: Any) -> Any:
        if isinstance(name, str) and value and SECRET_NAME.search(name):
            return REDACTED
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {inner: self._value(inner, held) for inner, held in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(None, held) for held in value]
        if value is None or isinstance(value, bool | int | float) or name in INNER:
            return value
        return self.text(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


INNER = ("_record", "exc_info")
"""Fields of structlog's own."""


def _without(found: re.Match[str]) -> str:
    user, bearer, password = found.groups()
    if bearer:
        return f"{bearer} {REDACTED}"
    return f"{password}={REDACTED}" if password else f"{user}:{REDACTED}@"
