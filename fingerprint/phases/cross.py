"""Cross: every training set of Fig. 4 of paper 000 with every generated set (METHOD.md, 3.15)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.job import write_json
from fingerprint.ledger import Counts, Shard, Values
from fingerprint.measure import frechet, pixel_features
from fingerprint.measure.distances import FEATURES, NO_WEIGHTS
from fingerprint.models import encoders
from fingerprint.phases.distances import of_side
from fingerprint.search.sets import as_smooth_as, opened
from fingerprint.settings import Settings
from fingerprint.study_job import StudyJob

VERSION = 1
TOLD = "figure4.json"
WEIGHED = ("encoder", "weights_sha256")

Floats = NDArray[np.float64]


def plan(job: StudyJob) -> list[Shard]:
    """Cut by set: training sets, then generated ones."""
    if len(job.sets) < 2:
        return []
    paths = [job.cohort(p.name) for p in job.sets] + [job.pool(p.name) for p in job.sets]
    return [_shard(job, path) for path in paths]


def _shard(job: StudyJob, path: Path) -> Shard:
    corpus, n, s = store.open_corpus(path), _images(job), job.settings
    smooth = 0 if path.is_relative_to(job.out / "pools") else job.recipe(job.sets[0]).px
    depends = {"corpus": corpus.digest, "n": n, "smooth": smooth} | s.matters_to(*WEIGHED)
    given = {"weights": s.weights is not None}
    return ledger.shard(
        "cross", VERSION, depends | given, features, path, corpus.digest, n, smooth, s
    )


def _images(job: StudyJob) -> int:
    """Return how many images stand for each set: as many of all."""
    return min(point.asked for point in job.sets)


def features(
    path: Path, digest: str, n: int, smooth: int, settings: Settings
) -> tuple[Values, Counts]:
    """Return the features of one set, float32 (n, p) by kind.

    Training slices are made as smooth as what was generated first: `smooth` is its side.
    """
    corpus = opened(path, digest)
    images = _as_smooth(corpus, np.arange(n), smooth)
    small = of_side(images)
    out = {name: of(small).astype(np.float32) for name, of in FEATURES.items()}
    if settings.weights:
        loaded = encoders.load(settings.encoder, settings.weights, settings.weights_sha256)
        out["fid"] = encoders.encode(loaded, images).astype(np.float32)
    return out, {"images": n}


def _as_smooth(corpus: store.Corpus, rows: NDArray[np.int64], px: int) -> NDArray[np.uint8]:
    images = corpus.at(rows)
    return as_smooth_as(px, images) if 0 < px < corpus.size_px else images


def finish(job: StudyJob, values: Iterator[Values]) -> None:
    """Put the matrices together: rows are training sets, columns generated ones."""
    read = [{name: np.asarray(value[name], np.float64) for name in value} for value in values]
    k = len(read) // 2
    told: dict[str, Any] = {"sets": k, "images": _images(job) if k else 0}
    for name in (*FEATURES, "fid"):
        if not k or name not in read[0]:
            told[f"{name}.reason"] = NO_SETS if not k else NO_WEIGHTS
            continue
        sets = [value[name] for value in read]
        try:
            told[name] = matrix(sets[:k], sets[k:], reduce=name in FEATURES).tolist()
        except frechet.RankDeficient as error:
            told[f"{name}.reason"] = str(error)
    write_json(job.out / TOLD, told)


NO_SETS = "no sets were trained for this figure: sets = 0 in the settings, or images were brought"


def matrix(real: list[Floats], generated: list[Floats], *, reduce: bool) -> Floats:
    """Return the Frechet distance of every generated set from every training set, (k, k).

    Parameters
    ----------
    reduce : bool
        Take the leading components, of all training sets together and no generated one.

    Raises
    ------
    frechet.RankDeficient
        Too few images for a covariance.
    """
    if reduce:
        components = pixel_features.components(min(map(len, [*real, *generated])))
        basis = pixel_features.fit(np.concatenate(real), components)
        real, generated = ([basis.project(one) for one in sets] for sets in (real, generated))
    rows, columns = ([frechet.moments(one) for one in sets] for sets in (real, generated))
    return np.array([[frechet.frechet(mine, other) for other in columns] for mine in rows])
