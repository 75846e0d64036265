"""For tests of annotation readers: a folder of media files."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def media(tmp_path):
    """A function that lays empty files under a folder of media."""
    folder = tmp_path / "media"
    folder.mkdir()

    def lay(*names: str) -> Path:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return folder

    return lay
