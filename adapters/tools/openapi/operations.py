"""The operations of an API as tools. Runs in a contained process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from adapters.tools.exchange import CONNECTION
from adapters.tools.openapi.document import Unreadable, resolved
from adapters.tools.openapi.how import Body, Encoding, How, Parameter
from adapters.tools.openapi.schema import Bounds, Schemas, fitted
from adapters.tools.openapi.swagger import FORM, METHODS, MULTIPART, modern
from domain.tools.tool import Definition

LONGEST_NAME, LONGEST_DESCRIPTION = 64, 4000
"""Maximum length of the name and the description of a tool, in characters."""

MOST_TOOLS, LARGEST = 1000, 3 * 2**20
"""Maximum number of tools, and length of all of them as JSON."""

MOST_WARNINGS = 100

KEY_HEADER = "Idempotency-Key"

HARMLESS = ("get", "head", "options")
REPEATABLE = (*HARMLESS, "put", "delete")

_STYLES = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
"""Styles by place, the default first."""

_OURS = CONNECTION | {"authorization", "cookie"}
"""Headers that are not arguments."""

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_VARIABLE = re.compile(r"\{([^{}]{0,200})\}")


class Wanted(NamedTuple):
    """Operations that are offered: all of them where `operations` is None. `place` is the address of the document,
    empty for none; `filled` are the parameters that the caller fills in, by place and name in lower case."""

    place: str = ""
    server: str = ""
    operations: Sequence[str] | None = None
    filled: Sequence[tuple[str, str]] = ()


class NotOffered(Exception):
    """An operation cannot be a tool; the message is the reason."""


@dataclass
class Operations:
    """Reads the operations of one document."""

    root: Mapping[str, Any]
    wanted: Wanted
    warnings: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def read(self) -> list[Definition]:
        """Raises: Unreadable."""
        if str(self.root.get("swagger", "")).startswith("2"):
            self.root = modern(self.root)
        elif not str(self.root.get("openapi", "")).startswith("3."):
            raise Unreadable("It is no OpenAPI 3 and no Swagger 2: it has no `openapi: 3.…` and no `swagger: '2.0'`.")
        if not isinstance(self.root.get("paths"), dict):
            raise Unreadable("It has no `paths`.")
        missing = set(self.wanted.operations or ())
        tools: list[Definition] = []
        size = left = 0
        for place, path, item, method, operation in self._operations():
            keys = {str(operation.get("operationId", "")), place}
            missing -= keys
            if self.wanted.operations is not None and not keys & set(self.wanted.operations):
                continue
            if len(tools) == MOST_TOOLS or size > LARGEST:
                left += 1
                continue
            try:
                tool = self._tool(path, item, method, operation)
            except (NotOffered, Unreadable) as reason:
                self._warn(f"{place} is not offered: {reason}.")
                continue
            size += len(json.dumps(tool, ensure_ascii=False))
            tools.append(tool)
        for each in sorted(missing):
            self._warn(f"There is no operation {each[:100]!r}.")
        if left:
            advice = "name those that you need in `operations`"
            self.warnings.insert(0, f"{left:,} operations more are not offered: {advice}.")
        return tools

    def _warn(self, sentence: str) -> None:
        if len(self.warnings) < MOST_WARNINGS and sentence not in self.warnings:
            self.warnings.append(sentence[:500])

    def _operations(self) -> Iterator[tuple[str, str, dict[str, Any], str, dict[str, Any]]]:
        """Method and path, path, path item, method and operation."""
        for path, each in self.root["paths"].items():
            if str(path).startswith("x-"):
                continue
            try:
                item = resolved(self.root, each)
            except Unreadable as reason:
                self._warn(f"{path} is not offered: {reason}.")
                continue
            if "trace" in item:
                self._warn(f"TRACE {path} is not offered: it shows what was sent.")
            for method in METHODS:
                operation = item.get(method)
                if isinstance(operation, dict):
                    yield f"{method.upper()} {path}", path, item, method, operation

    def _tool(self, path: str, item: dict[str, Any], method: str, operation: dict[str, Any]) -> Definition:
        """Raises: NotOffered, Unreadable."""
        if not path.startswith("/"):
            raise NotOffered("its path does not begin with /")
        place = f"{method.upper()} {path}"
        server = self._server(place, operation, item)
        given, keyed = self._parameters(place, path, item, operation)
        names = _Names()
        parameters = [_parameter(each, names(str(each["name"]), str(each["in"]))) for each in given]
        body, content = self._body(place, operation, names)

        def schema(bounds: Bounds) -> dict[str, Any]:
            convert = Schemas(self.root, lambda reason: self._warn(f"{place}: {reason}"), bounds)
            properties = {
                parameter["argument"]: _described(convert(_schema(each)), each, parameter)
                for each, parameter in zip(given, parameters, strict=True)
            }
            required = [
                parameter["argument"] for each, parameter in zip(given, parameters, strict=True) if _needed(each)
            ]
            if body:
                properties[body["argument"]] = _body_schema(convert, content, body)
                required += [body["argument"]] if content.get("required") is True else []
            return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

        arguments, whole = fitted(schema)
        if not whole:
            self._warn(f"{place}: its schema is too large, so that inner parts of it are left out.")
        try:
            Draft202012Validator.check_schema(arguments)
        except SchemaError as error:
            raise NotOffered(f"its schema is invalid: {error.message[:200]}") from None
        return Definition(
            name=self._name(operation, method, path),
            label=_line(operation.get("summary"))[:100],
            description=_description(operation, place),
            parameters=arguments,
            destructive=_destructive(method, operation),
            idempotent=method in REPEATABLE or keyed is not None,
            server=_authority(server),
            how={**_how(server, method, path, parameters, body, keyed)},
        )

    def _server(self, place: str, *levels: Mapping[str, Any]) -> str:
        """The address of an operation: the given one, else the first that can be called. Raises: NotOffered."""
        if self.wanted.server:
            return self._usable({"url": self.wanted.server})
        for level in (*levels, self.root, {"servers": [{"url": "/"}]}):
            servers = level.get("servers")
            if not isinstance(servers, list) or not servers:
                continue
            if len(servers) > 1:
                self._warn(f"It names {len(servers)} servers, of which the first that can be called is; see `server`.")
            reasons = []
            for each in servers:
                try:
                    return self._usable(each)
                except NotOffered as reason:
                    reasons.append(str(reason))
            raise NotOffered(reasons[0])
        raise AssertionError

    def _usable(self, server: object) -> str:
        """The address of a server, its variables filled in. Raises: NotOffered."""
        if not isinstance(server, dict) or not isinstance(server.get("url"), str):
            raise NotOffered("its server has no address")
        variables = server.get("variables")
        variables = variables if isinstance(variables, dict) else {}

        def value(match: re.Match[str]) -> str:
            variable = variables.get(match[1])
            if not isinstance(variable, dict) or "default" not in variable:
                raise NotOffered(f"its server has a variable {match[1]!r} without a default: give `server`")
            return str(variable["default"])

        given = server["url"].strip()
        url = _VARIABLE.sub(value, given)
        try:
            url = urljoin(self.wanted.place, url)
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            known = False
        if not known or parts.username is not None or re.search(r"[\s\\]", url):
            raise NotOffered(f"its server {given[:200]!r} is no address that can be called: give `server`")
        query = f"?{parts.query}" if parts.query else ""
        return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{query}"

    def _parameters(
        self, place: str, path: str, item: dict[str, Any], operation: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], str | None]:
        """The parameters that are arguments, and the header that makes the operation idempotent.

        Raises: NotOffered.
        """
        found: dict[tuple[str, str], dict[str, Any]] = {}
        keyed = None
        for each in [*_list(item.get("parameters")), *_list(operation.get("parameters"))]:
            try:
                parameter = resolved(self.root, each)
            except Unreadable as reason:
                raise NotOffered(f"a parameter of it cannot be read: {reason}") from None
            where, name = str(parameter.get("in")), str(parameter.get("name", ""))
            if where not in _STYLES or not name:
                self._warn(f"{place}: a parameter {name[:100]!r} in {where[:100]!r} is left out.")
                continue
            found[where, name.lower() if where == "header" else name] = parameter
        for name in _VARIABLE.findall(path):
            found.setdefault(("path", name), {"name": name, "in": "path", "required": True, "schema": {}})
        kept = []
        for (where, name), parameter in found.items():
            if where == "header" and name == KEY_HEADER.lower():
                keyed = str(parameter["name"])
            elif where == "header" and not _HEADER.fullmatch(name):
                raise NotOffered(f"{name[:100]!r} is no name of a header")
            elif where == "path" and f"{{{name}}}" not in path:
                self._warn(f"{place}: the path has no {{{name[:100]}}}.")
            elif (where, name.lower()) not in self.wanted.filled and not (where == "header" and name in _OURS):
                kept.append(parameter)
        return kept, keyed

    def _body(self, place: str, operation: dict[str, Any], names: _Names) -> tuple[Body | None, dict[str, Any]]:
        """The body of an operation, and its description in the document. Raises: NotOffered."""
        if "requestBody" not in operation:
            return None, {}
        try:
            given = resolved(self.root, operation["requestBody"])
        except Unreadable as reason:
            raise NotOffered(f"its body cannot be read: {reason}") from None
        content = given.get("content")
        if not isinstance(content, dict) or not content:
            return None, {}
        media_type = min(map(str, content), key=_rank)
        if "*" in media_type:
            media_type = "application/json" if _rank(media_type) < _OTHER else "text/plain"
        if not (media_type.isascii() and media_type.isprintable()):
            raise NotOffered("the type of its body is no media type")
        chosen = content[min(map(str, content), key=_rank)]
        chosen = chosen if isinstance(chosen, dict) else {}
        encoding = chosen.get("encoding")
        body = Body(
            argument=names("body", "content"),
            media_type=media_type,
            encoding=_encodings(encoding) if isinstance(encoding, dict) else {},
            files=self._files(chosen.get("schema")) if _rank(media_type) == _MULTIPART else [],
        )
        return body, {**given, "schema": chosen.get("schema", {})}

    def _files(self, schema: object) -> list[str]:
        """Properties of a form that are files."""
        files = []
        for name, each in self._properties(schema):
            try:
                part = resolved(self.root, each)
                inner = resolved(self.root, part["items"]) if isinstance(part.get("items"), dict) else part
            except Unreadable:
                continue
            if inner.get("format") == "binary" or "contentMediaType" in inner:
                files.append(name)
        return files

    def _properties(self, schema: object) -> Iterator[tuple[str, Any]]:
        """The properties of a form, also of its parts."""
        try:
            found = resolved(self.root, schema)
            parts = [found, *(resolved(self.root, part) for part in _list(found.get("allOf"))[:100])]
        except Unreadable:
            return
        for part in parts:
            if isinstance(part.get("properties"), dict):
                yield from part["properties"].items()

    def _name(self, operation: dict[str, Any], method: str, path: str) -> str:
        """A name that models can call, which no other operation has."""
        given = operation.get("operationId")
        wanted = given if isinstance(given, str) and given.strip() else f"{method} {path}"
        plain = re.sub(r"[^a-zA-Z0-9_-]+", "_", wanted[:500]).strip("_")[:LONGEST_NAME] or method
        number = 1
        while (name := plain if number == 1 else f"{plain[: LONGEST_NAME - 5]}_{number}") in self.names:
            number += 1
        self.names.add(name)
        return name


class _Names:
    """Names of arguments that models can write, each once."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def __call__(self, name: str, where: str) -> str:
        plain = re.sub(r"[^a-zA-Z0-9_.-]+", "_", name[:500]).strip("_")[:LONGEST_NAME] or where
        number = 0
        while (unique := plain if not number else f"{plain[:50]}_{where}{number if number > 1 else ''}") in self._used:
            number += 1
        self._used.add(unique)
        return unique


def _how(server: str, method: str, path: str, parameters: list[Parameter], body: Body | None, keyed: str | None) -> How:
    return How(
        server=server,
        method=method.upper(),
        path=path,
        parameters=parameters,
        body=body,
        key_header=keyed or KEY_HEADER,
    )


def _parameter(given: dict[str, Any], argument: str) -> Parameter:
    where = given["in"]
    styles = _STYLES[where]
    style = given.get("style") if given.get("style") in styles else styles[0]
    explode = given.get("explode")
    return Parameter(
        name=str(given["name"]),
        argument=argument,
        place=where,
        style=str(style),
        explode=explode if isinstance(explode, bool) else style in ("form", "deepObject"),
        reserved=given.get("allowReserved") is True and where == "query",
        json=isinstance(given.get("content"), dict) and "schema" not in given,
    )


def _schema(given: dict[str, Any]) -> object:
    """The schema of a parameter."""
    if "schema" in given:
        return given["schema"]
    content = given.get("content")
    first = next(iter(content.values()), None) if isinstance(content, dict) else None
    return first.get("schema", {}) if isinstance(first, dict) else {}


def _described(schema: dict[str, Any], given: dict[str, Any], parameter: Parameter) -> dict[str, Any]:
    described = given.get("description")
    about = _line(described) or schema.get("description", "")
    example = given.get("example")
    if isinstance(example, str | int | float) and len(str(example)) <= 100:
        about = f"{about} Example: {example}".strip()
    if parameter["argument"] != parameter["name"]:
        about = f"{about} ({parameter['place']} {parameter['name'][:200]})".strip()
    if not any(key in schema for key in ("type", "enum", "const", "anyOf", "oneOf", "allOf", "not")):
        schema = {**schema, **({} if parameter["json"] else {"type": "string"})}
    return {**schema, "description": about[:LONGEST_DESCRIPTION]} if about else schema


def _needed(given: dict[str, Any]) -> bool:
    return given.get("required") is True or given["in"] == "path"


def _body_schema(convert: Schemas, content: dict[str, Any], body: Body) -> dict[str, Any]:
    """Raises: TooComplex."""
    about = _line(content.get("description"))
    rank = _rank(body["media_type"])
    if rank in (_TEXT, _OTHER):
        return {"type": "string", "description": f"{about} Text of type {body['media_type']}.".strip()}
    schema = convert(content["schema"])
    if rank in (_FORM, _MULTIPART):
        schema = {**schema, "type": "object"}
        schema["properties"] = {
            name: _file_schema(each) if name in body["files"] else each
            for name, each in schema.get("properties", {}).items()
        }
    return {"description": about, **schema} if about else schema


def _file_schema(schema: dict[str, Any]) -> dict[str, Any]:
    about = f"{schema.get('description', '')} Text of the file.".strip()
    one = {"type": "string", "description": about}
    return {"type": "array", "items": one} if schema.get("type") == "array" else one


_JSON, _JSON_LIKE, _FORM, _MULTIPART, _TEXT, _OTHER = range(6)
"""Media types of bodies, those that models write best first."""


def _rank(media_type: str) -> int:
    plain = media_type.partition(";")[0].strip().lower()
    if plain in ("application/json", "*/*", "application/*"):
        return _JSON
    if plain.endswith("+json") or plain == "text/json":
        return _JSON_LIKE
    if plain == FORM:
        return _FORM
    if plain == MULTIPART or plain == "multipart/*":
        return _MULTIPART
    return _TEXT if plain.startswith("text/") else _OTHER


def _encodings(given: dict[str, Any]) -> dict[str, Encoding]:
    found: dict[str, Encoding] = {}
    for name, each in given.items():
        if isinstance(each, dict):
            encoding = Encoding()
            if isinstance(each.get("contentType"), str):
                encoding["contentType"] = each["contentType"].partition(",")[0].strip()[:200]
            if each.get("style") in _STYLES["query"]:
                encoding["style"] = each["style"]
            if isinstance(each.get("explode"), bool):
                encoding["explode"] = each["explode"]
            found[str(name)] = encoding
    return found


def _destructive(method: str, operation: dict[str, Any]) -> bool:
    """By the method, unless the document has a hint."""
    for hint in ("x-headrace-destructive", "x-openai-isConsequential"):
        if isinstance(operation.get(hint), bool):
            return bool(operation[hint])
    return method not in HARMLESS


def _description(operation: dict[str, Any], place: str) -> str:
    summary, described = _line(operation.get("summary")), operation.get("description")
    described = described.strip() if isinstance(described, str) else ""
    text = described if described.startswith(summary.rstrip(".")) else f"{summary}\n{described}".strip()
    return (text or place)[:LONGEST_DESCRIPTION]


def _authority(server: str) -> str:
    parts = urlsplit(server)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _line(text: object) -> str:
    return " ".join(text.split()) if isinstance(text, str) else ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
