"""Logs: human-readable in a terminal, JSON elsewhere, with the bound context and without secrets.

Bind with `structlog.contextvars.bound_contextvars(tenant=…, correlation=…, command=…)`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ops.settings import Settings

REDACTED = "[redacted]"
SECRET_NAME = re.compile(r"(^|[_-])(key|api_?key|secret|password|authorization)$", re.IGNORECASE)
SECRET_TEXT = re.compile(r"(?<=://)([^:/@\s]*):[^@/\s]+@|\b(Bearer) [\w.~+/=-]+", re.IGNORECASE)


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
        redact,
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


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Redact the values of names such as `api_key`, and passwords and tokens inside texts."""
    return {name: _redacted(name, value) for name, value in event.items()}


def _redacted(name: object, value: Any) -> Any:
    if isinstance(name, str) and value and SECRET_NAME.search(name):
        return REDACTED
    if isinstance(value, str):
        return SECRET_TEXT.sub(lambda at: f"{at[2]} {REDACTED}" if at[2] else f"{at[1]}:{REDACTED}@", value)
    if isinstance(value, Mapping):
        return {inner: _redacted(inner, held) for inner, held in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(None, held) for held in value]
    return value
