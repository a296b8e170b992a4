"""The tool `calculate`: the value of an arithmetic expression, read by a parser of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, DecimalException, InvalidOperation, Overflow

from domain.tools.tool import Definition
from handlers.ports.tools import Invocation, Result, ToolError

LONGEST, DEEPEST, DIGITS, LARGEST_EXPONENT = 1000, 50, 50, 10_000
"""Maximum characters of an expression, levels of brackets, digits of a value, and its power of ten."""

CALCULATE = Definition(
    name="calculate",
    label="Calculator",
    description="Return the value of an arithmetic expression: numbers, + - * / // % ^, brackets, pi, e, and sqrt, "
    "abs, round, floor, ceil, min, max, ln, log10, exp, sin, cos, tan (radians), factorial. 15% means 0.15. Use it "
    "for every calculation.",
    parameters={
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "Expression, like (3 + 4) * sqrt(2)"}},
        "required": ["expression"],
        "additionalProperties": False,
    },
    destructive=False,
    idempotent=True,
)

_CONTEXT = Context(
    DIGITS, ROUND_HALF_EVEN, Emax=LARGEST_EXPONENT, Emin=-LARGEST_EXPONENT, traps=[InvalidOperation, Overflow]
)

_TOKEN = re.compile(r"(\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d{1,5})?|\.\d+)|([A-Za-z][A-Za-z0-9]*)|(\*\*|//|[-+*/%^(),×÷−])")

_SAME = {"**": "^", "×": "*", "÷": "/", "−": "-"}


async def calculate(invocation: Invocation) -> Result:
    """Raises: ToolError."""
    return Result(value(invocation.arguments["expression"]))


def value(expression: str) -> str:
    """The value of an expression, to 15 digits unless it is a whole number. Raises: ToolError."""
    if len(expression) > LONGEST:
        raise _wrong(f"The expression has {len(expression):,} characters, at most {LONGEST:,} are read.")
    parser = _Parser(expression)
    try:
        found = parser.sum()
    except (DecimalException, OverflowError, ValueError) as error:
        raise _wrong(f"It cannot be calculated: {type(error).__name__}.") from None
    if parser.token is not None:
        raise _wrong(f"{parser.token!r} is not expected there.")
    if not found.is_finite():
        raise _wrong("It cannot be calculated: it has no finite value.")
    if found == found.to_integral_value() and found.adjusted() < DIGITS:
        return f"{int(found)}"
    return str(Context(15).plus(found).normalize(Context(15)))


class _Parser:
    """Reads by precedence: sum, product, sign, power, atom."""

    def __init__(self, expression: str) -> None:
        self._tokens = _tokens(expression)
        self._depth = 0
        self.token: str | None = None
        self._next()

    def _next(self) -> None:
        self.token = next(self._tokens, None)

    def _take(self, *wanted: str) -> str | None:
        if (token := self.token) in wanted:
            self._next()
            return token
        return None

    def sum(self) -> Decimal:
        self._depth += 1
        if self._depth > DEEPEST:
            raise _wrong(f"Brackets are nested deeper than {DEEPEST} levels.")
        found = self._product()
        while sign := self._take("+", "-"):
            other = self._product()
            found = _CONTEXT.add(found, other) if sign == "+" else _CONTEXT.subtract(found, other)
        self._depth -= 1
        return found

    def _product(self) -> Decimal:
        found = self._signed()
        while sign := self._take("*", "/", "//", "%"):
            if sign == "%" and (self.token is None or self.token in "+-*/)^,"):
                found = _CONTEXT.divide(found, Decimal(100))
                continue
            other = self._signed()
            if sign == "*":
                found = _CONTEXT.multiply(found, other)
                continue
            if not other:
                raise _wrong("It divides by zero.")
            quotient = _CONTEXT.divide(found, other)
            if sign == "/":
                found = quotient
            else:
                whole = quotient.to_integral_value("ROUND_FLOOR")
                found = whole if sign == "//" else _CONTEXT.subtract(found, _CONTEXT.multiply(whole, other))
        return found

    def _signed(self) -> Decimal:
        negative = False
        while sign := self._take("+", "-"):
            negative ^= sign == "-"
        found = self._power()
        return -found if negative else found

    def _power(self) -> Decimal:
        base = self._atom()
        if not self._take("^"):
            return base
        self._depth += 1
        if self._depth > DEEPEST:
            raise _wrong(f"Powers are nested deeper than {DEEPEST} levels.")
        exponent = self._signed()
        self._depth -= 1
        return _CONTEXT.power(base, exponent)

    def _atom(self) -> Decimal:
        token = self.token
        self._next()
        if token is None:
            raise _wrong("The expression ends too early.")
        if token[0].isdigit() or token[0] == ".":
            return _CONTEXT.create_decimal(token.replace("_", ""))
        if token == "(":
            found = self.sum()
            self._close()
            return found
        name = token.lower()
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name not in _FUNCTIONS:
            raise _wrong(f"{token!r} is not known; there are {', '.join(sorted((*_FUNCTIONS, *_CONSTANTS)))}.")
        if not self._take("("):
            raise _wrong(f"{token} needs its arguments in brackets.")
        arguments = [self.sum()]
        while self._take(","):
            arguments.append(self.sum())
        self._close()
        least, most, function = _FUNCTIONS[name]
        if not least <= len(arguments) <= most:
            raise _wrong(f"{token} takes {least if least == most else f'{least} to {most}'} arguments.")
        return _CONTEXT.plus(function(*arguments))

    def _close(self) -> None:
        if not self._take(")"):
            raise _wrong("A bracket is not closed.")


def _tokens(expression: str) -> Iterator[str]:
    """Raises: ToolError."""
    at, end = 0, len(expression.rstrip())
    while at < end:
        if expression[at].isspace():
            at += 1
            continue
        found = _TOKEN.match(expression, at)
        if found is None:
            raise _wrong(f"{expression[at:].strip()[:10]!r} is not understood.")
        at = found.end()
        token = found[1] or found[2] or found[3]
        yield _SAME.get(token, token)


def _factorial(number: Decimal) -> Decimal:
    if number != number.to_integral_value() or not 0 <= number <= 1000:
        raise _wrong("factorial takes a whole number from 0 to 1000.")
    return Decimal(math.factorial(int(number)))


def _real(function: Callable[[float], float]) -> Callable[..., Decimal]:
    return lambda number: Decimal(repr(function(float(number))))


def _round(number: Decimal, places: Decimal = Decimal(0)) -> Decimal:
    if places != places.to_integral_value() or abs(places) > DIGITS:
        raise _wrong(f"round takes a whole number of places, up to {DIGITS}.")
    return number.quantize(Decimal(1).scaleb(-int(places)), context=_CONTEXT)


_CONSTANTS: Mapping[str, Decimal] = {
    "pi": Decimal("3.1415926535897932384626433832795028841971693993751"),
    "e": Decimal("2.7182818284590452353602874713526624977572470937000"),
}

_FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Decimal]]] = {
    "sqrt": (1, 1, lambda number: number.sqrt(_CONTEXT)),
    "abs": (1, 1, abs),
    "round": (1, 2, _round),
    "floor": (1, 1, lambda number: number.to_integral_value("ROUND_FLOOR")),
    "ceil": (1, 1, lambda number: number.to_integral_value("ROUND_CEILING")),
    "min": (1, 100, min),
    "max": (1, 100, max),
    "ln": (1, 1, lambda number: number.ln(_CONTEXT)),
    "log10": (1, 1, lambda number: number.log10(_CONTEXT)),
    "exp": (1, 1, lambda number: number.exp(_CONTEXT)),
    "sin": (1, 1, _real(math.sin)),
    "cos": (1, 1, _real(math.cos)),
    "tan": (1, 1, _real(math.tan)),
    "factorial": (1, 1, _factorial),
}


def _wrong(reason: str) -> ToolError:
    return ToolError("invalid_arguments", reason)
