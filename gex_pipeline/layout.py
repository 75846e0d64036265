"""Where everything lies in an output. Names only; opens nothing."""

from __future__ import annotations

from dataclasses import dataclass

from gex_pipeline import storage
from gex_pipeline.shard_format import MANIFEST_NAME, shard_name


@dataclass(frozen=True)
class Layout:
    """The URIs of one data set. Tables carry the number of the snapshot that wrote them."""

    output_uri: str

    @property
    def manifest(self) -> str:
        """``dataset.json``, the only list of what is published."""
        return storage.join(self.output_uri, MANIFEST_NAME)

    def table(self, name: str, snapshot: int) -> str:
        """``tables/{name}-{snapshot}.parquet``."""
        return storage.join(self.output_uri, "tables", f"{name}-{snapshot:06d}.parquet")

    def part(self, name: str, snapshot: int, part: str) -> str:
        """A checkpointed part of a table that is still being made."""
        return storage.join(self.output_uri, "tables", "parts", f"{name}-{snapshot:06d}", f"{part}.parquet")

    def part_glob(self, name: str, snapshot: int) -> str:
        """The parts of a table that is still being made."""
        return storage.join(self.output_uri, "tables", "parts", f"{name}-{snapshot:06d}", "*.parquet")

    def ingest_account(self, snapshot: int) -> str:
        """The account of a snapshot's ingest, until it is published; written last, so it vouches for its tables."""
        return storage.join(self.output_uri, "tables", "parts", f"ingest-{snapshot:06d}", "account.json")

    def tar_path(self, granularity: str, shard: int) -> str:
        """A shard's tar, relative to the output."""
        return f"{granularity}/{shard_name(granularity, shard)}.tar"

    def tar(self, granularity: str, shard: int) -> str:
        """A shard's tar."""
        return storage.join(self.output_uri, self.tar_path(granularity, shard))

    def receipt(self, granularity: str, shard: int) -> str:
        """A shard's receipt."""
        return storage.join(self.output_uri, granularity, f"{shard_name(granularity, shard)}.parquet")

    def losses(self, granularity: str, shard: int) -> str:
        """What a shard's plan asked for and did not get."""
        return storage.join(self.output_uri, "tables", "losses", f"{shard_name(granularity, shard)}.parquet")

    def sizes(self, granularity: str) -> str:
        """``sizes.json``: samples a shard, as open_clip's loader reads them."""
        return storage.join(self.output_uri, granularity, "sizes.json")

    @property
    def run_state(self) -> str:
        """What the run in progress was started with."""
        return storage.join(self.output_uri, "run.json")

    @property
    def run_lock(self) -> str:
        """Who is writing to the output; there only while somebody does."""
        return storage.join(self.output_uri, "run.lock")

    @property
    def response_cache(self) -> str:
        """Answers of language models, keyed by the whole request."""
        return storage.join(self.output_uri, "cache", "responses")

    @property
    def index_cache(self) -> str:
        """What was read of source tars, until a snapshot has published it."""
        return storage.join(self.output_uri, "cache", "media-index")

    def report(self, name: str) -> str:
        """A file of the report."""
        return storage.join(self.output_uri, "report", name)
