from __future__ import annotations

import base64
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.privacy.vault import PEOPLE, AesVault, UnknownKey, key_id
from handlers.ports.log import Unavailable

MASTER = bytes(range(32))
VAULT = AesVault(MASTER)


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True), st.text(max_size=200))
def test_opens_what_it_sealed(tenant: str, secret: str) -> None:
    sealed = VAULT.seal(tenant, secret)
    assert sealed.startswith(f"v2:{key_id(MASTER)}:")
    assert AesVault(MASTER).open(tenant, sealed) == secret


def test_the_same_secret_is_never_sealed_the_same() -> None:
    assert len({VAULT.seal("acme", "sk-secret") for _ in range(100)}) == 100


def test_a_sealed_secret_does_not_show() -> None:
    sealed = VAULT.seal("acme", "sk-secret")
    raw = base64.urlsafe_b64decode(sealed.rpartition(":")[2])
    assert b"sk-secret" not in raw
    assert len(raw) == 12 + len("sk-secret") + 16
    assert "sk-secret" not in repr(vars(VAULT))


def test_another_tenant_or_another_master_cannot_open_it() -> None:
    sealed = VAULT.seal("acme", "sk-secret")
    with pytest.raises(ValueError, match="cannot be opened for tenant 'other'"):
        VAULT.open("other", sealed)
    with pytest.raises(UnknownKey, match=rf"lacks key {key_id(MASTER)}: restart it"):
        AesVault(os.urandom(32)).open("acme", sealed)
    assert issubclass(UnknownKey, Unavailable)  # so work waits, and nothing is given up or quarantined


def test_a_changed_text_is_noticed_wherever_it_was_changed() -> None:
    sealed = VAULT.seal("acme", "sk-secret")
    for place in range(12, len(sealed)):
        changed = sealed[:place] + ("A" if sealed[place] != "A" else "B") + sealed[place + 1 :]
        with pytest.raises(ValueError, match="changed"):
            VAULT.open("acme", changed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-secret",
        "v2:AAAA",
        "v2:0123456:AAAA",
        "v3:01234567:AAAA",
        "v1",
        "v1:",
        "v1:A",
        "v1:####",
        "v1:AAAAAAAAAAAAAAAA",
        "v1:é",
    ],
)
def test_what_was_never_sealed_is_refused_without_a_trace_of_it(text: str) -> None:
    with pytest.raises(ValueError, match="sealed") as caught:
        VAULT.open("acme", text)
    assert caught.value.__context__ is None
    assert text == "" or text not in re.sub("'v[12]:'", "", str(caught.value))


def test_a_short_master_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes or more"):
        AesVault(b"short")


V1 = "v1:K6EPxQX2dBtJv5qv9D7me3UvU0Eppn1LtwSh1aYkgXa2JY2i60s="


def test_what_an_earlier_version_sealed_is_opened_by_any_of_the_masters() -> None:
    assert AesVault(MASTER).open("acme", V1) == "sk-earlier"
    assert AesVault(os.urandom(32), MASTER).open("acme", V1) == "sk-earlier"
    with pytest.raises(ValueError, match="another master secret"):
        AesVault(os.urandom(32)).open("acme", V1)
    with pytest.raises(ValueError, match="'other'"):
        AesVault(MASTER).open("other", V1)


def test_the_first_master_seals_and_all_of_them_open() -> None:
    new = os.urandom(32)
    before, both = VAULT.seal("acme", "sk-secret"), AesVault(new, MASTER)
    after = both.seal("acme", "sk-secret")
    assert both.open("acme", before) == both.open("acme", after) == AesVault(new).open("acme", after)
    assert both.ids == [key_id(new), key_id(MASTER)]
    assert [each for each in (after, before, V1) if both.is_current(each)] == [after]
    assert [both.sealed_by("acme", each) for each in (after, before, V1)] == [both.current, *[key_id(MASTER)] * 2]
    with pytest.raises(UnknownKey) as caught:
        VAULT.open("acme", after)
    assert caught.value.id == key_id(new)


def test_a_value_cannot_be_moved_to_another_purpose_or_key() -> None:
    other = os.urandom(32)
    both = AesVault(MASTER, other)
    person = both.seal("acme", "secret", PEOPLE)
    assert both.open("acme", person, PEOPLE) == "secret"
    for moved in (person, person.replace(key_id(MASTER), key_id(other))):
        with pytest.raises(ValueError, match="cannot be opened"):
            both.open("acme", moved)


def test_every_purpose_and_master_has_a_key_of_its_own() -> None:
    both = AesVault(MASTER, os.urandom(32))
    keys = [key for purpose in ("mac", "viewer cookies", "postgres logins") for key in both.derived(purpose).values()]
    assert len({*keys, MASTER}) == 7
    assert {len(key) for key in keys} == {32}
    assert list(both.derived("mac")) == list(both.ids)
    assert both.derive("mac") == both.derived("mac")[both.current] == AesVault(MASTER).derive("mac")
