"""The command line: `headrace`. Each file holds a group of commands and registers them when imported.

Only the file of the command that runs is imported: a worker stays small, and the others start sooner.
"""

from ops.cli.frame import EXPECTED, all_commands, main

__all__ = ["EXPECTED", "all_commands", "main"]
