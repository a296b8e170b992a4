"""LLM: a model that answers a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from domain.workflows import prompt, values
from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import (
    Done,
    Failed,
    NodeType,
    Trouble,
    Values,
    flag,
    mapping,
    selector,
    sequence,
    text,
    variables,
)
from domain.workflows.rendering import Reference, parse, render
from domain.workflows.requests import Message, ModelAnswer, ModelRequest, SchemaRequest, TemplateRequest
from domain.workflows.values import File, Value, as_objects

MISSING: Final = "VariableNotFoundError"
EMPTY: Final = "NoPromptFoundError"
NO_CONTEXT: Final = "InvalidContextStructureError"
WRONG_FILES: Final = "InvalidVariableTypeError"
LLM_ERROR: Final = "LLMNodeError"
TEMPLATE_ERROR: Final = "TemplateRenderError"

CONTEXT: Final = "{{#context#}}"
OPEN: Final = re.compile(r"<think(?:\s[^<>]{0,100})?>", re.IGNORECASE)
OPENING: Final = re.compile(r"<(?:t(?:h(?:i(?:n(?:k(?:\s[^<>]{0,100})?)?)?)?)?)?$", re.IGNORECASE)
CLOSING: Final = re.compile(r"<(?:/(?:t(?:h(?:i(?:n(?:k)?)?)?)?)?)?$", re.IGNORECASE)
CLOSE: Final = re.compile("</think>", re.IGNORECASE)


def prepare(node: Node, view: Values) -> ModelRequest | TemplateRequest:
    spec = node.data.get("prompt_template")
    completion = isinstance(spec, Mapping)
    parts = [mapping(spec)] if completion else [mapping(each) for each in sequence(spec)]
    context = _context(node, view)
    messages: list[Message] = []
    jinja: dict[int, str] = {}
    for part in parts:
        role = "user" if completion else text(part.get("role"))
        if part.get("edition_type") == "jinja2":
            jinja[len(messages)] = text(part.get("jinja2_text"))
            messages.append(Message(role, ""))
        else:
            messages += _messages(role, text(part.get("text")), context, view)
    request = _request(node, messages, view)
    if not jinja:
        return _checked(request)
    spec = mapping(node.data.get("prompt_config")).get("jinja2_variables")
    for variable in map(mapping, sequence(spec)):
        if view.find(path := selector(variable.get("value_selector"))) is None:
            raise Failed(f"The variable {'.'.join(path)} is missing.", MISSING)
    return TemplateRequest(tuple(jinja.values()), as_objects(variables(spec, view.find)), (request, tuple(jinja)))


def conclude(node: Node, request: Any, answer: Any) -> Any:
    if isinstance(request, TemplateRequest):
        if isinstance(answer, Trouble):
            raise Failed(answer.message, TEMPLATE_ERROR)
        return _filled(request, answer)
    if isinstance(request, SchemaRequest):
        if isinstance(answer, Trouble):
            raise Failed(answer.message, LLM_ERROR)
        return Done(request.then)
    if isinstance(answer, Trouble):
        raise Failed(answer.message, answer.type)
    return _answered(node, request, answer)


def check(node: Node) -> Iterator[Problem]:
    if not isinstance(node.data.get("context"), Mapping):
        yield Problem(node.id, "context", "It is an object; {enabled: false} for none.")
    if not isinstance(mapping(node.data.get("model")).get("completion_params", {}), Mapping):
        yield Problem(node.id, "model.completion_params", "It is an object.")
    spec = node.data.get("memory")
    if spec is not None and not isinstance(mapping(spec).get("window"), Mapping):
        yield Problem(node.id, "memory.window", "It is an object: enabled, size.")
    for number, part in enumerate(map(mapping, sequence(node.data.get("prompt_template")))):
        if part.get("edition_type") != "jinja2" and not isinstance(part.get("text", ""), str):
            yield Problem(node.id, f"prompt_template[{number}].text", "It is a text.")


def split_reasoning(said: str) -> tuple[str, str]:
    """The words of a model, and its thoughts between their tags."""
    spoken, thought, at = [], [], 0
    while opened := OPEN.search(said, at):
        spoken.append(said[at : opened.start()])
        closed = CLOSE.search(said, opened.end())
        thought.append(said[opened.end() : closed.start() if closed else None].strip())
        at = closed.end() if closed else len(said)
    spoken.append(said[at:])
    return "".join(spoken).strip(), "\n".join(each for each in thought if each)


def without_thoughts(said: str) -> str:
    """The words of a model without thoughts between tags that are closed."""
    spoken, at = [], 0
    while (opened := OPEN.search(said, at)) and (closed := CLOSE.search(said, opened.end())):
        spoken.append(said[at : opened.start()])
        at = closed.end()
    return "".join([*spoken, said[at:]])


class Spoken:
    """Cuts thinking out of a text that comes in parts."""

    def __init__(self) -> None:
        self._held = ""
        self._thinks = self._begun = False

    def take(self, part: str) -> str:
        """The part of the text that can be sent now."""
        self._held += part
        spec = []
        while found := (CLOSE if self._thinks else OPEN).search(self._held):
            spec.append("" if self._thinks else self._held[: found.start()])
            self._held, self._thinks = self._held[found.end() :], not self._thinks
        partial = (CLOSING if self._thinks else OPENING).search(self._held, max(0, len(self._held) - 120))
        keeps = partial.start() if partial else len(self._held)
        spec.append("" if self._thinks else self._held[:keeps])
        self._held = self._held[keeps:]
        return self._begin("".join(spec))

    def rest(self) -> str:
        """The part that was held back, at the end."""
        return "" if self._thinks else self._begin(self._held)

    def _begin(self, spec: str) -> str:
        spec = spec if self._begun else spec.lstrip()
        self._begun |= bool(spec)
        return spec


def _request(node: Node, messages: list[Message], view: Values) -> ModelRequest:
    completion = isinstance(node.data.get("prompt_template"), Mapping)
    query = _query(node, view) if prompt.remembers(node, view) else ""
    own = [Message("user", query)] if query and not completion else []
    request = prompt.request(node, with_files(node, [*messages, *own], view), view, at=len(messages))
    return replace(request, query=query, schema=_schema(node), streams=True)


def _query(node: Node, view: Values) -> str:
    if template := text(mapping(node.data.get("memory")).get("query_prompt_template")):
        return render(template, view.find)
    value = view.find(("sys", "query"))
    return "" if value is None else text(value.data)


def _filled(request: TemplateRequest, texts: Sequence[str]) -> ModelRequest:
    model, places = request.then
    messages = list(model.messages)
    for place, written in zip(places, texts, strict=True):
        messages[place] = replace(messages[place], text=written)
    return _checked(replace(model, messages=tuple(messages)))


def _checked(request: ModelRequest) -> ModelRequest:
    """A request without its empty messages; a completion without memory is complete."""
    if request.mode == "completion":
        if request.memory is not None:
            return request
        request = prompt.put_together(request, (), len, None)
    full = [bool(message.text or message.files) for message in request.messages]
    if not any(full) and request.memory is None:
        raise Failed("The prompt has no messages.", EMPTY)
    kept = tuple(message for message, spec in zip(request.messages, full, strict=True) if spec)
    memory = request.memory and replace(request.memory, at=sum(full[: request.memory.at]))
    return replace(request, messages=kept, memory=memory)


def _messages(role: str, template: str, context: str, view: Values) -> list[Message]:
    """A message, and one of its own for the files that it refers to."""
    files: list[File] = []
    for part in parse(template):
        if isinstance(part, Reference):
            value = view.find(part.selector)
            if value is None:
                raise Failed(f"The variable {part.name} is missing.", MISSING)
            files += _files(value) if value.type in (values.FILE, values.array(values.FILE)) else []
    written = render(template.replace(CONTEXT, context), view.find)
    own = [Message(role, "", tuple(files))] if files else []
    return [Message(role, written), *own]


def _files(value: Value) -> list[File]:
    return [value.data] if value.type == values.FILE else list(value.data)


def with_files(node: Node, messages: list[Message], view: Values) -> list[Message]:
    """Messages with the files that the model is to see, in the last one."""
    vision = mapping(node.data.get("vision"))
    if not flag(vision.get("enabled")):
        return messages
    config = mapping(vision.get("configs"))
    value = view.find(selector(config.get("variable_selector")) or ("sys", "files"))
    if value is None or value.type in (values.NONE, values.array(values.ANY)):
        return messages
    if value.type not in (values.FILE, values.array(values.FILE)):
        raise Failed("The variable of `vision` is no file.", WRONG_FILES)
    if not (files := tuple(_files(value))):
        return messages
    detail = text(config.get("detail")) or "high"
    if messages and messages[-1].role == "user":
        return [*messages[:-1], Message("user", messages[-1].text, files, detail)]
    return [*messages, Message("user", "", files, detail)]


def _context(node: Node, view: Values) -> str:
    spec = mapping(node.data.get("context"))
    value = view.find(selector(spec.get("variable_selector"))) if flag(spec.get("enabled")) else None
    if value is None or value.data is None:
        return ""
    if isinstance(value.data, str):
        return value.data
    if not value.is_array:
        return ""
    return "\n".join(map(_line, value.data)).strip()


def _line(item: object) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, Mapping) and isinstance(item.get("content"), str):
        return str(item["content"])
    type = NO_CONTEXT if isinstance(item, Mapping | list | File) else "TypeError"
    raise Failed("The context is a list of something else than texts and results of a retrieval.", type)


def _schema(node: Node) -> Mapping[str, Any] | None:
    enabled = node.data.get("structured_output_enabled") or node.data.get("structured_output_switch_on")
    schema = mapping(node.data.get("structured_output")).get("schema") if enabled else None
    return schema if isinstance(schema, Mapping) else None


def _answered(node: Node, request: ModelRequest, answer: ModelAnswer) -> Done | SchemaRequest:
    said, thought = answer.text, answer.reasoning
    if node.data.get("reasoning_format") == "separated":
        said, own = split_reasoning(said)
        thought = thought or own
    outputs: dict[str, Any] = {
        "text": said,
        "reasoning_content": thought,
        "usage": dict(answer.usage),
        "finish_reason": answer.finish_reason,
    }
    if answer.files:
        outputs["files"] = Value(values.array(values.FILE), list(answer.files))
    if request.schema is None:
        return Done(outputs)
    if answer.structured is None:
        raise Failed("The answer is no JSON.", LLM_ERROR)
    outputs["structured_output"] = answer.structured
    return SchemaRequest((("structured_output", request.schema, answer.structured),), outputs)


TYPE = NodeType(
    "llm",
    {
        "model": "`provider`, `name`, `mode` chat or completion, `completion_params`.",
        "prompt_template": "Messages: `role`, `text`; of a completion, one.",
        "prompt_config": "`jinja2_variables` of messages in Jinja.",
        "context": "`variable_selector`: what stands for `{{#context#}}`.",
        "memory": "Earlier turns: `window`, `query_prompt_template`.",
        "vision": "Files to see: `configs.variable_selector`.",
        "structured_output": "`schema` of the answer.",
        "reasoning_format": "tagged or separated.",
    },
    {
        "text": "The answer.",
        "reasoning_content": "Its thoughts, if separated.",
        "usage": "Tokens.",
        "finish_reason": "Reason of its end.",
        "structured_output": "The answer as an object.",
        "files": "Files that it made.",
    },
    prepare=prepare,
    conclude=conclude,
    check=check,
    retries=True,
)
