from __future__ import annotations

import pytest

from handlers.media_types import IMAGES, kind_by_bytes, media_type_as, media_type_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
WAV = b"RIFF\x10\0\0\0WAVEfmt "


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (PNG, ("image", "image/png")),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", ("image", "image/jpeg")),
        (b"GIF89a\1\0", ("image", "image/gif")),
        (b"RIFF\x10\0\0\0WEBPVP8 ", ("image", "image/webp")),
        (WAV, ("audio", "audio/wav")),
        (b"ID3\4\0", ("audio", "audio/mpeg")),
        (b"\xff\xfb\x90\x64", ("audio", "audio/mpeg")),
        (b"OggS\0\2", ("audio", "audio/ogg")),
        (b"fLaC\0", ("audio", "audio/flac")),
        (b"\0\0\0\x1cftypM4A \0", ("audio", "audio/mp4")),
        (b"\x1aE\xdf\xa3\x01", ("audio", "audio/webm")),
        (b"%PDF-1.7", ("document", "")),
        (b"<svg xmlns='http://host'><script/></svg>", ("document", "")),
        (b"RIFF\x10\0\0\0AVI LIST", ("document", "")),
        (b"\xff\xfe\0h\0i", ("document", "")),
        (b"", ("document", "")),
    ],
)
def test_the_first_bytes_name_the_type_of_a_file(data: bytes, found: tuple[str, str]) -> None:
    assert kind_by_bytes(data) == found


def test_only_images_that_hold_no_program_are_images() -> None:
    assert "image/svg+xml" not in IMAGES


def test_a_file_is_what_it_is_given_as_or_nothing() -> None:
    assert media_type_as("image", PNG, "a.jpg") == "image/png"
    assert media_type_as("image", WAV, "a.png") is None
    assert media_type_as("document", PNG, "a.pdf") is None
    assert media_type_as("document", b"%PDF-1.7", "a.pdf") == media_type_of("a.pdf") == "application/pdf"
    assert media_type_as("document", b"any bytes", "plan") == "application/octet-stream"
