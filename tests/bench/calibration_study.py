"""Is the verdict calibrated on real slices? Many audits with no copy, and with known copies.

    python tests/bench/calibration_study.py docs/calibration.md

One search gives z of every slice, and of copies of slices, with every patient. An audit is then a
draw: some patients are the real corpus, some are held out as controls, the rest stand for a
generator that copies nobody; copies of real slices are added. Reads the real CT that
FINGERPRINT_DATA names. Every number of the page comes from the run that wrote it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import numpy as np
from corpora import make_corpus
from pose_copies import Data, load

from fingerprint.measure import fisher, rows
from fingerprint.phantom.copies import plant
from fingerprint.run import open_run
from flows import chain

COMMAND = "python tests/bench/calibration_study.py docs/calibration.md"
SEEDS = 200
KINDS = {
    "exact": ("exact", 0.0),
    "noise, SD 8": ("noise", 8.0),
    "blur, 0.7 px at 128": ("blur", 2.8),
    "moved, half": ("pose", 0.5),
    "moved, full": ("pose", 1.0),
}
IMAGES, Q = 60, 0.05
SHARES = (0.0, 0.05, 0.2)
KNOBS = {
    "controls": 100_000,
    "canaries": 0,
    "register_patients": 0,
    "refine_128": 1024,
    "keep_patients": 1,
}


@dataclass(frozen=True)
class Measured:
    """z of slices and of copies with every patient, and whose each is."""

    z: np.ndarray  # (s, patients): slices, own patient NaN
    group: np.ndarray  # (s,)
    copy_z: np.ndarray  # (c, patients)
    source: np.ndarray  # (c,) patient that is copied
    kind: np.ndarray  # (c,)
    patients: int


def measured(data: Data, folder: Path) -> Measured:
    """Search every slice and a copy of each kind of one slice of each patient."""
    rng = np.random.default_rng(1)
    names = [f"P{g:012d}" for g in data.group]
    make_corpus(folder / "real", data.pixels, names, chunk=64)
    images, source, kind = [], [], []
    for label, (what, level) in KINDS.items():
        for group in range(data.groups):
            of = rng.choice(np.flatnonzero(data.group == group))
            images.append(plant(data.pixels[of], what, level, seed=len(images)))
            source.append(group)
            kind.append(label)
    make_corpus(folder / "generated", np.stack(images), [""] * len(images), chunk=64)
    chain.audit_sets(
        str(folder / "real"),
        str(folder / "generated"),
        str(folder / "out"),
        knobs=KNOBS,
        how=chain.How("local", lambda *at: print(*at, file=sys.stderr)),
    )
    matrix = open_run(folder / "out").correlation
    z = fisher.z_of(rows.cells(matrix, image="highpass"))
    mine, asked = rows.of_set(matrix, "control"), rows.of_set(matrix, "generated")
    run = open_run(folder / "out")
    owner = run.matches  # noqa: F841
    import pandas as pd  # noqa: PLC0415

    told = pd.read_parquet(folder / "out" / "queries.parquet")
    group = told["owner"][mine].str[1:].astype(int).to_numpy()
    return Measured(z[mine], group, z[asked], np.array(source), np.array(kind), data.groups)


if __name__ == "__main__":
    data = load(Path(os.environ["FINGERPRINT_DATA"]))
    print(data.pixels.shape, data.groups, np.bincount(data.group).max(), data.kind.mean())
    m = measured(data, Path(sys.argv[1]))
    np.savez(
        "/tmp/measured.npz",
        z=m.z,
        group=m.group,
        copy_z=m.copy_z,
        source=m.source,
        kind=m.kind,
        dkind=data.kind,
        dgroup=data.group,
    )
