"""Validates a published output: samples drawn by a seed in; ``report/validation.json`` and contact sheets out.

CLIP cosines of videos and texts, the statistics of the stored scores, the worst samples by every score, drift, and
a plane of features (t-SNE). Nothing published is changed. Without a CLIP model only texts are looked at.
Paper: GEXIA appendix B, with table 8 and figure 4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gex_pipeline import storage
from gex_pipeline.errors import GexError, RejectedError
from gex_pipeline.layout import Layout
from gex_pipeline.model_places import placed_scores
from gex_pipeline.progress import progress
from gex_pipeline.ray_scorer import VideoToScore, frames_to_score
from gex_pipeline.report.figures import are_long_videos, graph_of
from gex_pipeline.report.shard_pictures import samples_sheet
from gex_pipeline.report.validation import LONG_VIDEO
from gex_pipeline.run_state import read_state
from gex_pipeline.shard_format import IMAGE_EXTENSIONS, DamagedRunError
from gex_pipeline.shards.manifest import Manifest
from gex_pipeline.shards.samples import Samples, media_place, open_samples, rows_of
from gex_pipeline.shards.target import open_target
from gex_pipeline.stages.drift import find_drift
from gex_pipeline.validate.clip import ClipCosine, Vectors
from gex_pipeline.validate.sentence import SentenceCosine, row_cosines
from gex_pipeline.validate.settings import ScorerSettings, ValidationSettings, mixed_scores, never_taken_so
from gex_pipeline.validate.statistics import rounded, summarise
from gex_pipeline.validate.tsne import MIN_POINTS, plane_points

if TYPE_CHECKING:
    from collections.abc import Mapping

VIDEO_LONG, VIDEO_SHORT, TEXT_TEXT = "clip_video_long_text", "clip_video_short_text", "clip_text_cosine"
_OF_LONG = {"integrate": VIDEO_LONG, "compress_text": VIDEO_SHORT}  # the paper's are of long videos alone
VIDEO_TEXT, IMAGE_TEXT, TEXT_SUMMARY = "clip_video_text", "clip_image_text", "clip_text_summary"
NUM_WORST = 10
NO_CLIP = (
    "No CLIP model is named, so no video was looked at: name one with --clip, or as clip_model in the recipe's [scores]"
)


@dataclass(frozen=True)
class ValidationOptions:
    """What is looked at, and how closely."""

    clip_model: str | None = None  # none: the one of the newest snapshot's recipe
    num_videos: int = 100  # of every granularity
    num_texts: int = 1000  # pairs of a long and a short text
    max_psi: float | None = None  # none: that of the recipe
    seed: int = 0


class _Granularity(NamedTuple):
    name: str
    operation: str
    is_picture: bool
    is_long: bool

    @property
    def of_videos(self) -> str:
        """What the cosine of its videos, or pictures, and their texts is called."""
        if self.is_picture:
            return IMAGE_TEXT
        return _OF_LONG.get(self.operation, VIDEO_TEXT) if self.is_long else VIDEO_TEXT

    @property
    def media(self) -> str:
        """Its videos, or pictures, in words."""
        return "picture" if self.is_picture else LONG_VIDEO if self.is_long else "video"


def validate_output(output_uri: str, options: ValidationOptions) -> dict[str, Any]:
    """Look at everything published in an output; returns what ``report/validation.json`` holds.

    Raises:
        GexError: nothing is published there, or a model cannot be loaded.
        MissingExtraError: a package of the extra `score` is missing.
    """
    target = open_target([output_uri])
    if target.manifest is None or not target.manifest.snapshots:
        raise GexError(f"nothing is published at {output_uri!r}; run the recipe first, then validate its output")
    with open_samples(target) as samples:
        content = _Validation(samples, target.manifest, options).run()
    storage.publish_bytes(
        json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n", Layout(target.uri).report("validation.json")
    )
    return content


class _Validation:
    """One validation over an open table of samples."""

    def __init__(self, samples: Samples, manifest: Manifest, options: ValidationOptions) -> None:
        self._samples, self._manifest, self._options = samples, manifest, options
        self._newest = manifest.snapshots[-1]
        recipe: Mapping[str, Any] = self._newest.recipe
        base = (read_state(Layout(samples.target.uri)) or {}).get("base", ".")  # of an output copied alone: here
        self._scores = placed_scores(ScorerSettings.model_validate(recipe.get("scores") or {}), base)
        self._settings = ValidationSettings.model_validate(recipe.get("validation") or {})
        self._clip_model = options.clip_model or self._scores.clip_model
        self._videos: dict[str, Vectors | None] = {}  # by the key that a video is drawn by; None: unreadable
        taken = [(one.recipe, one.software) for one in manifest.snapshots if one.retired is None]
        told = (mixed_scores(taken), never_taken_so(taken[-1], taken[:-1]) if taken else "")
        self._notes = [*samples.notes, *filter(None, told)]

    @cached_property
    def _clip(self) -> ClipCosine:
        if self._clip_model is None:
            raise GexError(NO_CLIP)
        return ClipCosine(self._clip_model)

    def run(self) -> dict[str, Any]:
        max_psi = self._options.max_psi or self._settings.max_psi
        drift = find_drift(self._samples, max_psi)
        measured: list[dict[str, Any]] = []
        if self._clip_model is None:
            self._notes.append(NO_CLIP)
        else:
            for one in self._granularities():
                measured += self._measure(one)
        worst = self._worst(measured)
        self._draw_sheets(worst)
        return {
            "snapshot": self._newest.snapshot,
            "seed": self._options.seed,
            "clip_model": self._clip.signature if self._clip_model is not None else None,
            "clip_frames": self._scores.clip_frames,
            "pairs": [{k: v for k, v in item.items() if k not in ("values", "stored_as")} for item in measured],
            "stored": [_rounded(row) for row in self._samples.database.rows("validation_statistics")],
            "plane": self._plane(),
            "worst": worst,
            "max_psi": max_psi,
            "drift": drift,
            "notes": self._notes,
        }

    def _granularities(self) -> list[_Granularity]:
        """Every published granularity, in the order of the recipe."""
        graph = graph_of(self._newest.recipe, self._manifest)
        found = {
            name: _Granularity(
                name,
                entry.operation,
                entry.media_extension in IMAGE_EXTENSIONS,
                are_long_videos(self._manifest, graph, name),
            )
            for snapshot in self._manifest.snapshots
            for name, entry in snapshot.granularities.items()
        }
        return [found[name] for name in self._manifest.granularity_names()]

    def _picked(self, granularity: str, num: int) -> list[dict[str, Any]]:
        return self._samples.database.rows(
            "validation_picked", granularity=granularity, num=num, seed=self._options.seed
        )

    def _measure(self, one: _Granularity) -> list[dict[str, Any]]:
        """CLIP cosines of one granularity: of videos with their texts, and of summaries with what they sum up."""
        rows = self._picked(one.name, self._options.num_videos)
        if not rows:
            return []
        videos = self._embed_videos(one.name, rows)
        seen = [(row, vector) for row, vector in zip(rows, videos, strict=True) if vector is not None]
        texts = [row["text"] for row, _ in seen]
        vectors = np.stack([vector for _, vector in seen]) if seen else np.zeros((0, self._clip.dim), np.float32)
        values = self._clip.video_text(vectors, self._clip.embed_texts(texts))
        stored_as = VIDEO_SHORT if one.operation == "compress_text" else one.of_videos
        found = [self._pair(one.name, (one.of_videos, stored_as), [row["key"] for row, _ in seen], values)]
        found[0] |= {"num_unreadable": len(rows) - len(seen), "num_cut": self._clip.num_truncated(texts)}
        pairs = [row for row in self._picked(one.name, self._options.num_texts) if row["long_text"] is not None]
        if pairs:
            long_texts, short_texts = [row["long_text"] for row in pairs], [row["text"] for row in pairs]
            values = self._clip.text_text(long_texts, short_texts)
            num_cut = self._clip.num_truncated([*long_texts, *short_texts])
            scores = (TEXT_TEXT if one.is_long else TEXT_SUMMARY, TEXT_TEXT)
            pair = self._pair(one.name, scores, [row["key"] for row in pairs], values)
            found.append(pair | {"num_unreadable": 0, "num_cut": num_cut})
        return found

    def _pair(self, granularity: str, scores: tuple[str, str], keys: list[str], values: list[float]) -> dict[str, Any]:
        """A row; `scores` are its name, and the one by which a run stores such cosines of summaries."""
        statistics = _rounded(summarise(values))
        return {
            "granularity": granularity,
            "score": scores[0],
            "stored_as": scores[1],
            **statistics,
            "values": dict(zip(keys, values, strict=True)),
        }

    def _embed_videos(self, name: str, rows: Sequence[dict[str, Any]]) -> list[Vectors | None]:
        """A vector a sample; a summary's video is that of its long text, which is embedded once."""
        progress().stage(f"look at {name}", len(rows), "videos")
        for row in rows:
            key = row["long_key"] or row["key"]
            if key not in self._videos:
                self._videos[key] = self._embed_video(row)
            progress().advance(1)
        return [self._videos[row["long_key"] or row["key"]] for row in rows]

    def _embed_video(self, row: dict[str, Any]) -> Vectors | None:
        try:
            return self._clip.embed_video(self._frames(row))
        except (RejectedError, DamagedRunError) as error:
            self._notes.append(f"{row['granularity']} {row['key']}: its video cannot be looked at: {error}")
            return None

    def _frames(self, row: dict[str, Any]) -> list[Any]:
        place = media_place(self._samples.target, row)
        video = VideoToScore(
            place, row["media_offset_bytes"], row["media_size_bytes"], row["media_extension"], "", row["text"]
        )
        return frames_to_score(video, self._scores.clip_frames)

    def _worst(self, measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The samples with the lowest values of every score; CLIP's among those that were drawn, where none, or
        another model's, are stored of many more."""
        found: dict[tuple[str, str], list[tuple[float, str]]] = {}
        for row in self._samples.database.rows("validation_worst", num=NUM_WORST):
            found.setdefault((row["granularity"], row["score"]), []).append((row["value"], row["key"]))
        for item in measured:
            place = (item["granularity"], item["stored_as"])
            if place not in found or self._clip_model != self._scores.clip_model:
                found[place] = sorted((value, key) for key, value in item["values"].items())[:NUM_WORST]
        keys = sorted({key for lowest in found.values() for _, key in lowest})
        texts = {row["key"]: row for row in rows_of(self._samples, keys)}
        above = sorted({texts[key]["parents"][0] for key in keys if texts[key]["source_text_digest"]})
        long_texts = {row["key"]: row["text"] for row in rows_of(self._samples, above)}
        return [
            {
                "granularity": granularity,
                "score": score,
                "sheet": f"worst-{granularity}-{score}.png",
                "samples": [
                    {
                        "key": key,
                        "source_id": texts[key]["source_id"],
                        "value": rounded(value),
                        "text": texts[key]["text"],
                        "long_text": long_texts.get(texts[key]["parents"][0])
                        if texts[key]["source_text_digest"]
                        else None,
                    }
                    for value, key in lowest
                ],
            }
            for (granularity, score), lowest in sorted(found.items())
            if lowest
        ]

    def _draw_sheets(self, worst: list[dict[str, Any]]) -> None:
        """A contact sheet a score, beside the report; a score without anything to show names none."""
        progress().stage("draw the worst", len(worst), "sheets")
        for item in worst:
            values = {sample["key"]: sample["value"] for sample in item["samples"]}
            rows = {row["key"]: row for row in rows_of(self._samples, list(values))}
            # The score that the sheet is about comes first.
            shown = [
                rows[key] | {"scores": {item["score"]: value} | rows[key]["scores"]} for key, value in values.items()
            ]
            picture = samples_sheet(self._samples, shown, f"lowest {item['score']} · {item['granularity']}")
            if picture is None:
                item["sheet"] = None
            else:
                storage.publish_bytes(picture, Layout(self._samples.target.uri).report(item["sheet"]))
            progress().advance(1)

    def _plane(self) -> dict[str, Any] | None:
        """Videos, long texts and short texts as points of one plane; without CLIP the texts alone."""
        summaries = [one for one in self._granularities() if one.operation == "compress_text"]
        # the paper's are of long videos, so those come first
        shown = next((one for one in summaries if one.is_long), summaries[0] if summaries else None)
        rows = self._picked(shown.name, self._options.num_videos) if shown else []
        rows = [row for row in rows if row["long_text"] is not None]
        if self._clip_model is not None:
            rows = [row for row in rows if self._videos.get(row["long_key"]) is not None]
        kinds = {"long_text": [row["long_text"] for row in rows], "short_text": [row["text"] for row in rows]}
        if shown is None or len(rows) * 2 < MIN_POINTS:
            return None
        vectors: dict[str, Any] = {}
        if self._clip_model is not None:
            vectors["video"] = np.stack([seen for row in rows if (seen := self._videos[row["long_key"]]) is not None])
            model = self._clip.signature
            vectors |= {kind: self._clip.embed_texts(texts) for kind, texts in kinds.items()}
        elif self._scores.sentence_model is not None:
            encoder = SentenceCosine(self._scores.sentence_model)
            model = encoder.signature
            vectors |= {kind: encoder.encode(texts) for kind, texts in kinds.items()}
        else:
            return None
        points = plane_points(np.concatenate(list(vectors.values())), self._options.seed)
        split = np.split(points.round(4), len(vectors))
        return {
            "granularity": shown.name,
            "media": shown.media,
            "model": model,
            "keys": [row["key"] for row in rows],
            "points": {kind: part.tolist() for kind, part in zip(vectors, split, strict=True)},
            "mean_cosines": _mean_cosines(vectors),
        }


def _mean_cosines(vectors: dict[str, Any]) -> dict[str, float]:
    """Mean cosine of each kind with each other kind, over the same samples."""
    kinds = list(vectors)
    return {
        f"{one} {other}": rounded(float(np.mean(row_cosines(vectors[one], vectors[other]))))
        for number, one in enumerate(kinds)
        for other in kinds[number + 1 :]
    }


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: rounded(value) for name, value in row.items()}
