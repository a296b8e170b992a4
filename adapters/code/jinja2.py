"""Renders templates by Jinja, whose own sandbox stops tricks with attributes, neither loops nor memory."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jinja2 import TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from adapters.code.fault import Fault, raised

FILE = "<template>"

_ENVIRONMENT = SandboxedEnvironment()


def prepare(packages: Sequence[str]) -> None:
    """Load what renders: the first template takes longer than the others."""
    run("{% for each in all %}{{ each | tojson }}{% endfor %}", '{"all": [1]}')


def run(code: str, inputs: str) -> str:
    """The JSON of the rendered text. Raises: Fault, MemoryError."""
    try:
        return json.dumps(_ENVIRONMENT.from_string(code).render(json.loads(inputs)), ensure_ascii=False)
    except MemoryError:
        raise
    except TemplateSyntaxError as error:
        raise Fault("raised", f"{type(error).__name__}: {error.message}", error.lineno) from None
    except Exception as error:
        raise raised(error, FILE) from None
