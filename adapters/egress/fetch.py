"""Fetches files from addresses that end users choose."""

from __future__ import annotations

import asyncio
import re

import httpx2

from adapters.egress.client import Egress, Refused, TooLarge
from handlers.ports.files import Fetched, NotFetched

REDIRECTS = 5
"""Maximum number of redirects that are followed; each address is checked like the first."""

CONNECT_S, TOTAL_S = 10.0, 60.0
"""Time to connect, and for a file with all redirects, in seconds."""

_MEDIA_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}")


class GuardedFetch:
    """A Fetch by GET requests, without cookies and credentials, from public addresses and what an operator allows."""

    def __init__(self, egress: Egress, *, total_s: float = TOTAL_S) -> None:
        self._egress = egress
        self._total_s = total_s

    async def __call__(self, tenant: str, url: str, most: int) -> Fetched:
        try:
            async with (
                asyncio.timeout(self._total_s),
                self._egress.client(tenant, connect_s=min(CONNECT_S, self._total_s), most=most) as client,
            ):
                return await _fetched(client, url)
        except TimeoutError:
            raise NotFetched("timeout", f"It did not arrive within {self._total_s:g} s.") from None
        except TooLarge:
            raise NotFetched("too_large", f"It has more than {most // 2**20} MiB.") from None
        except Refused:  # its words would tell an end user of the network
            raise NotFetched("unreachable", "The address may not be called: it is not public.") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            reason = str(error) or type(error).__name__
            raise NotFetched("unreachable", f"The address does not answer: {reason}"[:500]) from None


async def _fetched(client: httpx2.AsyncClient, url: str) -> Fetched:
    """Raises: NotFetched, and errors of the client."""
    secure = False
    for _ in range(REDIRECTS + 1):
        address = httpx2.URL(url)
        if address.scheme not in ("http", "https") or (secure and address.scheme == "http"):
            raise NotFetched("unreachable", f"It is redirected to {address.scheme}, which is not followed.")
        secure = address.scheme == "https"
        async with client.stream("GET", address.copy_with(fragment=None, userinfo=b"")) as answer:
            if answer.is_redirect and (target := answer.headers.get("location")):
                url = str(address.join(target))
                continue
            if answer.status_code != 200:
                raise NotFetched("unreachable", f"The address answered with status {answer.status_code}.")
            data = await answer.aread()
        given = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Fetched(data, given if _MEDIA_TYPE.fullmatch(given) else "", str(address.copy_with(userinfo=b"")))
    raise NotFetched("unreachable", f"It was redirected more than {REDIRECTS} times.")
