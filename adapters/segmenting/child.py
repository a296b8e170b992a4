"""The contained process that segments texts, by the protocol of `adapters.sandbox.serve`.

Its argument is the folder of the embedding model. The head of a request is `{"rules"}`, its data are the blocks of the
text as JSON. The reply is JSON: `{"segments"}`, as they are stored, or `{"code", "message"}`.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

from adapters.sandbox.serve import serve
from adapters.segmenting.segmenter import TokenSegmenter
from domain.knowledge.segmentation import Segmentation
from domain.knowledge.segments import pack
from handlers.ports.documents import Block, Text, Unreadable


def reply(segmenter: TokenSegmenter, head: dict[str, Any], data: bytes) -> bytes:
    text = Text([Block(*block) for block in json.loads(data)], None)
    try:
        segments = segmenter.segment(text, Segmentation.of(head["rules"]))
    except Unreadable as unreadable:
        return json.dumps({"code": unreadable.code, "message": str(unreadable)}).encode()
    return json.dumps({"segments": [pack(segment) for segment in segments]}, ensure_ascii=False).encode()


if __name__ == "__main__":
    serve(partial(reply, TokenSegmenter(sys.argv[1])))
