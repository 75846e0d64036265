from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.validate.tiny_clip import TINY_DIM, TINY_MAX_TOKENS, write_tiny_clip
from trainer.settings import TowerSettings
from trainer.tokens import load_tokenizer
from trainer.towers import load_towers

TEXTS = ["a man rides a red bicycle along the river", "two dogs sleep", "rain falls on the roof of an old house"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny", TEXTS)


@pytest.fixture(scope="module")
def clip(folder):
    from transformers import CLIPModel

    return CLIPModel.from_pretrained(folder).eval()


def settings_for(folder, **rest):
    return TowerSettings(clip=str(folder), **rest)


def draw_frames(num_frames=4):
    return torch.randint(0, 256, (num_frames, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def folder_with_code(folder, tmp_path):
    """A copy that says it is of a kind that its own code defines."""
    own = Path(shutil.copytree(folder, tmp_path / "foreign"))
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.Config"}}
    (own / "config.json").write_text(json.dumps(config))
    (own / "foreign.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import CLIPConfig\n"
        "class Config(CLIPConfig):\n    model_type = 'foreign'\n"
    )
    return own


def pixels_of(folder, frames):
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor.from_pretrained(folder)
    return processor(images=[frame.permute(1, 2, 0).numpy() for frame in frames], return_tensors="pt")["pixel_values"]


def test_the_class_token_projected_is_what_clip_gives_for_an_image(folder, clip):
    towers, frames = load_towers(settings_for(folder, projected=True)), draw_frames()
    features = towers.image.eval()(frames)
    assert features.shape == (4, 17, TINY_DIM)
    expected = clip.get_image_features(pixel_values=pixels_of(folder, frames)).pooler_output
    torch.testing.assert_close(features[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_the_end_token_projected_is_what_clip_gives_for_a_text(folder, clip):
    settings = settings_for(folder, projected=True)
    tokens = load_tokenizer(settings)(TEXTS)
    features = load_towers(settings).text.eval()(tokens.ids_BWL[:, 0])
    assert features.shape == (3, TINY_MAX_TOKENS, TINY_DIM)
    expected = clip.get_text_features(input_ids=tokens.ids_BWL[:, 0]).pooler_output
    ends = tokens.mask_BWL[:, 0].sum(1) - 1
    torch.testing.assert_close(features[torch.arange(3), ends], expected, rtol=1e-4, atol=1e-5)


def test_bytes_are_normalised_as_the_processor_of_the_checkpoint_does(folder):
    tower, frames = load_towers(settings_for(folder)).image.eval(), draw_frames()
    torch.testing.assert_close(tower(frames), tower(pixels_of(folder, frames)), rtol=1e-4, atol=1e-5)


class FloatCopies(TorchDispatchMode):
    """The memory in which floats lie that operations made."""

    def __init__(self):
        super().__init__()
        self.places, self._kept = set(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.is_floating_point():
            self._kept.append(found)  # or its place would be used again
            self.places.add(found.data_ptr())
        return found


def test_a_batch_of_bytes_becomes_floats_once(folder):
    """There were three copies, two of them at a time: 9.9 GB each for 512 videos of 32 frames."""
    tower, frames = load_towers(settings_for(folder)).image, draw_frames()
    with FloatCopies() as copies:
        found = tower.normalised(frames)
    assert len(copies.places) == 1
    assert torch.equal(found, (frames.float() / 255 - tower.pixel_mean) / tower.pixel_std)


def test_features_are_those_after_the_last_norm_with_or_without_the_class_token(folder, clip):
    frames = draw_frames()
    hidden = clip.vision_model.post_layernorm(clip.vision_model(pixels_of(folder, frames)).last_hidden_state)
    with_class = load_towers(settings_for(folder)).image.eval()
    patches = load_towers(settings_for(folder, class_token=False)).image.eval()
    assert (with_class.num_features, patches.num_features, patches.feature_dim) == (17, 16, 32)
    torch.testing.assert_close(with_class(frames), hidden, rtol=1e-4, atol=1e-5)
    assert torch.equal(patches(frames), with_class(frames)[:, 1:])


def test_a_frozen_tower_takes_no_gradient_and_stays_in_evaluation(folder):
    frozen, free = load_towers(settings_for(folder, frozen=True)), load_towers(settings_for(folder))
    for tower, sample in (
        (frozen.image, draw_frames()),
        (frozen.text, torch.zeros(1, TINY_MAX_TOKENS, dtype=torch.int64)),
    ):
        tower.train()
        assert not any(module.training for module in tower.modules())
        assert not any(parameter.requires_grad for parameter in tower.parameters())
        assert not tower(sample).requires_grad
    free.image.train()
    assert free.image.encoder.training
    free.image(draw_frames()).sum().backward()
    assert all(parameter.grad is not None for parameter in free.image.parameters())


def test_a_start_from_scratch_has_the_shape_of_the_checkpoint_and_none_of_its_weights(folder):
    torch.manual_seed(1)  # not the numbers that the checkpoint was made of, whatever ran before
    loaded, scratch = load_towers(settings_for(folder)), load_towers(settings_for(folder, weights="random"))
    old, new = loaded.image.state_dict(), scratch.image.state_dict()
    assert {name: tensor.shape for name, tensor in old.items()} == {name: tensor.shape for name, tensor in new.items()}
    assert not torch.equal(*(state["encoder.embeddings.patch_embedding.weight"] for state in (old, new)))


def test_a_checkpoint_with_another_activation_is_refused(folder):
    with pytest.raises(ValueError, match="has activation 'quick_gelu', the settings say 'gelu'"):
        load_towers(settings_for(folder, activation="gelu"))


@pytest.mark.parametrize("damage", ["cut off", "another size"])
def test_weights_that_are_damaged_or_of_another_size_are_refused_in_a_sentence(folder, tmp_path, damage):
    """A download that broke off was a traceback of thirty lines."""
    copy = Path(shutil.copytree(folder, tmp_path / "clip"))
    if damage == "cut off":
        (copy / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    else:
        config = json.loads((copy / "config.json").read_text())
        config["vision_config"]["intermediate_size"] *= 2
        (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"^its weights are damaged or do not fit its config.json \(.+\); copy or "):
        load_towers(settings_for(copy))


def test_what_is_no_clip_and_what_lacks_weights_are_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="is a 'bert'; expected a CLIP"):
        load_towers(settings_for(tmp_path))
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"lacks 1 weights, first 'visual_projection.weight'"):
        load_towers(settings_for(tmp_path))


def test_code_in_a_folder_is_not_run_nor_is_anybody_asked_for_it(folder, tmp_path, monkeypatch):
    """On a terminal transformers asked, and ran it at a `y`."""
    own = folder_with_code(folder, tmp_path)
    monkeypatch.setattr("builtins.input", lambda _prompt: "y")
    for load in (load_towers, load_tokenizer):
        with pytest.raises(ValueError, match=r"trust_remote_code"):
            load(settings_for(own))
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_not_there_is_an_error_and_not_a_download(tmp_path):
    with pytest.raises(OSError):
        load_towers(settings_for(tmp_path / "nothing"))
