"""App files on the command line without a server: reports, drawings, mappings, and how they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.dsl.importing import imported
from domain.workflows.mapping import Replacements
from ops.cli.dsl import mapping_of, show_report
from ops.cli.frame import Failed
from tests.ops.cli.test_cli import Cli

FILES = Path(__file__).parents[2] / "adapters" / "dsl" / "files"


async def test_a_file_is_checked_without_a_server(headrace: Cli) -> None:
    result = await headrace("workflow", "check", str(FILES / "model-missing.yml"))
    assert result.code == 0
    assert "Lock (workflow, version 0.6.0): 3 runs, 0 runs with a change, 0 cannot run yet" in result.out
    assert "It needs the model zhipuai/glm-4." in result.out
    broken = await headrace("workflow", "check", str(FILES / "unknown-type.yml"), "--json")
    assert (broken.code, broken.lines[0]["status"]) == (1, "cannot")


async def test_a_graph_is_drawn_as_text_and_as_a_flowchart(headrace: Cli) -> None:
    text = (await headrace("workflow", "show", str(FILES / "question-classifier.yml"))).out.splitlines()
    assert text[0].split() == ["start", "Start", "[1711528914102]"]
    assert text[3:5] == ["  Opening times → Reply 0", "  Complaints 😠 → Reply 1"]
    nested = (await headrace("workflow", "show", str(FILES / "loop.yml"))).out.splitlines()
    assert [line.split()[0] for line in nested if line.startswith("    ")] == ["loop-start", "→", "assigner"]
    drawn = (await headrace("workflow", "show", str(FILES / "loop.yml"), "--mermaid")).out
    assert drawn.startswith('flowchart LR\n  n0["start: Start"]\n  subgraph n1["loop: Loop"]\n')
    assert drawn.count("-->") == 3
    [whole] = (await headrace("workflow", "show", str(FILES / "loop.yml"), "--json")).lines
    assert len(whole["digest"]) == 64
    none = await headrace("workflow", "show", str(FILES / "chat.yml"))
    assert (none.code, "which has no graph" in none.err) == (1, True)


@pytest.mark.parametrize(
    ("pair", "rule"),
    [
        ("model=x", "is not like KIND:NAME=NEW"),
        ("colour:red=blue", "one of model, rerank, dataset, tool"),
        ("model:openai/gpt-4o=small", "model.openai/gpt-4o: It is PROVIDER/MODEL"),
        ("dataset:a=", "It is the name that stands for it"),
    ],
)
def test_a_mapping_that_cannot_be_read_is_refused(pair: str, rule: str) -> None:
    with pytest.raises(Failed, match=rule):
        mapping_of([pair], None)


def test_an_option_counts_more_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "map.yml"
    file.write_text("model: {openai/gpt-4o: local/small, '*': local/large}\ntool: {google: web}\n")
    found = mapping_of(["model:openai/gpt-4o=local/tiny", "dataset:a=b"], file).by_kind
    assert found == {
        "model": {"openai/gpt-4o": "local/tiny", "*": "local/large"},
        "tool": {"google": "web"},
        "dataset": {"a": "b"},
    }
    file.write_text("model: [a]")
    with pytest.raises(Failed, match="model: It is an object of names"):
        mapping_of(None, file)
    with pytest.raises(Failed, match="cannot be read"):
        mapping_of(None, tmp_path / "none.yml")


def test_a_report_shows_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    data = (FILES / "code.yml").read_bytes().replace(b"title: Count", b'title: "C\\e[31mount"')
    show_report(imported(data, None, Replacements()).report, as_json=False)
    shown = capsys.readouterr().out
    assert ("ount" in shown, "\x1b" in shown) == (True, False)
