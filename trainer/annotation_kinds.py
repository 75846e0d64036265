"""The public data sets that can be trained on and measured, in one table; keys, flags and figures follow from it.

What their files look like: docs/evaluation.md; their readers: `trainer.annotations`. Imports nothing of ours, so that
the command line knows the kinds before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

KindName = Literal["msrvtt", "activitynet", "lsmdc", "lvu", "coin", "charades-ego", "how2qa", "folders"]
Measure = Literal["retrieval", "accuracy", "accuracy over spans", "mean average precision", "multiple choice"]
MEAN_AVERAGE_PRECISION: Final = "mean average precision"


@dataclass(frozen=True)
class Kind:
    """What is particular to one kind of annotations."""

    granularity: str
    """Paper: GEXIA appendix E, table 10; of LVU and COIN the video's."""
    measure: Measure
    """The figures that are usual for it."""
    needs: frozenset[str] = frozenset({"media"})
    """Keys beside ``file`` without which it cannot be read."""
    may_have: frozenset[str] = frozenset()
    """Keys that it takes besides."""

    @property
    def takes(self) -> frozenset[str]:
        """All keys beside ``file``."""
        return self.needs | self.may_have

    @property
    def flags(self) -> frozenset[str]:
        """Flags on how it is measured; those on what is read are the keys."""
        ranked = self.measure == MEAN_AVERAGE_PRECISION  # which knows no rule for ties
        has_classes = self.measure not in ("retrieval", "multiple choice")
        return frozenset({*(() if ranked else ("ties",)), *(("templates",) if has_classes else ())})


KINDS: Mapping[KindName, Kind] = {
    "msrvtt": Kind("SVST", "retrieval", may_have=frozenset({"captions"})),
    "activitynet": Kind("LVLT", "retrieval", may_have=frozenset({"subset"})),
    "lsmdc": Kind("SVST", "retrieval"),
    "lvu": Kind("LVST", "accuracy over spans", may_have=frozenset({"span_s"})),
    "coin": Kind("LVST", "accuracy", may_have=frozenset({"subset", "trim"})),
    "charades-ego": Kind("LVST", MEAN_AVERAGE_PRECISION, needs=frozenset({"media", "class_names"})),
    "how2qa": Kind("SVST", "multiple choice"),
    "folders": Kind("LVST", "accuracy", needs=frozenset(), may_have=frozenset({"class_names"})),
}
