"""What may do the registration: our own, or SimpleITK one pair at a time, to compare with.

An engine is imported when it is asked for: a machine with a GPU and without SimpleITK runs ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

from fingerprint.register.affine import Alignment
from fingerprint.register.elastic import Deformation


@dataclass(frozen=True)
class Engine:
    """Two functions with the signatures of `register.affine.affine`, `register.elastic.elastic`."""

    affine: Callable[..., Alignment]
    elastic: Callable[..., Deformation]


def _torch() -> Engine:
    affine, elastic = (import_module(f"fingerprint.register.{n}") for n in ("affine", "elastic"))
    return Engine(affine.affine, elastic.elastic)


def _simpleitk() -> Engine:
    reference = import_module("fingerprint.register.reference")
    return Engine(reference.affine, reference.elastic)


ENGINES: Mapping[str, Callable[[], Engine]] = {"torch": _torch, "simpleitk": _simpleitk}
