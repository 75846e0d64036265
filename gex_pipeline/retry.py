"""Which rejects a run tries again: reasons and granularities, and the command that does it by hand."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from gex_pipeline.errors import Reason, RecipeError
from gex_pipeline.recipe import Recipe


@dataclass(frozen=True)
class Retry:
    """Which rejects of earlier snapshots a run tries again."""

    reasons: Annotated[tuple[str, ...], Field(min_length=1)]
    granularities: tuple[str, ...] = ()  # none: all

    def check(self, recipe: Recipe) -> None:
        """Look whether there are such reasons and granularities.

        Raises:
            RecipeError: there is no such one; nothing would be tried, and the run would find nothing new.
        """
        known = {"reason": [str(reason) for reason in Reason], "granularity": list(recipe.granularity)}
        for kind, names in (("reason", self.reasons), ("granularity", self.granularities)):
            for name in names:
                if name not in known[kind]:
                    close = difflib.get_close_matches(name, known[kind], n=1, cutoff=0.4)
                    meant = f"; did you mean {close[0]!r}?" if close else ""
                    raise RecipeError(f"there is no {kind} {name!r}{meant}")

    def command(self, output_uri: str) -> list[str]:
        """What does it by hand."""
        reasons = [word for reason in self.reasons for word in ("--reason", reason)]
        granularities = [word for name in self.granularities for word in ("--granularity", name)]
        return ["gex", "retry", output_uri, *reasons, *granularities]
