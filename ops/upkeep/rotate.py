"""The keys of people under another master secret, and the values that still need an earlier one."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js.errors import APIError

from adapters.archive.archiver import keys_of_people
from adapters.archive.store import Archive
from adapters.jetstream.aggregates import every
from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.keys import delete, entry
from adapters.jetstream.macs import STREAM, Macs
from adapters.jetstream.message import Message
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import NOT_LAST
from adapters.many import each
from adapters.privacy.vault import PEOPLE, AesVault, UnknownKey
from domain.access.sql_login import SqlLogin
from domain.chat.app import App
from domain.models.provider import Provider
from domain.tools.toolset import Toolset
from domain.workflows.workflow import Workflow
from handlers.ports.log import Unavailable
from handlers.repository import Repository
from handlers.work.progress import Progress, no_progress

AT_ONCE = 16
"""Maximum number of keys that are sealed at a time."""

NO_MASTER = "unknown"
"""Name for a master secret that is not there."""


@dataclass
class Rewrapped:
    """Number of keys that were sealed again, and a reason by person (`<tenant>/<person>`) of those that cannot be."""

    keys: int = 0
    faults: dict[str, str] = field(default_factory=dict)


@dataclass
class Needed:
    """The values under each master secret: people's keys and archived ones by number, credentials of providers by
    tenant, provider and name, SQL logins and toolsets by tenant and id, secret variables by tenant, app and name."""

    people: Counter[str] = field(default_factory=Counter)
    archived: Counter[str] = field(default_factory=Counter)
    providers: dict[str, list[str]] = field(default_factory=dict)
    sql_logins: dict[str, list[str]] = field(default_factory=dict)
    toolsets: dict[str, list[str]] = field(default_factory=dict)
    variables: dict[str, list[str]] = field(default_factory=dict)

    @property
    def ids(self) -> set[str]:
        return {*self.people, *self.archived, *self.providers, *self.sql_logins, *self.toolsets, *self.variables}


async def rewrap(nc: Client, vault: AesVault, progress: Progress = no_progress) -> Rewrapped:
    """Seal people's keys again that another than the current master secret has sealed, and erase the earlier form.

    Workers may run. Breaking off and beginning again is safe at any moment: an earlier form is erased only when its
    successor is stored. Raises: Unavailable.
    """
    done = Rewrapped()
    await Macs(nc, vault).establish()
    reader, js = DirectReader(nc, timeout_s=10), nc.jetstream(timeout=10)

    async def one(message: Message) -> None:
        tenant, person = message.subject.split(".")[2:]
        last = await reader.last(STREAM, message.subject)
        if last is None:
            return
        if not entry(last.data):
            done.faults[f"{tenant}/{person}"] = "The newest entry of the bucket is no key."
            return
        if sequence(last) == message.sequence:
            try:
                secret = vault.open(tenant, entry(message.body)["key"], PEOPLE)
            except (UnknownKey, ValueError) as error:
                done.faults[f"{tenant}/{person}"] = str(error)
                return
            body = orjson.dumps({"key": vault.seal(tenant, secret, PEOPLE)})
            headers = {"Nats-Expected-Last-Subject-Sequence": str(message.sequence)}
            try:
                await js.publish(message.subject, body, stream=STREAM, headers=headers)
            except APIError as error:
                if error.err_code in NOT_LAST:
                    return  # the person was erased meanwhile; the erasure removes all forms of the key
                raise
            done.keys += 1
        await delete(js, reader, message.sequence)

    goal = await keys_of_people(nc).last()
    try:
        async with aclosing(_outdated(nc, vault, goal)) as chunks:
            async for some in chunks:
                await each(some, one, AT_ONCE)
                progress("keys of people", some[-1].sequence, goal)
    except nats.errors.Error as error:
        raise Unavailable(f"The keys cannot be sealed again: {error!r}") from error
    progress("keys of people", goal, goal)
    return done


async def outdated(nc: Client, vault: AesVault) -> bool:
    """Return whether another than the current master secret has sealed any person's key. Raises: Unavailable."""
    goal = await keys_of_people(nc).last()
    async with aclosing(_outdated(nc, vault, goal)) as chunks:
        async for _ in chunks:
            return True
    return False


async def _outdated(nc: Client, vault: AesVault, goal: int) -> AsyncGenerator[list[Message]]:
    async with aclosing(keys_of_people(nc).read(0, goal)) as chunks:
        async for messages in chunks:
            keys = [(message, entry(message.body).get("key")) for message in messages]
            if some := [message for message, key in keys if key and not vault.is_current(key)]:
                yield some


async def needed(nc: Client, vault: AesVault, archive: Archive | None = None) -> Needed:
    """Count the values that each master secret opens, in the log and in the archive. Raises: Unavailable."""
    found = Needed()
    source = keys_of_people(nc)
    async with aclosing(source.read(0, await source.last())) as chunks:
        async for messages in chunks:
            for message in messages:
                if key := entry(message.body).get("key"):
                    found.people[_id(vault, message.subject.split(".")[2], key)] += 1
    repository = Repository(JetStreamEventStore(nc), JetStreamSnapshots(nc))
    async for tenant, provider in every(nc, repository, Provider):
        for credential in provider.credentials:
            name = f"{tenant}/{provider.id}/{credential['name']}"
            found.providers.setdefault(_id(vault, tenant, credential["sealed_key"]), []).append(name)
    async for tenant, login in every(nc, repository, SqlLogin):
        if login.sealed_verifier:
            found.sql_logins.setdefault(_id(vault, tenant, login.sealed_verifier), []).append(f"{tenant}/{login.id}")
    async for tenant, toolset in every(nc, repository, Toolset):
        if toolset.secret:
            sealed = toolset.secret["sealed"]
            found.toolsets.setdefault(_id(vault, tenant, sealed), []).append(f"{tenant}/{toolset.id}")
    async for tenant, workflow in every(nc, repository, Workflow):
        app = await repository.get(App, tenant, workflow.id)
        if app is None or app.deleted:
            continue
        for name, sealed in sorted(workflow.sealed):
            of_id = found.variables.setdefault(_id(vault, tenant, sealed), [])
            if (variable := f"{tenant}/{workflow.id}/{name}") not in of_id:
                of_id.append(variable)
    if archive:
        await _archived(archive, vault, found)
    return found


async def _archived(archive: Archive, vault: AesVault, found: Needed) -> None:
    async def one(name: str) -> None:
        if key := entry(await archive.key(name) or b"").get("key"):
            found.archived[_id(vault, name.partition("/")[0], key)] += 1

    await each(list(await archive.keys()), one, AT_ONCE)


def _id(vault: AesVault, tenant: str, sealed: str) -> str:
    try:
        return vault.sealed_by(tenant, sealed)
    except ValueError:
        return NO_MASTER
