"""A call of code, in the process that was forked for it."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from adapters.code.ending import FAULT, READ, VALUE
from adapters.code.fault import Fault
from adapters.sandbox.serve import REQUEST

Run = Callable[[str, str], str]
"""Runs code with inputs as JSON; the result is JSON. Raises: Fault, MemoryError."""

WITHOUT = 64
"""The status of a process that no request came to."""

_RESULT = 3
"""The descriptor of the result; the code may close it, or write to it: what it says is its own result."""

_PRCTL, _SET_PARENT_DEATH_SIGNAL = ctypes.CDLL(None).prctl, 1

_NO_MEMORY = FAULT + b'["memory", "The code takes more memory than it may.", null]'


class Call(NamedTuple):
    """The parts that calls have in common: `restrict` takes the right to start processes, `nothing` is a descriptor of
    `/dev/null`."""

    run: Run
    restrict: Callable[[], None]
    nothing: int

    def make(self, says: int, results: int) -> NoReturn:
        """Wait for a request, give up what is left to give up, run the code, write the result, and end.

        What can be done before is done before. The status is WITHOUT where there is no request any more.
        """
        status = WITHOUT
        try:
            _PRCTL(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            self.restrict()
            if sizes := _received(REQUEST.size):
                status = 0
                head_size, size = REQUEST.unpack(sizes)
                head: dict[str, Any] = json.loads(_received(head_size))
                inputs = _received(size).decode()
                os.write(results, READ)
                self._leave(says, results)
                _limit(head)
                send(_RESULT, _outcome(self.run, head, inputs))
        finally:
            os._exit(status)

    def _leave(self, says: int, results: int) -> None:
        """Close all descriptors but those of the code."""
        os.dup2(self.nothing, 0)
        os.dup2(says, 1)
        os.dup2(says, 2)
        os.dup2(results, _RESULT)  # the last: it may be the number of `nothing`
        os.closerange(_RESULT + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _limit(head: dict[str, Any]) -> None:
    signal.setitimer(signal.ITIMER_REAL, head["seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (head["cpu_s"], head["cpu_s"] + 1))
    resource.setrlimit(resource.RLIMIT_AS, (head["memory"], head["memory"]))


def _outcome(run: Run, head: dict[str, Any], inputs: str) -> bytes:
    try:
        text = run(head["code"], inputs).encode()
        if len(text) > head["output"]:
            raise Fault("output_too_large", f"The result has {len(text):,} bytes, at most {head['output']:,} fit.")
        return VALUE + text
    except MemoryError:
        return _NO_MEMORY
    except UnicodeEncodeError:
        return _stated(Fault("not_json", "The result has half a surrogate pair, which is no text."))
    except Fault as fault:
        return _stated(fault)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()


def _stated(fault: Fault) -> bytes:
    text = json.dumps([fault.kind, fault.reason, fault.line], ensure_ascii=False)
    return FAULT + text.encode(errors="replace")


def _received(size: int) -> bytearray:
    """As many bytes of standard input; fewer where it ends."""
    data, done = bytearray(size), 0
    with memoryview(data) as view:
        while done < size and (count := os.readv(0, [view[done:]])):
            done += count
    del data[done:]
    return data


def send(file: int, data: bytes | memoryview) -> None:
    done = 0
    while done < len(data):
        done += os.write(file, data[done:])
