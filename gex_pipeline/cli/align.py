"""``gex align``: where in a video a text is, as pictures and numbers."""

from __future__ import annotations

import argparse
import io
import json
from typing import TYPE_CHECKING, Any

from gex_pipeline import storage
from gex_pipeline.cli.show import say, say_note, table
from gex_pipeline.errors import GexError
from gex_pipeline.progress import LineProgress, shown_by
from gex_pipeline.shard_format import FRAMES_EXTENSION
from gex_pipeline.stages.models import open_model, require_train_extra

if TYPE_CHECKING:
    from gex_pipeline.shards.target import Target
    from trainer.alignment import Masking
    from trainer.alignment_pictures import AlignedVideo
    from trainer.catalog_rows import CatalogSample
    from trainer.data_settings import GranularitySettings
    from trainer.pretrained import Pretrained
    from trainer.videos import Frames


def command(arguments: argparse.Namespace) -> int:
    """Compute the maps of one sample and draw them."""
    require_train_extra()
    from trainer.alignment import Masking
    from trainer.embed import reading_of

    sample = find_sample(arguments.dataset, arguments.key)
    texts = _texts(arguments, sample)
    model = open_model(arguments.model)
    given = {"n_iter_video": arguments.n_iter_video, "n_iter_text": arguments.n_iter_text}
    changes = {name: value for name, value in given.items() if value is not None}
    reading = reading_of(model, sample.granularity).model_copy(update=changes)
    frames = _frames(sample, reading, model.image_size_px)
    batch_size = 169 if model.device.type == "cuda" else Masking.batch_size
    masking = Masking(arguments.patch, arguments.stride, batch_size, arguments.precision)
    with shown_by(LineProgress()):
        video, scores = _aligned(model, sample, (frames, texts), (reading, masking))
    folder = storage.absolute(arguments.out or f"alignment-{sample.key[:12]}")
    files = _write(folder, video, scores | {"key": sample.key, "granularity": sample.granularity})
    rows = [(one.text, f"{one.similarity:.4f}", f"{one.scores_THW.max():+.4f}") for one in video.texts]
    table(("text", "similarity", "highest score"), rows, numbers=(1, 2))
    for file in files:
        say(file)
    return 0


def find_sample(dataset: str, key: str) -> CatalogSample:
    """The sample of a published data set with this key, or whose key alone begins so.

    Raises:
        GexError: there is none, or several.
    """
    from gex_pipeline.shards.samples import one_row, open_samples
    from gex_pipeline.shards.target import open_target

    target = open_target([dataset])
    if target.manifest is None:
        raise GexError(f"no data set is published at {dataset!r}: there is no dataset.json in it")
    with open_samples(target) as samples:
        return sample_of(target, one_row(samples, key))


def sample_of(target: Target, row: dict[str, Any]) -> CatalogSample:
    """A row of the shard tools as the trainer knows it: frames that lie beside a video are its media.

    Raises:
        GexError: it has no media.
    """
    from gex_pipeline.shards.samples import media_place
    from trainer.catalog_rows import CatalogSample, source_number

    from_frames = bool(row.get("frames_size_bytes"))
    place = "frames" if from_frames else "media"
    return CatalogSample(
        key=row["key"],
        granularity=row["granularity"],
        source_id=row["source_id"],
        source_number=source_number(row["source_id"]),
        text=row["text"] or "",
        duration_s=row["duration_s"] or 0.0,
        media_uri=media_place(target, row),
        media_offset_bytes=row[f"{place}_offset_bytes"],
        media_size_bytes=row[f"{place}_size_bytes"],
        media_extension=FRAMES_EXTENSION if from_frames else row["media_extension"],
    )


def _texts(arguments: argparse.Namespace, sample: CatalogSample) -> list[str]:
    own = [sample.text] if arguments.own_text or not arguments.text else []
    texts = [*own, *(arguments.text or [])]
    if not all(text.strip() for text in texts):
        raise GexError(
            f"a text is empty; sample {sample.key} is aligned to --text, or to its own text where it has one"
        )
    return texts


def _frames(sample: CatalogSample, reading: GranularitySettings, size_px: int) -> Frames:
    from trainer.frames import read_frames
    from trainer.media_reader import DamagedMediaError, MediaReader

    media = MediaReader()
    try:
        return read_frames(sample, reading.num_frames, size_px, media)
    except DamagedMediaError as error:
        raise GexError(f"sample {sample.key} cannot be read: {error}") from error
    finally:
        media.close()


def _aligned(
    model: Pretrained,
    sample: CatalogSample,
    content: tuple[Frames, list[str]],
    how: tuple[GranularitySettings, Masking],
) -> tuple[AlignedVideo, dict[str, Any]]:
    """The video with its scores a pixel, and the scores a place as JSON takes them."""
    import torch

    from trainer.alignment import align, resized
    from trainer.alignment_pictures import AlignedVideo, TextScores

    (frames_T3HW, texts), (reading, masking) = content, how
    for text, is_cut in zip(texts, model.tokenizer(texts).truncated_B.tolist(), strict=True):
        if is_cut:
            say_note(f"the end of {text[:40]!r}... does not fit the text tower and is not read")
    text_KD = model.encode_texts(texts, reading.n_iter_text)
    try:
        found = align(model.model, torch.from_numpy(frames_T3HW), text_KD, reading.n_iter_video, masking)
    except ValueError as error:
        raise GexError(str(error)) from error
    similarities = found.similarity_K.tolist()
    height_px, width_px = frames_T3HW.shape[-2:]
    drawn = [
        TextScores(text, similarity, resized(scores, height_px, width_px, masking).float().numpy())
        for text, similarity, scores in zip(texts, similarities, found.scores_KTYX, strict=True)
    ]
    title = (
        f"{sample.granularity} · {sample.source_id} · {sample.key} · #iter {reading.n_iter_video}-{reading.n_iter_text}"
        f" · mask {masking.patch_px} px every {masking.stride_px} px"
    )
    facts = {
        "n_iter_video": reading.n_iter_video,
        "n_iter_text": reading.n_iter_text,
        "patch_px": masking.patch_px,
        "stride_px": masking.stride_px,
        "precision": masking.precision,
        "texts": [
            {"text": text, "similarity": similarity, "scores": scores.tolist()}
            for text, similarity, scores in zip(texts, similarities, found.scores_KTYX, strict=True)
        ],
    }
    return AlignedVideo(title, frames_T3HW.transpose(0, 2, 3, 1), sample.duration_s, drawn), facts


def _write(folder: str, video: AlignedVideo, scores: dict[str, Any]) -> list[str]:
    from trainer.alignment_pictures import strip, write_overlay

    picture = io.BytesIO()
    strip(video).save(picture, "PNG", optimize=True)
    content = json.dumps(scores, ensure_ascii=False).encode()
    files = {"alignment.png": picture.getvalue(), "alignment.json": content}
    with storage.scratch_folder("gex-align-") as scratch:
        if len(video.frames_THWC) > 1:
            for number in range(len(video.texts)):
                write_overlay(video, number, scratch / "overlay.mp4")
                files[f"overlay-{number + 1}.mp4"] = (scratch / "overlay.mp4").read_bytes()
    for name, written in files.items():
        storage.publish_bytes(written, storage.join(folder, name))
    return [storage.join(folder, name) for name in files]
