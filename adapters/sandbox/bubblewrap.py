"""Containment by namespaces, made by bubblewrap: a child sees what is mounted for it, no other process, no network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from adapters.sandbox.child import DEVICES, NO_RIGHTS, Child, Limits, Rights, entrance, environment, visible
from adapters.sandbox.user import own_user

_NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try")

_INSIDE = "65533"
"""User and group that a child seems to have where it has those of the process that started it."""


class Bubblewrap:
    """A Sandbox. As root, with `own_user`, each child has a user of its own; else it is in a user namespace."""

    kind = "bubblewrap"

    def __init__(self, *, own_user: bool) -> None:
        self.own_user = own_user

    async def start(
        self, program: Sequence[str], limits: Limits, readable: Iterable[Path] = (), rights: Rights = NO_RIGHTS
    ) -> Child:
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise FileNotFoundError("The program bwrap is not installed.")
        user = own_user() if self.own_user else None
        command = [bwrap, *_NAMESPACES, "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
        if not limits.network:
            command += ["--unshare-net"]
        if user is None:
            command += ["--unshare-user", "--uid", _INSIDE, "--gid", _INSIDE]
        else:  # given up on entering
            command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        paths = visible(readable, network=limits.network)
        if limits.scratch:
            command += ["--perms", "1777", "--size", str(limits.scratch), "--tmpfs", "/tmp"]
        filled = [str(rights.writable)] if rights.writable else []
        for folder in _above([*paths, *filled, *DEVICES]):
            command += ["--dir", folder]
        for path in paths:
            command += ["--ro-bind", path, path]
        for path in filled:
            command += ["--bind", path, path]
            if user is not None:
                os.chown(path, user, user)
        for device in DEVICES:
            command += ["--dev-bind", device, device]
        command += ["--remount-ro", "/", "--chdir", "/", "--"]
        command += [*entrance(limits, user=user, counted=True, rights=rights), *program]
        variables = environment(TMPDIR="/tmp") if limits.scratch else environment()
        return await Child.start(command, variables, limits.forks, rights=rights)


def _above(paths: Sequence[str]) -> list[str]:
    """The folders above these paths, the outer ones first: bubblewrap would copy their permissions."""
    return sorted({str(folder) for path in paths for folder in Path(path).parents} - {"/", *paths})
