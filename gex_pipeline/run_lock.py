"""One run, or one training, at a time over one output: a lease, `run.lock`, that says who holds it and since when.

In: an output and a run's id. Out: `held`, for the time of a run. The holder renews its lease; one whose process
has ended, or who has not renewed it for long, is taken over, so a holder that died does not block for ever.
Invariants: on a disk one run only gets a lease; whoever lost it to another (a machine that slept) is told so by
`Lease.check` before its next stage. Not so on object stores, for want of a conditional write: these are asked, written,
and read again after a second or twice the time that took. Of two runs that start at once the one that wrote last goes
on; both do only where a request of one takes longer than the other waits, until the next `check` of the one that
wrote first. Clocks of machines that share an output must agree within `_EXPIRES_S` less `_RENEW_S`.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gex_pipeline import claims, storage
from gex_pipeline.errors import FileMissingError, GexError
from gex_pipeline.layout import Layout

_RENEW_S = 20.0
_EXPIRES_S = 120.0
_SETTLE_S = 1.0  # of an object store: at least so long, two writers at once may take to see each other
_TRIES = 3


class HoldLostError(GexError):
    """The output is another's now: whoever held it before writes nothing more there."""


@dataclass(frozen=True)
class Holder:
    """Who holds an output; what `run.lock` says."""

    token: str  # of this lease
    run_id: str
    host: str
    machine: str  # boot and process namespace: where a process id means the same process
    pid: int
    started: str  # of the process, so that an id given out again is not taken for it
    since: str  # ISO 8601, UTC
    renewed: str  # ISO 8601, UTC

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone, as far as that can be known from here, or has been silent for too long."""
        if (self.host, self.machine) == (platform.node(), this_machine()) and _started(self.pid) != self.started:
            return True
        return self._silent_s > _EXPIRES_S

    @property
    def _silent_s(self) -> float:
        """Seconds since the last sign of life; below 0 where the holder's clock is ahead of the one here."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.renewed)).total_seconds()

    @property
    def clock_words(self) -> str:
        """What a last sign of life that is yet to come says of the clocks; nothing where they agree."""
        if self._silent_s >= -_EXPIRES_S:
            return ""
        ahead = timedelta(seconds=-int(self._silent_s))
        return f": its clock or the one here is wrong by at least {ahead} (h:mm:ss)"

    @property
    def words(self) -> str:
        """Who and since when, for a person."""
        return f"process {self.pid} on {self.host} since {self.since} (last sign of life {self.renewed})"


def read_holder(layout: Layout) -> Holder | None:
    """Who holds an output, or None; whether it still lives is for the caller to ask."""
    try:
        return _parse(storage.read_bytes(layout.run_lock)) if storage.exists(layout.run_lock) else None
    except FileMissingError:
        return None


def check_free(layout: Layout) -> None:
    """Fail when another run that lives holds the output. Takes nothing.

    Raises:
        GexError: who holds it and since when.
    """
    holder = read_holder(layout)
    if holder is not None and not holder.has_ended:
        raise _held_by(layout, holder)


@contextmanager
def held(layout: Layout, run_id: str, *, in_place_of_same: bool = False) -> Iterator[Lease]:
    """Hold an output: taken at once or not at all, renewed by a thread, given back at the end.

    With `in_place_of_same` a holder of the same `run_id` is taken over whether it has ended or not: it is the process
    in whose place this one was started, perhaps on another machine, from which its end cannot be known.

    Raises:
        GexError: another run holds it, or the output cannot be written.
    """
    storage.check_writable(layout.output_uri)
    token, now, pid = secrets.token_hex(8), _now(), os.getpid()
    lease = Lease(layout, Holder(token, run_id, platform.node(), this_machine(), pid, _started(pid), now, now))
    lease.take(in_place_of_same=in_place_of_same)
    ended = threading.Event()
    renewing = threading.Thread(target=lease.keep, args=(ended,), name="gex-run-lock", daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        ended.set()
        renewing.join()
        lease.give_back()


class Lease:
    """A run's hold on an output."""

    def __init__(self, layout: Layout, holder: Holder) -> None:
        self._layout, self._holder = layout, holder
        self._turn = threading.Lock()
        self._lost_by = ""

    @property
    def is_lost(self) -> bool:
        """Whether it was found to be another's, by a check or by the thread that renews it. Asks nobody."""
        return bool(self._lost_by)

    def take(self, *, in_place_of_same: bool = False) -> None:
        """Write the lease where there is none, one whose holder has ended, or with the flag one of the same run.

        Raises:
            GexError: another run holds it.
        """
        uri = self._layout.run_lock
        for _ in range(_TRIES):
            started_s = time.monotonic()
            if claims.create_bytes(_content(self._holder), uri):
                if not storage.is_local(uri):
                    self._settle(time.monotonic() - started_s)
                return
            found = storage.info(uri)
            try:
                content = storage.read_bytes(uri)
            except FileMissingError:
                continue
            holder = _parse(content)
            is_same = in_place_of_same and holder is not None and holder.run_id == self._holder.run_id
            if holder is not None and not holder.has_ended and not is_same:
                raise _held_by(self._layout, holder)
            # Not a lease: one that is being written this moment, or was when its process died.
            if holder is None and found is not None and time.time() - found.modified_s < _EXPIRES_S:
                raise _held_by(self._layout, "a process that began to write run.lock a moment ago")
            claims.remove_if_holds(content, uri)
        raise _held_by(self._layout, "another run that was quicker")

    def _settle(self, took_s: float) -> None:
        """Wait until a rival that found nothing has written too, and see whose lease it is.

        Raises:
            GexError: another run wrote later.
        """
        time.sleep(max(_SETTLE_S, 2 * took_s))
        holder = read_holder(self._layout)
        if holder is None or holder.token != self._holder.token:
            raise _held_by(self._layout, holder or "another run that was quicker")

    def keep(self, ended: threading.Event) -> None:
        """Renew until `ended` is set."""
        while not ended.wait(_RENEW_S):
            # A failure of storage has its next turn before the lease expires; a loss is told at the next stage.
            with suppress(GexError, OSError):
                self.check()

    def check(self) -> None:
        """Renew the lease.

        Raises:
            HoldLostError: another run has taken it over, or it was removed; so it stays.
        """
        with self._turn:
            holder = None if self._lost_by else read_holder(self._layout)
            if holder is None or holder.token != self._holder.token:
                self._lost_by = self._lost_by or (holder.words if holder else "somebody who removed run.lock")
                raise HoldLostError(
                    f"the hold of this run on {self._layout.output_uri} was ended by {self._lost_by}. It publishes "
                    "nothing more; what it had finished stays. Run the same command again when the other run has ended"
                )
            self._holder = replace(self._holder, renewed=_now())
            storage.publish_bytes(_content(self._holder), self._layout.run_lock)

    def give_back(self) -> None:
        """Remove the lease if it is still this one; left behind, it is taken over.

        Before it, while nobody else may write one: what holders that were killed had begun to write.
        """
        with suppress(GexError):
            holder = read_holder(self._layout)
            if holder is not None and holder.token == self._holder.token and storage.is_local(self._layout.run_lock):
                lock = storage.local_path(self._layout.run_lock)
                for left_over in lock.parent.glob(f".{lock.name}.*.part"):
                    left_over.unlink(missing_ok=True)
            claims.remove_if_holds(_content(self._holder), self._layout.run_lock)


def _held_by(layout: Layout, who: Holder | str) -> GexError:
    then = "one that died is taken over by itself, at the latest two minutes after its last sign of life"
    if isinstance(who, Holder):
        if who.clock_words:
            then = f"if process {who.pid} on {who.host} is dead, remove {layout.run_lock}, and set the clock right"
        who = f"{who.words}{who.clock_words}"
    return GexError(f"{layout.output_uri} is held by {who}. Wait until that run ends, or stop it; {then}")


def _content(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=1).encode() + b"\n"


def _parse(content: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def this_machine() -> str:
    """Where a process id means the same process: boot and process namespace, where the system tells them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process was started, in words of its system; "gone" when there is none."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # The name in parentheses may hold anything; what follows it is state, parent, ... and at 19 the start.
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return "gone"
        return "gone" if fields[0] in "ZX" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except OSError:
        pass
    return "there"
