"""A worker's process."""

from __future__ import annotations

import subprocess
import sys

LIMITED = """
import resource
from ops.roles.worker import allow_connections

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
allow_connections()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""


def test_as_many_connections_are_allowed_as_the_system_lets() -> None:
    subprocess.run([sys.executable, "-c", LIMITED], check=True)
