from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.privacy.vault import AesVault

MASTER = bytes(range(32))
VAULT = AesVault(MASTER)


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True), st.text(max_size=200))
def test_opens_what_it_sealed(tenant: str, secret: str) -> None:
    sealed = VAULT.seal(tenant, secret)
    assert sealed.startswith("v1:")
    assert AesVault(MASTER).open(tenant, sealed) == secret


def test_the_same_secret_is_never_sealed_the_same() -> None:
    assert len({VAULT.seal("acme", "sk-secret") for _ in range(100)}) == 100


def test_a_sealed_secret_does_not_show() -> None:
    sealed = VAULT.seal("acme", "sk-secret")
    raw = base64.urlsafe_b64decode(sealed.removeprefix("v1:"))
    assert b"sk-secret" not in raw
    assert len(raw) == 12 + len("sk-secret") + 16
    assert "sk-secret" not in repr(vars(VAULT))


def test_another_tenant_or_another_master_cannot_open_it() -> None:
    sealed = VAULT.seal("acme", "sk-secret")
    with pytest.raises(ValueError, match="cannot be opened for tenant 'other'"):
        VAULT.open("other", sealed)
    with pytest.raises(ValueError, match="another master secret"):
        AesVault(os.urandom(32)).open("acme", sealed)


def test_a_changed_text_is_noticed_wherever_it_was_changed() -> None:
    sealed = VAULT.seal("acme", "sk-secret")
    for place in range(3, len(sealed)):
        changed = sealed[:place] + ("A" if sealed[place] != "A" else "B") + sealed[place + 1 :]
        with pytest.raises(ValueError, match="changed"):
            VAULT.open("acme", changed)


@pytest.mark.parametrize(
    "text", ["", "sk-secret", "v2:AAAA", "v1", "v1:", "v1:A", "v1:####", "v1:AAAAAAAAAAAAAAAA", "v1:é"]
)
def test_what_was_never_sealed_is_refused_without_a_trace_of_it(text: str) -> None:
    with pytest.raises(ValueError, match="sealed") as caught:
        VAULT.open("acme", text)
    assert caught.value.__context__ is None
    assert text == "" or text not in str(caught.value).replace("'v1:'", "")


def test_a_short_master_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes or more"):
        AesVault(b"short")
