"""HTTP-request: a request to a server."""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from domain.workflows import values
from domain.workflows.graph import Node, Problem
from domain.workflows.lenient_json import loads
from domain.workflows.node_type import (
    NODE_ERROR,
    Done,
    Failed,
    NodeType,
    Trouble,
    Values,
    mapping,
    selector,
    sequence,
    text,
)
from domain.workflows.rendering import Reference, Text, as_text, parse, render
from domain.workflows.requests import HttpAnswer, HttpRequest
from domain.workflows.values import File, Value

METHODS: Final = frozenset({"get", "post", "put", "patch", "delete", "head"})
KNOWN: Final = METHODS | {"options"}
SCHEMES: Final = ("basic", "bearer", "custom")
BODIES: Final = ("none", "form-data", "x-www-form-urlencoded", "raw-text", "json", "binary")
CONTENT_TYPES: Final = {
    "json": "application/json",
    "x-www-form-urlencoded": "application/x-www-form-urlencoded",
    "raw-text": "text/plain",
}
HTTP_ERROR: Final = "HttpRequestNodeError"
URL_ERROR: Final = "InvalidURLError"
KEY_ERROR: Final = "AuthorizationConfigError"
BODY_ERROR: Final = "RequestBodyError"
FILE_ERROR: Final = "FileFetchError"
SIZE_ERROR: Final = "ResponseSizeError"
STATUS_ERROR: Final = "HTTPResponseCodeError"

MOST_TEXT: Final = 2**20
MOST_BINARY: Final = 10 * 2**20
WRITTEN: Final = (
    *("json", "xml", "javascript", "ecmascript", "typescript", "x-www-form-urlencoded", "yaml", "toml", "graphql"),
    *("x-sh", "php"),
)
"""Parts of application types that are text."""
NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,1000}")
FILENAME: Final = re.compile(r"filename\*?=(?:UTF-8'')?([^;]{0,1000})", re.IGNORECASE)
CHARSET: Final = re.compile(r"charset\s?=\s?\"?([\w-]{1,40})", re.IGNORECASE)


def prepare(node: Node, view: Values) -> HttpRequest:
    method = text(node.data.get("method")).lower()
    if method not in METHODS:
        raise Failed(f"There is no method {method}.", HTTP_ERROR)
    url = render(text(node.data.get("url")), view.find)
    if not url.startswith(("http://", "https://")):
        raise Failed("A URL begins with http:// or https://.", URL_ERROR)
    headers, basic = _headers(node, view)
    body = mapping(node.data.get("body"))
    kind = text(body.get("type")) or "none"
    content = _body(kind, body.get("data"), view)
    if (given := CONTENT_TYPES.get(kind)) and not _has(headers, "content-type"):
        headers["Content-Type"] = given
    timeout = mapping(node.data.get("timeout"))
    return HttpRequest(
        method.upper(),
        url,
        headers,
        basic,
        tuple((render(n, view.find), render(v, view.find)) for n, v in _lines(text(node.data.get("params"))) if n),
        connect_s=timeout.get("connect") or 10,
        read_s=timeout.get("read") or 600,
        write_s=timeout.get("write") or 600,
        verify=node.data.get("ssl_verify") is not False,
        **content,
    )


def conclude(node: Node, request: HttpRequest, answer: HttpAnswer | Trouble) -> Done:
    if isinstance(answer, Trouble):
        raise Failed(answer.message, answer.type or HTTP_ERROR)
    binary = is_file(answer.headers, answer.body)
    most = MOST_BINARY if binary else MOST_TEXT
    if len(answer.body) > most:
        raise Failed(f"The answer exceeds {most:,} bytes.", SIZE_ERROR)
    if (node.retry.enabled or node.strategy) and not 200 <= answer.status < 300:
        raise Failed(f"The server answered with the status {answer.status}.", STATUS_ERROR)
    return Done(
        {
            "status_code": answer.status,
            "body": "" if binary else _text(answer),
            "headers": dict(answer.headers),
            "files": Value(values.array(values.FILE), [answer.file] if binary and answer.file else []),
        }
    )


def check(node: Node) -> Iterator[Problem]:
    if text(node.data.get("method")) not in KNOWN | {each.upper() for each in KNOWN}:
        yield Problem(node.id, "method", f"It is one of {', '.join(sorted(METHODS))}.")
    authorization = mapping(node.data.get("authorization"))
    if authorization.get("type") not in ("no-auth", "api-key"):
        yield Problem(node.id, "authorization.type", "It is no-auth or api-key.")
    key = mapping(authorization.get("config")).get("api_key")
    if authorization.get("type") == "api-key" and not isinstance(key, str):
        yield Problem(node.id, "authorization.config.api_key", "It is a text.")
    kind = mapping(authorization.get("config")).get("type")
    if authorization.get("type") == "api-key" and text(kind) not in SCHEMES:
        yield Problem(node.id, "authorization.config.type", f"It is one of {', '.join(SCHEMES)}.")
    body = node.data.get("body")
    for number, item in enumerate(map(mapping, sequence(mapping(body).get("data")))):
        if item.get("type") not in ("text", "file"):
            yield Problem(node.id, f"body.data[{number}].type", "It is text or file.")
    if body is not None and not isinstance(body, str) and text(mapping(body).get("type") or "none") not in BODIES:
        yield Problem(node.id, "body.type", f"It is one of {', '.join(BODIES)}.")


def is_file(headers: Mapping[str, str], body: bytes) -> bool:
    """Test for an answer whose body is a file, not a text."""
    spec = {name.lower(): value.lower() for name, value in headers.items()}
    disposition = spec.get("content-disposition", "")
    if "attachment" in disposition or FILENAME.search(disposition):
        return True
    kind = spec.get("content-type", "").partition(";")[0].strip()
    if kind.startswith(("image/", "audio/", "video/")):
        return True
    if not kind.startswith("application/") or any(part in kind for part in WRITTEN):
        return False
    return not _looks_written(body[:1024])


def _looks_written(sample: bytes) -> bool:
    try:
        written = sample.decode()
    except UnicodeDecodeError:
        return False
    return written.lstrip().startswith(("{", "[", "<", "function", "var ", "const ", "let "))


def described(headers: Mapping[str, str], size: int) -> File:
    """The file that the body of an answer is: its name tells its type, if it has one."""
    found = {name.lower(): value for name, value in headers.items()}
    named = FILENAME.search(found.get("content-disposition", ""))
    name = named[1].strip().strip('"') if named else ""
    given = found.get("content-type", "").partition(";")[0].strip() or None
    kind = mimetypes.MimeTypes().guess_type(name)[0] or given
    family = (kind or "").partition("/")[0]
    type = family if family in ("image", "audio", "video") else "document"
    extension = PurePosixPath(name).suffix or None
    return File(type, "tool_file", name or None, extension, kind, size)


def _text(answer: HttpAnswer) -> str:
    spec = next((value for name, value in answer.headers.items() if name.lower() == "content-type"), "")
    named = CHARSET.search(spec)
    try:
        return answer.body.decode(named[1] if named else "utf-8", "replace")
    except LookupError:
        return answer.body.decode("utf-8", "replace")


def _headers(node: Node, view: Values) -> tuple[dict[str, str], tuple[str, str] | None]:
    """The headers of a request, and the key of the basic scheme."""
    headers: dict[str, str] = {}
    for name, value in _lines(text(node.data.get("headers"))):
        _set(headers, *(" ".join(render(each, view.find).splitlines()) for each in (name, value)))
    authorization = mapping(node.data.get("authorization"))
    basic = None
    if authorization.get("type") == "api-key":
        config = mapping(authorization.get("config"))
        if not (key := render(text(config.get("api_key")), view.find)):
            raise Failed("The API key is empty.", KEY_ERROR)
        header = text(config.get("header")) or "Authorization"
        if config.get("type") == "basic":
            basic = (header, key)
        else:
            _set(headers, header, f"Bearer {key}" if config.get("type") == "bearer" else key)
    for name, value in [*headers.items(), *([basic] if basic else [])]:
        if not f"{name}{value}".isascii() and not (basic and ":" in value):
            raise Failed("Headers are in ASCII.", NODE_ERROR)
        if not NAME.fullmatch(name) or value != value.strip():
            raise Failed(f"It is no header: {name}", HTTP_ERROR)
    return headers, basic


def _set(headers: dict[str, str], name: str, value: str) -> None:
    for other in [each for each in headers if each.lower() == name.lower()]:
        del headers[other]
    headers[name] = value


def _has(headers: Mapping[str, str], name: str) -> bool:
    return any(each.lower() == name for each in headers)


def _lines(spec: str) -> list[tuple[str, str]]:
    """Names and values, a line each."""
    split = (line.partition(":") for line in spec.splitlines() if line.strip())
    return [(name.strip(), value.strip()) for name, _, value in split]


def _body(kind: str, spec: Any, view: Values) -> dict[str, Any]:
    if kind == "none":
        return {}
    items = _items(kind, spec)
    if kind in ("raw-text", "json"):
        if len(items) != 1:
            raise Failed("Such a body has one item.", BODY_ERROR)
        template = text(items[0].get("value"))
        return {"text": render(template, view.find) if kind == "raw-text" else _json(template, view)}
    if kind == "binary":
        if len(items) != 1:
            raise Failed("Such a body has one item.", BODY_ERROR)
        file = view.find(selector(items[0].get("file")))
        if file is None or file.type != values.FILE:
            raise Failed("The body is no file.", FILE_ERROR)
        return {"file": file.data}
    encoded = kind == "x-www-form-urlencoded"
    texts = [item for item in items if encoded or item.get("type") != "file"]
    fields = {render(text(e.get("key")), view.find): render(text(e.get("value")), view.find) for e in texts}
    if encoded:
        return {"fields": tuple(fields.items()), "form": "urlencoded"}
    files = [each for item in items if item.get("type") == "file" for each in _files(item, view)]
    return {"fields": tuple(fields.items()), "files": tuple(files), "form": "multipart"}


def _items(kind: str, spec: Any) -> list[Mapping[str, Any]]:
    """The items of a body; in old files it is one text."""
    if not isinstance(spec, str):
        return [mapping(each) for each in sequence(spec)]
    if kind in ("raw-text", "json", "binary"):
        return [{"value": spec}] if spec else []
    return [{"key": name, "type": "text", "value": value} for name, value in _lines(spec)]


def _files(item: Mapping[str, Any], view: Values) -> list[tuple[str, File]]:
    value = view.find(selector(item.get("file")))
    if value is None or value.type not in (values.FILE, values.array(values.FILE)):
        return []
    found = value.data if isinstance(value.data, list) else [value.data]
    return [(render(text(item.get("key")), view.find), file) for file in found]


def _json(template: str, view: Values) -> str:
    """The body as JSON: texts are escaped where they stand inside of quotes."""
    written, quoted = "", False
    for part in parse(template):
        if isinstance(part, Text):
            quoted = _quoted(part.text, inside=quoted)
            written += part.text
        else:
            spec = _text_of(part, view)
            written += json.dumps(spec, ensure_ascii=False)[1:-1] if quoted else spec
    try:
        return json.dumps(loads(written), ensure_ascii=False, separators=(",", ":"))
    except ValueError as error:
        raise Failed(f"The body is no JSON: {error}", BODY_ERROR) from error


def _text_of(part: Reference, view: Values) -> str:
    value = view.find(part.selector)
    return part.name if value is None else as_text(value)


def _quoted(spec: str, *, inside: bool) -> bool:
    """Test for a text that ends inside of quotes."""
    at = 0
    while at < len(spec):
        if spec[at] == "\\" and inside:
            at += 1
        elif spec[at] == '"':
            inside = not inside
        at += 1
    return inside


TYPE = NodeType(
    "http-request",
    {
        "method": "get, post, put, patch, delete or head.",
        "url": "A template.",
        "authorization": "`type` no-auth or api-key; `config`: `type` basic, bearer or custom, `api_key`, `header`.",
        "headers": "A line `name:value` each, templates.",
        "params": "A line `name:value` each, templates.",
        "body": "`type` none, form-data, x-www-form-urlencoded, raw-text, json or binary; `data`.",
        "timeout": "`connect`, `read`, `write` in seconds.",
        "ssl_verify": "Check of certificates; true by default.",
    },
    {"status_code": "Status.", "body": "Body as a text.", "headers": "Headers.", "files": "The body as a file."},
    prepare=prepare,
    conclude=conclude,
    check=check,
    retries=True,
)
