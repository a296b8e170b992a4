"""The contained process that reads files, by the protocol of `adapters.sandbox.serve`.

The head of a request is `{"kind", "plugin", "media_type", "name"}`, its data are the file; `plugin` is the value of an
entry point. The reply is JSON: `{"pieces", "pages", "title", "warnings"}`, or `{"code", "message"}`. Arguments are
folders with modules of plug-ins.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

from adapters.documents.formats.kinds import Kind, kind_by_bytes
from adapters.documents.formats.parsed import Parsed, Piece, Refused, clean
from adapters.sandbox.run import Unlisted
from adapters.sandbox.serve import serve

LONGEST = 100_000_000
"""Maximum length of a file's text, in characters."""

MOST_OF_WARNING = 300
"""Maximum length of a warning, in characters."""

_READERS: dict[Kind, str] = {"text": "plain"}
"""Modules of kinds with another name."""


def answer(data: bytes, *, kind: Kind | None, plugin: str | None, media_type: str, name: str) -> dict[str, Any]:
    try:
        parsed = _by_plugin(plugin, data, media_type, name) if plugin else _built_in(kind, data)
        if not any(piece.text.strip() for piece in parsed.pieces):
            if lost := [warning for warning in parsed.warnings if warning.endswith("cannot be read")]:
                raise Refused("broken_file", f"The file holds no text that can be read: {', '.join(lost)[:300]}.")
            raise Refused("no_text", "The file holds no text.")
        if sum(len(piece.text) for piece in parsed.pieces) > LONGEST:
            message = (
                f"The text, with the names of columns in every row of a table, has more than {LONGEST:,} characters"
            )
            raise Refused("too_large", f"{message}: split the file, or shorten the names.")
        return {**parsed._asdict(), "warnings": [clean(warning)[:MOST_OF_WARNING] for warning in parsed.warnings]}
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
    from adapters.documents.formats.plugins import load

    pieces, pages, title, warnings = load(plugin).read(data, media_type, name)
    return Parsed([Piece(clean(text), page, heading) for text, page, heading in pieces], pages, title, warnings)


def reply(head: dict[str, Any], data: bytes) -> bytes:
    return json.dumps(answer(data, **head), ensure_ascii=False).encode()


def main() -> None:
    sys.meta_path.append(Unlisted(sys.argv[1:]))
    serve(reply)


if __name__ == "__main__":
    main()
