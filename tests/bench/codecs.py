"""Codecs of the pixel chunks: how small, and how fast one core decodes them.

    FINGERPRINT_DATA=... python tests/bench/codecs.py

On real CT where FINGERPRINT_DATA names some, else on phantoms: a codec is chosen by its ratio.
"""

from __future__ import annotations

import os
from pathlib import Path

import numcodecs
import numpy as np
import pydicom
import torch
from numcodecs import Blosc
from ratios import compare, machine

from fingerprint import phantom
from fingerprint.corpus.store import BLOSC
from fingerprint.corpus.window import to_uint8
from fingerprint.settings import WINDOWS_HU

CHUNK = 64
WINDOW_HU = WINDOWS_HU["full"]
CODECS = {
    "blosc lz4-5, bitshuffle (ours)": BLOSC,
    "blosc lz4hc-9, bitshuffle": Blosc("lz4hc", 9, Blosc.BITSHUFFLE),
    "blosc zstd-3, bitshuffle": Blosc("zstd", 3, Blosc.BITSHUFFLE),
    "blosc lz4-5, no shuffle": Blosc("lz4", 5, Blosc.NOSHUFFLE),
    "zstd-3": numcodecs.Zstd(3),
    "gzip-1": numcodecs.GZip(1),
}


def chunk() -> tuple[str, np.ndarray]:
    """Return one chunk of slices and what they are."""
    data = os.environ.get("FINGERPRINT_DATA")
    if not data:
        drawn = [phantom.one_slice(k, seed=1, index=8, n_slices=16) for k in range(CHUNK)]
        return f"{CHUNK} phantom slices", np.stack([to_uint8(hu, WINDOW_HU) for hu in drawn])
    series = Path(data) / "dicom_series" / "lidc-idri-0001"
    read = [pydicom.dcmread(file) for file in sorted(series.glob("*.dcm"))[:CHUNK]]
    hu = [d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in read]
    return f"{len(hu)} real slices", np.stack([to_uint8(one, WINDOW_HU) for one in hu])


def measure() -> None:
    """Print ratio and decode time of each codec on the same chunk."""
    what, slices = chunk()
    numcodecs.blosc.set_nthreads(1)
    packed = {name: codec.encode(slices) for name, codec in CODECS.items()}
    ways = {name: lambda c=CODECS[name], p=packed[name]: c.decode(p) for name in CODECS}
    compare(f"decode {what}", next(iter(CODECS)), ways)
    print("\n| codec | ratio |\n|---|---|")
    for name, data in packed.items():
        print(f"| {name} | {slices.nbytes / len(data):.2f} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(machine())
    measure()
