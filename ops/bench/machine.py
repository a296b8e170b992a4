"""Description of the machine that the figures were measured on."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import psutil


@cache
def machine() -> str:
    """Processor, cores, memory and Python, in one line."""
    number_type = next((name for flag, name in _NUMBER_TYPES.items() if flag in flags()), "")
    parts = [
        f"{_cpu()}{number_type}",
        f"{cores()} cores",
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        f"{platform.system()}",
        f"Python {platform.python_version()}",
    ]
    return ", ".join(parts)


_NUMBER_TYPES = {"amx_bf16": " with AMX", "avx512_bf16": " with AVX512_BF16"}


def cores() -> int:
    """Number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def flags() -> set[str]:
    """CPU flags by their Linux names; empty when unknown."""
    return set(_cpuinfo("flags").split())


def _cpu() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


@cache
def _cpuinfo(name: str) -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
