"""The contained process that builds an environment: `build.py UV STEPS`, a JSON list of lists of arguments of uv.

It ends with the status of the first step that fails, after what that step has said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys


def main() -> None:
    os.umask(0o022)  # other users read the environment
    for arguments in json.loads(sys.argv[2]):
        done = subprocess.run(
            [sys.argv[1], "--quiet", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode:
            sys.stdout.write(done.stdout.decode(errors="replace")[-2000:])
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
