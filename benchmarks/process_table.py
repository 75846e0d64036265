"""What lives on this machine, read from /proc: number, parent, session and command line of every process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    command: str

    @property
    def program(self) -> str:
        """The first word of the command line, without its folder."""
        return self.command.split(" ")[0].rsplit("/", 1)[-1]

    @property
    def is_ray_worker(self) -> bool:
        """Whether it is one of Ray's Python workers."""
        return self.program.startswith("ray::") and "Agent" not in self.program


def processes() -> list[Process]:
    """Everything that lives, by its number."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if fields[0] not in "ZX":
            found.append(Process(int(entry.name), int(fields[1]), int(fields[3]), command))
    return sorted(found, key=lambda process: process.pid)
