"""Tries what a contained process must not do; its arguments are FILE and PID.

FILE is one that it must not read, PID a process that it must not signal. It writes a JSON list of what succeeded.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable


def main() -> None:
    thread = threading.Thread(target=lambda: None)  # readers of files need them
    thread.start()
    thread.join()
    tries: dict[str, Callable[[], object]] = {
        "read the files of the worker": lambda: open(sys.argv[1]).close(),
        "open a connection": lambda: socket.socket().close(),
        "start a process": fork,
        "signal the worker": lambda: os.kill(int(sys.argv[2]), 0),
    }
    could = []
    for what, attempt in tries.items():
        try:
            attempt()
        except OSError:
            continue
        could.append(what)
    sys.stdout.write(json.dumps(could))


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    main()
