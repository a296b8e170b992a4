"""Behaviour of everything that runs code: results, errors, and what is printed."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.code.contained import INPUTS, ContainedCode
from handlers.ports.code import LANGUAGES, PRINTED, CallLimits, Language
from tests.contracts.running import LIMITS, WORKS, failed, works


@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_ran_is_named(code: ContainedCode, language: Language) -> None:
    ran = await works(code, language)
    assert ran.adapter == await code.adapter(language)
    assert ran.adapter.endswith((", bubblewrap", ", limits"))


VALUES: list[tuple[str, Any, Any]] = [
    ("int", 1, 1),
    ("float that is whole", 1.0, 1),
    ("negative zero", -0.0, 0),
    ("float", 0.1, 0.1),
    ("smallest float", 5e-324, 5e-324),
    ("largest float", 1.7976931348623157e308, 1.7976931348623157e308),
    ("largest exact int of JavaScript", 2**53, 2**53),
    ("larger int", 2**53 + 1, 2**53),
    ("int of 64 bits", 2**64 - 1, 18446744073709552000),
    ("int of 300 digits", 10**299 + 1, 1e299),
    ("true", True, True),
    ("null", None, None),
    ("empty", [{}, [], ""], [{}, [], ""]),
    ("nested", {"a": [{"b": [[1, "x", None]]}]}, {"a": [{"b": [[1, "x", None]]}]}),
    ("order", {"b": 1, "a": 2}, {"b": 1, "a": 2}),
    ("text", "é 中文 🦦 \u2028 \\ \" ' \x7f", "é 中文 🦦 \u2028 \\ \" ' \x7f"),
    ("control characters", "\0\x01\n\r\t", "\0\x01\n\r\t"),
    ("keys", {"é": 1, "": 2, "__proto__x": 3, "a b": 4}, {"é": 1, "": 2, "__proto__x": 3, "a b": 4}),
]
"""Name, a value, and the one that JavaScript makes of it: repr tells 1 from 1.0 and True, and 0 from -0.0."""


@pytest.mark.parametrize(("name", "value", "in_javascript"), VALUES, ids=[name for name, *_ in VALUES])
async def test_values_come_back_as_they_are(code: ContainedCode, name: str, value: Any, in_javascript: Any) -> None:
    python = await code.run("mill", "python3", "def main(value): return {'value': value}", {"value": value})
    assert repr(python.value) == repr({"value": value})
    javascript = await code.run("mill", "javascript", "const main = ({value}) => ({value})", {"value": value})
    assert repr(javascript.value) == repr({"value": in_javascript})


@pytest.mark.parametrize(
    ("language", "expression", "said"),
    [
        ("python3", "float('nan')", "Out of range float values are not JSON compliant"),
        ("python3", "float('inf')", "Out of range float values are not JSON compliant"),
        ("python3", "{1, 2}", "Object of type set is not JSON serializable"),
        ("python3", "b'x'", "Object of type bytes is not JSON serializable"),
        ("python3", "'\\ud800'", "half a surrogate pair"),
        ("python3", "__import__('functools').reduce(lambda a, _: [a], range(100), 1)", "deeper than 64 levels"),
        ("python3", "__import__('functools').reduce(lambda a, _: [a], range(10**5), 1)", "nested too deeply"),
        ("python3", "10**4000", "more than 1,000 digits"),
        ("python3", "[0] * 10**6", "more than 1,000,000 values"),
        ("javascript", "'\\ud800'", "half a surrogate pair"),
    ],
)
async def test_what_is_no_data_is_refused(code: ContainedCode, language: Language, expression: str, said: str) -> None:
    head = "def main(): return" if language == "python3" else "const main = () => "
    body = f"{{'x': {expression}}}" if language == "python3" else f"({{x: {expression}}})"
    error = await failed(code, language, f"{head} {body}", limits=LIMITS._replace(output=3 * 2**20))
    assert error.kind in ("not_json", "output_too_large")
    assert said in error.reason or error.kind == "output_too_large"


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("python3", "def main(): return [1]", "main returned a value of type list: return an object (a dict)."),
        ("python3", "def main(): pass", "main returned a value of type NoneType"),
        ("python3", "async def main(): return {}", "main returned a value of type coroutine"),
        ("javascript", "const main = () => [1]", "main returned a list: return an object."),
        ("javascript", "const main = () => {}", "main returned nothing"),
        ("javascript", "const main = () => null", "main returned nothing"),
        ("javascript", "const main = async () => ({})", "main returned a promise, which is not awaited"),
    ],
)
async def test_a_result_is_an_object(code: ContainedCode, language: Language, text: str, said: str) -> None:
    error = await failed(code, language, text)
    assert (error.kind, error.line) == ("not_json", None)
    assert error.reason.startswith(said)


async def test_javascript_has_no_nan(code: ContainedCode) -> None:
    ran = await code.run("mill", "javascript", "const main = () => ({x: NaN, y: 1 / 0, z: undefined, w: -0})", {})
    assert repr(ran.value) == "{'x': None, 'y': None, 'w': 0}"


@pytest.mark.parametrize(
    ("language", "text", "line", "said"),
    [
        ("python3", "import json\ndef main():\n\n    json.loads('x')", 4, "JSONDecodeError: Expecting value"),
        ("python3", "def main(:\n    pass", 1, "SyntaxError: invalid syntax"),
        ("python3", "x = 1\n1 / 0", 2, "ZeroDivisionError: division by zero"),
        ("python3", "x = 1", None, "The code has no function main."),
        ("python3", "def main(x): return {}", None, "TypeError: main() missing 1 required positional argument: 'x'"),
        ("python3", "import requests", 1, "ModuleNotFoundError: No module named 'requests'. Code has no network"),
        (
            "python3",
            "\nimport pandas",
            2,
            "ModuleNotFoundError: No module named 'pandas'. Code has the standard",
        ),
        ("python3", "def main(): raise ValueError('x' * 10**5)", 1, "ValueError: xxx"),
        ("python3", "def main(): raise ValueError('\\ud800')", 1, "ValueError: ?"),
        ("javascript", "function main() {\n  return a.b }", 2, "ReferenceError: a is not defined"),
        ("javascript", "let x = ;", 1, "SyntaxError: unexpected token in expression: ';'"),
        ("javascript", "const x = 1", None, "The code has no function main."),
        ("javascript", "const main = () => ({x: 10n})", None, "TypeError: "),
        ("javascript", "\nconst main = () => { throw new Error('no') }", 2, "Error: no"),
        ("javascript", "const main = () => { throw 'no' }", None, "no"),
        ("javascript", "const main = () => require('fs')", 1, "ReferenceError: require is not defined"),
        ("jinja2", "\n{{ 1 / 0 }}", 2, "ZeroDivisionError: division by zero"),
        ("jinja2", "a\n\n{% if %}", 3, "TemplateSyntaxError: Expected an expression"),
        ("jinja2", "{{ ''.__class__.__mro__ }}", 1, "SecurityError: access to attribute '__class__'"),
        ("jinja2", "{{ x.y.z }}", 1, "UndefinedError: 'x' is undefined"),
    ],
)
async def test_an_error_says_what_and_where(
    code: ContainedCode, language: Language, text: str, line: int | None, said: str
) -> None:
    error = await failed(code, language, text)
    assert error.reason.startswith(said)
    assert (error.kind, error.line) == ("raised", line)
    assert len(error.reason) <= 2100


async def test_what_is_printed_is_kept_apart_and_bounded(code: ContainedCode) -> None:
    text = "import sys\ndef main(n):\n    print('é' * n)\n    print('end', file=sys.stderr)\n    return {}"
    assert (await code.run("mill", "python3", text, {"n": 1})).printed in ("é\nend\n", "end\né\n")
    assert len((await code.run("mill", "python3", text, {"n": 10**5})).printed) <= PRINTED
    ran = await code.run(
        "mill", "javascript", "const main = () => (console.log('a', {b: [1]}, null, undefined), {})", {}
    )
    assert ran.printed == 'a {"b":[1]} null undefined\n'
    error = await failed(code, "python3", "print('before')\n1 / 0")
    assert error.printed == "before\n"


async def test_clock_language_and_hashes_are_the_same_everywhere(code: ContainedCode) -> None:
    text = """
import datetime, locale, sys, time
def main():
    return {"zone": time.tzname[0], "code": sys.getfilesystemencoding(), "hash": hash("headrace"),
        "set": list({"a", "b", "c", "d"})}
"""
    ran = await code.run("mill", "python3", text, {})
    again = await code.run("pond", "python3", text, {})
    assert ran.value == again.value
    assert (ran.value["zone"], ran.value["code"]) == ("UTC", "utf-8")
    random = "import random, uuid\ndef main(): return {'a': random.random(), 'b': str(uuid.uuid4())}"
    assert (await code.run("mill", "python3", random, {})).value != (
        await code.run("mill", "python3", random, {})
    ).value


async def test_templates_render_as_their_authors_expect(code: ContainedCode) -> None:
    async def rendered(template: str, **inputs: Any) -> str:
        return str((await code.run("mill", "jinja2", template, inputs)).value)

    assert await rendered("{{ a }}|{{ none }}|<{{ b }}>\n", a=None, b="<é>") == "None|None|<<é>>"
    assert await rendered("{{ x | tojson }}", x={"b": "<é&'>", "a": 1}) == (
        '{"a": 1, "b": "\\u003c\\u00e9\\u0026\\u0027\\u003e"}'
    )
    assert await rendered("{% for x in xs %}{{ loop.index }}{{ x|upper }} {% endfor %}", xs=["a", "b"]) == "1A 2B "
    assert await rendered("{% set a = [] %}{% set _ = a.append(1) %}{{ a|length }}") == "1"
    assert await rendered("{{ a|default('none') }} {{ 'a,b'.split(',')|join(';') }}") == "none a;b"


async def test_inputs_are_bounded(code: ContainedCode) -> None:
    error = await failed(code, "python3", WORKS["python3"], {"word": "x" * INPUTS})
    assert (error.kind, error.reason.endswith("are taken.")) == ("memory", True)


async def test_limits_of_a_call_are_never_above_those_of_the_installation(code: ContainedCode) -> None:
    text = "import resource\ndef main(): return {'a': resource.getrlimit(resource.RLIMIT_AS)[0]}"
    more = CallLimits(memory=2**40, cpu_s=10**6, seconds=1e6, output=2**40)
    assert (await code.run("mill", "python3", text, {}, more)).value == {"a": LIMITS.memory}
    less = LIMITS._replace(memory=200 * 2**20)
    assert (await code.run("mill", "python3", text, {}, less)).value == {"a": less.memory}
