"""The command line: `headrace`. A file is a group of commands, registered by its import."""

from ops.cli import archive, bus, dead, deploy, index, rebuild, run, verify
from ops.cli.frame import EXPECTED, app, main

__all__ = ["EXPECTED", "app", "archive", "bus", "dead", "deploy", "index", "main", "rebuild", "run", "verify"]
