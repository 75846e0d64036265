"""Files that one of several callers gets: made where there is none, removed where they are still the same.

On a disk that is certain. Object stores are asked first and written then: Arrow's client has no conditional write, so
two callers within the time of a request may both be told True; who needs certainty waits and reads again (`run_lock`).
"""

from __future__ import annotations

import secrets

from gex_pipeline import storage
from gex_pipeline.errors import FileMissingError
from gex_pipeline.storage_failures import explained


def create_bytes(content: bytes, uri: str) -> bool:
    """Put small content where there is nothing yet; False when something is there.

    On a disk one caller only is told True. An object store is asked first and written then, which is not atomic.
    """
    if not storage.is_local(uri):
        if storage.exists(uri):
            return False
        storage.publish_bytes(content, uri)
        return True
    target = storage.local_path(uri)
    with explained(uri):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = target.open("xb")
        except FileExistsError:
            return False
        try:
            with handle:
                handle.write(content)
        except OSError:  # a full disk: an empty file would say that there is something
            target.unlink(missing_ok=True)
            raise
    return True


def remove_if_holds(content: bytes, uri: str) -> bool:
    """Remove a file if it still has this content; False, and nothing is changed, when it has another or is gone.

    On a disk it is moved aside and looked at there, so that of several callers one only is told True.
    """
    if not storage.is_local(uri):
        try:
            same = storage.read_bytes(uri) == content
        except FileMissingError:
            return False
        if same:
            storage.remove(uri)
        return same
    target = storage.local_path(uri)
    aside = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    with explained(uri):
        try:
            target.rename(aside)
        except FileNotFoundError:
            return False
        try:
            same = aside.read_bytes() == content
            if not same:
                create_bytes(aside.read_bytes(), uri)
        finally:
            aside.unlink()
    return same
