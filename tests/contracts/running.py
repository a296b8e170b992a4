"""Calls of code, for the contract suites of the port Code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest

from adapters.code.contained import ContainedCode
from handlers.ports.code import CallLimits, CodeError, Language, Ran

LIMITS = CallLimits(memory=256 * 2**20, output=2**20)

WORKS: Mapping[Language, str] = {
    "python3": "def main(word):\n    return {'word': word}",
    "javascript": "function main({word}) { return {word} }",
    "jinja2": "{{ word }}",
}


async def failed(
    code: ContainedCode, language: Language, text: str, inputs: Mapping[str, Any] = {}, limits: CallLimits = LIMITS
) -> CodeError:
    with pytest.raises(CodeError) as raised:
        await code.run("mill", language, text, inputs, limits)
    return raised.value


async def works(code: ContainedCode, language: Language, tenant: str = "mill") -> Ran:
    word = uuid4().hex
    ran = await code.run(tenant, language, WORKS[language], {"word": word}, LIMITS)
    assert ran.value == (word if language == "jinja2" else {"word": word})
    return ran
