"""Prompts of model nodes: memory and files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from domain.workflows.graph import Node
from domain.workflows.node_type import Failed, Values, mapping, sequence, text, whole
from domain.workflows.rendering import render
from domain.workflows.requests import Memory, Message, ModelRequest

HISTORIES: Final = "#histories#"
NO_PREFIX: Final = "MemoryRolePrefixRequiredError"
LATEST: Final = 500
ROLES: Final = ("user", "assistant")


def remembers(node: Node, view: Values) -> bool:
    """Test for a node that takes earlier turns; only chatflows have them."""
    return bool(node.data.get("memory")) and view.chat


def memory(node: Node, at: int = 0) -> Memory:
    """The memory that a node asks for."""
    spec = mapping(node.data.get("memory"))
    window, prefix = mapping(spec.get("window")), mapping(spec.get("role_prefix"))
    size = window.get("size") if window.get("enabled") else None
    if not prefix and mapping(node.data.get("model")).get("mode") == "completion":
        raise Failed("The memory of a completion needs `role_prefix`.", NO_PREFIX)
    prefixes = (text(prefix.get("user")) or "Human", text(prefix.get("assistant")) or "Assistant")
    return Memory(at, whole(size, 0) or None, prefixes)


def request(
    node: Node, messages: Sequence[Message], view: Values, *, at: int = 0, inline: bool = False, then: Any = None
) -> ModelRequest:
    """The request of a node to its model. The memory stands at a message, or inside of it."""
    spec = mapping(node.data.get("model"))
    parameters = {
        name: render(value, view.find) if isinstance(value, str) else value
        for name, value in mapping(spec.get("completion_params")).items()
    }
    stop = tuple(map(str, sequence(parameters.pop("stop", None))))
    return ModelRequest(
        text(spec.get("provider")),
        text(spec.get("name")),
        text(spec.get("mode")) or "chat",
        tuple(messages),
        parameters,
        stop,
        memory=memory(node, at) if remembers(node, view) else None,
        inline=inline,
        then=then,
    )


def put_together(
    request: ModelRequest,
    turns: Sequence[tuple[str, str]],
    count: Callable[[Sequence[Message]], int],
    context: int | None,
) -> ModelRequest:
    """A request with its memory: the latest of the earlier questions and answers that fit the context of the model,
    by a count of tokens."""
    history: list[Message] = []
    if request.memory is not None:
        kept = turns[-(request.memory.window or LATEST) :]
        history = [Message(role, said) for turn in kept for role, said in zip(ROLES, turn, strict=True)]
        if context is not None:
            room = context - count(request.messages) - whole(request.parameters.get("max_tokens"), 0)
            while len(history) > 1 and count(history) > room:
                history.pop(0)
    if request.inline:
        return _inlined(request, history)
    if request.mode == "completion":
        return _completed(request, history)
    at = request.memory.at if request.memory else 0
    return replace(request, messages=(*request.messages[:at], *history, *request.messages[at:]), memory=None)


def seen(request: ModelRequest, takes: Collection[str]) -> ModelRequest:
    """A request without the files of types that the model does not take."""
    messages = []
    for message in request.messages:
        files = tuple(file for file in message.files if file.type in takes)
        if files or message.text or message.calls or request.mode == "completion":
            messages.append(replace(message, files=files))
    return replace(request, messages=tuple(messages))


def _transcript(request: ModelRequest, history: Sequence[Message]) -> str:
    names = dict(zip(ROLES, request.memory.prefixes, strict=True)) if request.memory else {}
    return "\n".join(f"{names[each.role]}: {each.text}" for each in history)


def _inlined(request: ModelRequest, history: Sequence[Message]) -> ModelRequest:
    first, *others = request.messages
    written = first.text.replace(HISTORIES, _transcript(request, history), 1)
    return replace(request, messages=(replace(first, text=written), *others), memory=None)


def _completed(request: ModelRequest, history: Sequence[Message]) -> ModelRequest:
    if not request.messages:
        return request
    first, *others = request.messages
    spec, written = _transcript(request, history), first.text
    written = written.replace(HISTORIES, spec) if HISTORIES in written else f"{spec}\n{written}"
    if request.query:
        written = f"{request.query}\n{written}"
    return replace(request, messages=(replace(first, text=written), *others), memory=None)
