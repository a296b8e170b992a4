"""Documents of APIs as tools: the forms that documents have, and what must not be lost on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from adapters.tools.openapi.child import reply
from domain.tools.tool import Definition
from tests.adapters.tools.openapi.api import document

HEAD: dict[str, Any] = {"place": "", "server": "", "operations": None, "filled": []}


def read(data: bytes | str | dict[str, Any], **head: Any) -> tuple[dict[str, Definition], list[str]]:
    """The tools by name, and the warnings."""
    if isinstance(data, dict):
        data = json.dumps(data)
    found = json.loads(reply({**HEAD, **head}, data.encode() if isinstance(data, str) else data))
    assert "fault" not in found, found
    for tool in found["tools"]:
        Draft202012Validator.check_schema(tool["parameters"])
    return {tool["name"]: tool for tool in found["tools"]}, found["warnings"]


def fault(data: bytes | str) -> str:
    return str(json.loads(reply(HEAD, data.encode() if isinstance(data, str) else data))["fault"])


def one(operation: dict[str, Any], method: str = "post", path: str = "/x", **more: Any) -> Definition:
    """The only tool of a document, which has no warning."""
    tools, warnings = read(document({path: {method: operation}}, **more))
    assert warnings == []
    [tool] = tools.values()
    return tool


def body(schema: Any, media_type: str = "application/json", **more: Any) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema, **more}}}}


def properties(tool: Definition) -> dict[str, Any]:
    return dict(tool["parameters"]["properties"])


PETS = """
openapi: 3.0.3
info: {title: Pets, version: 2026-01-01}
servers:
  - url: https://{region}.pets.example/{base}/
    variables:
      region: {default: eu, enum: [eu, us]}
      base: {default: v2}
paths:
  /pets/{petId}:
    parameters:
      - {name: petId, in: path, required: true, example: 7, schema: {type: integer, format: int64}}
      - {name: verbose, in: query, schema: {type: boolean}}
    get:
      operationId: getPet
      summary: Find a pet.
      description: Find a pet. By its number.
      parameters:
        - {name: verbose, in: query, description: All of it?, schema: {type: string, enum: [no, yes, on, 1.0]}}
      responses: {200: {description: fine}}
    delete:
      responses: {204: {description: gone}}
"""


def test_a_document_in_yaml_is_read_with_variables_path_parameters_and_the_core_schema() -> None:
    tools, warnings = read(PETS)
    assert warnings == []
    assert list(tools) == ["getPet", "delete_pets_petId"]
    get, delete = tools.values()
    assert get["description"] == "Find a pet. By its number."
    assert get["label"] == "Find a pet."
    assert properties(get) == {
        "petId": {"type": "integer", "format": "int64", "description": "Example: 7"},
        "verbose": {"type": "string", "enum": ["no", "yes", "on", 1.0], "description": "All of it?"},
    }
    assert get["parameters"]["required"] == ["petId"]
    assert get["parameters"]["additionalProperties"] is False
    assert (get["how"]["server"], get["how"]["method"]) == ("https://eu.pets.example/v2", "GET")
    assert get["server"] == "eu.pets.example:443"
    assert properties(delete)["verbose"] == {"type": "boolean"}
    assert delete["description"] == "DELETE /pets/{petId}"
    assert [(each["destructive"], each["idempotent"]) for each in (get, delete)] == [(False, True), (True, True)]


def test_json_and_yaml_of_one_document_are_the_same_tools() -> None:
    import yaml

    root = document({"/a": {"get": {"operationId": "a", "parameters": [{"name": "q", "in": "query"}]}}})
    assert read(json.dumps(root)) == read(yaml.safe_dump(root)) == read("\ufeff" + json.dumps(root))


# What Dify lost.


def test_20534_a_reference_as_a_parameter_is_followed() -> None:
    parameters = {
        "Page": {"name": "page", "in": "query", "schema": {"$ref": "#/components/schemas/Page"}},
        "Again": {"$ref": "#/components/parameters/Page"},
    }
    components = {"parameters": parameters, "schemas": {"Page": {"type": "integer", "minimum": 1}}}
    tool = one({"parameters": [{"$ref": "#/components/parameters/Again"}]}, "get", components=components)
    assert properties(tool) == {"page": {"type": "integer", "minimum": 1}}


def test_22946_all_of_is_merged() -> None:
    status = {"type": "string", "enum": ["sold", "free"]}
    pet = {
        "allOf": [
            {"$ref": "#/components/schemas/Named"},
            {"type": "object", "required": ["status"], "properties": {"status": {"allOf": [{"$ref": "#/x-status"}]}}},
            {"properties": {"age": {"type": "integer", "maximum": 40}}},
        ],
        "required": ["age"],
        "description": "A pet",
    }
    named = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "age": {"minimum": 0}}}
    more: Any = {"components": {"schemas": {"Named": named, "Pet": pet}}, "x-status": status}
    tool = one(body({"$ref": "#/components/schemas/Pet"}), **more)
    assert properties(tool)["body"] == {
        "type": "object",
        "description": "A pet",
        "properties": {
            "name": {"type": "string"},
            "age": {"minimum": 0, "type": "integer", "maximum": 40},
            "status": status,
        },
        "required": ["name", "status", "age"],
    }


def test_11021_and_10615_nested_objects_and_arrays_stay_nested() -> None:
    address = {"type": "object", "properties": {"street": {"type": "string"}, "lines": {"type": "array"}}}
    user = {
        "type": "object",
        "properties": {
            "address": {"$ref": "#/components/schemas/Address"},
            "friends": {"type": "array", "items": {"type": "object", "properties": {"tags": {"type": "array"}}}},
        },
        "required": ["address"],
    }
    tool = one(body({"$ref": "#/components/schemas/User"}), components={"schemas": {"Address": address, "User": user}})
    found = properties(tool)["body"]
    assert found["properties"]["address"]["properties"]["street"] == {"type": "string"}
    assert found["properties"]["address"]["properties"]["lines"] == {"type": "array", "items": {}}
    assert found["properties"]["friends"]["items"]["properties"]["tags"] == {"type": "array", "items": {}}
    assert tool["parameters"]["required"] == ["body"]


def test_7139_every_one_of_many_parameters_is_there_also_where_names_are_the_same() -> None:
    many = [{"name": f"p{number}", "in": "query", "schema": {"type": "integer"}} for number in range(40)]
    same = [
        {"name": "id", "in": "path", "required": True},
        {"name": "id", "in": "query", "required": True},
        {"name": "id", "in": "header"},
        {"name": "body", "in": "query"},
        {"name": "filter[name]", "in": "query"},
        {"name": "$top", "in": "query"},
    ]
    tool = one({"parameters": [*many, *same], **body({"type": "object"})}, path="/x/{id}")
    names = {(each["place"], each["name"]): each["argument"] for each in tool["how"]["parameters"]}
    assert len(names) == len(properties(tool)) - 1 == 46
    assert names["path", "id"] == "id"
    assert names["query", "id"] == "id_query"
    assert names["header", "id"] == "id_header"
    assert names["query", "body"] == "body"
    assert names["query", "filter[name]"] == "filter_name"
    assert names["query", "$top"] == "top"
    assert tool["how"]["body"]["argument"] == "body_content"
    assert properties(tool)["filter_name"]["description"] == "(query filter[name])"
    assert tool["parameters"]["required"] == ["id", "id_query", "body_content"]


def test_27993_a_fault_in_one_operation_does_not_refuse_the_document() -> None:
    paths = {
        "/bad": {"get": {"parameters": [{"$ref": "https://elsewhere.example/p.json#/P"}]}},
        "/worse": {"post": body({"type": ["string", 7], "required": "yes", "properties": [], "enum": "x"})},
        "/filters": {
            "post": {
                "operationId": "map_filters_post",
                "responses": {"200": {}},
                **body({"type": "object", "properties": {"ids": {"type": "array", "items": {"type": "integer"}}}}),
            }
        },
        "no-slash": {"get": {}},
        "/empty": None,
        "x-note": {"get": {}},
    }
    tools, warnings = read(document(paths))
    assert list(tools) == ["post_worse", "map_filters_post"]
    assert properties(tools["post_worse"])["body"] == {"type": "string"}
    assert warnings == [
        "GET /bad is not offered: a parameter of it cannot be read: "
        "'https://elsewhere.example/p.json#/P' is in another document, which is not read.",
        "GET no-slash is not offered: its path does not begin with /.",
        "/empty is not offered: there is no object.",
    ]


# References.


def test_a_schema_that_contains_itself_is_cut_at_the_fourth_level() -> None:
    node = {"type": "object", "properties": {"name": {"type": "string"}, "next": {"$ref": "#/components/schemas/Node"}}}
    tool = one(body({"$ref": "#/components/schemas/Node"}), components={"schemas": {"Node": node}})
    found, levels = properties(tool)["body"], 0
    while "properties" in found:
        levels, found = levels + 1, found["properties"]["next"]
    assert levels == 4
    assert found == {"type": "object", "description": "Inner parts are left out here."}


def test_schemas_that_contain_one_another_are_cut_until_they_fit() -> None:
    names = [f"S{number}" for number in range(12)]
    schemas = {name: {"type": "object", "properties": {n: {"$ref": f"#/components/schemas/{n}"} for n in names}}
               for name in names}  # fmt: skip
    tools, warnings = read(
        document({"/x": {"post": body({"$ref": "#/components/schemas/S0"})}}, components={"schemas": schemas})
    )
    assert len(json.dumps(tools["post_x"])) < 40_000
    assert properties(tools["post_x"])["body"]["properties"]["S3"]["type"] == "object"
    assert warnings == ["POST /x: its schema is too large, so that inner parts of it are left out."]


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("other.yaml#/Pet", "is in another document, which is not read"),
        ("file:///etc/passwd", "is in another document, which is not read"),
        ("#/components/schemas/None", "is not in the document"),
        ("#anchor", "is no part of the document"),
        ("#", "is no part of the document"),
    ],
)
def test_a_reference_that_cannot_be_followed_is_a_warning(reference: str, reason: str) -> None:
    tools, [warning] = read(
        document({"/x": {"post": body({"type": "object", "properties": {"a": {"$ref": reference}}})}})
    )
    assert warning == f"POST /x: {reference!r} {reason}: anything is taken there."
    assert properties(tools["post_x"])["body"]["properties"]["a"] == {}


def test_references_are_json_pointers_and_may_go_in_a_circle() -> None:
    schemas = {"a/b~c d": {"type": "integer"}, "One": {"$ref": "#/components/schemas/Two"},
               "Two": {"$ref": "#/components/schemas/One"}}  # fmt: skip
    listed = {"schema": {"$ref": "#/components/schemas/a~1b~0c%20d"}, "name": "n", "in": "query"}
    circle = {"schema": {"$ref": "#/components/schemas/One"}, "name": "c", "in": "query"}
    tool = one({"parameters": [listed, circle]}, "get", components={"schemas": schemas})
    assert properties(tool)["n"] == {"type": "integer"}
    assert properties(tool)["c"]["type"] == "string"
    tools, warnings = read(document({"/x": {"$ref": "#/paths/~1y"}, "/y": {"$ref": "#/paths/~1x"}, "/z": {"get": {}}}))
    assert list(tools) == ["get_z"]
    assert warnings == [f"/{name} is not offered: its references go in a circle." for name in "xy"]


# Schemas of 3.0 and 3.1.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": True, "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"type": ["integer", "null"]}, {"type": ["integer", "null"]}),
        ({"nullable": True, "allOf": [{"type": "integer"}]}, {"type": ["integer", "null"]}),
        (
            {"nullable": True, "oneOf": [{"type": "integer"}, {"type": "string"}]},
            {"anyOf": [{"oneOf": [{"type": "integer"}, {"type": "string"}]}, {"type": "null"}]},
        ),
        ({"minimum": 1, "exclusiveMinimum": True}, {"minimum": 1, "exclusiveMinimum": 1}),
        ({"type": "number", "exclusiveMaximum": 5}, {"type": "number", "exclusiveMaximum": 5}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"properties": {"a": True, "b": False}}, {"type": "object", "properties": {"a": {}, "b": {"not": {}}}}),
        ({"items": {"type": "string"}}, {"type": "array", "items": {"type": "string"}}),
        ({"const": "x", "discriminator": {"propertyName": "t"}, "xml": {}}, {"const": "x"}),
        ({"type": "string", "pattern": "^\\p{L}+$"}, {"type": "string", "description": "Pattern: ^\\p{L}+$"}),
        ({"pattern": "^a+$", "example": "aa"}, {"pattern": "^a+$", "description": "Example: aa"}),
        ({"type": "any", "required": True, "minLength": -1}, {}),
        ({"type": "integer", "maximum": 2**64}, {"type": "integer", "maximum": 2.0**64}),
        (
            {"required": ["id", "n"], "properties": {"id": {"readOnly": True}, "n": {"writeOnly": True}}},
            {"type": "object", "properties": {"n": {}}, "required": ["n"]},
        ),
        (
            {"allOf": [{"type": "number", "enum": [1, 2]}, {"type": "integer", "minimum": 2, "enum": [2]}]},
            {"type": "integer", "minimum": 2, "enum": [2]},
        ),
        (
            {"allOf": [{"oneOf": [{"minimum": 1}]}, {"oneOf": [{"maximum": 2}]}]},
            {"oneOf": [{"minimum": 1}], "allOf": [{"oneOf": [{"maximum": 2}]}]},
        ),
        (
            {"allOf": [{"additionalProperties": False}, {"additionalProperties": {"type": "string"}}]},
            {"additionalProperties": False},
        ),
    ],
)  # fmt: skip
def test_a_schema_of_openapi_as_json_schema(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = properties(one(body({"type": "object", "properties": {"it": given}})))["body"]["properties"]["it"]
    assert found == expected


def test_one_of_at_the_top_of_a_body_is_wrapped() -> None:
    tool = one(body({"oneOf": [{"type": "object", "properties": {"a": {}}}, {"type": "string"}]}))
    assert set(tool["parameters"]) == {"type", "properties", "required", "additionalProperties"}
    assert len(properties(tool)["body"]["oneOf"]) == 2


# Servers.


def test_the_first_server_that_can_be_called_is_and_the_closest_counts() -> None:
    servers = [{"url": "ftp://a.example"}, {"url": "https://{x}.example"}, {"url": "http://b.example:8080/api/"}]
    paths = {"/own": {"servers": [{"url": "https://c.example"}], "get": {}, "put": {"servers": [{"url": "/d"}]}},
             "/all": {"get": {}}}  # fmt: skip
    tools, warnings = read({**document(paths), "servers": servers}, place="https://docs.example/spec/openapi.json")
    assert {name: tool["how"]["server"] for name, tool in tools.items()} == {
        "get_own": "https://c.example",
        "put_own": "https://docs.example/d",
        "get_all": "http://b.example:8080/api",
    }
    assert warnings == ["It names 3 servers, of which the first that can be called is; see `server`."]
    given, _ = read({**document(paths), "servers": servers}, server="https://mine.example/v1?key=a")
    assert {tool["how"]["server"] for tool in given.values()} == {"https://mine.example/v1?key=a"}


@pytest.mark.parametrize(
    "url", ["/v1", "https://user:word@h.example", "https:///x", "javascript:x", "https://h .example", "https://h:x", ""]
)
def test_a_server_that_cannot_be_called_is_a_reason(url: str) -> None:
    tools, [warning] = read(document({"/x": {"get": {}}}, url))
    assert tools == {}
    assert warning.startswith("GET /x is not offered: its server ")


# What is offered.


def test_operations_are_chosen_by_id_or_by_method_and_path() -> None:
    paths = {"/a": {"get": {"operationId": "getA"}, "post": {}}, "/b": {"get": {"operationId": "getB"}, "trace": {}}}
    tools, warnings = read(document(paths), operations=["getB", "POST /a", "getC"])
    assert list(tools) == ["post_a", "getB"]
    assert warnings == ["TRACE /b is not offered: it shows what was sent.", "There is no operation 'getC'."]


def test_names_are_those_that_servers_of_models_take_and_each_is_there_once() -> None:
    paths = {
        "/a": {"get": {"operationId": "Pets.find by/status"}, "post": {"operationId": "Pets find by status"}},
        "/ä/{x}": {"get": {"operationId": 7}},
        "/b": {"get": {"operationId": "x" * 200}, "post": {"operationId": "x" * 201}},
    }
    names = list(read(document(paths))[0])
    assert names == ["Pets_find_by_status", "Pets_find_by_status_2", "get_x", "x" * 64, "x" * 59 + "_2"]


def test_hints_and_keys_say_what_may_be_repeated() -> None:
    key = {"name": "idempotency-key", "in": "header", "required": True}
    paths = {
        "/search": {"post": {"x-openai-isConsequential": False}},
        "/trigger": {"get": {"x-headrace-destructive": True}},
        "/pay": {"post": {"parameters": [key]}},
        "/change": {"patch": {}},
    }
    tools, _ = read(document(paths))
    assert {name: (tool["destructive"], tool["idempotent"]) for name, tool in tools.items()} == {
        "post_search": (False, False),
        "get_trigger": (True, True),
        "post_pay": (True, True),
        "patch_change": (True, False),
    }
    assert properties(tools["post_pay"]) == {}
    assert tools["post_pay"]["how"]["key_header"] == "idempotency-key"


def test_the_secret_and_headers_of_the_connection_are_no_arguments() -> None:
    named = ["Authorization", "Accept", "Content-Type", "Host", "X-Key", "X-Fine"]
    parameters = [{"name": name, "in": "header", "required": True} for name in named]
    tools, _ = read(
        document({"/x": {"get": {"parameters": [*parameters, {"name": "appid", "in": "query"}]}}}),
        filled=[["header", "x-key"], ["query", "appid"]],
    )
    assert list(properties(tools["get_x"])) == ["X-Fine"]


def test_bodies_have_the_media_type_that_models_write_best() -> None:
    def content(*names: str) -> dict[str, Any]:
        return {"requestBody": {"content": {name: {"schema": {"type": "object"}} for name in names}}}

    paths = {
        "/a": {"post": content("application/xml", "multipart/form-data", "application/vnd.api+json")},
        "/b": {"post": content("text/csv", "application/x-www-form-urlencoded")},
        "/c": {"post": content("application/xml")},
        "/d": {"post": content("*/*")},
        "/e": {"post": {"requestBody": {"content": {}}}},
        "/f": {"post": content("te\r\nxt/plain")},
    }
    tools, [warning] = read(document(paths))
    types = {name: tool["how"]["body"] and tool["how"]["body"]["media_type"] for name, tool in tools.items()}
    assert types == {
        "post_a": "application/vnd.api+json",
        "post_b": "application/x-www-form-urlencoded",
        "post_c": "application/xml",
        "post_d": "application/json",
        "post_e": None,
    }
    assert properties(tools["post_c"])["body"] == {"type": "string", "description": "Text of type application/xml."}
    assert tools["post_a"]["parameters"]["required"] == []
    assert "no media type" in warning


def test_files_of_a_form_are_texts() -> None:
    file = {"type": "string", "format": "binary"}
    schema = {
        "type": "object",
        "properties": {"one": file, "all": {"type": "array", "items": file}, "n": {"type": "integer"}},
    }
    tool = one(body(schema, "multipart/form-data", encoding={"one": {"contentType": "text/csv, text/plain"}}))
    assert tool["how"]["body"]["files"] == ["one", "all"]
    assert tool["how"]["body"]["encoding"] == {"one": {"contentType": "text/csv"}}
    found = properties(tool)["body"]["properties"]
    assert found["one"] == {"type": "string", "description": "Text of the file."}
    assert found["all"] == {"type": "array", "items": {"type": "string", "description": "Text of the file."}}
    assert found["n"] == {"type": "integer"}


# Other forms.


def test_swagger_2_is_read() -> None:
    root = {
        "swagger": "2.0",
        "host": "old.example",
        "basePath": "/v1",
        "schemes": ["http", "https"],
        "consumes": ["application/json"],
        "parameters": {"Body": {"name": "p", "in": "body", "required": True, "schema": {"$ref": "#/definitions/Pet"}}},
        "definitions": {"Pet": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "paths": {
            "/pets": {
                "parameters": [{"name": "ids", "in": "query", "type": "array", "items": {"type": "integer"}}],
                "get": {"operationId": "list", "parameters": [
                    {"name": "tags", "in": "query", "type": "array", "collectionFormat": "multi"},
                ]},
                "post": {"operationId": "add", "parameters": [{"$ref": "#/parameters/Body"}]},
                "put": {"operationId": "upload", "consumes": ["multipart/form-data"], "parameters": [
                    {"name": "file", "in": "formData", "type": "file", "required": True},
                    {"name": "note", "in": "formData", "type": "string", "maxLength": 9, "description": "A note"},
                ]},
            }
        },
    }  # fmt: skip
    tools, warnings = read(root)
    assert warnings == []
    assert tools["list"]["how"]["server"] == "https://old.example/v1"
    assert [(each["name"], each["explode"]) for each in tools["list"]["how"]["parameters"]] == [
        ("ids", False),
        ("tags", True),
    ]
    assert properties(tools["list"])["ids"] == {"type": "array", "items": {"type": "integer"}}
    assert properties(tools["add"])["body"]["properties"] == {"name": {"type": "string"}}
    assert tools["add"]["parameters"]["required"] == ["body"]
    form = properties(tools["upload"])["body"]
    assert form["properties"]["note"] == {"type": "string", "maxLength": 9, "description": "A note"}
    assert (form["required"], tools["upload"]["how"]["body"]["files"]) == (["file"], ["file"])


def test_the_manifest_of_a_plugin_names_the_document() -> None:
    manifest = {"schema_version": "v1", "api": {"type": "openapi", "url": "https://a.example/openapi.yaml"}}
    assert json.loads(reply(HEAD, json.dumps(manifest).encode())) == {"elsewhere": "https://a.example/openapi.yaml"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "It is no JSON or YAML object."),
        ("[1]", "It is no JSON or YAML object."),
        ('{"openapi": ', "It is no JSON: Expecting value"),
        ("a: b: c", "It is no YAML: mapping values are not allowed"),
        ("openapi: 4.0.0\npaths: {}", "It is no OpenAPI 3 and no Swagger 2"),
        ("openapi: 3.0.0", "It has no `paths`."),
        ("openapi: 3.0.0\npaths: !!python/object/apply:os.system [ls]", "It is no YAML: could not determine"),
        (b"\xff\xfe\x00", "It is no YAML"),
    ],
)
def test_a_document_that_cannot_be_read_has_a_reason(data: bytes | str, reason: str) -> None:
    assert fault(data).startswith(reason)
