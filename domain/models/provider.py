"""A provider: a server of models, known to a tenant by its name, with the keys that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Annotated, Any, Literal, TypedDict, TypeVar, Unpack

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

T = TypeVar("T")

Kind = Literal["openai", "openai_responses", "ollama", "anthropic", "gemini", "dify"]
"""Protocols of servers. `openai` is every OpenAI-compatible one, Azure's addresses included; `dify` is a plugin."""

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


class Found(TypedDict):
    """The result of a check."""

    check: str
    code: str | None
    reason: str | None
    model: str | None
    models: int | None
    latency_ms: float | None
    limits: dict[str, int]


ProviderKind = Annotated[
    str, "Protocol of its server: `openai`, `openai_responses`, `ollama`, `anthropic`, `gemini`; or `dify`, a plugin."
]
Address = Annotated[str, "Address of its API, like `https://host/v1`; of kind `dify`, like `plugin://name/provider`."]
Credentials = Annotated[list[Credential], "Credentials; empty for a server that takes no key."]


class Provider(Aggregate):
    TOPIC = "provider"
    class_version = 2
    kind: str
    base_url: str
    credentials: list[Credential]
    check: str = field(default="", init=False)
    """The last check that was requested."""
    checking: bool = field(default=False, init=False)
    """That check has not ended."""
    check_model: str | None = field(default=None, init=False)
    check_failed: bool = field(default=False, init=False)
    check_stalls: int = field(default=0, init=False)
    """Number of times that the check had no worker."""

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
            provider.checking = False

    class CheckRequested(Event):
        """A check of the server was requested, or begun again after its worker was lost."""

        TOPIC = "provider.check_requested.v1"
        check: Annotated[str, "Id of the check: the command that asked for it."]
        model: Annotated[
            str | None, "Model to measure; null for the tenant's default one or the only one of the server."
        ]

        def apply(self, provider: Provider) -> None:
            if provider.check != self.check:
                provider.check_stalls = 0
            provider.check = self.check
            provider.check_model = self.model
            provider.checking = True
            provider.check_failed = False

    class CredentialChecked(Event):
        """The server took a credential, or refused it."""

        TOPIC = "provider.credential_checked.v1"
        check: Annotated[str, "Id of the check."]
        name: Annotated[str, "Name of the credential."]
        code: Annotated[str | None, "Error code of the refusal, see [codes](codes.md); null if the server took it."]

    class Checked(Event):
        """A check has ended. What it measured of the model is in `model.checked`."""

        TOPIC = "provider.checked.v1"
        check: Annotated[str, "Id of the check."]
        code: Annotated[str | None, "Error code, see [codes](codes.md); null if the server answers."]
        reason: Annotated[str | None, "Error message; null if the server answers."]
        model: Annotated[str | None, "Model that was measured; null for none."]
        models: Annotated[int | None, "Number of models that the server lists; null when it gives no list."]
        latency_ms: Annotated[
            float | None, "Milliseconds to the first token of the model, or to the list of models; null for neither."
        ]
        limits: Annotated[dict[str, int], "Limits that the server's headers state, see [models](models.md#limits)."]

        def apply(self, provider: Provider) -> None:
            provider.checking = False
            provider.check_failed = self.code is not None
            provider.check_stalls += self.code == "stalled"

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        """Convert a snapshot."""
        _with_credentials(state)
        state |= {"check": "", "checking": False, "check_model": None, "check_failed": False, "check_stalls": 0}

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

    def request_check(self, at: datetime, *, check: str, model: str | None) -> None:
        """A check that is under way is superseded."""
        if self.check != check:
            self.record(self.CheckRequested, at, check=check, model=model)

    def end_check(
        self, at: datetime, credentials: Mapping[str, str | None] | None = None, **found: Unpack[Found]
    ) -> None:
        """Record the end of the check, unless another one was requested since.

        `credentials` has the error code of each that was tried, None for one that the server took.
        """
        if not self.checking or self.check != found["check"]:
            return
        names = {credential["name"] for credential in self.credentials}
        for name, code in (credentials or {}).items():
            if name in names:
                self.record(self.CredentialChecked, at, check=found["check"], name=name, code=code)
        self.record(self.Checked, at, **found)

    def fail_check(self, at: datetime, *, code: str, reason: str) -> None:
        nothing = Found(
            check=self.check,
            code=code,
            reason=reason,
            model=None,
            models=None,
            latency_ms=None,
            limits={},
        )
        self.end_check(at, **nothing)

    def retry_check(self, at: datetime) -> None:
        """Begin the check again; calls that completed are not repeated."""
        if self.check_failed:
            self.record(self.CheckRequested, at, check=self.check, model=self.check_model)

    def remove(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Removed, at)


def by_weight(items: Sequence[T], weights: Sequence[float], draw: float) -> T:
    """One of the items, in the proportion of their weights. `draw` is a random number, at least 0 and less than 1."""
    share = draw * sum(weights)
    for item, weight in zip(items, weights, strict=True):
        share -= weight
        if share < 0:
            return item
    return items[-1]


def _with_credentials(state: dict[str, Any]) -> None:
    """Convert the stored state of a provider of version 1, which has one sealed key."""
    sealed = state.pop("sealed_key")
    known = Credential(name=DEFAULT, weight=1, sealed_key=sealed, hint="")
    state |= {"kind": "openai", "credentials": [] if _is_empty(sealed) else [known]}


def _is_empty(sealed: str) -> bool:
    """Return whether no key is in it: version 1 sealed empty keys, too, to a nonce and a tag of 28 bytes in base64."""
    return not sealed or (len(sealed.rpartition(":")[2]) == 40 and sealed.endswith("=="))
