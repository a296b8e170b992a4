"""The built-in tools: the clock, the calculator, and the text of a page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from adapters.code.contained import Allowance, ContainedCode
from adapters.sandbox.choice import Choice, choose
from adapters.tools.builtin.calculator import LARGEST_EXPONENT, LONGEST, value
from adapters.tools.builtin.clock import TIME, tell
from adapters.tools.builtin.code import CODE_TOOL, RunCode
from adapters.tools.builtin.page import LONGEST as LONGEST_PAGE
from adapters.tools.builtin.page import MOST_BYTES, FetchPage
from adapters.tools.builtin.search import SearchKnowledge
from adapters.tools.builtin.toolbox import DEFINITIONS, BuiltinToolbox
from domain.aggregate import new_id
from domain.chat.app import Configuration
from domain.log import Metadata
from domain.tools.tool import Definition
from handlers.cause import Cause
from handlers.commands.response_schema import schema_fault
from handlers.models.structured import fault
from handlers.ports.code import CallLimits
from handlers.ports.documents import Block, Text, Unreadable
from handlers.ports.files import Fetched, NotFetched
from handlers.ports.tools import Invocation, ToolError

AT = "2026-05-04T10:30:00+00:00"


def invocation(definition: Definition, **arguments: Any) -> Invocation:
    cause = Cause(Metadata(new_id(), "mill", new_id()), "message", new_id(), 1)
    return Invocation(new_id(), cause, definition, arguments, cast("Configuration", {}), AT, "ada")


@pytest.mark.parametrize("tool", DEFINITIONS, ids=lambda tool: tool["name"])
def test_each_tool_has_a_schema_that_servers_take(tool: Definition) -> None:
    assert schema_fault(tool["parameters"]) is None
    assert tool["parameters"]["additionalProperties"] is False
    assert (tool["destructive"], tool["idempotent"]) == (False, True)
    assert fault(tool["parameters"], '{"unknown": 1}')
    words = str(tool["parameters"])
    assert not any(each in words for each in ("pattern", "$ref", "format")), "it is checked in the worker"


# --- the clock -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "Monday, 04 May 2026, 10:30:00 UTC (UTC+0000)\nISO 8601: 2026-05-04T10:30:00+00:00"),
        ({"at": "now", "zone": "UTC"}, "Monday, 04 May 2026, 10:30:00"),
        ({"at": "2026-05-03T10:30:00", "until": "Now"}, "Until then: 1 days, 0 hours, 0 minutes."),
        ({"zone": "Europe/Paris"}, "Monday, 04 May 2026, 12:30:00 CEST"),
        ({"zone": "Asia/Kathmandu"}, "16:15:00"),
        ({"add_days": 60}, "Friday, 03 July 2026"),
        ({"add_days": -0.5}, "03 May 2026, 22:30:00"),
        ({"at": "2024-02-28T12:00:00", "add_days": 2}, "Friday, 01 March 2024"),
        ({"zone": "Europe/Berlin", "at": "2026-03-29T03:30:00"}, "CEST"),
        ({"at": "2026-05-04T00:00:00", "until": "2026-12-24T18:30:00"}, "Until then: 234 days, 18 hours, 30 minutes."),
        ({"until": "2026-05-03T10:30:00"}, "Until then: -1 days, 0 hours, 0 minutes."),
    ],
)
async def test_the_time_is_that_of_the_question(arguments: dict[str, Any], said: str) -> None:
    assert said in (await tell(invocation(TIME, **arguments))).text


@pytest.mark.parametrize(
    "arguments",
    [
        {"zone": "Europe/Atlantis"},
        {"zone": "../../etc/passwd"},
        {"at": "tomorrow"},
        {"until": "soon"},
        {"add_days": 1e12},
        {"add_days": 1e308},
    ],
)
async def test_what_is_no_time_is_an_error_for_the_model(arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolError) as caught:
        await tell(invocation(TIME, **arguments))
    assert caught.value.code == "invalid_arguments"


# --- the calculator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("2 ^ 3 ^ 2", "512"),
        ("2 ** 10", "1024"),
        ("-2 ^ 2", "-4"),
        ("2 ^ -1", "0.5"),
        ("0.1 + 0.2", "0.3"),
        ("7 // 2", "3"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("200 * 15%", "30"),
        ("15% * 200", "30"),
        ("12 × 4 ÷ 3", "16"),
        ("5 − 7", "-2"),
        ("sqrt(2)", "1.4142135623731"),
        ("round(2.675, 2)", "2.68"),
        ("round(1234, -2)", "1200"),
        ("max(3, 1, 2) + min(4, 5)", "7"),
        ("factorial(20)", "2432902008176640000"),
        ("123456789 * 987654321", "121932631112635269"),
        ("1_000 * 3", "3000"),
        ("1e3 + .5", "1000.5"),
        ("ln(e)", "1"),
        ("log10(1000)", "3"),
        ("floor(-0.5) + ceil(0.5)", "0"),
        ("PI", "3.14159265358979"),
        ("--1", "1"),
        ("0 * -1", "0"),
    ],
)
def test_an_expression_has_its_value(expression: str, result: str) -> None:
    assert value(expression) == result


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "ends too early"),
        ("1 +", "ends too early"),
        ("1 / 0", "divides by zero"),
        ("5 % 0", "divides by zero"),
        ("(1", "not closed"),
        ("1)", "not expected"),
        ("1 2", "not expected"),
        ("__import__('os')", "not understood"),
        ("foo(1)", "is not known"),
        ("sqrt 2", "in brackets"),
        ("sqrt(1, 2)", "takes 1 arguments"),
        ("sqrt(-1)", "cannot be calculated"),
        ("ln(0)", "cannot be calculated"),
        ("9 ^ 9 ^ 9 ^ 9", "cannot be calculated"),
        ("1e99999", "cannot be calculated"),
        ("factorial(1e6)", "from 0 to 1000"),
        ("factorial(0.5)", "whole number"),
        ("round(1, 1e9)", "whole number of places"),
        ("(" * 100 + "1" + ")" * 100, "deeper than 50"),
        ("2" + "^2" * 100, "deeper than 50"),
        ("1+" * 600 + "1", f"at most {LONGEST:,}"),
    ],
)
def test_what_is_no_expression_has_a_reason(expression: str, reason: str) -> None:
    with pytest.raises(ToolError, match=reason.replace("(", r"\(")):
        value(expression)


def test_the_largest_values_take_no_time() -> None:
    assert value(f"10 ^ {LARGEST_EXPONENT - 1}").startswith("1E+")
    assert len(value("factorial(1000)")) < 40
    assert len(value("*".join(["9" * 40] * 20))) < 40


# --- pages -----------------------------------------------------------------------------------------------------------


@dataclass
class Web:
    """A web of one page."""

    page: Fetched | NotFetched
    text: Text | Unreadable = field(default_factory=lambda: Text([Block("Open from six.")], None, "Hours"))

    async def __call__(self, tenant: str, url: str, most: int) -> Fetched:
        assert (tenant, most) == ("mill", MOST_BYTES)
        if isinstance(self.page, NotFetched):
            raise self.page
        return self.page

    async def extract(self, tenant: str, data: bytes, media_type: str, name: str) -> Text:
        assert name == "https://mill.example/hours"
        if isinstance(self.text, Unreadable):
            raise self.text
        return self.text


PAGE = Fetched(b"<p>", "text/html", "https://mill.example/hours?day=1")


def box(web: Web) -> BuiltinToolbox:
    return BuiltinToolbox(FetchPage(web, web), cast("SearchKnowledge", None), cast("RunCode", None))


def fetch(url: str = "https://mill.example/") -> Invocation:
    [definition] = [tool for tool in DEFINITIONS if tool["name"] == "fetch"]
    return invocation(definition, url=url)


async def test_a_page_gives_its_text_with_address_and_time() -> None:
    result = await box(Web(PAGE)).call(fetch())
    assert result.text.startswith("Hours\nhttps://mill.example/hours?day=1, fetched at 20")
    assert result.text.endswith("\n\nOpen from six.")
    assert result.parts == [{"type": "link", "url": PAGE.address, "title": "Hours"}]


async def test_a_long_page_is_cut_and_says_so() -> None:
    web = Web(PAGE, Text([Block("x" * LONGEST_PAGE), Block("y" * 98)], None))
    result = await box(web).call(fetch())
    assert result.text.endswith("x\n[100 characters are left out.]")


@pytest.mark.parametrize(
    ("page", "text", "code"),
    [
        (NotFetched("unreachable", "The address may not be called: it is not public."), None, "unreachable"),
        (NotFetched("too_large", "It has more than 2 MiB."), None, "too_large"),
        (PAGE, Unreadable("unsupported_type", "No text can be extracted from image/png."), "unsupported"),
    ],
)
async def test_a_page_without_a_text_has_a_reason(page: Any, text: Any, code: str) -> None:
    with pytest.raises(ToolError) as caught:
        await box(Web(page, text) if text else Web(page)).call(fetch())
    assert caught.value.code == code


async def test_a_tool_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ToolError, match="no built-in tool"):
        await box(Web(PAGE)).call(fetch()._replace(tool=Definition(**{**TIME, "name": "x"})))  # type: ignore[typeddict-item]


# --- programs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def program() -> AsyncIterator[RunCode]:
    async with ContainedCode(await choose(), Allowance(CallLimits(output=2**20))) as code:
        yield RunCode(code)


async def test_a_program_says_what_it_prints(program: RunCode) -> None:
    result = await program(invocation(CODE_TOOL, code="import math\nprint(math.comb(10, 3))"))
    assert result.text == "120\n"
    [part] = result.parts
    assert part == {"type": "json", "value": {"adapter": await program.code.adapter("python3")}}
    main = "def main():\n    print('once')\nif __name__ == '__main__':\n    main()"
    assert (await program(invocation(CODE_TOOL, code=main))).text == "once\n"
    assert "printed nothing" in (await program(invocation(CODE_TOOL, code="x = 1"))).text
    much = (await program(invocation(CODE_TOOL, code="print('x' * 30_000)"))).text
    assert much.endswith("x\n[10,001 characters are left out.]")


@pytest.mark.parametrize(
    ("code", "is_code", "said"),
    [
        (
            "print('before')\n1 / 0",
            "invalid_arguments",
            "Line 2: ZeroDivisionError: division by zero\nIt printed",
        ),
        ("print(", "invalid_arguments", "Line 1: SyntaxError: '(' was never closed"),
        (
            "import requests",
            "invalid_arguments",
            "Line 1: ModuleNotFoundError: No module named 'requests'. Code",
        ),
        ("bytearray(10**10)", "too_large", "The code takes more memory than it may."),
        ("while True: print('x' * 10**5)", "too_large", "The code wrote more than 1,048,576 bytes."),
    ],
)
async def test_a_program_that_fails_says_why(program: RunCode, code: str, is_code: str, said: str) -> None:
    with pytest.raises(ToolError) as raised:
        await program(invocation(CODE_TOOL, code=code))
    assert raised.value.code == is_code
    assert raised.value.reason.startswith(said)


async def test_the_tool_is_not_listed_where_nothing_runs_code(program: RunCode) -> None:
    here, nowhere = program, Choice((await choose()).sandbox, ("open a connection",), "")
    async with ContainedCode(nowhere, Allowance()) as code:
        for run, listed in ((here, True), (RunCode(code), False)):
            found = await BuiltinToolbox(cast("FetchPage", None), cast("SearchKnowledge", None), run).list()
            assert (CODE_TOOL in found.tools, not found.warnings) == (listed, listed)
        [warning] = found.warnings
        assert "contained processes can open a connection" in warning
        with pytest.raises(ToolError, match="open a connection"):
            await RunCode(code)(invocation(CODE_TOOL, code="print(1)"))
