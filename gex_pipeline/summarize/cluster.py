"""What a backend has to know of the Ray that its engines will run in, before that Ray is started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """A private Ray, or one of other machines."""

    is_private: bool = True  # its workers have what is installed here
    adds_nodes: bool = False  # what it has now is not all that it will have
