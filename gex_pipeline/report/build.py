"""Makes the report of a published output: ``report/report.html``, ``report.json`` and ``contact-sheet.png``.

The page stands alone: no request leaves it, and its content security policy forbids any. Captions are hostile
data: the template escapes everything. The same output gives the same bytes; nothing published is changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gex_pipeline import storage
from gex_pipeline.layout import Layout
from gex_pipeline.report import charts, paper, wording
from gex_pipeline.report.figures import (
    Figures,
    as_json,
    collect_figures,
    open_tables,
    published_manifest,
    to_json_bytes,
    view_table,
)
from gex_pipeline.report.samples import Sample, choose_samples, sample_json
from gex_pipeline.report.sheet import contact_sheet
from gex_pipeline.report.validation import validation_section
from gex_pipeline.report.work import collect_work, work_chart
from gex_pipeline.shards.manifest import Manifest
from gex_pipeline.tables import Database

_HERE = Path(__file__).parent
_WAYS = {
    "copy": "stream-copied",
    "encode": "re-encoded",
    "frame": "from the middle frame",
    "embed": "copied from the parent",
    "reference": "pointing into the parent",
}


def build_report(output_uri: str, *, num_samples: int = 12) -> str:
    """Write the report of everything published in an output; returns the URI of ``report.html``.

    Raises:
        GexError: nothing is published there, or a table or shard that the manifest names cannot be read.
    """
    layout = Layout(output_uri)
    manifest = published_manifest(output_uri)
    with open_tables(output_uri, manifest) as database:
        figures = collect_figures(output_uri, manifest, database)
        samples = choose_samples(database, figures, output_uri, manifest, num_samples)
        sheet_png = contact_sheet(database, figures, output_uri)
        validation = validation_section(database, output_uri)
        answering = _answering(database, output_uri, manifest)
        fallbacks = _fallbacks(database, output_uri, manifest)
        work = collect_work(database, output_uri, manifest)
    content = {
        **as_json(figures),
        "answering": answering,
        "fallbacks": fallbacks,
        "work": {"stages": [asdict(one) for one in work.stages], "total": asdict(work.total)} if work else None,
        "samples": [sample_json(sample) for sample in samples],
    }
    storage.publish_bytes(to_json_bytes(content), layout.report("report.json"))
    if sheet_png is None:
        storage.remove(layout.report("contact-sheet.png"))
    else:
        storage.publish_bytes(sheet_png, layout.report("contact-sheet.png"))
    parts = {"has_sheet": sheet_png is not None, "validation": validation, "work": work}
    parts |= {"answering": answering, "fallbacks": fallbacks}
    page = render(figures, samples, parts)
    storage.publish_bytes(page.encode(), layout.report("report.html"))
    return layout.report("report.html")


def _answering(database: Database, output_uri: str, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """How fast a model wrote the summaries of each granularity; empty where none did."""
    return {
        name: database.rows("report_answering")[0]
        for name in manifest.granularity_names()
        if view_table(database, output_uri, manifest, f"answering-{name}")
    }


def _fallbacks(database: Database, output_uri: str, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """How many summaries of each granularity the fallback wrote, which no gate looked at."""
    return {
        name: database.rows("report_fallbacks")[0]
        for name in manifest.granularity_names()
        if view_table(database, output_uri, manifest, f"summaries-{name}", numbered=True)
    }


def render(figures: Figures, samples: tuple[Sample, ...], parts: dict[str, Any] | None = None) -> str:
    """The page as text; `parts` has what else the template shows: has_sheet, validation, answering, fallbacks, work."""
    without: dict[str, Any] = {"has_sheet": False, "validation": None, "answering": {}, "fallbacks": {}, "work": None}
    parts = without | (parts or {})
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        name: getattr(wording, name) for name in ("count", "number", "score", "duration", "size", "position", "moment")
    }
    environment.filters |= {"pretty": _pretty, "reason": lambda text: text.replace("_", " ")}
    names = list(dict.fromkeys(node.name for node in figures.nodes))
    script = environment.get_template("page.js").render()
    return environment.get_template("template.html.j2").render(
        figures=figures,
        samples=samples,
        **parts,
        work_chart=work_chart(parts["work"], names) if parts["work"] else None,
        graph=charts.graph_chart(figures.nodes, names),
        panels=[(panel, charts.panel_chart(panel, names)) for panel in figures.panels],
        score_cards=_score_cards(figures, names),
        colours={name: charts.colour_of(name, names) for name in names},
        ways=_WAYS,
        paper=paper,
        has_bertscore=any(item.score.startswith("bertscore") for item in figures.scores),
        has_clip=any(item.is_long and item.score in paper.SCORES for item in figures.scores),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _score_cards(figures: Figures, names: list[str]) -> list[tuple[str, list[tuple[Any, Markup]]]]:
    """Scores grouped by granularity, each with its chart."""
    cards: dict[str, list[tuple[Any, Markup]]] = {}
    for item in figures.scores:
        chart = charts.score_chart(item, charts.colour_of(item.granularity, names))
        cards.setdefault(item.granularity, []).append((item, chart))
    return list(cards.items())


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
