"""Documents that mean harm: they are read in bounded time and memory, or refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adapters.sandbox.choice import choose
from adapters.tools.openapi import reading
from adapters.tools.openapi.child import reply
from adapters.tools.openapi.reading import ContainedDocuments
from handlers.commands.tools import MOST_SCHEMA
from handlers.ports.tools import Listing, ToolError
from tests.adapters.tools.openapi.api import box, document, making, says, serving

REF = "#/components/schemas/"


async def read(documents: ContainedDocuments, data: bytes | str) -> Listing:
    text = data.encode() if isinstance(data, str) else data
    found = await documents.read("acme", text, place="", server="", operations=None, filled=[])
    assert isinstance(found, Listing)
    return found


def posting(schema: Any, **schemas: Any) -> str:
    body = {"requestBody": {"content": {"application/json": {"schema": schema}}}}
    return json.dumps(document({"/x": {"post": body}}, components={"schemas": schemas}))


@pytest.mark.parametrize("key", ["allOf", "oneOf"])
async def test_schemas_that_double_at_every_level_stay_small(documents: ContainedDocuments, key: str) -> None:
    schemas = {f"S{n}": {key: [{"$ref": f"{REF}S{n + 1}"}] * 2} for n in range(60)}
    listing = await read(documents, posting({"$ref": f"{REF}S0"}, **schemas))
    assert len(json.dumps(listing.tools)) < 2**16
    assert len(listing.tools) + len(listing.warnings) >= 1


async def test_a_schema_that_is_nested_deep_is_cut(documents: ContainedDocuments) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        schema = {"type": "object", "properties": {"a": schema}}
    [tool] = (await read(documents, posting(schema))).tools
    assert len(json.dumps(tool)) < 10_000
    chain = {f"S{n}": {"$ref": f"{REF}S{n + 1}"} for n in range(20_000)}
    listing = await read(documents, posting({"$ref": f"{REF}S0"}, **chain))
    assert [tool["name"] for tool in listing.tools] in ([], ["post_x"])


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "- " * 50_000, "{a: " * 50_000],
)
async def test_a_document_that_is_nested_deep_is_refused(documents: ContainedDocuments, text: str) -> None:
    with pytest.raises(ToolError) as raised:
        await read(documents, text)
    assert raised.value.code == "bad_request"


async def test_aliases_of_yaml_stay_small(documents: ContainedDocuments) -> None:
    listing = await read(documents, aliases("enum", 40))
    assert len(json.dumps(listing.tools)) < 2**16
    schema = "&s {type: object, properties: {one: *s, two: *s}}"
    paths = f"{{/x: {{post: {{requestBody: {{content: {{application/json: {{schema: {schema}}}}}}}}}}}}}"
    circle = f"openapi: 3.0.0\nservers: [{{url: https://a.example}}]\npaths: {paths}"
    [tool] = (await read(documents, circle)).tools
    assert len(json.dumps(tool)) < 2**16


def aliases(key: str, levels: int) -> str:
    """YAML whose value of a key stands for 2 ** levels texts."""
    lines = ["x-0: &a0 [lol, lol]", *(f"x-{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels))]
    parameter = f"{{name: q, in: query, schema: {{{key}: *a{levels - 1}}}}}"
    paths = f"paths: {{/x: {{get: {{parameters: [{parameter}]}}}}}}"
    return "\n".join(["openapi: 3.0.0", "servers: [{url: https://a.example}]", *lines, paths])


async def test_merges_of_yaml_that_double_are_ended(
    documents: ContainedDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SECONDS", 5.0)
    lines = ["a0: &a0 {k: v}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60))]
    with pytest.raises(ToolError) as raised:
        await read(documents, "\n".join(lines))
    assert raised.value.code in ("timeout", "bad_request")


async def test_patterns_and_numbers_of_strangers_do_no_harm(documents: ContainedDocuments) -> None:
    schema = {
        "type": "object",
        "properties": {
            "slow": {"pattern": "^(a|a)*(a|a)*b$", "default": "a" * 100},
            "large": {"maximum": 10**400, "minimum": -(10**30), "multipleOf": 0},
            "set": {"pattern": "[[a]&&[b]"},
        },
        "patternProperties": {"(": {}},
    }
    [tool] = (await read(documents, posting(schema))).tools
    found = tool["parameters"]["properties"]["body"]["properties"]
    assert found["large"] == {"minimum": -1e30}


async def test_many_operations_are_cut_with_a_warning(documents: ContainedDocuments) -> None:
    paths = {f"/x{number}": {"get": {"description": "d" * 100}} for number in range(1500)}
    listing = await read(documents, json.dumps(document(paths)))
    assert len(listing.tools) == 1000
    assert listing.warnings[0].startswith("500 operations more are not offered")
    large = {f"/x{number}": {"get": {"description": "d" * 10_000, "summary": "s" * 200}} for number in range(800)}
    assert len(json.dumps((await read(documents, json.dumps(document(large)))).tools)) < 4 * 2**20


async def test_a_large_document_is_read_in_time_and_a_larger_one_is_not_fetched(documents: ContainedDocuments) -> None:
    paths = {f"/x{number}": {"get": {"operationId": f"o{number}", "x-pad": "p" * 8500}} for number in range(900)}
    text = json.dumps(document(paths))
    assert 7 * 2**20 < len(text) < MOST_SCHEMA
    assert len((await read(documents, text)).tools) == 900
    async with serving(lambda heard: says(b"x" * (100 * 2**20))) as server, making() as make:
        with pytest.raises(ToolError) as raised:
            await box(make, url=f"{server.url}/openapi.json").list()
    assert (raised.value.code, raised.value.reason) == ("too_large", "The answer has more than 8 MiB.")


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LIMITS", reading.LIMITS._replace(memory=300 * 2**20))
    async with ContainedDocuments((await choose("auto")).sandbox) as documents:
        with pytest.raises(ToolError, match="needs too much memory") as raised:
            await read(documents, "a: [" + ", ".join(["{b: [1, 2, 3]}"] * 200_000) + "]")
    assert raised.value.code == "bad_request"


WHOLE: dict[str, Any] = {
    "openapi": "3.1.0",
    "servers": [{"url": "https://{x}.example", "variables": {"x": {"default": "a", "enum": ["a"]}}}],
    "paths": {
        "/x/{id}": {
            "summary": "X",
            "servers": [{"url": "https://b.example"}],
            "parameters": [{"$ref": "#/components/parameters/Id"}],
            "post": {
                "operationId": "post",
                "summary": "Post.",
                "description": "Post it.",
                "x-headrace-destructive": False,
                "parameters": [
                    {"name": "q", "in": "query", "style": "form", "explode": True, "schema": {"type": "array"}},
                    {"name": "j", "in": "query", "content": {"application/json": {"schema": {"type": "object"}}}},
                    {"name": "Idempotency-Key", "in": "header", "required": True, "example": 1},
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "multipart/form-data": {
                            "schema": {"$ref": "#/components/schemas/Form"},
                            "encoding": {"file": {"contentType": "text/csv", "style": "form", "explode": True}},
                        }
                    },
                },
            },
        }
    },
    "components": {
        "parameters": {"Id": {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}},
        "schemas": {
            "Form": {
                "allOf": [
                    {"type": "object", "required": ["file"], "properties": {"file": {"format": "binary"}}},
                    {
                        "properties": {"n": {"type": ["integer", "null"], "minimum": 1, "maximum": 2}},
                        "minProperties": 1,
                    },
                    {"properties": {"n": {"enum": [1, 2], "nullable": True}}, "patternProperties": {"^x": {}}},
                    {"oneOf": [{"title": "A"}], "additionalProperties": {"type": "string", "pattern": "^a"}},
                ],
                "readOnly": False,
            }
        },
    },
}

OLD: dict[str, Any] = {
    "swagger": "2.0",
    "host": "a.example",
    "basePath": "/v1",
    "schemes": ["https"],
    "consumes": ["application/json"],
    "paths": {
        "/x": {
            "parameters": [{"name": "ids", "in": "query", "type": "array", "collectionFormat": "ssv"}],
            "post": {"parameters": [{"name": "b", "in": "body", "schema": {"$ref": "#/definitions/B"}}]},
            "put": {"consumes": ["x/y"], "parameters": [{"name": "f", "in": "formData", "type": "file"}]},
        }
    },
    "definitions": {"B": {"type": "object"}},
}

ANYTHING: list[Any] = [
    None,
    [],
    {},
    "x",
    "",
    7,
    -1.5,
    True,
    [None],
    [[]],
    {"a": None},
    {"$ref": 7},
    {"$ref": "#/paths"},
]


def changed(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy in which something else is at a place."""
    if not path:
        return value
    first, *rest = path
    if isinstance(node, dict):
        return {name: changed(each, tuple(rest), value) if name == first else each for name, each in node.items()}
    return [changed(each, tuple(rest), value) if place == first else each for place, each in enumerate(node)]


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for name, each in inner for place in places(each, (*path, name)))]


@pytest.mark.parametrize("root", [WHOLE, OLD], ids=["openapi", "swagger"])
def test_anything_may_be_anywhere(root: dict[str, Any]) -> None:
    """Read in this process: an exception would end a contained one, and refuse a document for one of its parts."""
    head = {"place": "https://docs.example/api.json", "server": "", "operations": None, "filled": []}
    whole = json.loads(reply(head, json.dumps(root).encode()))
    assert whole["warnings"] == []
    assert whole["tools"]
    for place in places(root):
        for value in ANYTHING:
            found = json.loads(reply(head, json.dumps(changed(root, place, value)).encode()))
            assert set(found) in ({"fault"}, {"tools", "warnings"})
            for tool in found.get("tools", ()):
                assert tool["parameters"]["type"] == "object"
                assert tool["how"]["server"].startswith("https://")


async def test_a_process_serves_the_next_document_after_a_hostile_one(documents: ContainedDocuments) -> None:
    for text in ("[" * 100_000, "\x00", "!!python/name:os.system"):
        with pytest.raises(ToolError):
            await read(documents, text)
    [tool] = (await read(documents, json.dumps(document({"/x": {"get": {}}})))).tools
    assert tool["name"] == "get_x"
