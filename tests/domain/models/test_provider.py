from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from adapters.privacy.vault import AesVault
from domain.builtin import BUILTIN
from domain.models.provider import MOST_CREDENTIALS, Credential, Found, Provider, by_weight
from tests.domain.scenario import NOW, given, made

ADDRESS = "https://models.example.com/v1"
KEY = Credential(name="default", weight=1, sealed_key="v2:first", hint="1234")
SPARE = Credential(name="spare", weight=3, sealed_key="v2:second", hint="")


def provider(*credentials: Credential) -> Provider:
    return Provider.begin(
        Provider.Registered, "lab", NOW, kind="openai", base_url=ADDRESS, credentials=list(credentials)
    )


def register(credential: Credential | None = None, base_url: str = ADDRESS, kind: str = "openai") -> Any:
    return lambda it: it.register(NOW, kind=kind, base_url=base_url, credential=credential)


def test_is_registered_under_its_name() -> None:
    made(provider(KEY)).then(Provider.Registered).whole(kind="openai", base_url=ADDRESS, credentials=[KEY])
    assert provider().id == "lab" != BUILTIN


def test_changes_its_address_and_its_key() -> None:
    new = Credential(**KEY | {"sealed_key": "v2:new"})
    given(provider(KEY)).once(
        register(new, "http://10.0.0.7:8000/v1", "ollama"),
        Provider.Changed,
        kind="ollama",
        base_url="http://10.0.0.7:8000/v1",
        credentials=[new],
    )


def test_a_change_to_what_it_is_is_none() -> None:
    given(provider(KEY)).when(register(KEY)).nothing()


def test_a_key_is_kept_for_the_address_that_it_was_given_for() -> None:
    two = given(provider(KEY), lambda it: it.add_credential(NOW, SPARE))
    two.when(register()).then(Provider.Changed, credentials=[SPARE])
    two.when(register(KEY)).then(Provider.Changed, credentials=[KEY, SPARE])
    two.when(register(KEY, "https://elsewhere.example.com/v1")).then(Provider.Changed, credentials=[KEY])


def test_has_several_credentials_by_name() -> None:
    scenario = given(provider(KEY)).once(lambda it: it.add_credential(NOW, SPARE), Provider.CredentialAdded, **SPARE)
    heavier = Credential(**SPARE | {"weight": 9})
    scenario.once(lambda it: it.add_credential(NOW, heavier), Provider.CredentialAdded, weight=9)
    assert scenario.aggregate.credentials == [KEY, heavier]
    scenario.when(lambda it: it.remove_credential(NOW, name="default")).then(Provider.CredentialRemoved, name="default")
    assert scenario.aggregate.credentials == [heavier]
    scenario.when(lambda it: it.remove_credential(NOW, name="default")).rejects("not_found", "name")


def test_has_a_limited_number_of_credentials() -> None:
    many = [Credential(**SPARE | {"name": f"k{number}"}) for number in range(MOST_CREDENTIALS)]
    given(provider(*many)).when(lambda it: it.add_credential(NOW, SPARE)).rejects("too_many", "name")
    again = Credential(**many[0] | {"weight": 2})
    given(provider(*many)).when(lambda it: it.add_credential(NOW, again)).then(Provider.CredentialAdded)


def test_a_check_is_requested_and_ends_once() -> None:
    scenario = given(provider(KEY, SPARE)).once(
        lambda it: it.request_check(NOW, check="c1", model="small"), Provider.CheckRequested, check="c1", model="small"
    )
    assert scenario.aggregate.checking
    ended = Found(
        check="c1", code=None, reason=None, model="small", models=3, latency_ms=1.5, limits={"requests_per_minute": 9}
    )
    scenario.once(
        lambda it: it.end_check(NOW, {"default": None, "spare": "unauthorized", "gone": None}, **ended),
        Provider.CredentialChecked,
        Provider.CredentialChecked,
        Provider.Checked,
        **ended,
    )
    assert not scenario.aggregate.checking


def test_a_check_that_was_superseded_does_not_end_its_successor() -> None:
    scenario = given(provider(), *(lambda it, id=id: it.request_check(NOW, check=id, model=None) for id in "ab"))
    late = Found(check="a", code=None, reason=None, model=None, models=None, latency_ms=None, limits={})
    scenario.when(lambda it: it.end_check(NOW, **late)).nothing()
    scenario.when(lambda it: it.fail_check(NOW, code="stalled", reason="Lost.")).then(
        Provider.Checked, check="b", code="stalled"
    )
    scenario.when(lambda it: it.fail_check(NOW, code="stalled", reason="Lost.")).nothing()


def test_forgets_its_keys_when_it_is_removed() -> None:
    scenario = given(provider(KEY, SPARE)).once(lambda provider: provider.remove(NOW), Provider.Removed)
    assert scenario.aggregate.deleted
    assert scenario.aggregate.credentials == []


def test_is_back_when_it_is_registered_again() -> None:
    scenario = given(provider(KEY), lambda provider: provider.remove(NOW))
    scenario.when(register()).then(Provider.Changed, credentials=[])
    assert not scenario.aggregate.deleted


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_first_version_with_an_empty_key_has_no_credential(version: str) -> None:
    vault = AesVault(bytes(32))
    for key, expected in (("", []), ("k", ["default"]), ("x" * 51, ["default"])):
        sealed = vault.seal("acme", key)
        if version == "v1":
            sealed = f"v1:{sealed.rpartition(':')[2]}"
        state = {"base_url": ADDRESS, "sealed_key": sealed}
        Provider.Registered.upcast_v1_v2(state)
        assert [each["name"] for each in state["credentials"]] == expected  # type: ignore[index]


def test_what_is_chosen_by_weight_comes_in_that_proportion() -> None:
    draws = [number / 1000 for number in range(1000)]
    chosen = Counter(by_weight(["first", "spare"], [1, 3], draw) for draw in draws)
    assert chosen == {"first": 250, "spare": 750}
