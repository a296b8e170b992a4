"""Code and templates of authors, and checks by JSON Schemas: calls that reach nothing outside of the worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from domain.workflows.node_type import Trouble
from domain.workflows.requests import CodeRequest, SchemaRequest, TemplateRequest
from handlers.ports.code import Code, CodeError, Language
from handlers.ports.models import Schemas
from handlers.workflows.execution import Execution


@dataclass(frozen=True, slots=True)
class RunCode:
    code: Code

    async def __call__(self, execution: Execution) -> Mapping[str, Any] | Trouble:
        """The object that `main` returns. Raises: Unavailable."""
        request: CodeRequest = execution.request
        secrets, execution.inputs = execution.around.secrets, request.inputs
        inputs = secrets.revealed(request.inputs)
        try:
            ran = await self.code.run(execution.tenant, cast("Language", request.language), request.code, inputs)
        except CodeError as error:
            return _trouble(execution, error)
        execution.adapter = ran.adapter
        return cast("Mapping[str, Any]", secrets.withheld(ran.value))


@dataclass(frozen=True, slots=True)
class FillTemplates:
    code: Code

    async def __call__(self, execution: Execution) -> tuple[str, ...] | Trouble:
        """The texts of templates. Raises: Unavailable."""
        request: TemplateRequest = execution.request
        secrets, execution.inputs = execution.around.secrets, request.variables
        inputs = secrets.revealed(request.variables)
        calls = (self.code.run(execution.tenant, "jinja2", each, inputs) for each in request.templates)
        try:
            made = await asyncio.gather(*calls)
        except CodeError as error:
            return _trouble(execution, error)
        execution.adapter = made[0].adapter if made else ""
        return tuple(secrets.withheld(each.value) for each in made)


@dataclass(frozen=True, slots=True)
class CheckSchemas:
    schemas: Schemas

    async def __call__(self, execution: Execution) -> Trouble | None:
        """None where all data fits its schema. Raises: ModelError; Unavailable."""
        request: SchemaRequest = execution.request
        for name, schema, data in request.checks:
            if fault := await self.schemas.fault(execution.tenant, dict(schema), json.dumps(data)):
                return Trouble(f"{name} does not fit its JSON Schema: {fault}")
        return None


def _trouble(execution: Execution, error: CodeError) -> Trouble:
    execution.adapter = error.adapter
    where = f"Line {error.line}: " if error.line else ""
    return Trouble(execution.around.secrets.withheld(f"{where}{error.reason}"))
