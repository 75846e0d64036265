"""What samples cost an object store."""

from __future__ import annotations

import random

from gex_pipeline import storage
from tests.trainer.test_frames import sample_at
from trainer.media_reader import MediaReader


def test_scattered_samples_fetch_no_more_than_themselves_and_those_in_order_come_together(world):
    """Frames of a short video are less than a buffer, of which the rest was fetched for nothing."""
    content = random.Random(1).randbytes(2_000_000)
    bucket = world.make_bucket("scattered")
    storage.publish_bytes(content, f"{bucket}/a.tar")
    offsets = range(0, 2_000_000, 100_000)

    def fetched(exact: bool, offsets) -> int:
        before, reader = world.sent["/scattered/a.tar"], MediaReader(exact=exact)
        for offset in offsets:
            assert reader.read(sample_at(f"{bucket}/a.tar", offset, 50_000)) == content[offset : offset + 50_000]
        reader.close()
        return world.sent["/scattered/a.tar"] - before

    scattered = random.Random(2).sample(offsets, len(offsets))
    assert fetched(True, scattered) == 20 * 50_000
    assert fetched(False, offsets) <= 2_000_000 + (256 << 10)
