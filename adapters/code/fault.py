"""Faults of code, as the contained process reports them."""

from __future__ import annotations

from types import TracebackType

from handlers.ports.code import LONGEST_REASON, Kind


class Fault(Exception):
    """A call has no result; see `CodeError`."""

    def __init__(self, kind: Kind, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason[:LONGEST_REASON]
        self.line = line


def raised(error: BaseException, file: str, advice: str = "") -> Fault:
    """The fault of an exception in code of this file name."""
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == file else None
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return Fault("raised", f"{reason[:LONGEST_REASON]}{advice}", line or last_line(error.__traceback__, file))


def last_line(trace: TracebackType | None, file: str) -> int | None:
    """The innermost line of a file in a traceback."""
    found = None
    while trace:
        if trace.tb_frame.f_code.co_filename == file:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found
