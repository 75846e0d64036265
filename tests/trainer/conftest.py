"""A trained model as a folder, made once a session: the real classes in small, with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

TEXTS = [
    *(
        f"half 0 of {number}. half 1 of {number}. a picture of {number} video{number:02d} in short"
        for number in range(18)
    ),
    "a video of a cat asking questions and answers while someone holds clothes",
]
GRANULARITIES = {
    "LVLT": {"num_frames": 4, "n_iter_video": 3, "n_iter_text": 3},
    "LVST": {"num_frames": 3, "n_iter_video": 3, "n_iter_text": 1},
    "IT": {"num_frames": 1, "n_iter_video": 0, "n_iter_text": 1},
}


def write_tiny_model(folder: Path, clip: Path, class_names: tuple[str, ...] = (), seed: int = 3) -> Path:
    """Write a model of a few thousand weights over the tiny CLIP in `clip`; with a head where classes are named."""
    import torch
    from transformers import AutoConfig

    from trainer.checkpoint import named_tensors
    from trainer.classifier import VideoClassifier
    from trainer.data_settings import GranularitySettings
    from trainer.model import VideoTextModel
    from trainer.pretrained import ModelFiles, write_model
    from trainer.settings import IamSettings, ModelSettings, TowerSettings
    from trainer.tokens import load_tokenizer
    from trainer.towers import load_towers

    iam = IamSettings(num_embeddings=4, dim=16, num_heads=2, num_temporal_positions=4)
    settings = ModelSettings(iam=iam, towers=TowerSettings(clip=str(clip)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = VideoTextModel(settings, load_towers(settings.towers))
        trained = VideoClassifier(built, class_names) if class_names else built
        if isinstance(trained, VideoClassifier):  # a head begins with zeros; one that was trained has none
            torch.nn.init.normal_(trained.head.weight)
    files = ModelFiles(
        settings=settings,
        tokenizer=load_tokenizer(settings.towers),
        granularities={name: GranularitySettings(**values) for name, values in GRANULARITIES.items()},
        image_size_px=32,
        trained={"steps": 0},
        card="# A model for tests\n",
        class_names=class_names,
    )
    folder.mkdir(parents=True)
    write_model(named_tensors(trained), AutoConfig.from_pretrained(clip), files, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory) -> Path:
    """A CLIP of random weights with a tokenizer that knows the words of the numbered output."""
    from tests.validate.tiny_clip import write_tiny_clip

    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "clip", TEXTS)


@pytest.fixture(scope="session")
def tiny_model_folder(tiny_clip_folder, tmp_path_factory) -> Path:
    """A model without classes, as training exports it."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "model", tiny_clip_folder)


@pytest.fixture(scope="session")
def numbered_output(tmp_path_factory) -> Path:
    """A published output of 18 sources whose frames say what they are; not to be changed."""
    from tests.trainer.outputs import make_numbered_output

    return make_numbered_output(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(scope="session")
def pretrained(tiny_model_folder):
    """That model, loaded."""
    from trainer.pretrained import Pretrained

    return Pretrained.from_pretrained(tiny_model_folder)
