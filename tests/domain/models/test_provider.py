from __future__ import annotations

from domain.models.provider import BUILTIN, Provider
from tests.domain.scenario import NOW, given, made

ADDRESS = "https://models.example.com/v1"


def provider() -> Provider:
    return Provider.begin(Provider.Registered, "lab", NOW, base_url=ADDRESS, sealed_key="v1:c2VhbGVk")


def test_is_registered_under_its_name() -> None:
    made(provider()).then(Provider.Registered).whole(base_url=ADDRESS, sealed_key="v1:c2VhbGVk")
    assert provider().id == "lab" != BUILTIN


def test_changes_its_address_and_its_key() -> None:
    given(provider()).once(
        lambda provider: provider.change(NOW, base_url="http://10.0.0.7:8000/v1", sealed_key="v1:bmV3"),
        Provider.Changed,
        base_url="http://10.0.0.7:8000/v1",
        sealed_key="v1:bmV3",
    )


def test_a_change_to_what_it_is_is_none() -> None:
    given(provider()).when(lambda it: it.change(NOW, base_url=ADDRESS, sealed_key="v1:c2VhbGVk")).nothing()


def test_forgets_its_key_when_it_is_removed() -> None:
    scenario = given(provider()).once(lambda provider: provider.remove(NOW), Provider.Removed)
    assert scenario.aggregate.deleted
    assert scenario.aggregate.sealed_key == ""


def test_is_back_when_it_is_registered_again() -> None:
    scenario = given(provider(), lambda provider: provider.remove(NOW))
    scenario.when(lambda it: it.change(NOW, base_url=ADDRESS, sealed_key="")).then(Provider.Changed)
    assert not scenario.aggregate.deleted
