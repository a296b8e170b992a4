import gzip
import re
from hashlib import sha256
from pathlib import Path

from adapters.web.viewer import assets
from adapters.web.viewer.render import environment

STATIC = Path(assets.__file__).parent / "static"

SCRIPT = 50_000
"""Bytes of all script together, as it is sent."""


def test_all_script_together_is_small() -> None:
    sent = [file for name, file in assets.all_files().items() if name.endswith(".js")]
    assert sum(len(file.zipped) for file in sent) <= SCRIPT
    assert all(gzip.decompress(file.zipped) == file.body for file in sent)


def test_a_file_that_changes_has_another_name() -> None:
    assert re.fullmatch(r"/static/viewer\.[0-9a-f]{10}\.css", assets.url("viewer.css"))


def test_no_template_has_what_the_policy_forbids() -> None:
    env = environment()
    for name in env.list_templates():
        source, _, _ = env.loader.get_source(env, name)  # type: ignore[union-attr]
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:|hx-on|\| *safe\b|https?://", source), name
        assert not re.search(r"<script(?![^>]*\ssrc=)", source), name


NPM = {
    "htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    "uplot.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""SHA-256 of the files in the packages htmx.org 2.0.11 and uplot 1.6.32."""


def test_third_party_files_are_byte_for_byte_those_of_their_packages() -> None:
    found = {name: sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() for name in NPM}
    assert found == NPM


def test_no_script_writes_html_of_data() -> None:
    """The one `innerHTML` is a way to swap in a page of the server."""
    for file in STATIC.glob("*.js"):
        source = file.read_text().replace('swap: "innerHTML"', "")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function", source), file


def test_pages_escape_all_that_is_not_formatted() -> None:
    """Only two files make HTML of values, by templates that escape them."""
    env = environment()
    assert env.autoescape is True
    hostile = '"><script>alert(1)</script>\u202e'
    assert "<script>" not in env.from_string("{{ it }}{{ it | visible }}{{ it | preview }}").render(it=hostile)
    assert "U+202E" in env.from_string("{{ it | visible }}").render(it=hostile)
    makers = {file.name for file in STATIC.parent.rglob("*.py") if "Markup(" in file.read_text()}
    assert makers == {"format.py", "bars.py"}


def test_third_party_files_have_their_licences() -> None:
    vendored = STATIC / "vendor"
    assert "Zero-Clause BSD" in (vendored / "htmx.LICENSE.txt").read_text()
    assert "MIT" in (vendored / "uplot.LICENSE.txt").read_text()
