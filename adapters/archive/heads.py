"""The signed heads of an archive: the end of each stream, under a key of the archive's own.

The chain shows that an archive is consistent. The signature shows who wrote it, and that nothing is cut off.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Set
from dataclasses import dataclass
from hashlib import sha256

import orjson

from adapters.archive.store import FORMAT, Archive, Head, beginning

NAME = "heads.json"

Heads = Mapping[str, tuple[int, str]]
"""By stream: the last sequence of its archive, and the hash of the chain up to it."""


class Unproven(Exception):
    """Nothing proves that the archive is complete and written by its owner."""


@dataclass(frozen=True)
class Proof:
    """Evidence that an archive must give: its signature under a key, and hashes of chains that were noted elsewhere."""

    key: bytes | None = None
    expected: Set[str] = frozenset()


async def sign(archive: Archive, key: bytes, heads: Mapping[str, Head]) -> None:
    found = {stream: [head.last, head.chain] for stream, head in heads.items()}
    body = {"format": FORMAT, "heads": found, "signature": _signature(key, found)}
    await archive.replace(NAME, orjson.dumps(body, option=orjson.OPT_SORT_KEYS) + b"\n")


async def signed(archive: Archive, key: bytes) -> Heads | None:
    """The heads that were signed with this key; None when there are none. Raises: Unavailable."""
    try:
        body = orjson.loads(await archive.small(NAME) or b"{}")
        found = {str(stream): (int(last), str(chain)) for stream, (last, chain) in body["heads"].items()}
        good = hmac.compare_digest(_signature(key, body["heads"]).encode(), str(body["signature"]).encode())
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return found if good else None


async def fault(archive: Archive, stream: str, last: int, chain: str) -> str | None:
    """The reason why the archive of a stream does not go on from a signed head; None when it does. Raises: Broken."""
    head = await archive.head(stream)
    if head.last < last:
        return f"{stream} ends at {head.last}, and was signed up to {last}"
    found = head.chain
    if head.last > last:
        async for segment, _ in archive.messages(stream, last):
            found = segment.previous if segment.first == last + 1 else ""
            break
    return None if found == chain else f"{stream} is not what was signed up to {last}"


async def prove(
    archive: Archive, ends: Mapping[str, Mapping[int, str]], proof: Proof, until: Mapping[str, int]
) -> None:
    """Compare the chains that were read with the evidence. Raises: Unproven, Unavailable.

    `ends` has the hash of the chain by the last sequence of each segment. Of a stream in `until`, the messages after
    that sequence need no proof, since they are not used.
    """
    read = {chain for chains in ends.values() for chain in chains.values()}
    for expected in sorted(proof.expected - read):
        raise Unproven(f"No segment of the archive has the chain {expected}: it is another archive, or is cut off.")
    if proof.key is None:
        if not proof.expected:
            raise Unproven("Nothing proves that this archive is complete and unchanged: there is no key to check it.")
        return
    heads = await signed(archive, proof.key)
    if heads is None:
        raise Unproven("The archive has no signature under this key.")
    for stream, chains in ends.items():
        last, chain = heads.get(stream, (0, beginning(stream)))
        if {0: beginning(stream), **chains}.get(last) != chain:
            raise Unproven(f"{stream} is not what was signed up to {last}: it was changed, or its end is cut off.")
        if until.get(stream, last + 1) > last < max(chains, default=0):
            raise Unproven(f"{stream} goes on to {max(chains)}, and is signed up to {last} only.")


def _signature(key: bytes, heads: object) -> str:
    text = orjson.dumps(heads, option=orjson.OPT_SORT_KEYS)
    return hmac.new(key, b"headrace archive heads\0" + text, sha256).hexdigest()
