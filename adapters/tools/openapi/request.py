"""The request of an operation: its arguments by the styles of OpenAPI, in path, query, headers, cookies and body."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from adapters.tools.exchange import Request, is_field
from adapters.tools.openapi.how import Body, Encoding, How, Parameter
from handlers.ports.tools import ToolError

FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"

ACCEPT = "application/json, text/*;q=0.9, */*;q=0.8"

RESERVED = ":/?@!$'()*,;"
"""Reserved characters that a query may have, but those that part it."""

_SEPARATORS = {"spaceDelimited": "%20", "pipeDelimited": "|"}


def made(how: How, arguments: Mapping[str, Any]) -> Request:
    """Raises: ToolError `invalid_arguments`."""
    headers = {"Accept": ACCEPT}
    queries: list[str] = []
    cookies: list[str] = []
    path = how["path"]
    for parameter in how["parameters"]:
        value = arguments.get(parameter["argument"])
        match parameter["place"]:
            case "path":
                path = path.replace(f"{{{parameter['name']}}}", _segment(parameter, value))
            case "query" if value is not None:
                queries += _pairs(parameter, value)
            case "cookie" if value is not None:
                cookies += _pairs(parameter, value)
            case "header" if value is not None:
                headers[parameter["name"]] = _header(parameter, value)
    if cookies:
        headers["Cookie"] = "; ".join(cookies)
    content = None
    if (body := how["body"]) and body["argument"] in arguments:
        headers["Content-Type"], content = _body(body, arguments[body["argument"]])
    return Request(how["method"], _url(how["server"], path, queries), headers, content)


def _url(server: str, path: str, queries: list[str]) -> str:
    """Raises: ToolError for a path that leads elsewhere."""
    base, _, given = server.partition("?")
    if any(part.lower().replace("%2e", ".") in (".", "..") for part in path.split("/")):
        raise ToolError("invalid_arguments", "A part of the path must not be '.' or '..'.")
    place, _, own = path.partition("?")
    query = "&".join(filter(None, [given, own.partition("#")[0], *queries]))
    return f"{base}{place.partition('#')[0]}{'?' if query else ''}{query}"


def _text(value: object) -> str:
    """A value as parameters and forms have it."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _quoted(value: object, reserved: bool = False) -> str:
    return quote(_text(value), safe=RESERVED if reserved else "", errors="replace")


def _segment(parameter: Parameter, value: object) -> str:
    """Raises: ToolError."""
    name = parameter["name"]
    if value in (None, "", [], {}):
        raise ToolError("invalid_arguments", f"{parameter['argument']} must not be empty: it is part of the path.")
    if parameter["json"]:
        return _quoted(value)
    explode = parameter["explode"]
    match parameter["style"]:
        case "label":
            return "." + _joined(value, "." if explode else ",", explode)
        case "matrix":
            if explode and isinstance(value, dict):
                return "".join(f";{_quoted(key)}={_quoted(each)}" for key, each in value.items())
            if explode and isinstance(value, list):
                return "".join(f";{_quoted(name)}={_quoted(each)}" for each in value)
            return f";{_quoted(name)}={_joined(value, ',', explode)}"
    return _joined(value, ",", explode)


def _joined(value: object, comma: str, explode: bool, reserved: bool = False) -> str:
    if isinstance(value, list):
        return comma.join(_quoted(each, reserved) for each in value)
    if isinstance(value, dict):
        equals = "=" if explode else comma
        return comma.join(f"{_quoted(key)}{equals}{_quoted(each, reserved)}" for key, each in value.items())
    return _quoted(value, reserved)


def _pairs(parameter: Parameter, value: object) -> Iterator[str]:
    """The `name=value` of a parameter in a query, a cookie or a form."""
    name, reserved = _quoted(parameter["name"]), parameter["reserved"]
    if parameter["json"] or not isinstance(value, list | dict):
        yield f"{name}={_quoted(value, reserved)}"
    elif parameter["style"] == "deepObject":
        yield from _deep(name, value, reserved)
    elif not parameter["explode"]:
        comma = _SEPARATORS.get(parameter["style"], ",")
        yield f"{name}={_joined(value, comma, explode=False, reserved=reserved)}"
    elif isinstance(value, list):
        yield from (f"{name}={_quoted(each, reserved)}" for each in value)
    else:
        yield from (f"{_quoted(key)}={_quoted(each, reserved)}" for key, each in value.items())


def _deep(name: str, value: dict[str, Any] | list[Any], reserved: bool) -> Iterator[str]:
    """The pairs of nested values; items of lists by their number, which OpenAPI leaves open."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        inner = f"{name}%5B{_quoted(key)}%5D"
        if isinstance(each, dict | list):
            yield from _deep(inner, each, reserved)
        elif each is not None:
            yield f"{inner}={_quoted(each, reserved)}"


def _header(parameter: Parameter, value: object) -> str:
    """Raises: ToolError."""
    if isinstance(value, list) and not parameter["json"]:
        text = ",".join(map(_text, value))
    elif isinstance(value, dict) and not parameter["json"]:
        equals = "=" if parameter["explode"] else ","
        text = ",".join(f"{key}{equals}{_text(each)}" for key, each in value.items())
    else:
        text = _text(value)
    if not is_field(text):
        raise ToolError("invalid_arguments", f"{parameter['argument']} must be one line of ASCII: it is a header.")
    return text


def _body(body: Body, value: Any) -> tuple[str, bytes]:
    """The content type and the bytes of a body."""
    media_type = body["media_type"]
    plain = media_type.partition(";")[0].strip().lower()
    if plain == FORM and isinstance(value, dict):
        return FORM, "&".join(_form(body["encoding"], value)).encode()
    if plain.startswith("multipart/") and isinstance(value, dict):
        return _multipart(body, value)
    if plain.endswith(("/json", "+json")):
        return media_type, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    return media_type, _text(value).encode(errors="replace")


def _form(encodings: Mapping[str, Encoding], value: dict[str, Any]) -> Iterator[str]:
    for name, each in value.items():
        encoding = encodings.get(name, {})
        style = encoding.get("style", "form")
        # Objects are JSON unless the document says otherwise: `form` would lose their levels.
        nested = isinstance(each, dict) or (isinstance(each, list) and any(isinstance(i, dict | list) for i in each))
        as_json = "json" in encoding.get("contentType", "") or (nested and "style" not in encoding)
        parameter = Parameter(
            name=name,
            argument=name,
            place="query",
            style=style,
            explode=encoding.get("explode", style in ("form", "deepObject")),
            reserved=False,
            json=as_json,
        )
        if each is not None:
            yield from _pairs(parameter, each)


def _multipart(body: Body, value: dict[str, Any]) -> tuple[str, bytes]:
    """Lists are a part for each item; objects are JSON."""
    boundary = uuid4().hex
    lines: list[bytes] = []
    for name, each in value.items():
        asked = body["encoding"].get(name, {}).get("contentType", "")
        for item in each if isinstance(each, list) else [each]:
            if item is None:
                continue
            is_file = name in body["files"]
            usual = "application/json" if isinstance(item, dict | list) else "text/plain" if is_file else ""
            media_type = asked if asked and "*" not in asked and is_field(asked) else usual
            file = '; filename="file.txt"' if is_file else ""
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_in_quotes(name)}"{file}\r\n'
            head += f"Content-Type: {media_type}\r\n" if media_type else ""
            lines += [head.encode(), b"\r\n", _text(item).encode(errors="replace"), b"\r\n"]
    return f"{MULTIPART}; boundary={boundary}", b"".join([*lines, f"--{boundary}--\r\n".encode()])


def _in_quotes(name: str) -> str:
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
