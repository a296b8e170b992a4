"""The wire format of embedding requests: token ids in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TokenIds = Sequence[int] | npt.NDArray[np.int32]

STATUS = "Headrace-Status"


URGENT = "Headrace-Urgent"


TENANT = "Headrace-Tenant"


IDENTITY = "Headrace-Identity"


DIMENSION = "Headrace-Dimension"


DURATION = "Headrace-Duration-Ms"


def pack(token_ids: Sequence[TokenIds]) -> bytes:
    """The body of a request."""
    lengths = np.array([len(token_ids), *map(len, token_ids)], "<u4")
    return lengths.tobytes() + np.concatenate([np.asarray(text, "<i4") for text in token_ids]).tobytes()


def unpack(body: bytes) -> list[npt.NDArray[np.int32]]:
    """Views of the token ids in a request. Raises: ValueError when its numbers are inconsistent."""
    if len(body) < 4 or len(body) % 4:
        raise ValueError("A request is a number of texts, their lengths and their token ids, of four bytes each.")
    numbers = np.frombuffer(body, "<u4")
    count = int(numbers[0])
    lengths = numbers[1 : count + 1].astype(np.int64)
    ids = np.frombuffer(body, "<i4")[count + 1 :]
    if not count or len(lengths) != count or lengths.sum() != len(ids):
        raise ValueError("The lengths of the texts do not match the number of token ids.")
    return np.split(ids, np.cumsum(lengths)[:-1])
