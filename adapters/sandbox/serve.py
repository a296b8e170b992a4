"""The loop of a contained process that answers requests.

It writes READY when it has loaded. A request on standard input is the size of a head (4 bytes), the size of the data (8
bytes), the head and the data; the head is JSON. The reply on standard output is a size (8 bytes) and as many bytes.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from typing import Any

READY = b"\x06"
REQUEST = struct.Struct(">IQ")
REPLY = struct.Struct(">Q")


def serve(answer: Callable[[dict[str, Any], bytes], bytes]) -> None:
    """Answer requests until standard input ends. What `answer` prints is thrown away."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    replies.write(READY)
    replies.flush()
    while sizes := requests.read(REQUEST.size):
        head_size, size = REQUEST.unpack(sizes)
        head = json.loads(requests.read(head_size))
        reply = answer(head, requests.read(size))
        replies.write(REPLY.pack(len(reply)) + reply)
        replies.flush()
