"""The filter of system calls, run by an interpreter of its instructions: this machine is of one kind only."""

from __future__ import annotations

import pytest

from adapters.sandbox import seccomp

ALLOWED, REFUSED, KILLED, MISSING = 0x7FFF0000, 0x00050001, 0x80000000, 0x00050026

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

PID = 4711

CALLS = {
    # name: numbers, arguments, verdict without and with forks
    "read": ((0, 63), (), ALLOWED, ALLOWED),
    "write": ((1, 64), (1,), ALLOWED, ALLOWED),
    "mmap": ((9, 222), (), ALLOWED, ALLOWED),
    "openat": ((257, 56), (), ALLOWED, ALLOWED),
    "execve": ((59, 221), (), ALLOWED, ALLOWED),
    "exit_group": ((231, 94), (), ALLOWED, ALLOWED),
    "futex": ((202, 98), (), ALLOWED, ALLOWED),
    "socketpair": ((53, 199), (1,), ALLOWED, ALLOWED),
    "socket": ((41, 198), (1,), REFUSED, REFUSED),
    "ptrace": ((101, 117), (16, 1), REFUSED, REFUSED),
    "kill": ((62, 129), (1, 9), REFUSED, REFUSED),
    "bpf": ((321, 280), (), REFUSED, REFUSED),
    "io_uring_setup": ((425, 425), (), REFUSED, REFUSED),
    "clone3": ((435, 435), (), MISSING, MISSING),
    "clone of a process": ((56, 220), (17,), REFUSED, ALLOWED),
    "clone of a thread": ((56, 220), (0x3D0F00,), ALLOWED, ALLOWED),
    "clone into a namespace": ((56, 220), (0x10000000 | 0x10000,), REFUSED, REFUSED),
    "tgkill of itself": ((234, 131), (PID, PID, 6), ALLOWED, ALLOWED),
    "tgkill of another": ((234, 131), (PID + 1, PID, 6), REFUSED, REFUSED),
    "prlimit of itself": ((302, 261), (0, 7), ALLOWED, ALLOWED),
    "prlimit of itself by id": ((302, 261), (PID, 7), ALLOWED, ALLOWED),
    "prlimit of another": ((302, 261), (1, 7), REFUSED, REFUSED),
    "sched_setaffinity of itself": ((203, 122), (0,), ALLOWED, ALLOWED),
    "sched_setaffinity of another": ((203, 122), (1,), REFUSED, REFUSED),
    "ioctl for the size of a terminal": ((16, 29), (1, 0x5413), ALLOWED, ALLOWED),
    "ioctl that types into a terminal": ((16, 29), (1, 0x5412), REFUSED, REFUSED),
}


OF_A_SERVER = {
    # name: numbers, arguments, verdict
    "socket of TCP": ((41, 198), (2, 1), ALLOWED),
    "socket of TCP, closed on exec": ((41, 198), (2, 0x80801), ALLOWED),
    "socket of UDP": ((41, 198), (2, 2), REFUSED),
    "raw socket": ((41, 198), (2, 3), REFUSED),
    "socket of IPv6": ((41, 198), (10, 1), REFUSED),
    "socket of this machine": ((41, 198), (1, 1), REFUSED),
    "socket of the kernel": ((41, 198), (16, 3), REFUSED),
    "bind": ((49, 200), (3,), ALLOWED),
    "accept4": ((288, 242), (3,), ALLOWED),
    "connect": ((42, 203), (3,), REFUSED),
    "sendto": ((44, 206), (3, 0, 5, 0x4000), ALLOWED),
    "sendto that connects": ((44, 206), (3, 0, 5, 0x20000000), REFUSED),
    "sendmsg": ((46, 211), (3, 0, 0x4000), ALLOWED),
    "sendmsg that connects": ((46, 211), (3, 0, 0x20000000), REFUSED),
    "sendmmsg that connects": ((307, 269), (3, 0, 1, 0x20000000), REFUSED),
    "clone of a process": ((56, 220), (17,), REFUSED),
}


def verdict(
    machine: str,
    number: int,
    arguments: tuple[int, ...],
    *,
    forks: bool = False,
    listens: bool = False,
    sockets: bool = False,
    architecture: int = 0,
) -> int:
    """Run the filter, as the kernel does."""
    program = list(seccomp.program(machine, PID, forks=forks, listens=listens, sockets=sockets))
    data = {0: number, 4: architecture or MACHINES[machine]}
    data |= {16 + 8 * place: value & 0xFFFFFFFF for place, value in enumerate((*arguments, *[0] * 6)[:6])}
    held, at = 0, 0
    while True:
        code, yes, no, operand = program[at]
        at += 1
        match code:
            case 0x20:
                held = data[operand]
            case 0x15:
                at += yes if held == operand else no
            case 0x35:
                at += yes if held >= operand else no
            case 0x45:
                at += yes if held & operand else no
            case 0x06:
                return operand
            case _:
                raise AssertionError(code)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("call", CALLS)
def test_each_call_has_its_verdict(machine: str, call: str) -> None:
    numbers, arguments, alone, forking = CALLS[call]
    number = numbers[list(MACHINES).index(machine)]
    assert verdict(machine, number, arguments, forks=False) == alone
    assert verdict(machine, number, arguments, forks=True) == forking


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("call", OF_A_SERVER)
def test_a_server_listens_and_connects_to_nothing(machine: str, call: str) -> None:
    numbers, arguments, expected = OF_A_SERVER[call]
    assert verdict(machine, numbers[list(MACHINES).index(machine)], arguments, listens=True) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_a_program_with_a_network_opens_sockets_and_is_contained_else(machine: str) -> None:
    place = list(MACHINES).index(machine)
    sockets = [call for call in CALLS if "socket" in call]
    assert sockets
    for call, (numbers, arguments, alone, _) in CALLS.items():
        expected = ALLOWED if call in sockets else alone
        assert verdict(machine, numbers[place], arguments, sockets=True) == expected, call


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_of_another_architecture_are_not_mistaken(machine: str) -> None:
    [other] = set(MACHINES) - {machine}
    assert verdict(machine, 0, (), forks=True, architecture=MACHINES[other]) == KILLED
    assert verdict(machine, 0, (), forks=True, architecture=0x40000003) == KILLED


def test_the_second_abi_of_a_machine_is_closed() -> None:
    assert verdict("x86_64", 0x40000000, (), forks=True) == REFUSED
    assert verdict("x86_64", 0x40000000 + 520, (), forks=True) == REFUSED
    assert verdict("x86_64", 57, (), forks=False) == REFUSED
    assert verdict("x86_64", 58, (), forks=False) == REFUSED


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_is_short_enough(machine: str) -> None:
    program = list(seccomp.program(machine, PID, forks=False, listens=True))
    assert len(program) < 512
    assert all(0 <= jump < 256 for _, *jumps, _ in program for jump in jumps)
