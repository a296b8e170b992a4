import gzip
import re

from adapters.web.viewer import assets
from adapters.web.viewer.render import environment

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


def test_third_party_files_have_their_licences() -> None:
    from importlib.resources import files

    vendored = files("adapters.web.viewer") / "static" / "vendor"
    assert "Zero-Clause BSD" in (vendored / "htmx.LICENSE.txt").read_text()
    assert "MIT" in (vendored / "uplot.LICENSE.txt").read_text()
