"""Weights from the user's disk: a file is read once, known by its sha256, and never run.

Nothing is fetched. A file is read whole into memory, hashed there, and loaded from the same bytes:
were it opened twice, what was checked need not be what is loaded. That takes the file's size twice
while it loads.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from fingerprint.models.known import KNOWN

NESTED = "model"  # under which a published masked autoencoder has all its tensors
MOST_BYTES = 4 << 30  # the largest known file has 1.2 GB; another one is not read into memory


@dataclass(frozen=True)
class State:
    """What a file held."""

    file: str  # its name, without the folder
    sha256: str  # of the bytes that were loaded
    tensors: Mapping[str, Tensor]


def load_state(path: Path, *, name: str, pinned_sha256: str | None = None) -> State:
    """Read a state dict whose digest is known for a network, or pinned by the user.

    Parameters
    ----------
    path : Path
        As published; it may be called anything.
    name : str
        The network: a digest that is known for another one is not accepted.
    pinned_sha256 : str, optional
        64 hexadecimal digits. The file must have this digest, known or not.

    Returns
    -------
    State
        Tensors on the CPU, as they were saved.

    Raises
    ------
    ValueError
        No such file, or too large a one; a digest that is neither known nor pinned, or not the
        pinned one; TorchScript; a file that is damaged, holds code, or holds anything but tensors
        under names. One line, which gives the digest found.
    """
    data, sha256 = _read(path, "load_state")
    _check(path.name, len(data), sha256, name, pinned_sha256)
    if _is_script(data):
        _refuse(path.name, "be a state dict, for TorchScript is code", "TorchScript")
    try:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damage makes it raise nearly anything, in many lines
        rule = "be a whole state dict that loads without running code"
        raise ValueError(_says(path.name, rule, type(error).__name__)) from error
    if isinstance(tensors, dict) and set(tensors) == {NESTED}:
        tensors = tensors[NESTED]
    if not isinstance(tensors, dict) or not tensors:
        _refuse(path.name, "hold tensors under names", type(tensors).__name__)
    for key, value in tensors.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            _refuse(path.name, "hold tensors under names", f"{key!r}: {type(value).__name__}")
    return State(path.name, sha256, tensors)


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Read a TorchScript file that is on the list; a user's pin is not enough, for it is code.

    Parameters
    ----------
    path : Path
        One of the entries of `KNOWN` with `script`, by its digest.

    Returns
    -------
    ScriptModule
        On the CPU.

    Raises
    ------
    ValueError
        No such file, a digest that is not on the list.
    """
    data, sha256 = _read(path, "load_script")
    if sha256 not in {known.sha256 for known in KNOWN if known.script}:
        raise ValueError(
            f"load_script: {path.name} must be TorchScript that is on the list of known files: it "
            f"is code, and a pin does not make it harmless; got sha256 {sha256}"
        )
    return torch.jit.load(io.BytesIO(data), map_location="cpu")


def _read(path: Path, function: str) -> tuple[bytes, str]:
    if not path.is_file():
        raise ValueError(f"{function}: {path.name} must be a file, got none")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(
            f"{function}: {path.name} must have at most {MOST_BYTES:,} bytes, got {size:,}"
        )
    data = path.read_bytes()
    return data, hashlib.sha256(data).hexdigest()


def _check(file: str, size: int, sha256: str, name: str, pinned: str | None) -> None:
    """Raise unless the digest is the pinned one or, without a pin, one known for the network."""
    if pinned is not None:
        if not re.fullmatch("[0-9a-f]{64}", pinned.lower()):
            raise ValueError(
                f"load_state: pinned_sha256 must be 64 hexadecimal digits, got {pinned!r}"
            )
        if sha256 != pinned.lower():
            _refuse(file, f"have the pinned sha256 {pinned.lower()}", sha256)
        return
    same = [known for known in KNOWN if known.sha256 == sha256]
    if not any(known.network == name or known.script for known in same):
        _refuse(file, _rule(file, size, sha256, name), f"sha256 {sha256}, {size:,} bytes")


def _rule(file: str, size: int, sha256: str, name: str) -> str:
    """Return what a file that is not accepted must be, in the words that help most."""
    for known in KNOWN:
        if known.sha256 == sha256:
            return f"be weights of {name}, and is {known.file}, of {known.network}"
        if known.whole and known.file == file:
            was = f", {known.size:,} bytes" if known.size else ""
            return f"be what was published under its name (sha256 {known.sha256}{was})"
        if not known.whole and sha256.startswith(known.sha256) and known.network == name:
            return (
                f"be pinned: it begins like {known.file}, of which only 8 digits are known; "
                "if you trust its source, pin its sha256"
            )
    return f"be known as weights of {name}, or pinned: if you trust its source, pin its sha256"


def _is_script(data: bytes) -> bool:
    """Tell a TorchScript archive, which holds code, from one of tensors."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return False
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return False  # what is damaged is refused where it is loaded
    return any("/code/" in name or name.endswith("/constants.pkl") for name in names)


def _says(file: str, rule: str, got: str) -> str:
    return f"load_state: {file} must {rule}; got {got}"


def _refuse(file: str, rule: str, got: str) -> NoReturn:
    raise ValueError(_says(file, rule, got))
