"""Permissions: each command needs one; a role or the scope of an API key is a set of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Permission = Literal[
    "app.manage",
    "dataset.manage",
    "dataset.edit",
    "dataset.query",
    "chat",
    "replay",
    "budget.manage",
    "limits.manage",
    "limits.impose",
    "provider.manage",
    "plugin.manage",
    "plugin.install",
    "tool.manage",
    "tool.release",
    "end_user.erase",
    "bus.manage",
    "sql.manage",
    "operate",
    "key.manage",
    "member.manage",
    "tenant.manage",
    "tenant.transfer",
    "tenant.create",
    "account.own",
    "account.manage",
    "door",
    "read",
]

PERMISSIONS: Mapping[Permission, str] = {
    "app.manage": "Create, configure and delete apps",
    "dataset.manage": "Create, configure, reprocess and delete knowledge bases, define their metadata, and manage tags",
    "dataset.edit": "Upload, change and delete documents and segments",
    "dataset.query": "Test the retrieval from knowledge bases",
    "chat": "Send and rate messages, and manage conversations",
    "replay": "Repeat recorded model calls",
    "budget.manage": "Set and remove budgets",
    "limits.manage": "Set and remove the tenant's own limits and quotas",
    "limits.impose": "Impose and lift limits and quotas of a tenant, as its operator",
    "provider.manage": "Register, change and remove providers, with their keys, the catalogue of models, and routes",
    "plugin.manage": "Enable, disable and configure installed plugins",
    "plugin.install": "Install and remove plugins, as an operator",
    "tool.manage": "Register, change and remove toolsets, with their secrets",
    "tool.release": "Release and refuse calls of tools that wait for a person",
    "end_user.erase": "Erase end users",
    "bus.manage": "Open and close logins of the tenant on the bus",
    "sql.manage": "Create and revoke logins of the tenant for SQL",
    "operate": "Retry and discard dead letters, and discard messages in quarantine",
    "key.manage": "Create, replace and revoke API keys",
    "member.manage": "Invite, add and remove members, and set their roles",
    "tenant.manage": "Rename the tenant",
    "tenant.transfer": "Make another account the owner, and archive the tenant",
    "tenant.create": "Create tenants, as an operator",
    "account.own": "Change one's own account",
    "account.manage": "Create, disable and enable accounts, as an operator",
    "door": "Report what a door has checked: sign-ins, invitations",
    "read": "Read the tenant's tables, traces and answers",
}

EVERY = frozenset(PERMISSIONS)

OPERATORS: frozenset[Permission] = frozenset(
    {"bus.manage", "limits.impose", "plugin.install", "tenant.create", "account.own", "account.manage", "door"}
)
"""Permissions that no role of a tenant gives: only operators have them, and each account its own (`account.own`)."""

_OF_DOORS: frozenset[Permission] = frozenset(
    {"key.manage", "member.manage", "sql.manage", "tenant.manage", "tenant.transfer"}
)
"""Permissions that ask for a password or a session: doors send such commands for an account, no program may."""

_OWNER = EVERY - OPERATORS
_EDITOR: frozenset[Permission] = frozenset(
    {"app.manage", "dataset.manage", "dataset.edit", "dataset.query", "chat", "replay", "tool.release", "read"}
)

ROLES: Mapping[str, frozenset[Permission]] = {
    "owner": _OWNER,
    "admin": _OWNER - {"tenant.transfer"},
    "editor": _EDITOR,
    "member": frozenset({"chat"}),
    "dataset_operator": frozenset({"dataset.manage", "dataset.edit", "dataset.query"}),
    "viewer": frozenset({"read"}),
}
"""The permissions of each role of a tenant."""

OF_SERVICES = _OWNER - _OF_DOORS
"""The permissions of a service on the bus."""

OF_KEYS = OF_SERVICES
"""The permissions that an API key can have."""

_ALWAYS: frozenset[Permission] = frozenset({"operate", "limits.manage", "end_user.erase"})

_READ: frozenset[Permission] = frozenset({"read"})

UNLIMITED = _ALWAYS | _READ | _OF_DOORS | OPERATORS - {"bus.manage"}
"""Permissions of commands that no limit refuses: they must work when a limit is reached."""

_ENDING: frozenset[Permission] = frozenset({"end_user.erase", "key.manage", "sql.manage", "tenant.transfer", "operate"})

IN_ARCHIVES = _ENDING | _READ | OPERATORS
"""Permissions of commands that an archived tenant still takes."""
