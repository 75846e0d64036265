from __future__ import annotations

import json
import random
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from gex_pipeline.errors import GexError, MissingExtraError, Reason, RejectedError
from gex_pipeline.validate.clip import ClipCosine
from tests.validate.groups import LONG_TEXTS, MIXED_LENGTHS, SUMMARIES
from tests.validate.tiny_clip import TINY_DIM, TINY_MAX_TOKENS, write_tiny_clip


@pytest.fixture
def frames():
    """40 random frames, so more than one batch."""
    return list(np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8))


@pytest.fixture
def own_copy(tiny_clip_folder, tmp_path):
    return shutil.copytree(tiny_clip_folder, tmp_path / "clip-copy")


def edit_config(folder, **text_settings):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"].update(text_settings)
    (folder / "config.json").write_text(json.dumps(config))


def test_text_embeddings_are_unit_vectors_and_a_blank_text_is_zero(clip):
    vectors = clip.embed_texts([SUMMARIES[0], "", SUMMARIES[1], "\u200b"])
    assert vectors.shape == (4, TINY_DIM)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1, 0], abs=1e-6)


def test_text_embeddings_equal_those_of_the_whole_model(clip, tiny_clip_folder):
    import torch
    from transformers import AutoTokenizer, CLIPModel

    model, tokenizer = CLIPModel.from_pretrained(tiny_clip_folder), AutoTokenizer.from_pretrained(tiny_clip_folder)
    tokens = tokenizer(["a potter"], return_tensors="pt")
    with torch.inference_mode():
        whole = model(**tokens, pixel_values=torch.zeros(1, 3, 32, 32)).text_embeds.numpy()
    assert clip.embed_texts(["a potter"]) == pytest.approx(whole, abs=1e-5)


def test_different_texts_and_different_frames_have_different_vectors(clip, frames):
    texts = clip.embed_texts(SUMMARIES)
    assert (texts @ texts.T)[np.triu_indices(len(texts), 1)].max() < 0.999
    images = clip.embed_frames([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8), frames[0]])
    assert (images @ images.T)[np.triu_indices(3, 1)].max() < 0.999


def test_a_pair_keeps_its_cosine_in_any_batch(clip):
    together = clip.text_text(*map(list, zip(*MIXED_LENGTHS, strict=True)))
    assert together == pytest.approx([clip.text_text([a], [b])[0] for a, b in MIXED_LENGTHS], abs=1e-4)
    order = random.Random(3).sample(range(len(MIXED_LENGTHS)), len(MIXED_LENGTHS))
    shuffled = clip.text_text([MIXED_LENGTHS[row][0] for row in order], [MIXED_LENGTHS[row][1] for row in order])
    assert shuffled == pytest.approx([together[row] for row in order], abs=1e-4)


def test_more_texts_than_a_batch_keep_their_places(clip):
    texts = [f"{summary} {number}" for number in range(30) for summary in SUMMARIES]
    singles = np.concatenate([clip.embed_texts([text]) for text in texts])
    assert clip.embed_texts(texts) == pytest.approx(singles, abs=1e-4)


def test_equal_texts_score_one_and_blank_texts_zero(clip):
    assert clip.text_text(["clay", "", "clay"], ["clay", "clay", " "]) == pytest.approx([1, 0, 0], abs=1e-6)
    assert clip.text_text([], []) == []


def test_a_text_over_the_model_s_length_is_cut_there_and_counted(clip):
    """Without truncation the model raises; with it the end token must stay, or all long texts get a foreign vector."""
    long_text = LONG_TEXTS[0]
    assert clip.max_tokens == TINY_MAX_TOKENS
    cosine = clip.text_text([long_text], [long_text + " penguins penguins"])
    assert cosine == pytest.approx([1.0], abs=1e-6)
    assert clip.num_truncated([long_text, "clay", "", long_text + " more"]) == 2
    assert clip.num_truncated(["", " "]) == 0


def test_a_text_that_just_fits_is_not_counted_as_cut(clip):
    # each letter is one token here; start and end token make two more
    assert clip.num_truncated([" ".join("q" * (TINY_MAX_TOKENS - 2))]) == 0
    assert clip.num_truncated([" ".join("q" * (TINY_MAX_TOKENS - 1))]) == 1


def test_frames_keep_their_places_across_batches(clip, frames):
    vectors = clip.embed_frames(frames)
    assert vectors.shape == (40, TINY_DIM)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(40), abs=1e-5)
    singles = np.concatenate([clip.embed_frames([frame]) for frame in frames])
    assert vectors == pytest.approx(singles, abs=1e-4)


def test_an_array_and_the_same_image_have_one_vector(clip, frames):
    as_image = Image.fromarray(frames[0])
    vectors = clip.embed_frames([frames[0], as_image, as_image.convert("RGBA")])
    assert vectors[1] == pytest.approx(vectors[0], abs=1e-6)
    assert vectors[2] == pytest.approx(vectors[0], abs=1e-6)


def test_a_very_low_frame_is_not_taken_for_channels_first(clip):
    flat = np.random.default_rng(1).integers(0, 256, (3, 64, 3), dtype=np.uint8)
    assert clip.embed_frames([flat]) == pytest.approx(clip.embed_frames([Image.fromarray(flat)]), abs=1e-6)


def test_a_video_is_the_normalised_mean_of_its_frames(clip, frames):
    mean = clip.embed_frames(frames).mean(axis=0)
    assert clip.embed_video(frames) == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    assert clip.embed_video(frames[:1]) == pytest.approx(clip.embed_frames(frames[:1])[0], abs=1e-6)


def test_a_video_without_frames_is_rejected_as_no_frames(clip):
    with pytest.raises(RejectedError) as caught:
        clip.embed_video([])
    assert caught.value.reason is Reason.no_frames
    assert clip.embed_frames([]).shape == (0, TINY_DIM)


@pytest.mark.parametrize("frame", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8)])
def test_a_frame_of_another_kind_is_refused(clip, frame):
    with pytest.raises(ValueError, match=r"expected a uint8 frame \(height, width, 3\), found"):
        clip.embed_frames([frame])


def test_video_text_is_the_cosine_row_by_row(clip, frames):
    videos = np.stack([clip.embed_video(frames[:3]), clip.embed_video(frames[3:])])
    texts = clip.embed_texts([SUMMARIES[0], ""])
    assert clip.video_text(videos, texts) == pytest.approx([float(videos[0] @ texts[0]), 0.0], abs=1e-6)
    with pytest.raises(ValueError, match="of one shape"):
        clip.video_text(videos, texts[:1])


def test_the_same_directory_is_written_twice_the_same(tiny_clip_folder, tmp_path):
    again = write_tiny_clip(tmp_path / "again", [*SUMMARIES, *LONG_TEXTS])
    for file in tiny_clip_folder.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_model_that_pools_at_another_token_than_the_tokenizer_s_end_is_refused(own_copy):
    """With the default id every text was pooled at its first token, and all texts had the same vector."""
    edit_config(own_copy, eos_token_id=49407)
    with pytest.raises(GexError, match="every text would get the same vector"):
        ClipCosine(str(own_copy))


def test_a_legacy_end_token_in_the_configuration_gives_the_same_vectors(own_copy, clip):
    edit_config(own_copy, eos_token_id=2)
    assert ClipCosine(str(own_copy)).embed_texts(SUMMARIES) == pytest.approx(clip.embed_texts(SUMMARIES), abs=1e-6)


def test_a_checkpoint_without_its_vision_tower_is_refused(own_copy):
    """The library only logs missing weights, and fills them with random numbers."""
    from safetensors.torch import load_file, save_file

    weights = load_file(own_copy / "model.safetensors")
    text_only = {name: value for name, value in weights.items() if not name.startswith("vision_model")}
    save_file(text_only, own_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GexError, match=r"'clip-copy' lacks \d+ weights, first 'vision_model"):
        ClipCosine(str(own_copy))


def test_a_model_that_is_no_clip_is_refused(minilm_folder):
    with pytest.raises(GexError, match="is a 'bert' model, expected 'clip'"):
        ClipCosine(str(minilm_folder))


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"transformers is not installed.*-e .\.\[score\]"):
        ClipCosine("openai/clip-vit-base-patch32")


def test_lists_of_different_length_are_refused(clip):
    with pytest.raises(ValueError, match="expected pairs"):
        clip.text_text(["a"], ["a", "b"])
