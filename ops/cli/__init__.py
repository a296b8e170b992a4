"""The command line: `headrace`. Each file holds a group of commands and registers them when imported."""

from ops.cli import archive, bus, dead, deploy, index, nats, quarantine, rebuild, run, verify, viewer
from ops.cli.frame import EXPECTED, app, main

__all__ = [
    "EXPECTED",
    "app",
    "archive",
    "bus",
    "dead",
    "deploy",
    "index",
    "main",
    "nats",
    "quarantine",
    "rebuild",
    "run",
    "verify",
    "viewer",
]
