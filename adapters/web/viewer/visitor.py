"""The visitor of a request: the account or the operator, the tenant of the page, and the permissions in it.

Every request passes `visiting`, which narrows it to one tenant. Pages take their tenant from the visitor only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import HTTPConnection

from adapters.jetstream.sessions import Session
from domain.access.actor import ANON, account_of
from domain.access.permissions import PERMISSIONS, Permission
from domain.access.register import Register
from domain.access.tenant import HOUSE
from handlers.access.may import permissions

READ: Permission = "read"

OWN = ("/account", "/logout", "/names/tenant")
"""Beginnings of the paths of pages about the visitor, which need no permission."""

OF_OPERATORS = ("/sql", "/metrics")
"""Beginnings of the paths of pages that show every tenant."""

NEEDS: dict[str, Permission] = {"/members": "member.manage", "/keys": "key.manage", "/audit": "member.manage"}
"""The permission that pages need, by the beginning of their path; every other page needs `read`."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """`session` is None for a program that sends the viewer's token."""

    register: Register
    tenant: str
    actor: str = ANON
    session: Session | None = None

    @property
    def account(self) -> str:
        """The account, empty for the operator on the machine."""
        return account_of(self.actor)

    @property
    def is_operator(self) -> bool:
        """True for who may read every tenant."""
        return READ in self._permissions(HOUSE)

    @property
    def tenants(self) -> list[str]:
        """The tenants that the account is a member of, by name."""
        return sorted(name for name in self.register.tenants_of(self.account) if name != HOUSE)

    def may(self, permission: Permission, tenant: str = "") -> bool:
        return permission in self._permissions(tenant or self.tenant)

    def refusal(self, path: str) -> str:
        """Why the page at this path is not for the visitor; empty if it is."""
        if path.startswith(OF_OPERATORS):
            return "" if self.is_operator else "This page shows every tenant: it is for operators."
        needed = self._needed(path)
        if needed is None or self.may(needed):
            return ""
        return f"Your account may not do this in the tenant {self.tenant}. It needs {needed!r}: {PERMISSIONS[needed]}."

    def at(self, path: str, wanted: str, default: str) -> Visitor:
        """The visitor at the tenant that the request names, else at the default one, or the first one for the page."""
        if not self.account:
            return self._in(wanted or default)
        needed = self._needed(path)
        if wanted and (needed or self.register.role(wanted, self.account)):
            return self._in(wanted)  # the page is refused where it is another one's
        needed = needed or READ
        fitting = [name for name in (default, *self.tenants) if self.may(needed, name)]
        return self._in(fitting[0] if fitting else default)

    def _in(self, tenant: str) -> Visitor:
        return Visitor(self.register, tenant, self.actor, self.session)

    def _needed(self, path: str) -> Permission | None:
        if path.startswith(OWN):
            return None
        return next((needed for begin, needed in NEEDS.items() if path.startswith(begin)), READ)

    def _permissions(self, tenant: str) -> frozenset[str]:
        return permissions(self.register, tenant, self.actor, datetime.now(UTC))


def visitor(request: HTTPConnection) -> Visitor:
    """The visitor of a request that was let in."""
    found: Visitor = request.state.visitor
    return found


def known_visitor(request: HTTPConnection) -> Visitor | None:
    """The visitor, None on a page that is open to all."""
    return getattr(request.state, "visitor", None)
