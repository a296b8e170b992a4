"""Faults of the machine, with what to do about each: full disks, missing rights, unusable paths."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryFile

ADVICE = {
    errno.ENOSPC: "free some space on its disk, then try again",
    errno.EDQUOT: "free some space of your quota, then try again",
    errno.EROFS: "make its disk writable, or choose another home with --home",
    errno.EIO: "its disk is damaged or gone: see the messages of the kernel",
    errno.EACCES: "start Headrace as the owner of its files, or choose another home with --home",
    errno.EPERM: "start Headrace as the owner of its files, or choose another home with --home",
    errno.ENOTDIR: "choose a folder with --home",
    errno.EEXIST: "choose a folder with --home",
    errno.EISDIR: "move this folder away",
    errno.ELOOP: "correct this link, which leads to itself",
    errno.ENAMETOOLONG: "choose a shorter path with --home",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "too many files are open on the machine: close some programs",
    errno.ENOMEM: "the machine has not enough memory: close some programs",
    errno.EAGAIN: "raise the limit of processes (ulimit -u)",
}
"""What to do, by the number of an error of the operating system."""

_OF_SERVERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EMFILE, errno.ENOMEM)


def advice(number: int | None) -> str:
    """What to do about an error of this number; empty when nothing is known."""
    return ADVICE.get(number or 0, "")


def fault(number: int | None) -> str:
    """An error of this number in words, with what to do about it if that is known."""
    return ": ".join(filter(None, (os.strerror(number or 0), advice(number))))


def cause(text: str) -> str:
    """The fault of the machine that the log of a server names, with what to do; empty when it names none."""
    said = text.casefold()
    for number in _OF_SERVERS:
        words = os.strerror(number).casefold()
        if words in said or (number == errno.ENOSPC and "check free disk space" in said):
            return fault(number)
    return ""


def unwritable(folder: Path) -> str:
    """The fault that keeps files out of a folder, with what to do; empty when there is none."""
    try:
        with TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return fault(error.errno)
