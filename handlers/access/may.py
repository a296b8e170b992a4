"""Judges whether an actor may send a command, at the time of its dispatch."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from domain.access.actor import ANON, account_of, key_of
from domain.access.permissions import EVERY, IN_ARCHIVES, OF_SERVICES, PERMISSIONS, ROLES, Permission
from domain.access.register import Key, Register
from domain.access.tenant import HOUSE
from domain.aggregate import Aggregate, Rejection
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.tools.tool_call import ToolCall
from domain.workflows.run import Run
from domain.workflows.workflow import Workflow

_NONE: frozenset[Permission] = frozenset()


def permissions(register: Register, tenant: str, actor: str, now: datetime) -> frozenset[str]:
    """The permissions that an actor has in a tenant, whatever the command is about.

    `anon` is the operator, or a machine without accounts; an operator with an account is a member of the house.
    """
    if actor == ANON:
        return EVERY
    if actor.startswith("s_"):
        return OF_SERVICES if tenant != HOUSE else _NONE
    if id := account_of(actor):
        return of_account(register, tenant, id)
    if (key := scope(register, tenant, actor)) and not register.ended(key, now):
        return key.permissions & of_account(register, tenant, key.account) if key.account else key.permissions
    return _NONE


def of_account(register: Register, tenant: str, account: str) -> frozenset[str]:
    """The permissions of an account: by its role in the tenant, and by its role in the house."""
    own = ROLES.get(register.role(tenant, account) or "", _NONE)
    operator = ROLES.get(register.role(HOUSE, account) or "", _NONE)
    if "member.manage" in operator:
        return EVERY
    return own | (operator & {"read"})


def judge(register: Register, tenant: str, actor: str, permission: Permission, about: str, now: datetime) -> None:
    """Raise a rejection unless the actor may. `about` is the account that a command of accounts changes, or empty."""
    archived = (found := register.tenants.get(tenant)) is not None and found.archived
    if archived and permission not in IN_ARCHIVES:
        raise Rejection("archived", f"The tenant {tenant} is archived: it can be read, and nothing in it changes.")
    if permission == "account.own" and about and about == account_of(actor):
        account = register.accounts.get(about)
        if account and account.is_active:
            return
    if permission not in permissions(register, tenant, actor, now):
        what = PERMISSIONS[permission]
        raise Rejection("forbidden", f"The actor {actor} may not do this. It needs {permission!r}: {what}.")


def within(key: Key, used: Iterable[Aggregate]) -> None:
    """Raise a rejection unless all that a command uses belongs to the apps and knowledge bases of a key.

    A command that names none of them is about the whole tenant.
    """
    if key.covers_tenant:
        return
    covered = False
    for one in used:
        place = _place(one)
        if place is None:
            continue
        kind, id = place
        if id not in (key.apps if kind is App else key.datasets):
            raise Rejection("forbidden", f"This key is not for the {kind.TOPIC} {id}.")
        covered = True
    if not covered:
        raise Rejection("forbidden", "This key is for some apps or knowledge bases; the command names none of them.")


def _place(one: Aggregate) -> tuple[type[Aggregate], str] | None:
    """The app or the knowledge base that something belongs to, None for what belongs to none."""
    match one:
        case App() | Dataset():
            return type(one), one.id
        case Workflow():
            return App, one.id
        case Conversation() | Run() | ToolCall():
            return App, one.app
        case Document():
            return Dataset, one.dataset
        case _:
            return None


def scope(register: Register, tenant: str, actor: str) -> Key | None:
    """The key of an actor that is one."""
    return register.keys.get((tenant, key_of(actor)))
