"""The register of accounts, tenants, API keys and bus logins: what a judgement reads, folded from the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from domain.access.account import Account
from domain.access.api_key import ApiKey
from domain.access.bus_login import BusLogin
from domain.access.tenant import HOUSE, Tenant
from domain.log import Commit

SUBJECTS = (
    f"evt.{HOUSE}.{Tenant.TOPIC}.*",
    f"evt.{HOUSE}.{Account.TOPIC}.*",
    f"evt.*.{ApiKey.TOPIC}.*",
    f"evt.*.{BusLogin.TOPIC}.*",
)
"""The subjects of the commits that it is folded from."""


@dataclass(frozen=True, slots=True)
class Key:
    """An API key that was not revoked."""

    tenant: str
    id: str
    permissions: frozenset[str]
    apps: frozenset[str]
    datasets: frozenset[str]
    expires_at: datetime | None
    account: str | None

    @property
    def covers_tenant(self) -> bool:
        """True if it is for no app and no knowledge base, but for all."""
        return not self.apps and not self.datasets


@dataclass(slots=True)
class Register:
    """Tenants by name, accounts by id, keys by tenant and id, and keys by digest with the end of a former digest.

    Open bus logins by tenant and name, each with the issue of its password.
    """

    tenants: dict[str, Tenant] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    keys: dict[tuple[str, str], Key] = field(default_factory=dict)
    digests: dict[bytes, tuple[str, str, datetime | None]] = field(default_factory=dict)
    logins: dict[tuple[str, str], str] = field(default_factory=dict)

    def take(self, commit: Commit) -> None:
        """Take the next commit of a tenant, an account, a key or a login."""
        tenant, noun, id = commit.subject
        if noun == ApiKey.TOPIC:
            for event in commit.events:
                self._take_key(tenant, id, event)
        elif noun == BusLogin.TOPIC:
            for event in commit.events:
                self._take_login(tenant, id, event)
        elif tenant == HOUSE and noun == Tenant.TOPIC:
            for event in commit.events:
                self.tenants[id] = event.mutate(self.tenants.get(id))  # type: ignore[assignment]
        elif tenant == HOUSE and noun == Account.TOPIC:
            for event in commit.events:
                self.accounts[id] = event.mutate(self.accounts.get(id))  # type: ignore[assignment]
                self.accounts[id].password = ""  # a door that needs it loads the account

    def _take_key(self, tenant: str, id: str, event: object) -> None:
        match event:
            case ApiKey.Created():
                end = datetime.fromisoformat(event.expires_at) if event.expires_at else None
                permissions = _shared(event.permissions)
                apps, datasets = _shared(event.apps), _shared(event.datasets)
                self.keys[tenant, id] = Key(tenant, id, permissions, apps, datasets, end, event.account)
                self.digests.setdefault(bytes.fromhex(event.digest), (tenant, id, None))
            case ApiKey.Replaced():
                former = bytes.fromhex(event.former)
                if self.digests.get(former, ("", "", None))[:2] == (tenant, id):
                    self.digests[former] = (tenant, id, datetime.fromisoformat(event.former_ends_at))
                self.digests.setdefault(bytes.fromhex(event.digest), (tenant, id, None))
            case ApiKey.Revoked():
                self.keys.pop((tenant, id), None)

    def _take_login(self, tenant: str, name: str, event: object) -> None:
        match event:
            case BusLogin.Opened() | BusLogin.Issued():
                self.logins[tenant, name] = event.issue
            case BusLogin.Closed():
                self.logins.pop((tenant, name), None)

    def key(self, digest: bytes, now: datetime) -> Key | None:
        """The valid key with this SHA-256, None when there is none: unknown, revoked, or ended."""
        tenant, id, end = self.digests.get(digest, ("", "", None))
        key = self.keys.get((tenant, id))
        if key is None or (end and end <= now) or self.ended(key, now):
            return None
        return key

    def ended(self, key: Key, now: datetime) -> bool:
        """True when its time is over, or its account is no active member any more."""
        return bool(key.expires_at and key.expires_at <= now) or (
            key.account is not None and self.role(key.tenant, key.account) is None
        )

    def role(self, tenant: str, account: str) -> str | None:
        """The role of an active account in a tenant, None for no member."""
        found, known = self.tenants.get(tenant), self.accounts.get(account)
        if found is None or known is None or not known.is_active:
            return None
        return found.role(account)

    def owned(self, account: str) -> Sequence[str]:
        """The tenants that an account owns."""
        return [name for name, tenant in self.tenants.items() if tenant.owner == account]

    def tenants_of(self, account: str) -> dict[str, str]:
        """The roles of an active account, by tenant."""
        return {name: role for name in self.tenants if (role := self.role(name, account))}


_SETS: dict[frozenset[str], frozenset[str]] = {}


def _shared(values: Sequence[str]) -> frozenset[str]:
    """A set that equal keys share: most keys of an installation have one of a few."""
    found = frozenset(values)
    return _SETS.setdefault(found, found)
