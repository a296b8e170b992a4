"""Runs code of strangers as the settings say."""

from __future__ import annotations

from adapters.code.contained import Allowance, ContainedCode
from adapters.sandbox.choice import Choice
from handlers.ports.code import CallLimits
from ops.settings import InvalidSetting, Settings

_MB = 2**20


def open_code(settings: Settings, choice: Choice) -> ContainedCode:
    """Raises: InvalidSetting."""
    packages = settings.code_packages.expanduser() if settings.code_packages else None
    if packages and not packages.is_dir():
        raise InvalidSetting(f"HEADRACE_CODE_PACKAGES: {packages} is no folder. Make it, or leave the setting out.")
    memory, output = settings.code_memory_mb * _MB, settings.code_output_mb * _MB
    limits = CallLimits(settings.code_seconds, settings.code_cpu_s, memory, output)
    scratch = settings.code_scratch_mb * _MB
    return ContainedCode(choice, Allowance(limits, scratch, settings.code_tasks, settings.code_at_once, packages))
