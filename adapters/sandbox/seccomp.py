"""A seccomp filter for contained processes: no sockets, no other processes, no system administration.

A server may have sockets of TCP that listen; none that connects. A program that needs a network has all of them.

What no program needs that only computes is refused with EPERM, so that a library which tries it can go on without.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable, Iterator

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""

_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # _REFUSE: EPERM
_MISSING = 0x00050026
"""ENOSYS: the C library falls back to the older call, whose arguments a filter can see."""

_NUMBER, _ARCHITECTURE = 0, 4
"""Offsets into the data of a filter."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
"""The first number of a second ABI of x86_64."""

_CLONE_THREAD = 0x10000
_CLONE_NAMESPACES = 0x7E020000
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type into a terminal."""

_SOCKET, _CONNECT = (41, 198), (42, 203)
_SENDTO, _SENDMSG, _SENDMMSG = (44, 206), (46, 211), (307, 269)
_INET, _NO_STREAM, _FAST_OPEN = 2, 0xE, 0x20000000
"""The family of IPv4, the bits of all types of sockets but streams, and the flag that connects while it sends."""

_REFUSED = {
    # shared memory beyond the limits; io_uring bypasses a filter
    "io_uring_setup": (425, 425),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # owners, permissions and times of files, which Landlock does not guard
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    # parts of the kernel with a history of faults, and the administration of the machine
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "personality": (135, 92),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
}
"""Numbers of the refused calls on x86_64 and on aarch64."""

_PERMISSIONS = {"chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat", "utimensat"}

_FORK, _VFORK = (57, None), (58, None)
_CLONE, _CLONE3 = (56, 220), (435, 435)
_TGKILL, _PRLIMIT, _SET_AFFINITY, _IOCTL = (234, 131), (302, 261), (203, 122), (16, 29)

_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2


def supported() -> bool:
    return platform.system() == "Linux" and platform.machine() in _ARCHITECTURES


def no_new_privileges() -> None:
    """Refuse this process more privileges, also from programs that it executes. Raises: OSError."""
    _prctl()(_SET_NO_NEW_PRIVS, 1, 0)


def restrict(*, forks: bool, listens: bool = False, sockets: bool = False, permissions: bool = False) -> None:
    """Filter the calls of this process and of what it executes, for ever.

    `forks`: it may start processes; `listens`: it may accept connections of TCP; `sockets`: it may open any socket of
    its network; `permissions`: it may set permissions and times of its files. Raises: OSError.
    """
    prepared(os.getpid(), forks=forks, listens=listens, sockets=sockets, permissions=permissions)()


def prepared(pid: int, **rights: bool) -> Callable[[], None]:
    """As `restrict`, for a process with this id that calls it later, at little cost then; 0: for any process, which may
    not even signal its own threads."""
    filter = b"".join(struct.pack("<HBBI", *each) for each in program(platform.machine(), pid, **rights))
    code = ctypes.create_string_buffer(filter, len(filter))
    description = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(filter) // 8, ctypes.addressof(code)))
    prctl = _prctl()

    def apply(code: object = code) -> None:  # the description has its address
        prctl(_SET_SECCOMP, _FILTER_MODE, ctypes.addressof(description))

    return apply


def program(
    machine: str,
    pid: int,
    *,
    forks: bool,
    listens: bool = False,
    sockets: bool = False,
    permissions: bool = False,
) -> Iterator[Instruction]:
    """The filter for the process with this id on this machine."""
    place = list(_ARCHITECTURES).index(machine)
    yield from [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL)]
    yield (_LOAD, 0, 0, _NUMBER)
    if machine == "x86_64":
        yield from [(_GREATER_EQUAL, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]
    network = [] if sockets else [_CONNECT if listens else _SOCKET]
    refused = [numbers for name, numbers in _REFUSED.items() if not (permissions and name in _PERMISSIONS)]
    refused += [*network, *([] if forks else [_FORK, _VFORK])]
    for numbers in refused:
        if (number := numbers[place]) is not None:
            yield from [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    yield from [(_EQUAL, 0, 1, _CLONE3[place] or 0), (_RETURN, 0, 0, _MISSING)]
    yield from _when(_CLONE[place], 0, [(_ANY_BIT, 0, 1, _CLONE_NAMESPACES), (_RETURN, 0, 0, _REFUSE)])
    if not forks:
        yield from _when(_CLONE[place], 0, [(_ANY_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _REFUSE)])
    yield from _when(_TGKILL[place], 0, [(_EQUAL, 1, 0, pid), (_RETURN, 0, 0, _REFUSE)])
    for numbers in (_PRLIMIT, _SET_AFFINITY):
        own = [(_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, pid), (_RETURN, 0, 0, _REFUSE)]
        yield from _when(numbers[place], 0, own)
    if listens:
        yield from _when(_SOCKET[place], 0, [(_EQUAL, 1, 0, _INET), (_RETURN, 0, 0, _REFUSE)])
        yield from _when(_SOCKET[place], 1, [(_ANY_BIT, 0, 1, _NO_STREAM), (_RETURN, 0, 0, _REFUSE)])
        for numbers, flags in ((_SENDTO, 3), (_SENDMSG, 2), (_SENDMMSG, 3)):
            yield from _when(numbers[place], flags, [(_ANY_BIT, 0, 1, _FAST_OPEN), (_RETURN, 0, 0, _REFUSE)])
    for request in _TERMINAL_INPUT:
        yield from _when(_IOCTL[place], 1, [(_EQUAL, 0, 1, request), (_RETURN, 0, 0, _REFUSE)])
    yield (_RETURN, 0, 0, _ALLOW)


def _when(number: int | None, argument: int, checks: list[Instruction]) -> Iterator[Instruction]:
    """These checks of the low half of an argument, for the call with this number; then the number is loaded again."""
    assert number is not None
    yield (_EQUAL, 0, len(checks) + 2, number)
    yield (_LOAD, 0, 0, 16 + 8 * argument)
    yield from checks
    yield (_LOAD, 0, 0, _NUMBER)


def _prctl() -> Callable[[int, int, int], None]:
    call = ctypes.CDLL(None, use_errno=True).prctl
    call.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

    def prctl(option: int, value: int, address: int) -> None:
        if call(option, value, address, 0, 0):
            error = ctypes.get_errno()
            raise OSError(error, f"prctl {option}: {os.strerror(error)}")

    return prctl
