"""A provider: a server of models, known to a tenant by its name, with the keys that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

BUILTIN = "builtin"
"""The provider that needs neither a server nor a registration."""

Kind = Literal["openai", "openai_responses", "ollama", "anthropic", "gemini"]
"""Protocols of servers. `openai` is every OpenAI-compatible one, Azure's addresses included."""

DEFAULT = "default"
"""Name of the credential that comes with the registration."""

MOST_CREDENTIALS = 50
"""Maximum number of credentials of one provider."""


class Credential(TypedDict):
    """A key of a provider, encrypted by the tenant's vault; the clear key is never recorded."""

    name: Annotated[str, "Name, unique within the provider."]
    weight: Annotated[int, "Share of the calls that it gets, relative to the weights of the others."]
    sealed_key: Annotated[str, "API key, encrypted."]
    hint: Annotated[str, "Last characters of the key, to recognize it by; empty when unknown."]


ProviderKind = Annotated[str, "Protocol of its server: `openai`, `openai_responses`, `ollama`, `anthropic`, `gemini`."]
Address = Annotated[str, "Address of its API, like `https://host/v1`."]
Credentials = Annotated[list[Credential], "Credentials; empty for a server that takes no key."]


class Provider(Aggregate):
    TOPIC = "provider"
    class_version = 2
    kind: str
    base_url: str
    credentials: list[Credential]

    class Event(aggregate.Event):
        pass

    class Registered(Event, aggregate.Created):
        """A server of models was registered."""

        TOPIC = "provider.registered.v2"
        class_version = 2
        kind: ProviderKind
        base_url: Address
        credentials: Credentials

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            _with_credentials(state)

    class Changed(Event):
        """The server or its credentials changed, or a removed provider was registered again."""

        TOPIC = "provider.changed.v2"
        class_version = 2
        kind: ProviderKind
        base_url: Address
        credentials: Credentials

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            _with_credentials(state)

        def apply(self, provider: Provider) -> None:
            provider.deleted = False
            provider.kind = self.kind
            provider.base_url = self.base_url
            provider.credentials = self.credentials

    class CredentialAdded(Event):
        """A credential was added, or took the place of the one of this name."""

        TOPIC = "provider.credential_added.v1"
        name: Annotated[str, "Name, unique within the provider."]
        weight: Annotated[int, "Share of the calls that it gets, relative to the weights of the others."]
        sealed_key: Annotated[str, "API key, encrypted."]
        hint: Annotated[str, "Last characters of the key, to recognize it by; empty when unknown."]

        def apply(self, provider: Provider) -> None:
            added = Credential(name=self.name, weight=self.weight, sealed_key=self.sealed_key, hint=self.hint)
            provider.credentials = [*provider.others(self.name), added]

    class CredentialRemoved(Event):
        """A credential was removed."""

        TOPIC = "provider.credential_removed.v1"
        name: Annotated[str, "Name of the credential."]

        def apply(self, provider: Provider) -> None:
            provider.credentials = provider.others(self.name)

    class Removed(Event):
        """The provider and its credentials were removed."""

        TOPIC = "provider.removed.v1"

        def apply(self, provider: Provider) -> None:
            provider.deleted = True
            provider.credentials = []

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        """Convert a snapshot."""
        _with_credentials(state)

    def others(self, name: str) -> list[Credential]:
        """The credentials without the one of this name."""
        return [credential for credential in self.credentials if credential["name"] != name]

    def register(self, at: datetime, *, kind: str, base_url: str, credential: Credential | None) -> None:
        """Give the provider this server and default credential. At another server, no other credential is kept: a key
        is sent only to the address that it was given for."""
        same = (self.kind, self.base_url) == (kind, base_url)
        credentials = [*([credential] if credential else []), *(self.others(DEFAULT) if same else [])]
        if self.deleted or not same or self.credentials != credentials:
            self.record(self.Changed, at, kind=kind, base_url=base_url, credentials=credentials)

    def add_credential(self, at: datetime, credential: Credential) -> None:
        if len(self.others(credential["name"])) >= MOST_CREDENTIALS:
            message = f"A provider has at most {MOST_CREDENTIALS} credentials; remove one first."
            raise Rejection("too_many", message, "name")
        if credential not in self.credentials:
            self.record(self.CredentialAdded, at, **credential)

    def remove_credential(self, at: datetime, *, name: str) -> None:
        if len(self.others(name)) == len(self.credentials):
            raise Rejection("not_found", f"Provider {self.id} has no credential {name}.", "name")
        self.record(self.CredentialRemoved, at, name=name)

    def remove(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Removed, at)


def choose(
    credentials: Sequence[Credential], resting: Mapping[str, float], now: float, draw: float
) -> Credential | None:
    """Choose a credential by weight. `draw` is a random number, at least 0 and less than 1.

    `resting` has the times until which sealed keys rest: these are chosen only where all rest, and then the one whose
    rest ends first. None: there is no credential.
    """
    awake = [each for each in credentials if resting.get(each["sealed_key"], now) <= now]
    if not awake:
        return min(credentials, key=lambda each: resting[each["sealed_key"]], default=None)
    share = draw * sum(each["weight"] for each in awake)
    for credential in awake:
        share -= credential["weight"]
        if share < 0:
            return credential
    return awake[-1]


def _with_credentials(state: dict[str, Any]) -> None:
    """Convert the stored state of a provider of version 1, which has one sealed key."""
    sealed = state.pop("sealed_key")
    known = Credential(name=DEFAULT, weight=1, sealed_key=sealed, hint="")
    state |= {"kind": "openai", "credentials": [] if _is_empty(sealed) else [known]}


def _is_empty(sealed: str) -> bool:
    """Return whether no key is in it: version 1 sealed empty keys, too, to a nonce and a tag of 28 bytes in base64."""
    return not sealed or (len(sealed.rpartition(":")[2]) == 40 and sealed.endswith("=="))
