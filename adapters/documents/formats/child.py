"""The child process that reads files: `python -m adapters.documents.formats.child MEMORY SECONDS`; MEMORY 0: no limit.

A request on standard input is the size of a head (4 bytes), the size of the file (8 bytes), the head and the file. The
head is JSON: `{"kind", "plugin", "media_type", "name"}`. The reply on standard output is a size and JSON: `{"pieces",
"pages", "title"}`, or `{"code", "message"}`.
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

from adapters.documents.formats.kinds import Kind, kind_by_bytes
from adapters.documents.formats.parsed import Parsed, Piece, Refused, clean

REQUEST = struct.Struct(">IQ")
REPLY = struct.Struct(">Q")

LONGEST = 100_000_000
"""Maximum length of a file's text, in characters."""

MOST_SAID = 2**20
"""Maximum output of a reader on standard error, in bytes."""

_READERS: dict[Kind, str] = {"text": "plain"}
"""Modules of kinds with another name."""


def answer(data: bytes, *, kind: Kind | None, plugin: str | None, media_type: str, name: str) -> dict[str, Any]:
    try:
        parsed = _by_plugin(plugin, data, media_type, name) if plugin else _built_in(kind, data)
        if not any(piece.text.strip() for piece in parsed.pieces):
            raise Refused("no_text", "The file holds no text.")
        if sum(len(piece.text) for piece in parsed.pieces) > LONGEST:
            raise Refused("too_large", f"The file has more than {LONGEST:,} characters of text: split it.")
        return parsed._asdict()
    except Refused as refused:
        return {"code": refused.code, "message": str(refused)}
    except MemoryError:
        raise
    except RecursionError:
        return {"code": "broken_file", "message": "The file is nested deeper than any honest one."}
    except BaseException as error:  # a panic in Rust is no Exception
        return {"code": "broken_file", "message": f"The file cannot be read: {type(error).__name__}: {error}"[:1000]}


def _built_in(said: Kind | None, data: bytes) -> Parsed:
    kind = kind_by_bytes(said, data)
    parsed: Parsed = import_module(f"adapters.documents.formats.{_READERS.get(kind, kind)}").read(data)
    return parsed


def _by_plugin(plugin: str, data: bytes, media_type: str, name: str) -> Parsed:
    from adapters.documents.formats.plugins import installed

    pieces, pages, title = installed(plugin)[0].read(data, media_type, name)
    return Parsed([Piece(clean(text), page, heading) for text, page, heading in pieces], pages, title)


def allow(seconds: int) -> None:
    """Limit this process to `seconds` more of processor time, so that it ends even without its parent."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds + 1)


def limit(what: int, most: int) -> None:
    with suppress(ValueError, OSError):  # the system lacks this limit, or has a lower one
        resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def main() -> None:
    memory, seconds = int(sys.argv[1]), int(sys.argv[2])
    if memory:
        limit(resource.RLIMIT_AS, memory)
    limit(resource.RLIMIT_CORE, 0)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    while sizes := requests.read(REQUEST.size):
        head_size, size = REQUEST.unpack(sizes)
        head = json.loads(requests.read(head_size))
        allow(seconds * max(os.cpu_count() or 1, 1) if head["plugin"] else seconds)
        if not head["plugin"]:
            limit(resource.RLIMIT_FSIZE, MOST_SAID)
        try:
            reply = json.dumps(answer(requests.read(size), **head), ensure_ascii=False).encode()
        except MemoryError:
            reply = b'{"code": "too_large", "message": "The file takes more memory to read than it may."}'
        replies.write(REPLY.pack(len(reply)) + reply)
        replies.flush()
        if b'"too_large"' in reply[:24]:
            return


if __name__ == "__main__":
    main()
