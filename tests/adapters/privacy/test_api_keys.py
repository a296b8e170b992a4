from __future__ import annotations

import re
from hashlib import sha256

import pytest

from adapters.privacy import api_keys


@pytest.mark.parametrize("kind", ["app", "dataset"])
def test_a_key_has_its_prefix_and_24_signs(kind: api_keys.Kind) -> None:
    made = {api_keys.new(kind) for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(rf"{kind}-[A-Za-z0-9]{{24}}", key) for key in made)
    assert {sign for key in made for sign in key.removeprefix(f"{kind}-")} == set(api_keys.SIGNS)


def test_of_a_key_only_the_digest_and_the_last_characters_are_sent() -> None:
    key = "app-0123456789012345678wxyzA"
    assert api_keys.fields(key) == {"digest": sha256(key.encode()).hexdigest(), "hint": "xyzA"}
    assert api_keys.digest("app-x") == sha256(b"app-x").hexdigest()


def test_the_secret_of_an_invitation_cannot_be_guessed() -> None:
    made = {api_keys.new_invitation() for _ in range(10)}
    assert len(made) == 10
    assert {len(secret) for secret in made} == {43}
