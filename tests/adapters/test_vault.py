from __future__ import annotations

import base64
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.vault import AesVault, master_file, parse_master

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


def test_reads_a_master_secret_in_hexadecimal_and_in_base64() -> None:
    odd = bytes([251, 255, 191] * 10 + [1, 2])
    for master in (MASTER, odd):
        for text in (
            master.hex(),
            master.hex().upper() + "\n",
            base64.b64encode(master).decode(),
            base64.urlsafe_b64encode(master).decode(),
        ):
            assert parse_master(text) == master


@pytest.mark.parametrize(
    "text", ["", "secret", "ab" * 31, "ab" * 33, base64.b64encode(bytes(31)).decode(), "g" * 64, "é" * 32]
)
def test_refuses_a_master_secret_of_another_size(text: str) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        parse_master(text)
    with pytest.raises(ValueError, match="32 bytes"):
        AesVault(text.encode()[:31])


def test_makes_the_file_once_for_all_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "master.key"
    with ThreadPoolExecutor(16) as pool:
        masters = set(pool.map(lambda _: master_file(path), range(64)))
    assert len(masters) == 1
    assert masters == {master_file(path)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    path.write_text("not a key")
    with pytest.raises(ValueError, match=r"master\.key: The master secret must be 32 bytes"):
        master_file(path)
