"""Questions that MCP servers ask the user during a call, and the answers that they get."""

from __future__ import annotations

from typing import Any

import orjson
from mcp.client.session import ClientRequestContext, ElicitationFnT
from mcp_types import (
    INVALID_REQUEST,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    InputRequiredResult,
)

from adapters.models.withheld import Withheld
from domain.tools.question import Answer, Question, is_form
from handlers.ports.tools import Ask, NeedsAnswers, ToolError

LONGEST_MESSAGE, LARGEST_SCHEMA, MOST_QUESTIONS, LONGEST_STATE = 4000, 16 * 2**10, 10, 64 * 2**10
"""Maximum length of a question and of a state in characters, size of a form in bytes, and number of questions."""


def needs(result: InputRequiredResult, withheld: Withheld) -> NeedsAnswers:
    """Raises: ToolError `unsupported` for what is no form, `too_large`."""
    requests, state = result.input_requests or {}, result.request_state or ""
    if len(requests) > MOST_QUESTIONS or len(state) > LONGEST_STATE:
        raise ToolError("too_large", f"The tool asks more than {MOST_QUESTIONS} questions, or has too large a state.")
    asked = []
    for name, request in requests.items():
        if not isinstance(request, ElicitRequest):
            raise ToolError("unsupported", f"The tool asks for {request.method}, which is not there.")
        asked.append(_question(name, request.params, withheld))
    return NeedsAnswers(asked, state)


def callback(ask: Ask, withheld: Withheld) -> ElicitationFnT:
    """Answers the questions of a session that waits."""

    async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        try:
            question = _question("", params, withheld)
        except ToolError as error:
            return ErrorData(code=INVALID_REQUEST, message=error.reason)
        try:
            return written(await ask(question))
        except ToolError:
            return ElicitResult(action="cancel")

    return answer


def written(answer: Answer) -> ElicitResult:
    content = answer["content"] if answer["action"] == "accept" else None
    return ElicitResult.model_validate({"action": answer["action"], "content": content})


def _question(name: str, params: ElicitRequestParams, withheld: Withheld) -> Question:
    """Raises: ToolError."""
    if not isinstance(params, ElicitRequestFormParams):
        raise ToolError("unsupported", f"The tool sends the user to an address: {withheld.text(params.message)[:500]}")
    schema: dict[str, Any] = params.requested_schema
    if not is_form(schema):
        raise ToolError("unsupported", "The tool asks for more than a form of plain fields.")
    try:
        size = len(orjson.dumps(schema))
    except TypeError:
        size = LARGEST_SCHEMA + 1
    if size > LARGEST_SCHEMA or len(params.message) > LONGEST_MESSAGE or len(name) > LONGEST_MESSAGE:
        raise ToolError("too_large", f"The tool asks with a form of more than {LARGEST_SCHEMA:,} bytes.")
    return Question(name=name, message=withheld.text(params.message), form=withheld.json(schema))
