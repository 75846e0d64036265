"""Why an engine of vLLM did not start, where Ray does not say: on GPUs the engine is a process of its own.

What reaches the caller then is that there is a root cause "above"; above is the log of the Ray worker on its node.
"""

from __future__ import annotations

import re
from pathlib import Path

_ELSEWHERE = re.compile("root cause", re.IGNORECASE)
_WORKER = re.compile(r"\(pid=(\d+)(?:, ip=([\w.:-]+))?")
_ERROR = re.compile(r"(?:^|[\s\]])([\w.]*(?:Error|Exception): .+)$")
_READ_BYTES = 1 << 20  # from the end


def logged_cause(message: str, logs: Path) -> str | None:
    """What the worker that `message` names logged last as an error, and where; None where the message says it itself.

    `logs` is the folder of Ray's logs on this machine. A worker of another node is named with its address.
    """
    if _ELSEWHERE.search(message) is None:
        return None
    found = _WORKER.search(message)
    if found is None:
        return f"see {logs}"
    pid, address = found[1], found[2]
    files = sorted(logs.glob(f"worker-*-{pid}.*"))
    last = next((line for file in files if (line := _last_error(file))), None)
    where = f"{logs}/worker-*-{pid}.*" + (f" on {address}" if address else "")
    return f"{last} (in {where})" if last else f"see {where}"


def _last_error(file: Path) -> str | None:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _READ_BYTES))
        lines = stream.read().decode(errors="replace").splitlines()
    errors = (found[1] for line in reversed(lines) if (found := _ERROR.search(line)))
    return next((error[:600] for error in errors if _ELSEWHERE.search(error) is None), None)
