"""The first program of a plugin of Dify, in its own Python: `start.py FOLDER MODULE` runs the module in the folder."""

from __future__ import annotations

import os
import runpy
import sys

BYTES_OF_A_TOKEN = 4
"""Bytes of text for each token, about, where they cannot be counted."""


def main() -> None:
    folder, module = sys.argv[1:]
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.argv = [f"{module}.py"]
    # It ends itself when its parent is process 1, which it is in a namespace; the sandbox ends it with the worker.
    os.getppid = lambda: 2
    _count_without_a_vocabulary()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _count_without_a_vocabulary() -> None:
    """Have the SDK estimate tokens where the vocabulary, which it fetches from the net, cannot be had.

    It counts the tokens of answers whose server does not; without this, such an answer fails at its end.
    """
    try:
        from dify_plugin.interfaces.model.ai_model import AIModel

        counted = AIModel._get_num_tokens_by_gpt2
    except (ImportError, AttributeError):
        return
    missing = False

    def count(self: object, text: str) -> int:
        nonlocal missing
        if not missing:
            try:
                return int(counted(self, text))
            except Exception:
                missing = True
        return -(-len(text.encode()) // BYTES_OF_A_TOKEN)

    AIModel._get_num_tokens_by_gpt2 = count


if __name__ == "__main__":
    main()
