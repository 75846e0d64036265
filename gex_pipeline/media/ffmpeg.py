"""Runs ffmpeg: an ffmpeg-python graph in, nothing out but the files the graph names.

No shell, no standard input, an own process group that is killed as a whole at the limit. Does not
decide what to run.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from typing import IO, Any

from gex_pipeline.errors import GexError, Reason, RejectedError

_ENVIRONMENT_KEY = "GEX_FFMPEG"
_STDERR_TAIL_BYTES = 2000
_VERSION_S = 10.0
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_TRIES = 3  # of a process that a signal ends: memory ran out, or somebody killed it; the third time it is the clip


def ffmpeg_binary() -> str:
    """The ffmpeg to run: the environment's choice, else the system's, else the one in imageio-ffmpeg.

    Raises:
        GexError: there is none.
    """
    chosen = os.environ.get(_ENVIRONMENT_KEY)
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise GexError(f"{_ENVIRONMENT_KEY} is {chosen!r}, which is not a program; correct it or unset it")
        return found
    system = shutil.which("ffmpeg")
    if system is not None:
        return system
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise GexError(
            "no ffmpeg on PATH and none in the imageio-ffmpeg package; install ffmpeg, or name one in "
            f"{_ENVIRONMENT_KEY}"
        ) from error


def ffmpeg_version() -> str:
    """The version that this machine's ffmpeg says of itself, such as ``7.0.2-static``; empty where there is none."""
    try:
        argv = [ffmpeg_binary(), "-version"]
        said = subprocess.run(argv, capture_output=True, text=True, timeout=_VERSION_S, check=False).stdout
    except (GexError, OSError, subprocess.TimeoutExpired):
        return ""
    return said.removeprefix("ffmpeg version ").partition(" ")[0] if said.startswith("ffmpeg version ") else ""


@functools.cache
def filters_of(binary: str) -> frozenset[str]:
    """Names of the filters that an ffmpeg was built with."""
    argv = [binary, "-hide_banner", "-filters"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    return frozenset(words[1] for line in said.splitlines() if len(words := line.split()) > 2)


def run_ffmpeg(stream: Any, timeout_s: float) -> None:
    """Run an ffmpeg-python graph to its end, for at most ``timeout_s`` seconds.

    Raises:
        RejectedError: ffmpeg_timeout or ffmpeg_failed, with the end of what ffmpeg said.
        GexError: there is no ffmpeg, or it cannot be started.
        OSError: no space is left for the output.
    """
    import ffmpeg

    command = [ffmpeg_binary(), "-nostdin", "-hide_banner", "-loglevel", "error"]
    argv: list[str] = ffmpeg.compile(stream, cmd=command, overwrite_output=True)
    with tempfile.TemporaryFile() as stderr:  # a pipe that nobody reads would block a talkative ffmpeg
        returncode = _run(argv, stderr, timeout_s)
        said = _tail(stderr)
    if returncode is None:
        raise RejectedError(Reason.ffmpeg_timeout, f"ffmpeg was ended after {timeout_s:g} s; it said: {said}")
    for code in _DISK_ERRORS if returncode != 0 else ():
        if os.strerror(code) in said:
            raise OSError(code, os.strerror(code))  # the disk's fault, not the clip's
    if returncode != 0:
        raise RejectedError(Reason.ffmpeg_failed, f"ffmpeg ended with {returncode}; it said: {said}")


def _run(argv: list[str], stderr: IO[bytes], timeout_s: float) -> int | None:
    """Run the program, again when a signal from elsewhere ends it; none when it had to be killed for time."""
    returncode = None
    for _ in range(_TRIES):
        returncode = _run_once(argv, stderr, timeout_s)
        if returncode is None or returncode >= 0:
            break
    return returncode


def _run_once(argv: list[str], stderr: IO[bytes], timeout_s: float) -> int | None:
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
    except OSError as error:
        raise GexError(f"{argv[0]} cannot be started: {error}; name another ffmpeg in {_ENVIRONMENT_KEY}") from error
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end_group(process)  # also when waiting was interrupted


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return  # its number may be somebody else's by now
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended; macOS says it the second way
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(stderr: IO[bytes]) -> str:
    num_bytes = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, num_bytes - _STDERR_TAIL_BYTES))
    return stderr.read().decode("utf-8", "replace").strip() or "(nothing)"
