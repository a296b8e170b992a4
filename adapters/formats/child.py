"""The child process that reads files: `python -m adapters.formats.child MEMORY SECONDS`.

A request on standard input is the kind (16 bytes, padded with spaces), the size (8 bytes) and the file. The reply on
standard output is a size and JSON: `{"pieces", "pages", "title"}`, or `{"code", "message"}`.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

from adapters.formats.kinds import Kind, check
from adapters.formats.parsed import Parsed, Refused

REQUEST = struct.Struct(">16sQ")
REPLY = struct.Struct(">Q")

_READERS: dict[Kind, str] = {"text": "plain", "markdown": "markdown", "html": "html", "pdf": "pdf"}


def answer(kind: Kind, data: bytes) -> dict[str, Any]:
    try:
        check(kind, data)
        parsed: Parsed = import_module(f"adapters.formats.{_READERS[kind]}").read(data)
        if not any(piece.text.strip() for piece in parsed.pieces):
            raise Refused("no_text", "The file holds no text.")
        return parsed._asdict()
    except Refused as refused:
        return {"code": refused.code, "message": str(refused)}
    except MemoryError:
        raise
    except Exception as error:
        return {"code": "broken_file", "message": f"The file cannot be read: {type(error).__name__}: {error}"}


def allow(seconds: int) -> None:
    """Let this process have so much more processor time, so that one whose parent has died does not run on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds + 1)


def limit(what: int, most: int) -> None:
    with suppress(ValueError, OSError):  # the system has no such limit, or a lower one
        resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def main() -> None:
    memory, seconds = int(sys.argv[1]), int(sys.argv[2])
    limit(resource.RLIMIT_AS, memory)
    limit(resource.RLIMIT_CORE, 0)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    while head := requests.read(REQUEST.size):
        kind, size = REQUEST.unpack(head)
        allow(seconds)
        try:
            reply = json.dumps(answer(kind.decode().strip(), requests.read(size)), ensure_ascii=False).encode()
        except MemoryError:
            reply = b'{"code": "too_large", "message": "The file takes more memory to read than it may."}'
        replies.write(REPLY.pack(len(reply)) + reply)
        replies.flush()
        if b'"too_large"' in reply[:24]:
            return


if __name__ == "__main__":
    main()
