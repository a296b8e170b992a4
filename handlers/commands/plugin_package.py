"""A plugin's package: a zip file with `plugin.json`, the program, and perhaps a lock file and wheels; or one of Dify.

Only an operator installs packages. Still, each is checked before anything of it is stored on a disk: names, links,
sizes and numbers of files, the manifest, and the lock file, which may name packages of an index by their hashes only.
"""

from __future__ import annotations

import io
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from domain.aggregate import Rejection
from domain.tools.plugin import Manifest
from handlers.commands import dify_package
from handlers.commands.fields import Part, at_most
from handlers.commands.response_schema import schema_fault

MANIFEST = "plugin.json"
LOCK = "requirements.lock"
WHEELS = "wheels/"

MOST_BYTES = 128 * 2**20
"""Maximum size of a package, in bytes."""

MOST_UNPACKED = 512 * 2**20
"""Maximum size of all its files together, in bytes."""

MOST_FILES = 10_000
"""Maximum number of its files and folders."""

LONGEST_NAME = 255
"""Maximum length of the path of a file, in characters."""

MOST_TEXT = 256 * 1024
"""Maximum size of the manifest, in bytes."""

MOST_LOCK = 2 * 2**20
"""Maximum size of the lock file, in bytes."""

API = 1
"""Version of the protocol."""

NAME = r"^[a-z0-9_-]{1,64}$"

PluginName = Annotated[str, Field(pattern=NAME, description="Plugin, by its name")]

_LOCKED = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]*+(?:\[[A-Za-z0-9._, -]*+\])?==[A-Za-z0-9.!+_-]++\Z")
_HASH = re.compile(r"[0-9a-f]{64}")

_SPECIFIER = re.compile(r"\A(?:(?:==|>=|<=|~=|!=|<|>)\s*[A-Za-z0-9.*+!_-]++(?:\s*,\s*)?)*+\Z")


def _dependency(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9._, -]+\])?", name):
        raise ValueError("Must be the name of a package, like httpx or httpx[http2]")
    return name


def _specifier(version: str) -> str:
    if not _SPECIFIER.match(version):
        raise ValueError("Must be a version, like ==1.2.3 or >=1,<2, or empty")
    return version


def _inside(path: str) -> str:
    if fault := _path_fault(path):
        raise ValueError(f"Must be the path of a file of the package: it {fault}")
    return path


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    if schema and (fault := schema_fault(schema)):
        raise ValueError(fault)
    return schema


def _host(host: str) -> str:
    if re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]{0,63}", host):
        return host
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?", host):
        raise ValueError("Must be a host, like api.example.com:8443, or $name for the address in a setting")
    return host.lower()


Function = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
HookName = Literal[
    "before_invoke", "after_invoke", "on_error", "check", "before_tool", "after_tool", "load", "run", "close"
]
Names = Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=100)]

_OF_FILTERS = {"before_invoke", "after_invoke", "on_error", "check", "before_tool", "after_tool"}
_OF_MONITORS = {"before_invoke", "after_invoke", "on_error"}


class MatchFields(Part):
    """Calls that a plugin is for."""

    kinds: Names = []
    providers: Names = []
    models: Names = []
    apps: Names = []


class ManifestFields(Part):
    """The manifest `plugin.json`."""

    name: Annotated[str, Field(pattern=NAME)]
    version: Annotated[str, Field(pattern=r"^\d{1,9}\.\d{1,9}\.\d{1,9}(?:[-+][0-9A-Za-z.+-]{1,64})?$")]
    description: Annotated[str, Field(max_length=2000)] = ""
    main: Annotated[str, AfterValidator(_inside)] = "main.py"
    python: Annotated[str, Field(pattern=r"^(?:3\.\d{1,2})?$")] = ""
    dependencies: Annotated[
        dict[Annotated[str, AfterValidator(_dependency)], Annotated[str, AfterValidator(_specifier)]],
        Field(max_length=100),
    ] = {}
    hooks: dict[HookName, Function] = {}
    kind: Literal["monitor", "filter", "dify"]
    match: MatchFields = MatchFields()
    order: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    timeout_ms: Annotated[int, Field(ge=10, le=600_000)] = 2000
    on_failure: Literal["open", "closed"] | None = None
    window: Literal["sentence", "whole"] = "sentence"
    settings: Annotated[dict[str, JsonValue], AfterValidator(_schema), at_most(kib=64)] = {}
    network: Annotated[list[Annotated[str, AfterValidator(_host)]], Field(max_length=100)] = []
    memory_mb: Annotated[int, Field(ge=64, le=65_536)] = 1024
    api: Literal[1] = 1
    instances: Annotated[int, Field(ge=1, le=16)] = 1

    @model_validator(mode="after")
    def _hooks_of_its_kind(self) -> ManifestFields:
        known = {"filter": _OF_FILTERS, "monitor": _OF_MONITORS}.get(self.kind, set())
        given = set(self.hooks) - {"load", "run", "close"}
        if wrong := given - known:
            raise ValueError(f"hooks: a {self.kind} has no hook {min(wrong)}")
        if self.kind in ("filter", "monitor") and not given:
            raise ValueError(f"hooks: a {self.kind} needs one of {', '.join(sorted(known))}")
        return self

    def manifest(self) -> Manifest:
        failing = self.on_failure or ("open" if self.kind == "monitor" else "closed")
        return cast("Manifest", {**self.model_dump(), "on_failure": failing})


@dataclass(frozen=True, slots=True)
class Package:
    """A checked package: its manifest, its lock file (empty for none), and the names of its wheels."""

    data: bytes
    manifest: Manifest
    lock: str
    wheels: tuple[str, ...]

    def files(self) -> Iterator[tuple[str, bool, bytes]]:
        """Yield each file: its path, whether it is a program, and its bytes. Raises: Rejection `invalid_package`."""
        with _opened(self.data) as archive:
            for entry in archive.infolist():
                if not entry.is_dir():
                    yield entry.filename, bool(entry.external_attr >> 16 & 0o111), _read(archive, entry)


def read(data: bytes) -> Package:
    """Check a package. Raises: Rejection `invalid_package`, with the rule that it breaks."""
    if len(data) > MOST_BYTES:
        raise _invalid(f"It has {len(data):,} bytes, at most {MOST_BYTES:,} are allowed.")
    with _opened(data) as archive:
        entries = archive.infolist()
        _check(entries)
        names = {entry.filename: entry for entry in entries}
        if MANIFEST in names:
            manifest = parse(_bounded(archive, names[MANIFEST], MOST_TEXT))
        elif dify_package.MANIFEST in names:
            manifest = dify_package.manifest(
                lambda name: _bounded(archive, names[name], dify_package.MOST_FILE), list(names)
            )
        else:
            raise _invalid(f"It has no file {MANIFEST} or {dify_package.MANIFEST} at its top.")
        if manifest["main"] not in names:
            raise _invalid(f"It has no file {manifest['main']}, the main one of its manifest.")
        lock = _bounded(archive, names[LOCK], MOST_LOCK).decode(errors="replace") if LOCK in names else ""
    if fault := lock_fault(lock):
        raise _invalid(f"{LOCK}: {fault}")
    wheels = tuple(name for name in names if name.startswith(WHEELS) and name.endswith(".whl"))
    return Package(data, manifest, lock, wheels)


def parse(text: bytes) -> Manifest:
    """The manifest in `plugin.json`. Raises: Rejection `invalid_package`."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"{MANIFEST} is not JSON: {str(error)[:200]}.") from None
    try:
        return ManifestFields.model_validate(fields).manifest()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise _invalid(f"{MANIFEST}: {path and f'{path}: '}{problem[:500]}.") from None


def lock_fault(lock: str) -> str | None:
    """The rule that a lock file breaks; None for a valid one, and for none.

    It names packages by version and hash, and nothing else: no address, path, option or source.
    """
    for line in lock.replace("\\\n", " ").splitlines():
        bare = line.partition(" #")[0].strip()
        if bare and not bare.startswith("#") and not _is_locked(bare):
            return f"each line must be a package, its version and its hashes, as {bare[:80]!r} is not."
    return None


def _is_locked(line: str) -> bool:
    """Return whether a line is a package with its version, perhaps a marker, and its hashes."""
    requirement, *hashes = line.split(" --hash=sha256:")
    package, _, marker = requirement.partition(";")
    known = bool(hashes) and all(_HASH.fullmatch(each.strip()) for each in hashes)
    return known and bool(_LOCKED.match(package.strip())) and not any(each in marker for each in ("@", "#", "--"))


def pack(files: Iterator[tuple[str, bool, bytes]]) -> bytes:
    """A zip file of these files: the same for the same files, on every machine, since nothing is compressed."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, program, data in sorted(files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = (stat.S_IFREG | (0o755 if program else 0o644)) << 16
            archive.writestr(entry, data)
    return held.getvalue()


def _check(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MOST_FILES:
        raise _invalid(f"It has {len(entries):,} files, at most {MOST_FILES:,} are allowed.")
    if (size := sum(entry.file_size for entry in entries)) > MOST_UNPACKED:
        raise _invalid(f"Its files have {size:,} bytes, at most {MOST_UNPACKED:,} are allowed.")
    seen = set()
    for entry in entries:
        name, mode = entry.filename, entry.external_attr >> 16
        if fault := _path_fault(name.rstrip("/")):
            raise _invalid(f"The path {name[:100]!r} {fault}.")
        if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_IFMT(mode) == 0):
            raise _invalid(f"{name} is a link or a special file.")
        if entry.flag_bits & 1:
            raise _invalid(f"{name} is encrypted.")
        folded = name.rstrip("/").casefold()
        if folded in seen:
            raise _invalid(f"It has two files {name}.")
        seen.add(folded)
    folders = {str(parent) for name in seen for parent in PurePosixPath(name).parents}
    files = {entry.filename.casefold() for entry in entries if not entry.is_dir()}
    if both := files & folders:
        raise _invalid(f"{min(both)} is a file and a folder.")


def _path_fault(path: str) -> str | None:
    parts = path.split("/")
    if not path or len(path) > LONGEST_NAME:
        return f"has not 1 to {LONGEST_NAME} characters"
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of the package"
    if "\\" in path or ":" in path or not path.isprintable():
        return "has a character that a path of a package has not"
    return None


def _bounded(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    if entry.file_size > most:
        raise _invalid(f"{entry.filename} has {entry.file_size:,} bytes, at most {most:,} are allowed.")
    return _read(archive, entry)


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of a file: at most as many as its entry says."""
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise _invalid(f"{entry.filename} cannot be read: {str(error)[:200]}.") from None


def _opened(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, UnicodeDecodeError) as error:
        raise _invalid(f"It is no zip file: {str(error)[:200]}.") from None


def _invalid(message: str) -> Rejection:
    return Rejection("invalid_package", message, "package")
