"""Where weights are looked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from llmops_sdk.errors import MissingModelError, UnsupportedError
from llmops_sdk.local.weights import PACKAGED, Packaged, check_folder, find_packaged, find_weights, kind_of
from llmops_sdk.settings import Settings


def test_a_path_is_found_before_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means what it means to the shell; a bare name is looked for in the home too."""
    settings = Settings(home=tmp_path / "home")
    kept = tmp_path / "home" / "models" / "m.gguf"
    kept.parent.mkdir(parents=True)
    kept.touch()
    monkeypatch.chdir(tmp_path)
    assert find_weights("m.gguf", settings) == kept
    (tmp_path / "m.gguf").touch()
    assert find_weights("m.gguf", settings) == tmp_path / "m.gguf"
    assert find_weights(str(kept), settings) == kept


def test_a_name_that_nothing_has_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError) as caught:
        find_weights("nothing", Settings(home=tmp_path))
    assert str(tmp_path / "models" / "nothing") in caught.value.message
    assert "llmops models get smollm2" in caught.value.message


def test_an_absolute_path_that_has_nothing_is_named_once(tmp_path: Path) -> None:
    """The home has no part in it."""
    path = str(tmp_path / "x.gguf")
    with pytest.raises(MissingModelError, match="nothing is at that path") as caught:
        find_weights(path, Settings(home=tmp_path))
    assert caught.value.message.count(path) == 1


def test_a_package_that_is_not_installed_is_no_path() -> None:
    """It is looked for without being imported."""
    absent = Packaged(
        name="x", package="x-y", version="1", module="no_such_module", path="m", kind="chat", size_bytes=1, what="x"
    )
    assert find_packaged(absent) is None
    assert find_packaged(dataclasses.replace(absent, module="no_such.module")) is None


@pytest.mark.weights
@pytest.mark.parametrize("weights", PACKAGED, ids=lambda weights: weights.name)
def test_the_packages_lie_where_we_look(weights: Packaged) -> None:
    """And take about what the table says."""
    path = find_packaged(weights)
    assert path is not None
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) == pytest.approx(weights.size_bytes, rel=0.01)
    assert find_weights(weights.name, Settings()) == path


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".PTH", ".ckpt", ".pkl"])
def test_a_pickle_is_refused_by_its_name(suffix: str, tmp_path: Path) -> None:
    """Even one that is not there: no one is to go and get it."""
    with pytest.raises(UnsupportedError, match="could run code"):
        find_weights(str(tmp_path / f"model{suffix}"), Settings())


def test_a_folder_with_safe_weights_may_hold_others_too(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match="no model folder"):
        check_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(UnsupportedError, match=r"pytorch_model\.bin"):
        check_folder(tmp_path)
    (tmp_path / "model.safetensors").touch()
    check_folder(tmp_path)


def test_a_folder_of_sentence_transformers_embeds_and_all_else_chats(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "modules.json").touch()
    assert kind_of(str(tmp_path / "e"), Settings()) == "embeddings"
    assert kind_of(str(tmp_path), Settings()) == "chat"
    assert kind_of("minilm", Settings()) == "embeddings"
    assert kind_of("not here", Settings()) == "chat"
