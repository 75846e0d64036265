"""CLIP cosines: texts and video frames in, unit vectors and cosines in [-1, 1] out.

A video is the mean of its frames' unit vectors, normalised (mean pooling). A text longer than the
model's text length is cut there, its end token kept; `num_truncated` counts such texts. The
composition of a batch moves a score by float rounding only. Does not decode video: frames come as images.
"""

# Tensors: N texts, T frames of one video, D embedding width, L text tokens.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gex_pipeline.errors import GexError, Reason, RejectedError
from gex_pipeline.validate.pairs import check_parallel, is_blank
from gex_pipeline.validate.sentence import row_cosines
from gex_pipeline.validate.weights import Weights, find_weights, loading, need_module, pick_device

Frame = Image.Image | npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]

_TEXT_BATCH = 64
_FRAME_BATCH = 32
_LEGACY_EOS = 2  # in old checkpoints' configuration; such a model pools at the highest token id instead


class ClipCosine:
    """A CLIP model from a local directory or a hub id.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        GexError: the model cannot be loaded, is no CLIP, lacks weights, or does not fit its tokenizer.
    """

    def __init__(self, model: str, *, device: str | None = None) -> None:
        torch, transformers = need_module("torch", "torch"), need_module("transformers", "transformers")
        weights = find_weights(model)
        self._torch = torch
        self._device = pick_device(device)
        with loading(weights):
            _check_is_clip(weights, transformers.AutoConfig.from_pretrained(weights.source, trust_remote_code=False))
            clip, info = transformers.CLIPModel.from_pretrained(weights.source, output_loading_info=True)
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(weights.source, trust_remote_code=False)
            self._images = _load_image_processor(transformers, weights)
        if info["missing_keys"]:
            raise GexError(
                f"CLIP model {weights.name!r} lacks {len(info['missing_keys'])} weights, first "
                f"{min(info['missing_keys'])!r}, which would be random; use a complete CLIP checkpoint"
            )
        _check_pooling(weights, clip.config.text_config, self._tokenizer)
        # float: half precision checkpoints would give other scores on other devices
        self._model = clip.float().eval().to(self._device)
        self.signature = weights.name
        self.dim = int(clip.config.projection_dim)
        self.max_tokens = int(clip.config.text_config.max_position_embeddings)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embeddings (N, D), float32 of unit norm; the row of a blank text is zero."""
        vectors_ND = np.zeros((len(texts), self.dim), dtype=np.float32)
        filled = [row for row, text in enumerate(texts) if not is_blank(text)]
        # by length, so that a batch is padded little; rows go back to their places
        filled.sort(key=lambda row: len(texts[row]))
        for start in range(0, len(filled), _TEXT_BATCH):
            rows = filled[start : start + _TEXT_BATCH]
            tokens = self._tokenizer(
                [texts[row] for row in rows],
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
            )
            with self._torch.inference_mode():
                features = self._model.get_text_features(
                    input_ids=tokens["input_ids"].to(self._device),
                    attention_mask=tokens["attention_mask"].to(self._device),
                )
            vectors_ND[rows] = self._unit(features)
        return vectors_ND

    def embed_frames(self, frames: Sequence[Frame]) -> Vectors:
        """Embeddings (T, D), float32 of unit norm, of PIL images or uint8 arrays (height, width, 3)."""
        vectors_TD = np.zeros((len(frames), self.dim), dtype=np.float32)
        for start in range(0, len(frames), _FRAME_BATCH):
            images = [_as_image(frame) for frame in frames[start : start + _FRAME_BATCH]]
            pixels = self._images(images=images, return_tensors="pt")["pixel_values"].to(self._device)
            with self._torch.inference_mode():
                features = self._model.get_image_features(pixel_values=pixels)
            vectors_TD[start : start + len(images)] = self._unit(features)
        return vectors_TD

    def embed_video(self, frames: Sequence[Frame]) -> Vectors:
        """Embedding (D,), float32 of unit norm: the mean of the frames' unit vectors.

        Raises:
            RejectedError: `no_frames`.
        """
        if len(frames) == 0:
            raise RejectedError(Reason.no_frames, "expected at least one frame to embed a video")
        mean_D = self.embed_frames(frames).mean(axis=0, dtype=np.float64)
        unit_D: Vectors = (mean_D / max(float(np.linalg.norm(mean_D)), 1e-12)).astype(np.float32)
        return unit_D

    def text_text(self, a: Sequence[str], b: Sequence[str]) -> list[float]:
        """One cosine a pair of texts, in the order given; 0 where either is blank.

        Raises:
            ValueError: the lists differ in length.
        """
        check_parallel(a, b)
        vectors = self.embed_texts([*a, *b])
        return row_cosines(vectors[: len(a)], vectors[len(a) :])

    def video_text(self, video_embeddings: Vectors, text_embeddings: Vectors) -> list[float]:
        """One cosine a row of (N, D) video embeddings with the same row of (N, D) text embeddings.

        Raises:
            ValueError: the shapes differ.
        """
        return row_cosines(video_embeddings, text_embeddings)

    def num_truncated(self, texts: Sequence[str]) -> int:
        """How many texts are longer than the model's text length and lose their end in `embed_texts`."""
        filled = [text for text in texts if not is_blank(text)]
        if not filled:
            return 0
        tokens = self._tokenizer(filled, verbose=False)["input_ids"]
        return sum(len(ids) > self.max_tokens for ids in tokens)

    def _unit(self, features: Any) -> Vectors:
        unit_ND: Vectors = self._torch.nn.functional.normalize(features.pooler_output, dim=-1).cpu().numpy()
        return unit_ND


def _check_is_clip(weights: Weights, config: Any) -> None:
    if config.model_type != "clip":
        raise GexError(f"CLIP model {weights.name!r} is a {config.model_type!r} model, expected 'clip'")


def _check_pooling(weights: Weights, text_config: Any, tokenizer: Any) -> None:
    """A text is pooled at its end token; with another id than the tokenizer's all texts get one and the same vector."""
    pooled_id = text_config.eos_token_id
    if pooled_id == _LEGACY_EOS:
        pooled_id = max(tokenizer.get_vocab().values())
    if pooled_id != tokenizer.eos_token_id:
        raise GexError(
            f"CLIP model {weights.name!r} pools a text at token id {pooled_id}, but its tokenizer ends texts with "
            f"{tokenizer.eos_token_id}: every text would get the same vector; mend text_config.eos_token_id"
        )


def _load_image_processor(transformers: Any, weights: Weights) -> Any:
    # PIL everywhere: with torchvision installed the default resizes otherwise, and scores would depend on the machine
    return transformers.AutoImageProcessor.from_pretrained(weights.source, trust_remote_code=False, backend="pil")


def _as_image(frame: Frame) -> Image.Image:
    if isinstance(frame, Image.Image):
        return frame.convert("RGB")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"expected a uint8 frame (height, width, 3), found {frame.dtype} {frame.shape}")
    return Image.fromarray(frame)
