"""Storage failures in a person's words: an `OSError` of a disk or a store in; what is wrong and what to do out.

Terminal is what a person has to mend (rights, names, space); a store that is busy or does not answer may pass.
No sentence holds a key or a token: what a store says is cleaned of those in the environment. Retries nothing.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from gex_pipeline.errors import FileMissingError, GexError, TransientError

_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SECRET_CHARACTERS = 8  # a shorter one, as tests use, would blot out words
# Nothing that reads has these errors: they belong to whatever was written.
SPACE_ERRORS = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
_DISK = {
    errno.ENOSPC: "no space is left on this disk; make room",
    errno.EDQUOT: "the disk quota is used up; make room or have it raised",
    errno.EFBIG: "the file is larger than a limit allows (see ulimit -f); raise it, or make shards smaller",
    errno.EROFS: "the file system is read-only; mount it for writing, or choose another place",
    errno.EACCES: "permission denied; change the rights, or choose another place",
    errno.EPERM: "permission denied; change the rights, or choose another place",
}
_DISK_MAY_PASS = frozenset([errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EAGAIN, errno.EINTR])  # network disks
# What stores say, in lower case without underscores and spaces, and what it means for a person. The first that fits.
_STORE = (
    ("nosuchbucket", "the bucket does not exist; create it, or correct its name"),
    ("'notfound", "the bucket does not exist; create it, or correct its name"),
    ("invalidaccesskeyid", "the store does not know the access key; check AWS_ACCESS_KEY_ID"),
    ("signaturedoesnotmatch", "the secret key is not that of the access key; check AWS_SECRET_ACCESS_KEY"),
    ("expiredtoken", "the credentials have expired; renew them (AWS_SESSION_TOKEN and both keys)"),
    ("invalidtoken", "the session token is not valid; renew AWS_SESSION_TOKEN, or unset it with lasting keys"),
    ("requesttimetooskewed", "the clock of this machine is too far from the store's; set it"),
    ("authorizationheadermalformed", "the bucket lies in another region; check AWS_REGION"),
    ("redirect", "the bucket lies in another region or at another address; check AWS_REGION and AWS_ENDPOINT_URL"),
    ("httpstatus301", "the bucket lies in another region or at another address; check AWS_REGION and AWS_ENDPOINT_URL"),
    ("storagefull", "the store has no space left; make room there"),
    ("quotaexceeded", "the store's quota is used up; make room or have it raised"),
    ("httpstatus507", "the store has no space left; make room there"),
)
_DENIED = re.compile(r"accessdenied|httpstatus40[13]|forbidden|unauthenticated|permissiondenied|credential")
_BUSY = re.compile(
    r"slowdown|throttl|toomanyrequests|serviceunavailable|internalfailure|internalerror|requesttimeout"
    r"|httpstatus(5\d\d|408|429)"
)
_REFUSED = re.compile(r"httpstatus4\d\d")
_UNSAID = re.compile(r"accessdenied|httpstatus4\d\d")


class Kind(Enum):
    """What a failure means for whoever might try again."""

    terminal = "terminal"
    busy = "busy"  # the store answers that it cannot just now
    down = "down"  # no answer, or a torn one


def one_line(error: BaseException) -> str:
    """What an error says, in one line, cleaned of credentials and bounded."""
    text = " ".join(str(error).split())
    for name in _SECRETS:
        secret = os.environ.get(name, "")
        if len(secret) >= _SECRET_CHARACTERS:
            text = text.replace(secret, f"<{name}>")
    return text[:400].rstrip(". ")


def is_unsaid(text: str) -> bool:
    """Whether a store refused without saying why: answers to HEAD have no body, and Arrow drops that of GET."""
    said = _bare(text)
    return _UNSAID.search(said) is not None and not any(code in said for code, _ in _STORE)


def explain_store(error: BaseException) -> tuple[str, Kind]:
    """What is wrong with an object store, and whether it may pass."""
    text = one_line(error)
    said = _bare(text)
    for code, meaning in _STORE:
        if code in said:
            return meaning, Kind.terminal
    if _BUSY.search(said):
        return f"the store is busy ({text})", Kind.busy
    if _DENIED.search(said):
        return f"{_denied()} ({text})", Kind.terminal
    if isinstance(error, ValueError) or _REFUSED.search(said):
        return text, Kind.terminal
    return f"the store did not answer; check AWS_ENDPOINT_URL and the network ({text})", Kind.down


def explain_disk(error: OSError) -> tuple[str, Kind]:
    """What is wrong with a disk, and whether it may pass."""
    code = error.errno or 0
    text = _DISK.get(code) or one_line(error)
    return text, Kind.down if code in _DISK_MAY_PASS else Kind.terminal


def failure(place: str, why: str, kind: Kind) -> GexError:
    """The error to raise for a place that failed."""
    return (GexError if kind is Kind.terminal else TransientError)(f"storage failed for {place!r}: {why}")


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn a disk's failure into a terminal or a transient error naming the place."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileMissingError(f"{place!r} does not exist") from error
    except OSError as error:
        raise failure(place, *explain_disk(error)) from error


def _bare(text: str) -> str:
    return text.lower().replace("_", "").replace(" ", "")


def _denied() -> str:
    has_key = bool(os.environ.get("AWS_ACCESS_KEY_ID"))
    if has_key:
        return "the store denies access; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do there"
    return "the store denies access and AWS_ACCESS_KEY_ID is not set; set it and AWS_SECRET_ACCESS_KEY, or a profile"
