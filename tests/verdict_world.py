"""A hospital with held-out patients, and generated images of which some are copies: corpora."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from corpora import make_corpus

from fingerprint import phantom
from fingerprint.phantom import plant

SIDE = 64
SLICES = 10  # of each patient: those of twenty patients fit a tail
KINDS = (("noise", 8.0), ("pose", 0.5), ("gamma", 1.25))


def slices_of(numbers: range, slices: int = SLICES) -> tuple[np.ndarray, list[str]]:
    """Return the slices of some patients, and whose each is."""
    people = [phantom.patient(k, seed=5, n_slices=slices, size_px=SIDE) for k in numbers]
    images = [phantom.seen(hu, size_px=SIDE) for one in people for hu in one.hu]
    return np.stack(images), [f"P{k:012x}" for k in numbers for _ in range(slices)]


def make_world(
    folder: Path, *, trained: int, held: int, novel: int, copies: int, slices: int = SLICES
) -> Path:
    """Seal ``real``, ``controls`` and ``generated``; the first `copies` images are copies."""
    real, who = slices_of(range(trained), slices)
    make_corpus(folder / "real", real, who, chunk=64)
    if held:
        control, strangers = slices_of(range(1000, 1000 + held), slices)
        make_corpus(folder / "controls", control, strangers, set_name="control", chunk=64)
    rng = np.random.default_rng(7)
    others, _ = slices_of(range(2000, 2000 + max(novel, 1)), 3)
    images = [others[3 * k + 1] for k in range(novel)]
    sources = rng.permutation(trained)[: max(copies, 1)]
    planted = [
        plant(real[slices * source + slices // 2], *KINDS[k % len(KINDS)], seed=k)
        for k, source in enumerate(np.resize(sources, copies))
    ]
    stack = np.stack([*planted, *images])
    make_corpus(folder / "generated", stack, [""] * len(stack), set_name="generated", chunk=64)
    return folder
