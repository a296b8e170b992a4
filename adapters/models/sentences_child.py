"""The contained process that compares sentences, by the protocol of `adapters.sandbox.serve`.

The head of a request is `{"task"}`, its data are a text and passages as JSON. The reply is a JSON list: of passages, by
number, and sentences for the task `evidence`; of sentences for `answering`; of numbers of passages for `ranked`.
"""

from __future__ import annotations

import json
from typing import Any

from adapters.sandbox.serve import serve
from handlers.chat.evidence import evidence
from handlers.chat.ranking import ranked
from handlers.chat.sentences import answering


def reply(head: dict[str, Any], data: bytes) -> bytes:
    text, passages = json.loads(data)
    if head["task"] == "evidence":
        return json.dumps(evidence(text, passages), ensure_ascii=False).encode(errors="surrogatepass")
    if head["task"] == "ranked":
        return json.dumps(ranked(text, passages)).encode()
    found = [sentence.text for sentence in answering(text, passages)]
    return json.dumps(found, ensure_ascii=False).encode(errors="surrogatepass")


if __name__ == "__main__":
    serve(reply)
