"""Filters of plugins around a call of a model or a tool: before it is recorded and sent, and after it, in reverse."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import orjson

from domain.tools.plugin import Hook, PluginRun
from handlers.ports.filters import Check, Finding
from handlers.ports.models import ChatMessage, ChatRequest, ModelError
from handlers.ports.plugins import EnabledPlugin, PluginFailed, Plugins

LONGEST = 2000
"""Maximum number of characters of an answer that are held back for the end of a sentence."""

LONGEST_REASON = 500
"""Maximum length of a plugin's reason, in characters."""

_END = re.compile(r"[.!?…。！？।؟][\"'”’)\]]{0,3}\s|\n")
"""The end of a sentence."""

_ROLES = ("system", "user", "assistant")


class Filtered(NamedTuple):
    """The record of filters: hooks in the order in which they ran, and the digest of what they changed, None for
    nothing."""

    runs: list[PluginRun]
    original: str | None


NOT_FILTERED = Filtered([], None)


Texts = Mapping[str, Any]
"""The texts of a call of a model that is no chat, by name: each a text, or a list of texts."""

USUAL = ("chat", "moderation", "tool")
"""Kinds of calls that a filter is for which names none: it knows their fields."""


def suits(plugin: EnabledPlugin, about: Mapping[str, Any]) -> bool:
    """Return whether a plugin is for a call, by its `kind`, `provider`, `model` and `app`."""
    match = plugin.manifest["match"]
    return all(
        not wanted or about[name] in wanted
        for name, wanted in (
            ("kind", match["kinds"]),
            ("provider", match["providers"]),
            ("model", match["models"]),
            ("app", match["apps"]),
        )
    )


async def filters_of(plugins: Plugins | None, tenant: str, about: Mapping[str, Any]) -> CallFilters | None:
    """The filters of plugins for a call; None for none. Raises: Unavailable."""
    if plugins is None:
        return None
    enabled = plugins.known(tenant)
    if enabled is None:
        enabled = await plugins.enabled(tenant)
    filters = [plugin for plugin in enabled if plugin.manifest["kind"] == "filter"]
    if about["kind"] not in USUAL:
        filters = [plugin for plugin in filters if plugin.manifest["match"]["kinds"]]
    found = [plugin for plugin in filters if suits(plugin, about)]
    return CallFilters(plugins, found, about) if found else None


@dataclass(slots=True)
class CallFilters:
    """The filters of one try of a call of a model, or of a call of a tool; `about` are its facts, which every hook
    gets."""

    plugins: Plugins
    filters: Sequence[EnabledPlugin]
    about: Mapping[str, Any]
    closed: bool = False
    """A hook that fails fails the call, whatever the manifest says."""
    answer: str | None = None
    """The answer that a filter gives in place of the model."""
    _runs: dict[tuple[str, str], PluginRun] = field(default_factory=dict)
    _original: str | None = None
    _held: str = ""
    _raw: str = ""
    _changed: bool = False

    @property
    def watches_answer(self) -> bool:
        return any("after_invoke" in each.manifest["hooks"] for each in self.filters)

    @property
    def said(self) -> str:
        """The answer as the model gave it, so far."""
        return self._raw

    def take_record(self) -> Filtered:
        """The record of the hooks since the last one."""
        record = Filtered(list(self._runs.values()), self._original)
        self._runs, self._original = {}, None
        return record

    # --- before the call ------------------------------------------------------------------------------------------

    async def before(self, request: ChatRequest) -> ChatRequest:
        """The request as the filters leave it; `answer` is set where one answers in place of the model.

        Raises: ModelError `plugin_refused`, `plugin_failed`.
        """
        given = request
        for plugin in self._with("before_invoke"):
            reply = await self._ask(plugin, "before_invoke", _call(given))
            if reply is None:
                continue
            match reply["action"]:
                case "replace":
                    try:
                        changed = _replaced(given, reply)
                    except (TypeError, ValueError) as error:
                        self._without(plugin, "before_invoke", "invalid_reply", str(error))
                        continue
                    self._run(plugin, "before_invoke")["changed"] = changed != given
                    given = changed
                case "answer":
                    self.answer = str(reply.get("response", ""))
                    break
                case "refuse":
                    raise _refused(plugin, reply)
        if given != request:
            self._original = digest(_call(request))
        return given

    async def before_texts(self, texts: Texts) -> Texts:
        """The texts of a call that is no chat, as the filters leave them.

        Raises: ModelError `plugin_refused`, `plugin_failed`.
        """
        given = texts
        for plugin in self._with("before_invoke"):
            reply = await self._ask(plugin, "before_invoke", given)
            if reply is None:
                continue
            if reply["action"] == "refuse":
                raise _refused(plugin, reply)
            changed = {name: reply.get(name, text) for name, text in given.items()}
            if reply["action"] != "replace" or not all(_is_like(changed[name], given[name]) for name in given):
                fields = ", ".join(given) or "nothing"
                sentence = f"It takes refuse, or replace with {fields}: as many texts as there were."
                self._without(plugin, "before_invoke", "invalid_reply", sentence)
                continue
            self._run(plugin, "before_invoke")["changed"] = changed != given
            given = changed
        if given != texts:
            self._original = digest(texts)
        return given

    async def after_text(self, text: str) -> str:
        """A whole text that came back, as the filters leave it. Raises: ModelError."""
        self.hold(text)
        given = await self.release(last=True)
        return given if self.answer is None else self.answer

    # --- after the call -------------------------------------------------------------------------------------------

    def hold(self, text: str) -> None:
        """Take more of the answer."""
        self._raw += text
        self._held += text

    def restart(self) -> None:
        """Forget the answer so far."""
        self._held = self._raw = ""

    async def release(self, *, last: bool) -> str:
        """The part of the answer that may be given out: complete sentences, as the filters leave them; all of it when
        it is the `last` part. `answer` is set where a filter replaces the whole answer.

        Raises: ModelError `plugin_refused`, `plugin_failed`.
        """
        end = len(self._held) if last else self._end()
        part, self._held = self._held[:end], self._held[end:]
        if not part and not last:
            return ""
        given = part
        for plugin in self._with("after_invoke", reverse=True):
            reply = await self._ask(plugin, "after_invoke", {"response": given, "last": last})
            if reply is None:
                continue
            match reply["action"]:
                case "replace":
                    changed = reply.get("response")
                    if not isinstance(changed, str):
                        self._without(plugin, "after_invoke", "invalid_reply", "response must be a text.")
                        continue
                    self._run(plugin, "after_invoke")["changed"] |= changed != given
                    given = changed
                case "answer":
                    self.answer, given = str(reply.get("response", "")), ""
                    self._run(plugin, "after_invoke")["changed"] = last = True
                    break
                case "refuse":
                    raise _refused(plugin, reply)
        self._changed |= given != part
        if last and self._changed:
            self._original = hashlib.sha256(self._raw.encode(errors="replace")).hexdigest()
        return given

    def _end(self) -> int:
        """The end of the last complete sentence that is held; 0 for none, and where a filter takes the whole answer."""
        if any(each.manifest["window"] == "whole" for each in self._with("after_invoke")):
            return 0
        ends = [found.end() for found in _END.finditer(self._held)]
        return ends[-1] if ends else len(self._held) if len(self._held) > LONGEST else 0

    async def failed(self, error: ModelError) -> None:
        """Tell the filters about an error of the call; none of them changes it."""
        for plugin in self._with("on_error", reverse=True):
            try:
                await self._ask(plugin, "on_error", {"code": error.code, "reason": error.reason})
            except ModelError:
                continue

    # --- calls of tools -------------------------------------------------------------------------------------------

    async def before_tool(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as the filters leave them. Raises: ModelError `plugin_refused`, `plugin_failed`."""
        given = arguments
        for plugin in self._with("before_tool"):
            reply = await self._ask(plugin, "before_tool", {"arguments": given})
            if reply is None:
                continue
            if reply["action"] == "refuse":
                raise _refused(plugin, reply)
            changed = reply.get("arguments")
            if reply["action"] != "replace" or not isinstance(changed, dict):
                self._without(plugin, "before_tool", "invalid_reply", "It takes replace with arguments, or refuse.")
                continue
            self._run(plugin, "before_tool")["changed"] = changed != given
            given = changed
        if given != arguments:
            self._original = digest(arguments)
        return given

    async def after_tool(self, text: str) -> str:
        """The text of a result as the filters leave it. Raises: ModelError `plugin_refused`, `plugin_failed`."""
        given = text
        for plugin in self._with("after_tool", reverse=True):
            reply = await self._ask(plugin, "after_tool", {"result": given})
            if reply is None:
                continue
            if reply["action"] == "refuse":
                raise _refused(plugin, reply)
            changed = reply.get("result")
            if reply["action"] != "replace" or not isinstance(changed, str):
                self._without(plugin, "after_tool", "invalid_reply", "It takes replace with a result, or refuse.")
                continue
            self._run(plugin, "after_tool")["changed"] = changed != given
            given = changed
        if given != text:
            self._original = digest(text)
        return given

    async def check(self, check: Check) -> Finding:
        """The verdict of the one filter on texts. Raises: ModelError."""
        [plugin] = self.filters
        try:
            reply = await self._ask(plugin, "check", {"texts": dict(check.texts)})
        except ModelError as error:
            code = self._run(plugin, "check")["code"]
            raise ModelError("timeout" if code == "timeout" else error.code, error.reason) from error
        if reply is None:  # it goes on
            return Finding(False)
        changed = reply.get("texts", {})
        if not isinstance(changed, dict) or not all(isinstance(each, str) for each in changed.values()):
            self._without(plugin, "check", "invalid_reply", "texts must be an object of texts.")
            changed = {}
        changed = {name: text for name, text in changed.items() if check.texts.get(name, text) != text}
        self._run(plugin, "check")["changed"] = bool(changed)
        return Finding(reply["action"] == "refuse" or bool(changed), changed)

    # --- hooks ----------------------------------------------------------------------------------------------------

    def _with(self, hook: str, *, reverse: bool = False) -> list[EnabledPlugin]:
        found = [each for each in self.filters if hook in each.manifest["hooks"]]
        return found[::-1] if reverse else found

    async def _ask(self, plugin: EnabledPlugin, hook: Hook, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The reply to a hook; None to go on without one. Raises: ModelError `plugin_failed`."""
        run, began = self._run(plugin, hook), time.perf_counter()
        try:
            reply = await self.plugins.ask(plugin, hook, {**self.about, **fields})
        except PluginFailed as failed:
            self._without(plugin, hook, failed.code, failed.reason)
            return None
        finally:
            run["ms"] = round(run["ms"] + (time.perf_counter() - began) * 1000, 3)
        run["version"], run["digest"] = reply.version, reply.digest
        action = reply.fields.get("action")
        if action not in ("continue", "replace", "answer", "refuse"):
            self._without(plugin, hook, "invalid_reply", f"{str(action)[:50]!r} is no action.")
            return None
        if hook == "on_error" or action == "continue":
            return None
        run["action"] = action
        return reply.fields

    def _run(self, plugin: EnabledPlugin, hook: str) -> PluginRun:
        """The run of a plugin's hook: one for all parts of an answer."""
        key = plugin.name, hook
        if key not in self._runs:
            self._runs[key] = PluginRun(
                name=plugin.name,
                version=plugin.version,
                digest=plugin.digest,
                hook=hook,
                action="continue",
                changed=False,
                ms=0.0,
                code=None,
            )
        return self._runs[key]

    def _without(self, plugin: EnabledPlugin, hook: str, code: str, reason: str) -> None:
        """Record a hook that failed. Raises: ModelError `plugin_failed`, when nothing passes without the plugin."""
        run = self._run(plugin, hook)
        run["action"], run["code"] = "fail", code
        if self.closed or plugin.manifest["on_failure"] == "closed":
            sentence = f"The plugin {plugin.name} {plugin.version} did not handle {hook} ({code}): {reason}"
            raise ModelError("plugin_failed", sentence[: 2 * LONGEST_REASON])


def _is_like(changed: object, given: object) -> bool:
    """Return whether a text was replaced by a text, and a list of texts by one of the same length."""
    if not isinstance(given, list):
        return isinstance(changed, str)
    return isinstance(changed, list) and len(changed) == len(given) and all(isinstance(each, str) for each in changed)


def _refused(plugin: EnabledPlugin, reply: Mapping[str, Any]) -> ModelError:
    reason = str(reply.get("reason") or "It gives no reason.")[:LONGEST_REASON]
    return ModelError("plugin_refused", f"The plugin {plugin.name} refuses the call: {reason}")


def _call(request: ChatRequest) -> dict[str, Any]:
    """The request, as a hook gets it."""
    return {
        "messages": [_message(each) for each in request.messages],
        "passages": request.passages,
        "parameters": request.parameters,
        "max_tokens": request.max_tokens,
        "tools": [tool.name for tool in request.tools],
    }


def _message(message: ChatMessage) -> dict[str, Any]:
    given: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.attachments:
        given["attachments"] = [{"kind": each.kind, "name": each.name} for each in message.attachments]
    if message.tool_calls:
        given["tool_calls"] = [call._asdict() for call in message.tool_calls]
    if message.tool_call_id:
        given["tool_call_id"] = message.tool_call_id
    return given


def _replaced(request: ChatRequest, reply: Mapping[str, Any]) -> ChatRequest:
    """The request with the fields of a reply. Raises: TypeError, ValueError, with the rule that a field breaks."""
    changes: dict[str, Any] = {}
    if "messages" in reply:
        changes["messages"] = _messages(request.messages, reply["messages"])
    if "passages" in reply:
        passages = reply["passages"]
        if not isinstance(passages, list) or not all(isinstance(each, str) for each in passages):
            raise TypeError("passages must be a list of texts.")
        changes["passages"] = passages
    if "parameters" in reply:
        if not isinstance(reply["parameters"], dict):
            raise TypeError("parameters must be an object.")
        changes["parameters"] = reply["parameters"]
    if "max_tokens" in reply:
        if type(reply["max_tokens"]) is not int or not 1 <= reply["max_tokens"] <= request.max_tokens:
            raise ValueError("max_tokens must be a number, no larger than it was.")
        changes["max_tokens"] = reply["max_tokens"]
    return replace(request, **changes)


def _messages(before: Sequence[ChatMessage], after: object) -> list[ChatMessage]:
    """The messages of a reply: of as many with the same roles, each keeps what is no text; of others, none does."""
    if not isinstance(after, list) or not after or not all(isinstance(each, dict) for each in after):
        raise TypeError("messages must be a list of objects.")
    given = cast("list[dict[str, Any]]", after)
    if not all(isinstance(each.get("content"), str) for each in given):
        raise TypeError("Each message must have a content that is a text.")
    if [each.get("role") for each in given] == [each.role for each in before]:
        return [each._replace(content=new["content"]) for each, new in zip(before, given, strict=True)]
    if not all(each.get("role") in _ROLES for each in given):
        raise ValueError(f"Each added message must have a role of {', '.join(_ROLES)}.")
    return [ChatMessage(each["role"], each["content"]) for each in given]


def digest(value: Any) -> str:
    """The SHA-256 of a value as JSON, by which the record names what was there before filters changed it."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
