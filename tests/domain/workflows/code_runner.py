"""Code of recorded cases, run in child processes: one of Python, one of Node. Sleeping is counted, not done."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from functools import cache
from typing import Any

from domain.workflows.node_type import Trouble
from domain.workflows.requests import CodeRequest

PYTHON = r"""
import json, sys, time
slept = 0
def sleep(seconds):
    global slept
    slept += seconds
time.sleep = sleep
out, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    spec, slept = json.loads(line), 0
    try:
        space = {"__name__": "__main__"}
        exec(compile(spec["code"], "<code>", "exec"), space)
        made = {"result": space["main"](**spec["inputs"])}
        json.dumps(made)
    except BaseException as error:
        made = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({**made, "slept": slept}), file=out, flush=True)
"""

NODE = r"""
const vm = require("vm");
require("readline").createInterface({input: process.stdin}).on("line", line => {
  const spec = JSON.parse(line);
  let made;
  try {
    const console = {log() {}, error() {}};
    const context = vm.createContext({console, inputs: spec.inputs, Buffer, require, URL});
    made = {result: vm.runInContext(spec.code + "\nmain(inputs)", context)};
    made = JSON.parse(JSON.stringify(made));
  } catch (error) { made = {error: String(error)}; }
  process.stdout.write(JSON.stringify(made) + "\n");
});
"""


@cache
def _child(language: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-c", PYTHON] if language == "python3" else ["node", "-e", NODE]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    atexit.register(_end, child)
    return child


def _end(child: subprocess.Popen[str]) -> None:
    assert child.stdin
    assert child.stdout
    child.stdin.close()
    child.wait()
    child.stdout.close()


def run_code(request: CodeRequest) -> tuple[float, Any]:
    """Run code: its sleeps in seconds, and its result."""
    child = _child(request.language)
    assert child.stdin
    assert child.stdout
    child.stdin.write(json.dumps({"code": request.code, "inputs": request.inputs}) + "\n")
    child.stdin.flush()
    made = json.loads(child.stdout.readline())
    slept = float(made.get("slept", 0))
    if "error" in made:
        return slept, Trouble(made["error"])
    result = made.get("result")
    return slept, result if isinstance(result, dict) else Trouble("It returned no object.")
