"""The plugin's side of the protocol of Headrace, version 1. It needs Python 3.9 and nothing else: copy it as it is.

Name a function for each hook in plugin.json, and end main.py with `serve(globals())`. A hook takes the call, a dict,
and returns None to go on, or what `replace`, `answer`, `refuse` or `later` return. What is printed goes to the log.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

Fields = dict[str, Any]


def replace(**fields: Any) -> Fields:
    """Change the fields of a call that the hook may change, as `messages` or `response`."""
    return {"action": "replace", **fields}


def answer(response: str) -> Fields:
    """Answer in place of the model."""
    return {"action": "answer", "response": response}


def refuse(reason: str) -> Fields:
    """Refuse the call; the reason is for people, and is recorded."""
    return {"action": "refuse", "reason": reason}


def later(reason: str) -> Fields:
    """Of a monitor: ask for the call again in a while, as when a collector is away."""
    return {"action": "later", "reason": reason}


def serve(functions: dict[str, Any], threads: int = 1) -> None:
    """Handle lines until the host closes. With more threads, hooks run at once."""
    lines, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what is printed goes to the log
    manifest = json.loads((Path(sys.argv[0]).resolve().parent / "plugin.json").read_text("utf-8"))
    hooks = {hook: functions[name] for hook, name in manifest.get("hooks", {}).items()}
    _Server(hooks, replies).run(lines, threads)


class _Server:
    def __init__(self, hooks: dict[str, Callable[..., Fields | None]], replies: BinaryIO) -> None:
        self.hooks = hooks
        self.replies = replies
        self.lock = threading.Lock()

    def run(self, lines: BinaryIO, threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            for line in lines:
                message = json.loads(line)
                kind = message.get("type")
                if kind == "close":
                    break
                if kind == "load":
                    self.load(message)
                elif kind == "ping":
                    self.write({"type": "pong"})
                elif kind == "hook" and threads == 1:
                    self.handle(message)
                elif kind == "hook":
                    pool.submit(self.handle, message)
        if "close" in self.hooks:
            self.hooks["close"]()

    def load(self, message: Fields) -> None:
        try:
            if "load" in self.hooks:
                self.hooks["load"](message["settings"])
        except Exception as error:
            traceback.print_exc()
            self.write({"type": "error", "message": f"{type(error).__name__}: {error}"})
            return
        self.write({"type": "ready", "hooks": sorted(self.hooks)})

    def handle(self, message: Fields) -> None:
        try:
            reply = self.hooks[message["hook"]](message["call"]) or {"action": "continue"}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        self.write({"id": message["id"], **reply})

    def write(self, message: Fields) -> None:
        line = json.dumps(message, ensure_ascii=False).encode("utf-8") + b"\n"
        with self.lock:
            view = memoryview(line)
            while view:
                view = view[self.replies.write(view) or 0 :]
