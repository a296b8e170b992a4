"""The answer of an operation as the result of a tool."""

from __future__ import annotations

import json
import re
from email.message import Message
from functools import reduce
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from adapters.models.withheld import Withheld
from adapters.tools.exchange import Answer
from handlers.ports.tools import Output, Result, ToolError

LONGEST = 60_000
"""Maximum length of the text of a result, in characters."""

LONGEST_ERROR = 2048
"""Maximum size of the body of an error in its reason, in bytes."""

LARGEST_JSON, LARGEST_PART = 2**18, 16 * 2**10
"""Maximum size of JSON that is made compact, and of JSON that is also a part of the result, in bytes."""

SPARE_LEVELS = 20
"""Levels of an event around a part, of those that are written."""

LONGEST_FIELD = 1000
"""Maximum length of a header that is read, in characters."""

_TEXT = re.compile(
    r"text/|application/(?:xml|yaml|x-yaml|javascript|graphql|x-www-form-urlencoded|x-ndjson|jsonl|csv|sql)$"
)

_CHARSET = re.compile(r"(?:utf-|iso-8859-|windows-125|us-ascii$|shift_jis$|euc-|gb|big5|koi8)")
"""Character sets that are read; some that Python knows take long."""

_CODES = {
    401: "unauthorized",
    403: "unauthorized",
    404: "not_found",
    408: "timeout",
    410: "not_found",
    429: "rate_limited",
    504: "timeout",
}


def result(answer: Answer, method: str, withheld: Withheld) -> Result:
    """Raises: ToolError for a status other than 2xx."""
    media_type, charset = _type(answer)
    if not 200 <= answer.status < 300:
        raise _error(answer, charset, withheld)
    if method == "HEAD":
        fields = [f"{name}: {value}" for name, value in answer.headers.items() if name.lower() != "set-cookie"]
        return Result(_cut(withheld.text("\n".join([f"Status {answer.status}.", *fields]))))
    if not answer.data:
        place = answer.headers.get("location", "")
        return Result(
            withheld.text(f"Status {answer.status}, without content.{f' Location: {place}' if place else ''}")
        )
    if _is_json(media_type) and (found := _compact(answer.data, withheld)):
        return found
    if media_type and not _is_json(media_type) and not _TEXT.match(media_type) and not media_type.endswith("+xml"):
        return Result(files=[_file(answer, media_type, withheld)])
    try:
        text = answer.data.decode(charset)
    except (UnicodeDecodeError, LookupError):
        if not media_type:
            return Result(files=[_file(answer, "application/octet-stream", withheld)])
        text = answer.data.decode("utf-8", "replace")
    return Result(_cut(withheld.text(text)))


def _type(answer: Answer) -> tuple[str, str]:
    """The media type, empty for none, and the character set."""
    message = Message()
    message["Content-Type"] = given = answer.headers.get("content-type", "")[:LONGEST_FIELD]
    media_type = message.get_content_type() if "/" in given else ""
    charset = str(message.get_content_charset("utf-8"))
    return media_type[:100], charset if _CHARSET.match(charset) else "utf-8"


def _is_json(media_type: str) -> bool:
    return media_type.endswith(("/json", "+json"))


def _compact(data: bytes, withheld: Withheld) -> Result | None:
    """JSON without blanks, as a part too if it is small; None for what is no JSON, or large."""
    if len(data) > LARGEST_JSON:
        return None
    try:
        value = json.loads(data)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return None
    text = withheld.text(text).encode(errors="replace").decode()
    return Result(_cut(text), parts=_part(text))


def _part(text: str) -> list[dict[str, Any]]:
    """The part `json`, where JSON of all servers has the value unchanged."""
    if len(text) > LARGEST_PART:
        return []
    try:
        value = orjson.loads(text)
        orjson.dumps(reduce(lambda inner, _: [inner], range(SPARE_LEVELS), value))
        return [{"type": "json", "value": value}] if value == json.loads(text) else []
    except (ValueError, TypeError):
        return []


def _cut(text: str) -> str:
    text = text.encode(errors="replace").decode()
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}\n[{len(text) - LONGEST:,} characters are left out: ask for less.]"


def _file(answer: Answer, media_type: str, withheld: Withheld) -> Output:
    message = Message()
    message["Content-Disposition"] = answer.headers.get("content-disposition", "")[:LONGEST_FIELD]
    named = message.get_filename() or unquote(urlsplit(answer.url).path).rpartition("/")[2]
    name = "".join(char for char in named.replace("\\", "/").rpartition("/")[2] if char.isprintable())
    return Output(withheld.text(name)[:200], media_type, withheld.bytes(answer.data))


def _error(answer: Answer, charset: str, withheld: Withheld) -> ToolError:
    status = answer.status
    code = _CODES.get(status, "server_error" if status >= 500 else "bad_request")
    try:
        body = answer.data.decode(charset, "replace")
    except LookupError:
        body = answer.data.decode("utf-8", "replace")
    # Before it is cut, since the cut may part a secret.
    said = " ".join(withheld.text(body).split()).encode(errors="replace")[:LONGEST_ERROR].decode(errors="ignore")
    return ToolError(code, f"The server answered with status {status}{f': {said}' if said else ''}")
