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
UNEVEN = 0.1  # of the step: what ingest takes for even, too
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
        The corpus holds images without geometry, which are no scans, or a stack with gaps.
    """
    series = corpus.scans.drop_duplicates("series")  # one that grew has a row for each part
    without = int(series["spacing_x_mm"].isna().sum())
    if without:
        raise ValueError(
            f"export: {without} of {len(series)} stacks in {corpus.path.name} are images without "
            "geometry; use --format png"
        )
    names, z_mm = corpus.label("series"), corpus.label("z_mm")
    for done, (_, row) in enumerate(series.iterrows(), 1):
        at = np.flatnonzero(names == row["series"])
        at = at[np.argsort(z_mm[at], kind="stable")]
        step = _step(row, z_mm[at])
        hu = _hu(corpus.at(at), corpus.window_hu)
        affine = _affine(row, float(z_mm[at[0]]), step)
        image = nib.Nifti1Image(np.ascontiguousarray(hu.transpose(2, 1, 0)), affine)
        image.header.set_xyzt_units("mm")
        who = f"sub-{row['participant']}"
        data = gzip.compress(image.to_bytes(), compresslevel=5, mtime=0)
        _write(out / who / "ct" / f"{who}_{row['series']}_CT.nii.gz", data)
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


def _step(row: pd.Series, z_mm: NDArray[np.float64]) -> float:
    """Distance of the slices of a stack; NIfTI has room for one."""
    if len(z_mm) < 2:
        return float(row["spacing_z_mm"]) if row["spacing_z_mm"] > 0 else 1.0
    steps = np.diff(z_mm)
    step = float(np.median(steps))
    if step <= 0 or np.abs(steps - step).max() > UNEVEN * step:
        raise ValueError(
            f"export: the slices of {row['series']} are {steps.min():.4g} to {steps.max():.4g} mm "
            "apart, and NIfTI has one distance; use --format png"
        )
    return step


def _affine(row: pd.Series, z_mm: float, step_mm: float) -> NDArray[np.float64]:
    """RAS+ affine of an array (x, y, z): x to the left and y to the back are negative in RAS."""
    affine = np.diag([-row["spacing_x_mm"], -row["spacing_y_mm"], step_mm, 1.0])
    affine[:3, 3] = -row["origin_x_mm"], -row["origin_y_mm"], z_mm
    return affine.astype(np.float64)


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as out:
        out.write(data)
