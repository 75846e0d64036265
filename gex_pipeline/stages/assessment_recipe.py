"""What an assessment of summarisers is to do: one TOML file → one frozen tree; tasks as the summarise stage asks them.

A task is a long text with its captions and a reference. Tasks come from JSON Lines of their own, or from the
references and the metadata of a corpus, which are read as ingest reads them and joined as `integrate` joins them. Asks
nobody anything.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError, model_validator

from gex_pipeline import storage
from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.model_places import placed_scores, placed_summarizer
from gex_pipeline.operations.compress_text import CompressTextSettings
from gex_pipeline.operations.integrate import join_texts
from gex_pipeline.recipe import Bound, Columns, RaySettings, Settings
from gex_pipeline.settings_errors import check_no_credentials, explain, read_toml
from gex_pipeline.shard_format import text_digest
from gex_pipeline.summarize.request import SummaryRequest
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.summarize.writing import SENTENCE_END
from gex_pipeline.tables import Database
from gex_pipeline.validate.scorers import TextScorers
from gex_pipeline.validate.settings import ScorerSettings, Seed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
_GATES: dict[str, Bound] = CompressTextSettings.model_fields["gates"].default


class TaskSettings(Settings):
    """Where the tasks are: `file`, or `references` with `clips`."""

    file: str | None = None  # JSON Lines: id (or key), text or captions or both, reference
    references: str | None = None  # JSON Lines of a corpus: its source id, Reference, clips (their number)
    clips: str | None = None  # JSON Lines of the same corpus: a caption a line
    columns: Columns = Columns()  # names of the columns in `clips`; the source id's also in `references`
    num: int | None = Field(default=None, ge=1)  # so many, chosen by the seed; none: all

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in ("file", "references", "clips") if getattr(self, name)]
        if given not in (["file"], ["references", "clips"]):
            raise ValueError(f"found {' and '.join(given) or 'nothing'}; name a file, or references and clips")
        return self


class Candidate(Settings):
    """One summariser, as a recipe's `compress_text` has it."""

    summarizer: SummarizerSettings  # who summarises, and how its answers are checked
    gates: dict[str, Bound] = Field(
        default=_GATES
    )  # score against the long text -> bound; a summary outside is rejected


class AssessmentRecipe(Settings):
    """One complete assessment."""

    name: str = "summarisers"  # shown on the page
    seed: Seed = 0  # of the choice of tasks and of the bootstrap
    tasks: TaskSettings  # what is summarised, and what it should have become
    candidate: dict[str, Candidate]  # by name
    scores: ScorerSettings = ScorerSettings()  # models of the scores, as in a recipe
    ray: RaySettings = RaySettings()  # where engines run
    base: str = Field(default=".", exclude=True)  # folder that relative paths start from: the file's own

    @model_validator(mode="after")
    def _names_are_file_names(self) -> Self:
        if not self.candidate:
            raise ValueError("candidate: no [candidate.NAME] table; expected one summariser at least")
        for name in self.candidate:
            if not _NAME.fullmatch(name):
                raise ValueError(f"candidate.{name}: a name has letters, digits and . _ + - only, at most 80")
        return self

    @model_validator(mode="after")
    def _gates_can_close(self) -> Self:
        names = TextScorers(self.scores).names()
        for name, candidate in self.candidate.items():
            # As in a recipe: the default gate stands for scores that are taken; what the file says must be possible.
            for score in candidate.gates if "gates" in candidate.model_fields_set else ():
                if score not in names:
                    raise ValueError(
                        f"candidate.{name}.gates: [scores] takes no {score!r}; it takes: {', '.join(names)}"
                    )
        return self

    def locate(self, uri: str) -> str:
        """`uri` with a relative path made absolute from the file's folder."""
        return uri if "://" in uri or uri.startswith("/") else str(Path(self.base).absolute() / uri)

    def summarizer_of(self, name: str) -> SummarizerSettings:
        """A candidate's summarizer, its model and template found from the file's folder."""
        return placed_summarizer(self.candidate[name].summarizer, self.base)

    @property
    def placed_scores(self) -> ScorerSettings:
        """The models of the scores, found from the file's folder."""
        return placed_scores(self.scores, self.base)


@dataclass(frozen=True)
class Task:
    """One long text and what its summary should say."""

    request: SummaryRequest
    reference: str


def load_assessment(path: str | Path) -> AssessmentRecipe:
    """Read and check an assessment's TOML file.

    Raises:
        RecipeError: file, key, value found and what was expected.
    """
    content = read_toml(path)
    check_no_credentials(content)
    try:
        return AssessmentRecipe.model_validate({**content, "base": str(Path(path).parent)})
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, AssessmentRecipe)}") from error


def read_tasks(recipe: AssessmentRecipe, num: int | None = None) -> tuple[list[Task], list[str]]:
    """The tasks, chosen by the seed and in the order of their ids; and what was left out, a sentence each.

    Raises:
        GexError: a file cannot be read, a line is no task, an id comes twice, or no task is left.
    """
    settings = recipe.tasks
    notes: list[str] = []
    if settings.file is not None:
        tasks = [_task(row, where) for where, row in _lines(recipe.locate(settings.file))]
    else:
        tasks, notes = _corpus_tasks(recipe)
    tasks.sort(key=lambda task: task.request.key)
    keys = [task.request.key for task in tasks]
    twice = [key for key, following in itertools.pairwise(keys) if key == following]
    if twice:
        raise GexError(f"task {twice[0]!r} comes twice; every task needs an id of its own")
    if not tasks:
        raise GexError(f"there is no task: {'; '.join(notes) or 'the file is empty'}")
    num = num or settings.num
    if num is not None and num < len(tasks):
        tasks = sorted(_sample(tasks, num, recipe.seed), key=lambda task: task.request.key)
    return tasks, notes


def _sample(tasks: list[Task], num: int, seed: int) -> list[Task]:
    """As many tasks as asked for, by the digest of seed and id: another order of the file changes nothing."""

    def drawn(task: Task) -> bytes:
        return hashlib.sha256(f"{seed} {task.request.key}".encode(errors="surrogatepass")).digest()

    return sorted(tasks, key=drawn)[:num]


def tasks_digest(tasks: list[Task]) -> str:
    """SHA-256 (hex) of what is asked and expected."""
    digest = hashlib.sha256()
    for task in tasks:
        row = [task.request.key, task.request.text, list(task.request.captions), task.reference]
        digest.update(json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _lines(uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, each with where it stands."""
    if not storage.exists(uri):
        raise GexError(f"{uri!r} does not exist")
    try:
        lines = storage.read_bytes(uri).decode("utf-8").split("\n")  # and at nothing else that may stand in a text
    except UnicodeDecodeError as error:
        raise GexError(f"{uri!r} is not UTF-8: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise GexError(f"{uri} line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise GexError(f"{uri} line {number}: found {line[:80]!r}, expected an object")
        yield f"{uri} line {number}", row


def _task(row: Mapping[str, Any], where: str) -> Task:
    key, captions, text = row.get("id", row.get("key")), row.get("captions"), row.get("text")
    reference = _text(row.get("reference", row.get("Reference")), f"{where}: reference")
    if key is None or isinstance(key, (dict, list)) or not str(key):
        raise GexError(f"{where}: found no id, expected 'id' or 'key'")
    if captions is None:
        captions = SENTENCE_END.split(_text(text, f"{where}: text (or captions)"))
    if not isinstance(captions, list) or not captions:
        raise GexError(f"{where}: captions = {captions!r}, expected a list of texts")
    checked = tuple(_text(caption, f"{where}: captions") for caption in captions)
    long_text = join_texts(list(checked)) if text is None else _text(text, f"{where}: text")
    return Task(SummaryRequest(_whole(str(key), f"{where}: id"), text_digest(long_text), checked, long_text), reference)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise GexError(f"{what} is {value!r}, expected a text")
    return _whole(value.strip(), what)


def _whole(text: str, what: str) -> str:
    """The text, if it can be written: found out here, and not when all answers have been paid for."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise GexError(f"{what} holds half of a character (a lone surrogate): {text[:80]!r}") from error
    return text


def _corpus_tasks(recipe: AssessmentRecipe) -> tuple[list[Task], list[str]]:
    """A task for every source with a reference, its captions in time order."""
    settings, names = recipe.tasks, recipe.tasks.columns
    captions_of = _captions(recipe)
    tasks, notes = [], []
    for where, row in _lines(recipe.locate(settings.references or "")):
        source = (_as_read(row.get(names.source_id), f"{where}: {names.source_id}") or "").strip(" ")
        captions = captions_of.get(source, [])
        if len(captions) != row.get("clips", len(captions)) or not captions:
            # The reference sums up clips that are usable; which of these captions it is about nobody says.
            notes.append(
                f"{source} is left out: its reference is about {row.get('clips')} clips, found {len(captions)}"
            )
            continue
        tasks.append(_task({"id": source, "captions": captions, "reference": row.get("Reference")}, where))
    return tasks, notes


def _captions(recipe: AssessmentRecipe) -> dict[str, list[str]]:
    """The captions of every source in time order; what a run takes for no clip, or for one it has, is none here."""
    names = recipe.tasks.columns
    columns = {f"{key}_text": name for key, name in names.model_dump().items()}
    rows: dict[str, list[str | None]] = {key: [] for key in columns}
    for where, row in _lines(recipe.locate(recipe.tasks.clips or "")):
        for key, name in columns.items():
            rows[key].append(_as_read(row.get(name), f"{where}: {name}"))
    with Database() as database:
        file = database.scratch / "clips.parquet"
        pq.write_table(pa.table(rows, pa.schema([(key, pa.string()) for key in columns])), file)
        database.view_parquet("assessed_rows", [str(file)])
        for name in ("seconds_of", "clean_text", "assess_raw_clips", "ingest_read", "ingest_duplicates"):
            database.run(name)
        return {row["source_id"]: row["captions"] for row in database.rows("assess_captions")}


def _as_read(value: Any, what: str) -> str | None:
    """A value as text whatever its type, as ingest has it."""
    if value is None:
        return None
    return _whole(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), what)
