"""The address of named objects: a folder or a bucket."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from adapters.objects.folder import Folder
from adapters.objects.objects import Objects


def objects_at(url: str, what: str, *, make: bool) -> Objects:
    """The objects in a folder (a path or file:///…) or in a bucket (s3://bucket/prefix).

    `what` names them in messages; `make` lets the first write create the folder.
    """
    if url.startswith("s3://"):
        from adapters.objects.bucket import Bucket  # its package would slow down all commands

        return Bucket(url, what)
    path = unquote(urlsplit(url).path) if url.startswith("file://") else url
    return Folder(Path(path).expanduser().absolute(), what, make=make)
