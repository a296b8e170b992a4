"""Measure how much of documents with known text is found: `python -m tests.adapters.documents.formats`.

`--write` puts the figures into docs/formats.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.adapters.documents.formats.corpus import samples
from tests.adapters.documents.formats.measure import PAGE, measure, page, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.adapters.documents.formats", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the figures to docs/formats.md")
    parser.add_argument("--chapters", type=int, default=300, help="of the documents that are timed", metavar="N")
    options = parser.parse_args()
    figures = asyncio.run(measure(samples(20), samples(options.chapters)))
    sys.stdout.write(f"{table(figures)}\n")
    if options.write:
        PAGE.write_text(page(PAGE.read_text(), figures))


if __name__ == "__main__":
    main()
