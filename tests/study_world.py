"""A hospital of phantoms as a sealed corpus, small enough to train generators on in a test."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from fingerprint.corpus import made, store
from fingerprint.corpus.window import to_uint8
from fingerprint.phantom import patient

SIDE = 64
SLICES = 16
SEED = 11
WINDOW = (-1000.0, 1000.0)
HEAD = {"key_id": "0" * 12, "window_hu": list(WINDOW), "size_px": SIDE, "chunk_slices": 64}


@lru_cache(maxsize=2)
def world(patients: int, seed: int = SEED) -> tuple[np.ndarray, pd.DataFrame]:
    """Return slices, uint8 (n, SIDE, SIDE), and their labels, of as many women as men."""
    images, rows = [], []
    for number in range(patients):
        one = patient(number, seed=seed, n_slices=SLICES, size_px=SIDE)
        images.append(to_uint8(one.hu, WINDOW))
        name = f"{seed}-{number:03d}"
        rows.append(
            pd.DataFrame(
                {
                    "participant": f"P{name}",
                    "scan": f"S{name}",
                    "series": f"S{name}",
                    "z_mm": one.z_mm,
                    "sex": "MF"[number % 2],
                    "age": np.int16(20 + number % 30),
                    "region": one.region,
                    "region_confidence": np.float32(1),
                    "native_px": np.int16(SIDE),
                    "token": [f"{seed:02d}{number:04d}{k:06d}" for k in range(SLICES)],
                }
            )
        )
    return np.concatenate(images), pd.concat(rows, ignore_index=True)


def corpus_of(path: Path, patients: int, seed: int = SEED, **labels: object) -> store.Corpus:
    """Seal such a hospital; `labels` replace those of all slices."""
    images, rows = world(patients, seed)
    step = int(HEAD["chunk_slices"])
    chunks = (images[i : i + step] for i in range(0, len(images), step))
    series = made.alone(rows.drop_duplicates("series").assign(digest="", part=0)).assign(
        n_slices=SLICES, spacing_z_mm=10.0, spacing_y_mm=5.0, spacing_x_mm=5.0
    )
    made_with = {"phantom": seed}
    return made.write(path, "real", chunks, rows.assign(**labels), HEAD, made_with, series=series)
