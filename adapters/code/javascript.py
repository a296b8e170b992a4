"""Runs JavaScript by QuickJS: the language, a console, and nothing of a browser or of Node."""

from __future__ import annotations

import re
import resource
from collections.abc import Sequence

# Not by the package `quickjs`: that starts a thread, which a forked process does not have.
from _quickjs import Context, JSException, Object, StackOverflow

from adapters.code.fault import Fault

STACK = 2 * 2**20

_CONSOLE = """
(print) => {
    const text = each => typeof each === "string" ? each : JSON.stringify(each) ?? String(each);
    const log = (...all) => print(all.map(text).join(" "));
    globalThis.console = {log, info: log, warn: log, error: log, debug: log};
}
"""

_KIND = """
value => value instanceof Promise ? "a promise, which is not awaited" : Array.isArray(value) ? "a list"
    : value == null ? "nothing" : typeof value === "object" ? "" : `a ${typeof value}`
"""

_NO_MEMORY = "InternalError: out of memory", "null\n"
"""Messages where there is no memory left, the second where there is none for the first."""

_PLACE = re.compile(r"<input>:(\d{1,9})")


def prepare(packages: Sequence[str]) -> None:
    """There is nothing to load: a context takes less than a millisecond."""


def run(code: str, inputs: str) -> str:
    """The JSON of what `main` returns. Raises: Fault, MemoryError."""
    context = Context()
    # A quarter is for Python, which reports what happens.
    memory = resource.getrlimit(resource.RLIMIT_AS)[0]
    context.set_memory_limit(memory // 4 * 3 if memory != resource.RLIM_INFINITY else -1)
    context.set_max_stack_size(STACK)
    context.add_callable("print", print)
    context.eval(_CONSOLE)(context.eval("print"))
    context.eval("delete globalThis.print")
    kind = context.eval(_KIND)
    try:
        context.eval(code)
        if context.eval("typeof main") != "function":
            raise Fault("raised", "The code has no function main.")
        value = context.eval("main")(context.parse_json(inputs))
        if wrong := kind(value):
            raise Fault("not_json", f"main returned {wrong}: return an object.")
        assert isinstance(value, Object)
        return str(value.json())
    except StackOverflow as error:
        raise _raised(str(error)) from None
    except JSException as error:
        if str(error).startswith(_NO_MEMORY):
            raise MemoryError from None
        raise _raised(str(error)) from None


def _raised(said: str) -> Fault:
    reason, _, stack = said.partition("\n    at ")
    place = _PLACE.search(stack)
    return Fault("raised", reason.removesuffix("\nundefined").strip(), int(place[1]) if place else None)
