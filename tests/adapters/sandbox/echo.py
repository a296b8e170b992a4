"""A contained process for tests: it does what a request says."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from adapters.sandbox.serve import REPLY, serve


def reply(head: dict[str, Any], data: bytes) -> bytes:
    match head["do"]:
        case "abort":
            os.abort()
        case "exhaust":
            raise MemoryError
        case "sleep":
            time.sleep(100)
        case "nap":
            time.sleep(0.2)
        case "die":
            os._exit(3)
        case "flood":
            while True:
                os.write(1, bytes(2**16))
        case "claim":
            os.write(int(head["to"]), REPLY.pack(2**40))
            time.sleep(100)
        case "print":
            print("words that are no reply", flush=True)  # noqa: T201
    return data + str(os.getpid()).encode()


if __name__ == "__main__":
    if sys.argv[1:] == ["broken"]:
        raise RuntimeError("It does not load.")
    serve(reply)
