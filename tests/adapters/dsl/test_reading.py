"""Reading of app files: formats, oddities, bounds and versions; and writing what was read."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.dsl.reading import LARGEST, read, without_secrets
from adapters.dsl.version import version
from adapters.dsl.writing import changed, emptied, write
from adapters.dsl.yaml_values import values
from domain.aggregate import Rejection

PLAIN = "app: {mode: workflow}\nworkflow: {graph: {nodes: []}}\n"


def refused(data: bytes) -> Rejection:
    with pytest.raises(Rejection) as found:
        read(data)
    return found.value


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode(),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.encode("utf-16"),
        b'{"app": {"mode": "workflow"}, "workflow": {"graph": {"nodes": []}}}',
        b"{app: {mode: workflow}, workflow: {graph: {nodes: []}}}",
        b'app: {mode: chat, mode: workflow}\nworkflow: 1\n"workflow": {graph: &g {nodes: []}}\n',
        b"x: &a {mode: workflow}\napp: {<<: *a}\nworkflow: {graph: {nodes: []}}\n",
    ],
)
def test_the_same_app_in_many_spellings(data: bytes) -> None:
    found = read(data).document
    assert (found["app"], found["workflow"]) == ({"mode": "workflow"}, {"graph": {"nodes": []}})
    assert emptied(read(data)) == data


def test_scalars_are_read_as_those_who_wrote_them_do() -> None:
    text = "[yes, 'yes', 0.1, 1, '1', ~, null, 2024-01-01, 12:30, 0123, 1e5, 1.5e+3, .inf, 1.0e+999, !!str 5, "
    text += f"{2**63 - 1}, {2**63}]"
    assert values(text) == [
        *(True, "yes", 0.1, 1, "1", None, None),
        *("2024-01-01", "12:30", "0123", "1e5", 1500.0, ".inf", "1.0e+999", "5", 2**63 - 1, str(2**63)),
    ]


def test_an_own_name_counts_before_a_merged_one() -> None:
    assert values("a: &a {x: 1, y: 2}\nb: {x: 3, <<: *a}\nc: {'<<': 4}\nd: {<<: [{x: 5}, *a]}") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"<<": 4},
        "d": {"x": 5, "y": 2},
    }


@pytest.mark.parametrize(
    ("data", "field", "rule"),
    [
        (b"", None, "has 0 documents"),
        (b"a: 1\n---\nb: 2\n", None, "has 2 documents"),
        (b"- a\n", None, "is an object"),
        (b"a: b: c", None, "no YAML"),
        (b"\xff\x00\xfe", None, "no text in UTF-8"),
        (b"a: *b", None, r"alias \*b stands for nothing"),
        (b"a: &a [*a]", None, "Line 1: .*alias"),
        (b"a: !!python/object:os.system x", None, "python/object"),
        (b"? [a]\n: 1", None, "A name in an object is a text"),
        (b"<<: 1", None, "Only objects can be merged"),
        (b"version: '0.1.5'", "app", "name and the mode"),
        (b"app: {mode: x}", "app.mode", "agent-chat"),
        (b"app: {mode: workflow}", "workflow", "mode workflow has this"),
        (b"app: {mode: chat}\nworkflow: {}", "model_config", "mode chat has this"),
        (b"kind: rag_pipeline\napp: {mode: workflow}\nworkflow: {}", "kind", "no app"),
        (b'app: {mode: workflow}\nworkflow: {a: "\\0"}', "workflow.a", "NUL"),
        (b'{"app": {"mode": "workflow"}, "workflow": {"a": ["\\ud800"]}}', "workflow.a.0", "surrogate"),
    ],
)
def test_what_is_no_app_file_is_refused_with_its_place(data: bytes, field: str | None, rule: str) -> None:
    fault = refused(data)
    assert fault.field == field
    with pytest.raises(Rejection, match=rule):
        raise fault


def test_hostile_files_are_refused_before_they_grow() -> None:
    doubling = "a: &a [xxxxxxxx]\n" + "".join(f"b{n}: &{chr(98 + n)} [{f'*{chr(97 + n)},' * 10}]\n" for n in range(12))
    for data in (b"[" * 10**6, b"- " * 10**4, b'{"app":' * 10**5, doubling.encode(), b"[" + b"[]," * 3 * 10**6):
        refused(data)
    assert refused(b" " * (LARGEST + 1)).code == "too_large"


def test_secrets_are_emptied_and_nothing_else() -> None:
    text = (
        "# of a lock\napp: {mode: workflow}\nextra: [1, {b: 2, a: '2024-01-01'}]\nworkflow:\n  environment_variables:\n"
        "  - {name: KEY, value_type: secret, value: hush}\n  - {name: URL, value_type: string, value: https://lock}\n"
    )
    file = read(text.encode())
    document, secrets = without_secrets(file.document)
    assert secrets == {"KEY": "hush"}
    assert b"hush" not in emptied(file)
    assert read(emptied(file)).document == document
    assert list(read(emptied(file)).document) == ["app", "extra", "workflow"]
    assert changed(file, file.document) == text.encode()


_KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
_ODD = st.sampled_from(["yes", "1_000", "0123", "12:30", "2024-01-01", "=", "<<", "~", "", "1e5", "0x1f", ".5", "NaN"])
_NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_VALUES = st.recursive(
    _NUMBERS | st.none() | st.booleans() | _TEXTS | _ODD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS | _ODD, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=6))
@settings(deadline=None)
def test_what_is_written_is_read_again(stated: dict[str, Any]) -> None:
    document = {**stated, "app": {"mode": "workflow"}, "workflow": stated}
    assert read(write(document)).document == document
    assert read(write(document, "json")).document == document
    assert list(read(write(document)).document) == list(document)


_BITS = st.sampled_from(
    [
        *("app: ", "{mode: workflow}", "\n", "workflow: ", "{", "}", "[", "]", "- ", "&a ", "*a", "<<: ", "? ", ": "),
        *("'", '"', "|\n", ">\n", "!!int ", "!!x ", "\t", "\r\n", "\x85", "\ufeff", "---\n", "#", "%YAML 1.1\n", "\\x"),
    ]
)


@given(st.lists(_BITS | _TEXTS, max_size=40).map("".join) | st.text())
@settings(deadline=None)
def test_no_text_is_more_than_refused(text: str) -> None:
    with suppress(Rejection):
        read(text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_bytes_are_more_than_refused(data: bytes) -> None:
    with suppress(Rejection):
        read(data)


@pytest.mark.parametrize(
    ("stated", "advice"),
    [
        (None, "warn"),
        ("0.1.5", "warn"),
        ("0.7.0", "import"),
        ("0.7.1", "confirm"),
        ("0.8.0", "confirm"),
        ("1.0.0", "confirm"),
        ("0.6.0-beta.1", "warn"),
    ],
)
def test_versions(stated: str | None, advice: str) -> None:
    found = version({"version": stated})
    assert found.advice == advice
    assert bool(found.reason) == (advice != "import")


@pytest.mark.parametrize("stated", [0.1, 1, True, "latest", "", []])
def test_what_is_no_version_is_refused_with_what_to_do(stated: object) -> None:
    with pytest.raises(Rejection, match=r'"0\.1\.0"') as refused:
        version({"version": stated})
    assert refused.value.field == "version"
