"""Checks the chain of an archived stream, and prints its messages as JSON: read_archive.py FOLDER EVENTS."""

import hashlib
import json
import sys
import zlib
from pathlib import Path

folder, stream = Path(sys.argv[1]), sys.argv[2]
chain, last = hashlib.sha256(stream.encode()).hexdigest(), 0
for path in sorted((folder / "streams" / stream).iterdir()):
    line, _, contents = path.read_bytes().partition(b"\n")
    header = json.loads(line)
    found = stream, last + 1, chain, hashlib.sha256(contents).hexdigest()
    if (header["stream"], header["first"], header["previous"], header["contents"]) != found:
        sys.exit(f"The chain is broken at {path.name}.")
    chain = hashlib.sha256(bytes.fromhex(header["previous"] + header["contents"])).hexdigest()
    last = header["last"]
    sys.stdout.write(zlib.decompress(contents).decode())
sys.stderr.write(f"{stream} is whole up to {last}, and its chain is {chain}.\n")
