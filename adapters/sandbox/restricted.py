"""Containment where namespaces are off: limits, a filter of system calls, and Landlock where the kernel has it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from adapters.sandbox.child import DEVICES, NO_RIGHTS, Child, Limits, Rights, entrance, environment, visible
from adapters.sandbox.user import own_user


class Restricted:
    """A Sandbox. As root, with `own_user`, each child has a user of its own."""

    kind = "limits"

    def __init__(self, *, own_user: bool) -> None:
        self.own_user = own_user

    async def start(
        self, program: Sequence[str], limits: Limits, readable: Iterable[Path] = (), rights: Rights = NO_RIGHTS
    ) -> Child:
        user = own_user() if self.own_user else None
        scratch = tempfile.TemporaryDirectory(prefix="headrace-") if limits.scratch else None
        if scratch and user is not None:
            os.chown(scratch.name, user, user)
        folders = [scratch.name] if scratch else []
        if rights.writable:
            folders.append(str(rights.writable))
            if user is not None:
                os.chown(rights.writable, user, user)
        entering = entrance(
            limits,
            user=user,
            counted=user is not None,
            parent=os.getpid(),
            readable=[*visible(readable, network=limits.network), *DEVICES],
            writable=["/dev/null", *folders],
            rights=rights,
        )
        variables = environment(TMPDIR=scratch.name) if scratch else environment()
        return await Child.start([*entering, *program], variables, limits.forks, scratch, rights)
