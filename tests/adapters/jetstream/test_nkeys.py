"""Keys of NATS; that a server takes them is tested with the callout."""

from __future__ import annotations

import base64
import hashlib

import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from adapters.jetstream.nkeys import Exchange, Issuer, _raw, claims, derived

SEED = bytes(range(32))


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_an_issuer_signs_its_claims() -> None:
    issuer = Issuer(SEED)
    token = issuer.signed({"sub": "U1", "nats": {"version": 2}})
    text, _, signature = token.rpartition(".")
    key = Ed25519PublicKey.from_public_bytes(_raw(issuer.public))
    key.verify(decoded(signature), text.encode())
    with pytest.raises(InvalidSignature):
        key.verify(decoded(signature), text.replace(".", ".x").encode())
    assert orjson.loads(decoded(text.partition(".")[0])) == {"typ": "JWT", "alg": "ed25519-nkey"}
    found = claims(token)
    id = found.pop("jti")
    assert found == {"sub": "U1", "nats": {"version": 2}, "iss": issuer.public}
    assert id == base64.b32encode(hashlib.sha256(orjson.dumps(found)).digest()).decode().rstrip("=")


def test_public_keys_are_written_as_nats_does() -> None:
    """The first letter is the kind; 32 bytes and two of a checksum are 56 letters."""
    assert Issuer(SEED).public == "AAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3QPZV"
    for key, kind in ((Issuer(SEED).public, "A"), (Exchange(SEED).public, "X")):
        assert (key[0], len(key)) == (kind, 56)
    with pytest.raises(ValueError, match="public key"):
        _raw(Issuer(SEED).public[:-1] + "A")
    with pytest.raises(ValueError, match=r"."):
        _raw("not base32!")


def test_an_exchange_opens_what_was_sealed_for_it_by_the_sender_that_it_names() -> None:
    server, callout, other = (Exchange(derived(SEED, name)) for name in ("server", "callout", "other"))
    sealed = server.seal(b"a token", callout.public)
    assert sealed != server.seal(b"a token", callout.public)
    assert b"token" not in sealed
    assert callout.open(sealed, server.public) == b"a token"
    for who, sender, message in (
        (other, server, sealed),
        (callout, other, sealed),
        (callout, server, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (callout, server, b"a token"),
        (callout, server, b"xkv1"),
    ):
        with pytest.raises(ValueError, match=r"."):
            who.open(message, sender.public)


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "a.W10.c", "a..c"])
def test_what_is_no_token_has_no_claims(token: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        claims(token)


def test_seeds_of_purposes_differ() -> None:
    assert len({derived(key, purpose) for key in (b"1", b"2") for purpose in ("a", "b")}) == 4
