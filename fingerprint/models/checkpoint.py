"""Files of tensors that we wrote ourselves: safetensors, with a digest inside and what they are of.

Such a file holds numbers and JSON, never code. The format has no checksum, so the digest of all
that is in the file stands in its metadata, under the one key that we use: of two keys the library
would write either one first, and the same weights would have two digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fingerprint.ledger import Damaged, replacing
from fingerprint.models.learner import extra

LIBRARY = "safetensors.torch"
FORMAT = 1
KEY = "fingerprint"
Tensors = Mapping[str, Tensor]


def write(path: Path, tensors: Tensors, about: Mapping[str, Any]) -> str:
    """Write tensors and a JSON document at once: the old file stays, or the new one is there.

    Returns
    -------
    str
        The sha256 of the file: the same tensors and the same document give the same.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    head = {"format": FORMAT, "about": dict(about)}
    text = _text(head | {"sha256": _digest(tensors, head)})
    data: bytes = extra(LIBRARY).save(tensors, {KEY: text})
    with replacing(path) as out:
        out.write(data)
    return hashlib.sha256(data).hexdigest()


def read(path: Path, sha256: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write` wrote: the tensors, on the CPU, and the document.

    Parameters
    ----------
    sha256 : str, optional
        That the file must have.

    Raises
    ------
    FileNotFoundError
    Damaged
        Other bytes than were written, or not such a file at all.
    ValueError
        A whole file with another sha256, or of a newer version.
    """
    library = extra(LIBRARY)
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    try:
        head = _head(data)
        version, about = int(head["format"]), head["about"]
        tensors = library.load(data)
        sound = head.pop("sha256") == _digest(tensors, head)
    except MemoryError:
        raise
    except Exception as error:  # damage makes it raise nearly anything
        raise Damaged(f"{path.name}: unreadable file of weights") from error
    if not sound:
        raise Damaged(f"{path.name}: the bytes are not those that were written")
    if sha256 is not None and found != sha256:
        raise ValueError(f"read: {path.name} must have sha256 {sha256}; got {found}")
    if version > FORMAT:
        raise ValueError(
            f"read: {path.name} must have format {FORMAT} or less, got {version}: install a newer "
            "version of fingerprint"
        )
    return tensors, about


def _head(data: bytes) -> dict[str, Any]:
    """Return our JSON: eight bytes of length, the header of the file, its metadata, our key."""
    size = int.from_bytes(data[:8], "little")
    head: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][KEY])
    return head


def _digest(tensors: Tensors, head: Mapping[str, Any]) -> str:
    total = hashlib.sha256(_text(head).encode())
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
