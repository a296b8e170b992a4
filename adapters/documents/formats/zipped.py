"""ZIP files, the container of Office documents, OpenDocument and EPUB, unpacked within limits."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO

from adapters.documents.formats.parsed import Refused

LARGEST = 2**30
"""Maximum unpacked size of all entries, in bytes, as the file declares it; no more than declared is read."""

MOST = 100_000
"""Maximum number of entries."""

_ENTRY = b"PK\x01\x02"
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 1


class Zipped:
    """The entries of a ZIP file by name, case-insensitive.

    Raises: Refused `broken_file`, `encrypted_file` or `too_large`, here and on reading.
    """

    def __init__(self, data: bytes) -> None:
        if data.count(_ENTRY) > MOST:
            raise Refused("too_large", f"The file is a ZIP archive of more than {MOST:,} entries.")
        try:
            self._file = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, NotImplementedError, ValueError, UnicodeDecodeError) as error:
            raise Refused("broken_file", f"The file is a ZIP archive that cannot be opened: {error}.") from None
        entries = self._file.infolist()
        _check(entries)
        self._entries = {_key(entry.filename): entry for entry in entries}

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._entries

    def holds(self, folder: str) -> bool:
        """True if a folder, whose name ends with a slash, holds an entry."""
        return any(name.startswith(folder) for name in self._entries)

    def open(self, name: str) -> IO[bytes]:
        if name not in self:
            raise Refused("broken_file", f"The file lacks its part {name}.")
        try:
            return self._file.open(self._entries[_key(name)])
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise Refused("broken_file", f"The part {name} of the file cannot be read: {error}.") from None

    def read(self, name: str) -> bytes:
        with self.open(name) as part, sound(name):
            return part.read()

    def replaced(self, parts: Mapping[str, bytes]) -> bytes:
        """The file with other content of these entries, without those that cannot be read."""
        contents = {_key(name): content for name, content in parts.items()}
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for key, entry in self._entries.items():
                with suppress(Refused):
                    archive.writestr(entry.filename, contents[key] if key in contents else self.read(key))
        return file.getvalue()


@contextmanager
def sound(name: str) -> Iterator[None]:
    """Turn the faults of an entry that is being read into Refused."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise Refused("broken_file", f"The part {name} of the file cannot be read: {error}.") from None


def _check(entries: list[zipfile.ZipInfo]) -> None:
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise Refused("encrypted_file", "The file is encrypted: upload a copy without a password.")
    if sum(entry.file_size for entry in entries) > LARGEST:
        raise Refused("too_large", f"The file would have more than {LARGEST // 2**20:,} MiB when unpacked.")
    if any(entry.compress_type not in _METHODS for entry in entries):
        raise Refused("broken_file", "The file is compressed in a way that its format does not have.")
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise Refused("broken_file", "Parts of the file overlap, as in a ZIP bomb.")
        end = entry.header_offset + entry.compress_size


def _key(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()
