"""The reply of the contained process that runs code; see `adapters.code.child`."""

from __future__ import annotations

import struct
from typing import NamedTuple, Self

ENDING = struct.Struct(">iI?I")
"""Status of the forked process, negative for a signal; its time of a processor in ms; True where it wrote too much; and
the bytes of what it printed."""

READ, VALUE, FAULT = b"R", b"V", b"F"
"""The request was read whole; a value follows; a fault follows."""


class Ending(NamedTuple):
    status: int
    cpu_ms: int
    too_much: bool
    printed: str
    result: bytes

    @classmethod
    def of(cls, reply: bytes) -> Self:
        status, cpu_ms, too_much, printed = ENDING.unpack_from(reply)
        said = reply[ENDING.size : ENDING.size + printed].decode(errors="replace")
        return cls(status, cpu_ms, too_much, said, reply[ENDING.size + printed :])
