"""A message of a stream as it is stored."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Self

import orjson


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a stream as it is stored; `time` is that of its first storing, in RFC 3339."""

    sequence: int
    subject: str
    time: str
    headers: dict[str, str]
    body: bytes

    def line(self) -> bytes:
        """A line of JSON; a body that is not UTF-8 is in `body64`."""
        fields = {"sequence": self.sequence, "subject": self.subject, "time": self.time, "headers": self.headers}
        try:
            return orjson.dumps(fields | {"body": self.body.decode()}) + b"\n"
        except UnicodeDecodeError:
            return orjson.dumps(fields | {"body64": b64encode(self.body).decode()}) + b"\n"

    @classmethod
    def of(cls, line: bytes) -> Self:
        fields = orjson.loads(line)
        body = b64decode(fields.pop("body64")) if "body64" in fields else fields.pop("body").encode()
        return cls(**fields, body=body)
