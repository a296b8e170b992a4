"""Requests of operations: every style of OpenAPI, in every place."""

from __future__ import annotations

import json
from email import message_from_bytes
from typing import Any
from urllib.parse import parse_qsl

import pytest

from adapters.tools.openapi.child import reply
from adapters.tools.openapi.how import How
from adapters.tools.openapi.request import ACCEPT, Request, made
from handlers.ports.tools import ToolError
from tests.adapters.tools.openapi.api import document

HEAD: dict[str, Any] = {"place": "", "server": "", "operations": None, "filled": []}


def called(operation: dict[str, Any], path: str = "/x", server: str = "https://a.example/v1") -> How:
    found = json.loads(reply(HEAD, json.dumps(document({path: {"post": operation}}, server)).encode()))
    [tool] = found["tools"]
    how: How = tool["how"]
    return how


def sent(parameter: dict[str, Any], value: Any, path: str = "/x") -> Request:
    return made(called({"parameters": [{"name": "c", **parameter}]}, path), {"c": value})


COLOURS, POINT = ["blue", "black"], {"R": 100, "G": 200}


@pytest.mark.parametrize(
    ("style", "explode", "value", "expected"),
    [
        ("simple", None, "a/b c?", "/x/a%2Fb%20c%3F"),
        ("simple", None, COLOURS, "/x/blue,black"),
        ("simple", False, POINT, "/x/R,100,G,200"),
        ("simple", True, POINT, "/x/R=100,G=200"),
        ("label", False, COLOURS, "/x/.blue,black"),
        ("label", True, COLOURS, "/x/.blue.black"),
        ("label", True, POINT, "/x/.R=100.G=200"),
        ("matrix", False, "blue", "/x/;c=blue"),
        ("matrix", False, COLOURS, "/x/;c=blue,black"),
        ("matrix", True, COLOURS, "/x/;c=blue;c=black"),
        ("matrix", False, POINT, "/x/;c=R,100,G,200"),
        ("matrix", True, POINT, "/x/;R=100;G=200"),
        ("simple", None, True, "/x/true"),
        ("simple", None, 7.5, "/x/7.5"),
    ],
)
def test_styles_of_a_path(style: str, explode: bool | None, value: Any, expected: str) -> None:
    how = {"in": "path", "style": style, **({} if explode is None else {"explode": explode})}
    assert sent(how, value, "/x/{c}").url == f"https://a.example/v1{expected}"


@pytest.mark.parametrize(
    ("how", "value", "expected"),
    [
        ({}, COLOURS, "c=blue&c=black"),
        ({"explode": False}, COLOURS, "c=blue,black"),
        ({}, POINT, "R=100&G=200"),
        ({"explode": False}, POINT, "c=R,100,G,200"),
        ({"style": "spaceDelimited", "explode": False}, COLOURS, "c=blue%20black"),
        ({"style": "pipeDelimited", "explode": False}, COLOURS, "c=blue|black"),
        (
            {"style": "deepObject"},
            {"a": 1, "b": {"c": [1, 2]}},
            "c%5Ba%5D=1&c%5Bb%5D%5Bc%5D%5B0%5D=1&c%5Bb%5D%5Bc%5D%5B1%5D=2",
        ),
        ({"style": "deepObject"}, [{"a": 1}, "b"], "c%5B0%5D%5Ba%5D=1&c%5B1%5D=b"),
        ({"content": {"application/json": {"schema": {}}}}, {"a": [1]}, "c=%7B%22a%22%3A%5B1%5D%7D"),
        ({}, "a&b=c#d ü", "c=a%26b%3Dc%23d%20%C3%BC"),
        ({"allowReserved": True}, "a/b?c&d=e", "c=a/b?c%26d%3De"),
        ({}, "", "c="),
        ({}, False, "c=false"),
        ({}, [], ""),
        ({}, None, ""),
    ],
)
def test_styles_of_a_query(how: dict[str, Any], value: Any, expected: str) -> None:
    assert sent({"in": "query", **how}, value).url == f"https://a.example/v1/x{'?' if expected else ''}{expected}"


@pytest.mark.parametrize(
    ("explode", "value", "expected"),
    [(False, COLOURS, "blue,black"), (False, POINT, "R,100,G,200"), (True, POINT, "R=100,G=200"), (False, 5, "5")],
)
def test_styles_of_a_header(explode: bool, value: Any, expected: str) -> None:
    assert sent({"in": "header", "explode": explode}, value).headers["c"] == expected


def test_cookies_are_in_one_header() -> None:
    how = called({"parameters": [{"name": "a", "in": "cookie"}, {"name": "b", "in": "cookie", "explode": False}]})
    assert made(how, {"a": "1; admin=1", "b": COLOURS}).headers["Cookie"] == "a=1%3B%20admin%3D1; b=blue,black"


def test_the_address_keeps_the_query_of_its_server_and_its_path() -> None:
    how = called({"parameters": [{"name": "q", "in": "query"}]}, "/search?type=all", "https://a.example/v1/?key=1")
    assert made(how, {"q": "x"}).url == "https://a.example/v1/search?key=1&type=all&q=x"


@pytest.mark.parametrize("value", ["..", ".", "", None, []])
def test_a_path_leads_nowhere_else(value: Any) -> None:
    with pytest.raises(ToolError) as raised:
        sent({"in": "path"}, value, "/x/{c}/y")
    assert raised.value.code == "invalid_arguments"


def test_quoted_dots_are_quoted_again() -> None:
    assert sent({"in": "path"}, "%2e%2E", "/x/{c}/y").url == "https://a.example/v1/x/%252e%252E/y"


def test_two_arguments_make_no_dots_together() -> None:
    how = called({"parameters": [{"name": name, "in": "path"} for name in "ab"]}, "/x/{a}{b}")
    with pytest.raises(ToolError):
        made(how, {"a": ".", "b": "."})


@pytest.mark.parametrize("value", ["a\r\nHost: b", "ü", "a\x00", " a"])
def test_a_header_is_one_line_of_ascii(value: str) -> None:
    with pytest.raises(ToolError) as raised:
        sent({"in": "header"}, value)
    assert raised.value.code == "invalid_arguments"


def content(media_type: str, value: Any, schema: Any = None, **more: Any) -> Request:
    schema = schema or {"type": "object"}
    how = called({"requestBody": {"required": True, "content": {media_type: {"schema": schema, **more}}}})
    return made(how, {"body": value})


def test_json_bodies_are_nested() -> None:
    value = {"a": {"b": [1, {"c": None}]}, "ü": "\ud800"}
    request = content("application/merge-patch+json", value)
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert request.content == '{"a":{"b":[1,{"c":null}]},"ü":"?"}'.encode()


def test_forms_have_lists_as_pairs_and_objects_as_json_or_as_the_document_says() -> None:
    value = {"n": 1, "tags": ["a", "b c"], "deep": {"x": {"y": 1}}, "styled": {"x": 1}, "none": None, "list": [1, 2]}
    encoding = {"styled": {"style": "deepObject"}, "list": {"explode": False}}
    request = content("application/x-www-form-urlencoded", value, encoding=encoding)
    assert request.content
    assert parse_qsl(request.content.decode()) == [
        ("n", "1"),
        ("tags", "a"),
        ("tags", "b c"),
        ("deep", '{"x":{"y":1}}'),
        ("styled[x]", "1"),
        ("list", "1,2"),
    ]


def test_multipart_forms_have_a_part_for_each_file_and_item() -> None:
    file = {"type": "string", "format": "binary"}
    schema = {"type": "object", "properties": {"file": file, "files": {"type": "array", "items": file}}}
    value = {"file": "a,b\r\n", "files": ["1", "2"], "note": "hi", 'a"b': {"x": [1]}, "none": None}
    request = content("multipart/form-data", value, schema, encoding={"file": {"contentType": "text/csv"}})
    assert request.content
    message = message_from_bytes(f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode() + request.content)
    parts = [each for each in message.walk() if not each.is_multipart()]
    names = [str(part.get_param("name", header="content-disposition")) for part in parts]
    assert names == ["file", "files", "files", "note", "a%22b"]
    assert [part.get_filename() for part in parts] == ["file.txt"] * 3 + [None] * 2
    assert [part["Content-Type"] for part in parts] == [
        "text/csv",
        "text/plain",
        "text/plain",
        None,
        "application/json",
    ]
    assert [part.get_payload() for part in parts] == ["a,b\r\n", "1", "2", "hi", '{"x":[1]}']


def test_other_bodies_are_texts() -> None:
    request = content("application/xml", "<a>ü</a>")
    assert (request.headers["Content-Type"], request.content) == ("application/xml", "<a>ü</a>".encode())
    assert content("text/plain", 7).content == b"7"


def test_a_body_that_is_left_out_is_not_sent() -> None:
    how = called({"requestBody": {"content": {"application/json": {}}}})
    assert made(how, {}) == Request("POST", "https://a.example/v1/x", {"Accept": ACCEPT}, None)
