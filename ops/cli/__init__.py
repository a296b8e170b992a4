"""The command line: `headrace`. A file is a group of commands, registered by its import."""

from ops.cli.frame import EXPECTED, app, main

__all__ = ["EXPECTED", "app", "archive", "dead", "deploying", "index", "main", "rebuild", "running", "using", "verify"]
