"""A connection to a cluster, whose outages are raised as `Unavailable`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from opensearchpy import AsyncOpenSearch, JSONSerializer
from opensearchpy.exceptions import ConnectionError as Unreachable
from opensearchpy.exceptions import ConnectionTimeout, SSLError, TransportError

from adapters.index.versions.database import Gone
from handlers.ports.log import Unavailable

logging.getLogger("opensearch").setLevel(logging.ERROR)  # callers raise what went wrong


@dataclass(frozen=True, slots=True)
class Access:
    """Addresses of a cluster, separated by commas; login and file of certificates, where it requires them."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None
    timeout_s: float = 15.0


@asynccontextmanager
async def connected(access: Access) -> AsyncIterator[AsyncOpenSearch]:
    options: dict[str, Any] = {"ca_certs": str(access.ca)} if access.ca else {}
    if access.user:
        options["http_auth"] = (access.user, access.password)
    client = AsyncOpenSearch(
        hosts=[host.strip() for host in access.url.split(",")],
        serializer=Serializer(),
        timeout=access.timeout_s,
        max_retries=2,  # on another node, when one does not answer at all
        maxsize=32,
        **options,
    )
    try:
        yield client
    finally:
        await client.close()


class Serializer(JSONSerializer):
    """Many times faster than the one of the library."""

    def loads(self, s: str) -> Any:
        return orjson.loads(s)

    def dumps(self, data: Any) -> Any:
        if isinstance(data, str | bytes):
            return data
        return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY).decode()


@contextmanager
def waiting() -> Iterator[None]:
    """Turn errors that pass when the cluster recovers into Unavailable; others, such as a wrong request, are raised."""
    try:
        yield
    except ConnectionTimeout as error:
        raise Unavailable(f"OpenSearch did not answer in time: {error.error}") from error
    except SSLError as error:
        raise Unavailable(f"OpenSearch's certificate is not trusted: {error}") from error
    except Unreachable as error:
        raise Unavailable(f"OpenSearch cannot be reached: {error}") from error
    except TransportError as error:
        if (reason := refusal(error.status_code, str(error.error))) is None:
            raise
        raise reason from error


def refusal(status: object, error: str) -> Unavailable | None:
    """The error for an answer with this status; None when a retry would fail the same way."""
    match status:
        case 401 | 403 if "cluster_block" not in error:
            return Unavailable(f"OpenSearch refuses the configured user, or the user lacks roles: {error}.")
        case 403:
            return Unavailable(f"OpenSearch takes no writes, usually because its disks are full: {error}.")
        case 404 if "index_not_found" in error:
            return Gone(f"An index is gone from OpenSearch: {error}. The index must be rebuilt.")
        case 408 | 429:
            return Unavailable(f"OpenSearch is overloaded: {error}.")
        case int() if status >= 500:
            return Unavailable(f"OpenSearch cannot serve the request now: {error}.")
    return None
