"""From a corpus back to files that any trainer or viewer can use, without loss.

``png``: 8-bit grey, one file per slice, and ``slices.tsv`` with the labels. ``nifti``: one
``.nii.gz`` per stack of slices, in HU, with the right affine and an otherwise empty header. Either,
ingested again with the same window, gives the same pixel digests.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from fingerprint.corpus import tables
from fingerprint.corpus.store import Corpus
from fingerprint.ledger import replacing

AIR_HU = -1024.0  # below it, readers take a value for padding
FINE_HU = 2.0  # grey levels closer than this do not survive rounding to whole HU

Watch = Callable[[int, int], None]


def export_png(corpus: Corpus, out: Path, watch: Watch) -> int:
    """Write every slice as ``<participant>/<scan>/<n>.png`` and list them in ``slices.tsv``.

    Returns the number of files.
    """
    rows = []
    for first in range(0, corpus.n, corpus.chunk_slices):
        last = min(first + corpus.chunk_slices, corpus.n)
        for i, image in enumerate(corpus.read(first, last), first):
            labels = corpus.slices.iloc[i]
            name = f"{labels['participant'] or 'nobody'}/{labels['series']}/{i:07d}.png"
            data = BytesIO()
            Image.fromarray(image).save(data, "PNG")
            _write(out / name, data.getvalue())
            rows.append(_listed(name, labels))
        watch(last, corpus.n)
    table = pd.DataFrame(rows).to_csv(sep="\t", index=False, lineterminator="\n")
    _write(out / "slices.tsv", table.encode())
    return len(rows)


def _listed(name: str, labels: pd.Series) -> dict[str, object]:
    z, age = float(labels["z_mm"]), int(labels["age"])
    return {
        "file": tables.quote_cell(name),
        "participant": labels["participant"] or "n/a",
        "scan": labels["series"],
        "z_mm": "n/a" if np.isnan(z) else repr(z),
        "sex": labels["sex"] or "n/a",
        "age": "n/a" if age < 0 else age,
    }


def export_nifti(corpus: Corpus, out: Path, watch: Watch) -> int:
    """Write every stack of slices as ``sub-<participant>/ct/sub-<participant>_<series>_CT.nii.gz``.

    Returns the number of files.

    Raises
    ------
    ValueError
        The corpus holds images without geometry, which are no scans.
    """
    series = corpus.scans
    without = int(series["spacing_x_mm"].isna().sum())
    if without:
        raise ValueError(
            f"export: {without} of {len(series)} stacks in {corpus.path.name} are images without "
            "geometry; use --format png"
        )
    names = corpus.label("series")
    for done, (_, row) in enumerate(series.iterrows(), 1):
        at = np.flatnonzero(names == row["series"])
        hu = _hu(corpus.at(at), corpus.window_hu)
        z = corpus.label("z_mm")[at]
        image = nib.Nifti1Image(np.ascontiguousarray(hu.transpose(2, 1, 0)), _affine(row, z))
        image.header.set_xyzt_units("mm")
        who = f"sub-{row['participant']}"
        data = image.to_bytes()
        _write(out / who / "ct" / f"{who}_{row['series']}_CT.nii.gz", _gzip(data))
        watch(done, len(series))
    people = series.drop_duplicates("participant").sort_values("participant")
    table = pd.DataFrame(
        {
            "participant_id": "sub-" + people["participant"],
            "age": people["age"].astype(object).where(people["age"] >= 0, "n/a"),
            "sex": people["sex"].replace("", "n/a"),
        }
    )
    _write(out / "participants.tsv", table.to_csv(sep="\t", index=False).encode())
    return len(series)


def _hu(pixels: NDArray[np.uint8], window_hu: tuple[float, float]) -> NDArray[np.generic]:
    """Grey levels to HU; whole numbers where they tell neighbouring levels apart."""
    low, high = window_hu
    step = (high - low) / 255
    hu = np.maximum(low + pixels * step, AIR_HU)
    return hu.astype(np.float32) if step < FINE_HU else np.rint(hu).astype(np.int16)


def _affine(row: pd.Series, z_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """RAS+ affine of an array (x, y, z): x to the left and y to the back are negative in RAS."""
    dz = float(np.median(np.diff(z_mm))) if len(z_mm) > 1 else float(row["spacing_z_mm"])
    affine = np.diag([-row["spacing_x_mm"], -row["spacing_y_mm"], dz if dz > 0 else 1.0, 1.0])
    affine[:3, 3] = -row["origin_x_mm"], -row["origin_y_mm"], z_mm[0]
    return affine.astype(np.float64)


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=5, mtime=0)


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as out:
        out.write(data)
