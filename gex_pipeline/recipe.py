"""One frozen tree from one TOML file: everything a run does, checked before anything starts.

The hash of a recipe covers what decides the bytes of the output; where the output lies, how many machines build it,
how long one waits for an answer and when a snapshot is held back are not part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gex_pipeline import registry
from gex_pipeline.errors import RecipeError
from gex_pipeline.granularity import SOURCE_OPERATION, GranularityGraph, Node
from gex_pipeline.media.settings import FrameSettings, VideoSettings
from gex_pipeline.settings_errors import check_no_credentials, explain, read_toml
from gex_pipeline.shard_format import IMAGE_EXTENSIONS
from gex_pipeline.summarize import running
from gex_pipeline.validate.settings import ScorerSettings, ValidationSettings

# What changes no sample: where the output lies, who builds it, how long a sample may take, when nothing is published.
# Of a summarizer see `running`.
_NOT_HASHED = ("name", "output", "ray", "validation")
_VIDEO_NOT_HASHED = ("timeout_s",)
_NODE_NOT_HASHED = ("publication",)


class Settings(BaseModel):
    """Base of every table of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Bound(Settings):
    """A closed interval a score has to lie in."""

    min: float | None = None  # smallest accepted value
    max: float | None = None  # largest accepted value

    def broken_by(self, value: float) -> str | None:
        """What is wrong with `value`, or None."""
        if self.min is not None and not value >= self.min:
            return f"{value:.4f} is under {self.min:g} by {self.min - value:.4f}"
        if self.max is not None and not value <= self.max:
            return f"{value:.4f} is over {self.max:g} by {value - self.max:.4f}"
        return None


class MediaFiles(Settings):
    """One file a clip, found through a URI template over the clip's columns."""

    kind: Literal["files"]
    uri: str  # template, for example "clips/{YoutubeID}_{Start_timestamp}_{End_timestamp}.mp4"
    colon: Literal[":", "-", "_"] = ":"  # what stands for ':' in the file names


class MediaColumn(Settings):
    """One file a clip, named in a metadata column, below `root`."""

    kind: Literal["column"]
    column: str  # the column with the file's path
    root: str = "."  # folder or URI the paths are relative to


class MediaTars(Settings):
    """WebDataset tars of clips as video2dataset writes them; indexed once, then read by byte range."""

    kind: Literal["tars"]
    uri: str  # glob of the tars
    key: str = "{key}"  # template of the member's key over the clip's columns
    colon: Literal[":", "-", "_"] = ":"  # what stands for ':' in the keys


class MediaVideos(Settings):
    """Full source videos, cut at the timestamps while they are joined."""

    kind: Literal["videos"]
    uri: str  # template, for example "videos/{YoutubeID}.mp4"


Media = Annotated[MediaFiles | MediaColumn | MediaTars | MediaVideos, Field(discriminator="kind")]


class Columns(Settings):
    """Which column of the metadata holds what; the defaults are InternVid's names."""

    source_id: str = "YoutubeID"  # id of the source video; the grouping key
    start: str = "Start_timestamp"  # where the clip begins in the source video
    end: str = "End_timestamp"  # where it ends, not included
    caption: str = "Caption"  # the short text


class SourceSettings(Settings):
    """Where clips and their media are."""

    clips: str | tuple[str, ...]  # Parquet, CSV or JSON Lines; path, URI or glob, one or many
    media: Media  # where the clips' videos are; see below
    columns: Columns = Columns()  # names of the four columns GEX needs
    where: str | None = None  # SQL predicate over the metadata columns; rows that fail it are excluded


class ShardSettings(Settings):
    """When a shard is full."""

    max_samples: int = Field(default=1000, ge=1)  # samples a shard at most
    max_bytes: int = Field(default=1_000_000_000, ge=1)  # estimated bytes a shard, about


class RaySettings(Settings):
    """Where and how wide the jobs run; changes nothing in the output."""

    address: str = "local"  # "local" starts a private Ray; "auto" or "host:port" joins a cluster
    send_code: bool = True  # a cluster's workers get this package from the run; false: what they have installed
    num_cpus: int | None = Field(default=None, ge=1)  # logical CPUs of a private Ray; None: what the run may use
    object_store_bytes: int = Field(default=200_000_000, ge=80_000_000)  # of a private Ray
    cpus_a_shard: float = Field(default=1.0, gt=0)  # CPUs one shard's worker takes
    memory_a_shard_bytes: int | None = Field(default=None, ge=1)  # memory it takes; None: it is not counted
    max_shards: int | None = Field(default=None, ge=1)  # shards at once at most; None: as many as there is room for
    autoscaling: bool = False  # the cluster adds nodes: a shard that fits on none of those there waits
    scorers: int | None = Field(default=None, ge=1)  # workers that score summaries; None: by the CPUs there are
    scorer_gpus: float = Field(default=0, ge=0)  # GPUs each of them takes


class NodeSettings(Settings):
    """What every granularity may say; each operation adds its own."""

    operation: str = SOURCE_OPERATION  # what makes it; left out for the source
    parent: str | None = Field(default=None, alias="from")  # the granularity it is made from


class VideoNodeSettings(NodeSettings):
    """What every granularity of videos may say."""

    frames: FrameSettings | None = None  # frames as JPEG files in place of the video, or beside it; see below


class Recipe(Settings):
    """One complete run."""

    name: str  # shown in reports
    output: str  # folder or URI of the data set
    seed: int = 0  # of every random choice
    source: SourceSettings  # clips and their media
    granularity: dict[str, Any]  # one table a granularity
    video: VideoSettings = VideoSettings()  # how videos are probed, joined and written
    shards: ShardSettings = ShardSettings()  # when a shard is full
    scores: ScorerSettings = ScorerSettings()  # how summaries are scored
    ray: RaySettings = RaySettings()  # where the jobs run
    validation: ValidationSettings = ValidationSettings()  # when a new snapshot that differs raises an alarm
    base: str = Field(default=".", exclude=True)  # folder that relative paths start from: the recipe's own

    @property
    def graph(self) -> GranularityGraph:
        """The granularities in order, parents first."""
        return GranularityGraph.from_nodes(
            Node(name, settings.operation, settings.parent) for name, settings in self.granularity.items()
        )

    def frames_of(self, name: str) -> FrameSettings | None:
        """The frames that a granularity's samples have: its own or, where it passes media on, its parent's."""
        settings = self.granularity[name]
        own: FrameSettings | None = settings.frames if isinstance(settings, VideoNodeSettings) else None
        if own is None and settings.parent and registry.load_operation(settings.operation).passes_media_on:
            return self.frames_of(settings.parent)
        return own

    def holds_frames_only(self, name: str) -> bool:
        """Whether a granularity's samples have frames and no video."""
        frames = self.frames_of(name)
        return frames is not None and not frames.beside

    def holds_images(self, name: str) -> bool:
        """Whether a granularity's samples are images."""
        return self.media_extension(name) in IMAGE_EXTENSIONS

    def media_extension(self, name: str) -> str:
        """The ending of the media that a granularity's operation makes or, where it passes media on, the one above."""
        settings = self.granularity[name]
        operation = registry.load_operation(settings.operation)
        if operation.passes_media_on and settings.parent:
            return self.media_extension(settings.parent)
        return str(operation.media_extension)

    @property
    def output_uri(self) -> str:
        """The output as an absolute path or URI."""
        return self.locate(self.output)

    def locate(self, uri: str) -> str:
        """`uri` with a relative path made absolute from the recipe's folder."""
        if "://" in uri or uri.startswith("/"):
            return uri
        return str(Path(self.base).absolute() / uri)

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def hash(self) -> str:
        """Digest of everything that decides the bytes of the output."""
        # Defaults are left out, so that a later version's new setting does not make an old output another recipe's.
        content = deciding(self.model_dump(mode="json", by_alias=True, exclude_defaults=True))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def deciding(content: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a recipe without what decides nothing of a sample; both its hash and what changed go by it."""
    video = {key: value for key, value in content.get("video", {}).items() if key not in _VIDEO_NOT_HASHED}
    nodes = {name: _deciding_node(table) for name, table in content.get("granularity", {}).items()}
    kept = {key: value for key, value in content.items() if key not in _NOT_HASHED and (video or key != "video")}
    return {key: {"video": video, "granularity": nodes}.get(key, value) for key, value in kept.items()}


def _deciding_node(table: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in table.items() if key not in _NODE_NOT_HASHED}
    return kept | ({"summarizer": running.deciding(kept["summarizer"])} if "summarizer" in kept else {})


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file.

    Raises:
        RecipeError: file, key, value found and what was expected.
    """
    content = read_toml(path, "recipe")
    try:
        return make_recipe(content, base=str(Path(path).parent))
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def make_recipe(content: Mapping[str, Any], base: str = ".") -> Recipe:
    """Check the tables of a recipe and build the frozen tree.

    Raises:
        RecipeError: key, value found and what was expected.
    """
    check_no_credentials(content)
    tables = dict(content)
    nodes = tables.pop("granularity", None)
    if not isinstance(nodes, dict) or not nodes:
        raise RecipeError("no [granularity.NAME] table; a recipe names its granularities, [granularity.SVST] at least")
    settings = {name: _node_settings(name, table) for name, table in nodes.items()}
    if "base" in tables:
        raise RecipeError("base: unknown key")
    try:
        recipe = Recipe.model_validate({**tables, "granularity": settings, "base": base})
    except ValidationError as error:
        raise RecipeError(explain(error, Recipe)) from error
    _check_parents(recipe)
    return recipe


def _check_parents(recipe: Recipe) -> None:
    """Check the graph, and that a source whose samples are summarised is written as shards."""
    graph = recipe.graph
    for node in graph.children(graph.source.name):
        if registry.load_operation(node.operation).needs_summaries and not recipe.granularity[graph.source.name].pack:
            raise RecipeError(
                f"[granularity.{node.name}]: {node.operation} reads the shards of {node.parent}, and there are none; "
                f"say pack = true in [granularity.{node.parent}]"
            )
    for node in graph.derived:
        _check_has_videos(recipe, node)


def _check_has_videos(recipe: Recipe, node: Node) -> None:
    """Check that what needs a parent's videos is not made of images, or of samples that hold only frames."""
    parent = recipe.graph.nodes[node.parent or ""]
    operation = registry.load_operation(node.operation)
    reads_clips = parent.is_source and not operation.needs_summaries
    if reads_clips:
        return
    if recipe.holds_images(parent.name):
        above = next(one.name for one in recipe.graph.lineage(parent.name) if not recipe.holds_images(one.name))
        held, to_make = "images", f"make it from a granularity of videos, for example from = {above!r}"
        to_sample = "leave 'frames' out"
    elif recipe.holds_frames_only(parent.name):
        held, to_make = "frames only", f"say beside = true in the frames of {parent.name}"
        to_sample = f"leave 'frames' out to pass on those of {parent.name}"
    else:
        return
    where = f"[granularity.{node.name}]"
    if not operation.passes_media_on:
        raise RecipeError(f"{where}: {node.operation} needs videos, and {parent.name} holds {held}; {to_make}")
    if getattr(recipe.granularity[node.name], "frames", None) is not None:
        raise RecipeError(f"{where}: frames are sampled from videos, and {parent.name} holds {held}; {to_sample}")


def _node_settings(name: str, table: Any) -> NodeSettings:
    where = f"granularity.{name}."
    if not isinstance(table, dict):
        raise RecipeError(f"[granularity.{name}] must be a table, found {table!r}")
    operation = table.get("operation", SOURCE_OPERATION)
    if "operation" in table and operation == SOURCE_OPERATION:
        raise RecipeError(f"[granularity.{name}]: leave 'operation' out for the source granularity")
    try:
        model = registry.load_operation(operation).Parameters
    except RecipeError as error:
        raise RecipeError(f"{where}{error}") from error
    try:
        return model.model_validate(table)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise RecipeError(explain(error, model, where)) from error
