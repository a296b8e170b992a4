"""The contained process that runs code, each call in a process of its own, which it forks.

Its arguments are LANGUAGE, the most bytes of an output, and folders of packages. It speaks the protocol of
`adapters.sandbox.serve`, but does not read requests: the forked process does, which waits for its request, and what it
writes passes through memory that is given back. So no call finds anything of another in its copy of this process. A
call that leaves a file is the last one of its process.

The head of a request is `{"seconds", "cpu_s", "memory", "output", "code"}`, its data are the inputs as JSON. A reply is
ENDING, what was printed, and then: nothing, or READ and VALUE with JSON, or READ and FAULT with `[kind, reason, line]`.
"""

from __future__ import annotations

import gc
import mmap
import os
import select
import sys
from importlib import import_module
from typing import NamedTuple

from adapters.code.call import WITHOUT, Call, send
from adapters.code.ending import ENDING, READ, VALUE
from adapters.sandbox import seccomp
from adapters.sandbox.serve import READY, REPLY
from handlers.ports.code import PRINTED

_SCRAP = 2**16
"""Room for what is printed and not kept."""


def main() -> None:
    language, most, packages = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    runs = import_module(f"adapters.code.{language}")
    runs.prepare(packages)
    nothing = os.open(os.devnull, os.O_RDWR)
    call = Call(runs.run, seccomp.prepared(0, forks=False), nothing)
    gc.collect()
    gc.freeze()
    os.write(1, READY)
    folder = os.environ["TMPDIR"]
    files = _files(folder)
    while _answer(call, most) and _files(folder) == files:
        pass


def _files(folder: str) -> int:
    """A number that changes with those of a folder, which may be above the paths of this code; 0 for an empty one."""
    with os.scandir(folder) as found:
        if next(found, None) is None:
            return 0
    system = os.statvfs(folder)
    return system.f_files - system.f_ffree


def _answer(call: Call, most: int) -> bool:
    """Answer a request, by a process that is there before it; False if there is none, or it was not read whole."""
    said, says = os.pipe()
    result, results = os.pipe()
    pid = os.fork()
    if pid == 0:
        call.make(says, results)
    os.close(says)
    os.close(results)
    length = PRINTED + _SCRAP + most + len(READ + VALUE) + 1
    with mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory, memoryview(memory) as room:
        printed, written, too_much = _gather(said, result, room, most)
        _, ended, usage = os.wait4(pid, 0)
        if (status := os.waitstatus_to_exitcode(ended)) == WITHOUT and not written:
            return False
        cpu_ms = round(1000 * (usage.ru_utime + usage.ru_stime))
        head = ENDING.pack(status, cpu_ms, too_much, printed)
        send(1, REPLY.pack(len(head) + printed + written) + head)
        with room[:printed] as part:
            send(1, part)
        with room[PRINTED + _SCRAP :][:written] as part:
            send(1, part)
            return part[:1] == READ


class Gathered(NamedTuple):
    """Bytes of what was printed and kept, and of the result; True if there was too much."""

    printed: int
    written: int
    too_much: bool


def _gather(said: int, result: int, room: memoryview, most: int) -> Gathered:
    """Read both pipes to their ends, or until there is too much: who writes on is ended by SIGPIPE."""
    printed = written = total = 0
    too_much = False
    poll, unread = select.poll(), {said, result}
    for pipe in unread:
        poll.register(pipe, select.POLLIN)
    while unread:
        for pipe, _ in poll.poll():
            if pipe == said:
                with room[printed:PRINTED] if printed < PRINTED else room[PRINTED:][:_SCRAP] as place:
                    size = os.readv(pipe, [place])
                printed, total = min(PRINTED, printed + size), total + size
            else:
                with room[PRINTED + _SCRAP + written :] as place:
                    size = os.readv(pipe, [place])
                written += size
            over = max(total, written - len(READ + VALUE)) > most
            too_much |= over
            if over or not size:
                poll.unregister(pipe)
                os.close(pipe)
                unread.remove(pipe)
    return Gathered(printed, written, too_much)


if __name__ == "__main__":
    main()
