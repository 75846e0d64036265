"""The files of one checkpoint: tensors and an index written, published, verified and read.

The index holds size and SHA-256 of every file, and its own. On a disk the folder is renamed to its place; on an object
store the index is uploaded last, and a folder without it is not a checkpoint. Nothing is pickled. Knows nothing of
training.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from trainer.sharded import put

FORMAT = 1
INDEX = "index.json"
_PIECE_BYTES = 1 << 20


class DamagedCheckpointError(GexError):
    """A checkpoint whose files are not what was written."""


def write_index(folder: Path, content: dict[str, Any]) -> None:
    """Describe the files of a folder, beside what else is to be kept; the last file to be written."""
    files = {}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            files[file.name] = {"num_bytes": file.stat().st_size, "sha256": _digest(stream)}
    index = {"format": FORMAT, **content, "files": files}
    digest = hashlib.sha256(_canonical(index)).hexdigest()
    text = json.dumps({"sha256": digest, "index": index}, indent=1, allow_nan=False)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")


def read_index(uri: str) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        FileMissingError: there is no such checkpoint.
        DamagedCheckpointError: its index is not what was written.
        GexError: it is of another format.
    """
    content = storage.read_bytes(storage.join(uri, INDEX))
    try:
        outer = json.loads(content)
        index, expected = outer["index"], outer["sha256"]
        digest = hashlib.sha256(_canonical(index)).hexdigest()
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(f"{uri!r} is damaged: its {INDEX} cannot be read") from error
    if digest != expected:
        raise DamagedCheckpointError(f"{uri!r} is damaged: its {INDEX} is not what was written")
    if index["format"] != FORMAT:
        raise GexError(f"{uri!r} has format {index['format']}; this version reads format {FORMAT}")
    found: dict[str, Any] = index
    return found


def verify(uri: str) -> dict[str, Any]:
    """The index of a checkpoint, once every file is what was written.

    Raises:
        DamagedCheckpointError: a file is missing, or has another size or other bytes.
    """
    index = read_index(uri)
    for name, expected in index["files"].items():
        info = storage.info(storage.join(uri, name))
        if info is None:
            raise DamagedCheckpointError(f"{uri!r} is damaged: {name} is missing")
        if info.num_bytes != expected["num_bytes"]:
            sizes = f"{info.num_bytes} bytes, {expected['num_bytes']} were written"
            raise DamagedCheckpointError(f"{uri!r} is damaged: {name} has {sizes}")
        with storage.open_read(info.uri) as stream:
            digest = _digest(stream)
        if digest != expected["sha256"]:
            raise DamagedCheckpointError(f"{uri!r} is damaged: the bytes of {name} are not those that were written")
    return index


def write_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors to a local file.

    Raises:
        OSError: the disk does not take it; GexError: it cannot be written for another reason.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    except SafetensorError as error:
        # it says in words which error of the disk it met
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(file)) from error
        raise GexError(f"cannot write {file.name}: {error}") from error
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _canonical(index: Any) -> bytes:
    return json.dumps(index, sort_keys=True, allow_nan=False).encode()


def publish_folder(folder: Path, uri: str) -> None:
    """Put a finished local folder at `uri`, where nothing is; on a disk it must lie on the same one."""
    if not storage.is_local(uri):
        names = [file.name for file in sorted(folder.iterdir()) if file.name != INDEX]
        for name in [*names, INDEX]:
            storage.publish_file(folder / name, storage.join(uri, name))
        return
    target = storage.local_path(uri)
    for path in (folder / INDEX, folder):
        _sync(path)
    folder.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fill_tensors(targets: Mapping[str, Tensor], uri: str, what: str) -> None:
    """Copy a file's tensors into those of the same names, after all names and shapes are compared.

    Raises:
        GexError: a name or a shape differs, and it says which is the first; or the file is missing or damaged.
    """
    with _opened(uri) as stored:
        names = list(stored.keys())
        shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in names}
        for name in [*targets, *names]:
            own = tuple(targets[name].shape) if name in targets else None
            if own != shapes.get(name):
                raise GexError(
                    f"{uri!r} does not fit the {what} of this training: {name} is "
                    f"{_shape_text(shapes.get(name))} in the checkpoint and {_shape_text(own)} here"
                )
        for name, target in targets.items():
            put(target, stored.get_tensor(name))


@contextmanager
def _opened(uri: str) -> Iterator[Any]:
    try:
        with storage.local_copy(uri) as file, safe_open(file, framework="pt") as stored:
            yield stored
    except (SafetensorError, OSError) as error:
        raise DamagedCheckpointError(f"{uri!r} cannot be read: {error}") from error


def _shape_text(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {shape}"


def _digest(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def read_tensors(uri: str) -> dict[str, Tensor]:
    """All tensors of a small file, on the CPU."""
    with _opened(uri) as stored:
        names = list(stored.keys())
        # the file is mapped; copies do not depend on what becomes of it
        return {name: stored.get_tensor(name).clone() for name in names}
