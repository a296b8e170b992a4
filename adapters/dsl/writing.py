"""Writing of app files. What was not changed is written as it was read, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from adapters.dsl.reading import AppFile, Format, without_secrets


def write(document: Mapping[str, Any], format: Format = "yaml") -> bytes:
    """The file of a document: its order is kept."""
    if format == "json":
        return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)).encode()


def emptied(file: AppFile) -> bytes:
    """The bytes of a file, with empty secrets: the same ones where it has none."""
    document, secrets = without_secrets(file.document)
    return write(document, file.format) if secrets else file.data


def changed(file: AppFile, document: Mapping[str, Any]) -> bytes:
    """The file of a document that began as this file: its bytes where nothing differs."""
    return file.data if document == file.document else write(document, file.format)


class _Dumper(yaml.CSafeDumper):  # type: ignore[misc]  # it has no types
    """Without anchors: each value is written out."""

    def ignore_aliases(self, data: object) -> bool:
        return True
