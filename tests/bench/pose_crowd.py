"""Moved copies of real slices, searched by a whole audit in a corpus of 60,000: who is registered?

    FINGERPRINT_DATA=... python tests/bench/pose_crowd.py [SLICES COPIES_PER_GROUP]

The real slices stand among phantoms, at 128 px: what the search at every pose reads of a slice is
no larger. A copy is found if its source's group is among the patients that would be registered.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_images import SIDE  # noqa: F401 - it makes the helpers of the tests importable
from corpora import make_corpus
from pose_copies import MOVED, SEED, copies_of, load
from ratios import counts

from fingerprint.corpus.window import to_uint8
from fingerprint.phantom.thorax import frame, render
from fingerprint.settings import WINDOWS_HU, Settings
from flows import chain

PER_PATIENT = 118


def phantoms(n: int) -> tuple[np.ndarray, list[str]]:
    """Return uint8 (n, 128, 128) of as many patients as needed, and who each is."""
    images, who = np.empty((n, 128, 128), np.uint8), []
    for i in range(n):
        number, index = divmod(i, PER_PATIENT)
        if index == 0:
            person = frame(number, seed=SEED, size_px=128)
        images[i] = to_uint8(render(person, index, PER_PATIENT)[0], WINDOWS_HU["full"])
        who.append(f"Pf{number:011x}")
    return images, who


def main(n_slices: int, each: int) -> None:
    """Print how many copies are first, in the top 10, and in the registered 32."""
    data = load(Path(os.environ["FINGERPRINT_DATA"]))
    copies = copies_of(data, MOVED, each, SEED + 1)
    others, who = phantoms(n_slices - len(data.mids))
    names = [f"Pa{group:011x}" for group in data.group]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        order = np.argsort(data.group, kind="stable")
        real = np.concatenate([data.mids[order], others])
        make_corpus(root / "real", real, [names[i] for i in order] + who, chunk=64)
        make_corpus(
            root / "copies", copies.mids, [""] * len(copies.mids), set_name="generated", chunk=64
        )
        knobs = {"controls": 8, "orient": "as-is"}
        run = chain.audit_sets(
            str(root / "real"), str(root / "copies"), str(root / "out"), knobs=knobs
        ).run
        listed = run.matches[run.matches["query_set"] == "generated"]
        ranks = []
        for query, source in zip(run.correlation["query"].values, copies.source, strict=False):
            rows = listed[(listed["query"] == query) & (listed["participant"] == names[source])]
            ranks.append(int(rows["rank"].min()) if len(rows) else 10**6)
        poses = run.findings["pose.poses"]
    rank, keep = np.array(ranks), Settings().keep_patients
    patients = len(set(names)) + len(set(who))
    print(f"{len(rank)} copies of {data.groups} groups, {n_slices:,} slices of {patients} patients")
    print(f"{poses} poses, {time.monotonic() - started:.0f} s")
    for name, share in {
        "first": rank == 1,
        "top 10": rank <= 10,
        "registered": rank <= keep,
    }.items():
        print(f"{name}: {share.mean():.3f}")


if __name__ == "__main__":
    main(*counts(60_000, 3))
