"""Videos and images of a public data set in, a row of numbers each out: unit vectors, or logits of the model's head.

Each file, or part of one, is decoded once. An image is one frame, whatever videos are read with. What cannot be read
has no row and is named by its id, as a person knows it. Encodes no texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from trainer.annotation_catalog import MediaText, catalog_of, keys_of
from trainer.annotations.media_folder import IMAGE_ENDINGS
from trainer.catalog import CatalogPart
from trainer.data_settings import AnnotationSettings
from trainer.encoding import EncodedVideos, classify_videos, encode_videos
from trainer.evaluate import Options, ReadAs
from trainer.loader import Damaged
from trainer.pretrained import Pretrained
from trainer.sequence import LoadersInTurn, SequenceLoader


def encode_media(
    pretrained: Pretrained,
    samples: Sequence[MediaText],
    read: ReadAs,
    options: Options,
    annotations: AnnotationSettings,
    *,
    classify: bool = False,
) -> EncodedVideos:
    """A row of numbers for each of these videos; the rows' keys are those of `keys_of`.

    Raises:
        GexError: the model has no classes, none can be read, or storage fails.
    """
    reading = read.reading(options, needs_text=False)
    name = annotations.kind
    by_kind: dict[bool, list[int]] = {}
    for number, sample in enumerate(samples):
        by_kind.setdefault(is_image(sample.media), []).append(number)
    with ExitStack() as stack:
        catalog = stack.enter_context(catalog_of(samples, name, annotations.file))
        part = CatalogPart(catalog, {name: None})
        loaders = []
        for are_images, numbers in by_kind.items():
            how = replace(reading, num_frames=1) if are_images else reading
            loaders.append(stack.enter_context(SequenceLoader(part, name, how, numbers)))
        compute = classify_videos if classify else encode_videos
        found = compute(pretrained, LoadersInTurn(name, loaders), read.n_iter_video)
    ids = dict(zip(keys_of(samples), map(_told, samples), strict=True))
    return replace(found, damaged=tuple(Damaged(ids[one.key], one.reason) for one in found.damaged))


def is_image(media: Path) -> bool:
    """Whether a file is an image, by its ending."""
    return media.suffix.lower() in IMAGE_ENDINGS


def _told(sample: MediaText) -> str:
    part = f" {sample.span.start_s:g} to {sample.span.end_s:g} s" if sample.span else ""
    return f"{sample.source_id}{part}"
