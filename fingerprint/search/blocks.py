"""The five blocks: which query sets are compared with which corpus (METHOD.md, section 3.0).

      queries     reference:  real    control    generated
      generated               A       C          D (itself left out)
      control                 B       E (own patient left out)

A and B make the matrix ``real``, C and E ``control``, D ``generated``. Controls drawn from the real
corpus stay in it and leave their own patient out; then there is no control corpus, no C and no E.
Canaries, planted copies, are compared with the real corpus only, their own patient included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.corpus.store import Corpus
from fingerprint.search.draw import spread
from fingerprint.search.sets import Against, QuerySet, Reference, opened
from fingerprint.search.tiling import capped
from fingerprint.settings import Settings

PREFIX = {"generated": "g_", "control": "c_", "canary": "p_"}


def five_blocks(
    real: Corpus,
    generated: Corpus,
    controls: Corpus | None,
    canaries: Corpus | None,
    settings: Settings,
    sampled: Corpus | None = None,
) -> list[Against]:
    """Return who is compared with whom; not for a corpus against itself.

    The capped choice takes the same number of slices of real and of control patients, so that
    their maxima can be compared (METHOD.md, section 3.9). `canaries` are copies that were made,
    `sampled` such as a generator made.
    """
    cap = settings.capped_slices or min(_fewest(c) for c in (real, controls) if c)
    asked = _queries("generated", generated, _drawn(generated.n, settings))
    asked = replace(asked, withheld=_withheld(asked, settings))
    native = enlarged_from(generated, asked)
    reference, patients = reference_of(real, cap)
    regions = generated.label("region")[asked.indices]
    given = replace(_controls(real, controls, regions, settings), native_px=native)
    sets = [asked, _left_out(given, patients)]
    if canaries:
        planted = _queries("canary", canaries, np.arange(canaries.n))
        sets.append(replace(planted, native_px=native))
    if sampled:  # they are as smooth as generated images without any help
        sets.append(_queries("canary", sampled, copies_in(sampled, real)))
    out = [Against("real", reference, patients, tuple(sets))]
    if controls:
        other, strangers = reference_of(controls, cap)
        out.append(Against("control", other, strangers, (asked, _left_out(given, strangers))))
    out.append(_with_itself(asked, generated))
    return out


def copies_in(sampled: Corpus, real: Corpus) -> NDArray[np.int64]:
    """Return which images of a generator are copies of a slice of `real`."""
    return np.flatnonzero(np.isin(sampled.label("scan"), real.label("token")))


def reference_of(corpus: Corpus, cap: int) -> tuple[Reference, tuple[str, ...]]:
    """Return a corpus as the search sees it, and its patients in the order of the matrix.

    Parameters
    ----------
    cap : int
        Slices per patient of the capped choice; 0: as many as every patient has.
    """
    patients, index = np.unique(patients_of(corpus), return_inverse=True)
    index = index.astype(np.int64)
    chosen = capped(index, corpus.label("z_mm").astype(np.float64), cap)
    reference = Reference(corpus.path, corpus.digest, corpus.chunk_slices, index, chosen)
    return reference, tuple(str(p) for p in patients)


def patients_of(corpus: Corpus) -> NDArray[np.object_]:
    """Return who each slice is of; a stack of slices stands for itself where that is not known."""
    participant, series = corpus.label("participant"), corpus.label("series")
    who: NDArray[np.object_] = np.where(participant == "", series, participant)
    return who


def _fewest(corpus: Corpus) -> int:
    """Count the slices of the patient that has fewest."""
    return int(np.unique(patients_of(corpus), return_counts=True)[1].min(initial=1 << 62))


# -- query sets


def _queries(name: str, corpus: Corpus, indices: NDArray[np.int64]) -> QuerySet:
    own = np.full(len(indices), -1, np.int64)
    return QuerySet(name, corpus.path, corpus.digest, indices.astype(np.int64), own)


def _drawn(n: int, settings: Settings) -> NDArray[np.int64]:
    """Draw slices without replacement, as paper 000 draws 240 from a larger set; or take all."""
    rng = np.random.default_rng(settings.seed)
    drawn: NDArray[np.int64] = np.sort(rng.choice(n, min(settings.sample or n, n), replace=False))
    return drawn


def _withheld(asked: QuerySet, settings: Settings) -> NDArray[np.bool_] | None:
    """Tell which images are not judged.

    Raises
    ------
    ValueError
        A name that no image has, or no image left.
    """
    if not settings.withhold:
        return None
    names = names_of([asked])
    strange = sorted(set(settings.withhold) - set(names))
    if strange:
        raise ValueError(
            f"--drop: {len(strange)} of its names are no generated image of this run "
            f"({strange[0]}, ...); give the drop.tsv of an audit of the same images"
        )
    out = np.isin(names, settings.withhold)
    if out.all():
        raise ValueError("--drop: it names every generated image; nothing is left to judge")
    return out


def _controls(
    real: Corpus, controls: Corpus | None, regions: NDArray[Any], settings: Settings
) -> QuerySet:
    """Draw control slices, in the regions of what they judge; each picture once.

    None from a real corpus of one patient: a control is never compared with its own.
    """
    corpus = controls or real
    who = patients_of(corpus)
    _, once = np.unique(corpus.label("digest"), return_index=True)
    once = np.sort(once[~is_constant(corpus)[once]])
    if controls is None and len(np.unique(who[once])) < 2:
        return _queries("control", corpus, np.zeros(0, np.int64))
    rng = np.random.default_rng(settings.seed)
    drawn = spread(who[once], corpus.label("region")[once], regions, settings.controls, rng)
    return _queries("control", corpus, once[drawn])


def _left_out(queries: QuerySet, patients: Sequence[str]) -> QuerySet:
    """Leave each query's own patient out, where it is among `patients`."""
    corpus = opened(queries.corpus, queries.digest)
    place = {who: column for column, who in enumerate(patients)}
    own = [place.get(who, -1) for who in patients_of(corpus)[queries.indices]]
    return replace(queries, own=np.array(own, np.int64))


def _with_itself(asked: QuerySet, generated: Corpus) -> Against:
    """Every query against every other: each image is its own patient, and leaves itself out."""
    columns = np.full(generated.n, -1, np.int64)
    columns[asked.indices] = np.arange(len(asked))
    reference = Reference(
        generated.path, generated.digest, generated.chunk_slices, columns, columns >= 0
    )
    queries = replace(asked, own=np.arange(len(asked)))
    return Against("generated", reference, tuple(names_of([asked])), (queries,))


def enlarged_from(corpus: Corpus, queries: QuerySet) -> int:
    """Return the side that most queries were enlarged from; 0 for scans, which never are."""
    if not corpus.scans["spacing_x_mm"].isna().all():
        return 0
    return int(np.bincount(corpus.label("native_px")[queries.indices]).argmax())


# -- what the rows are called


def names_of(sets: Sequence[QuerySet]) -> list[str]:
    """Return the stable name of every query: what it is, and the token of its file."""
    return [
        PREFIX[s.name] + str(t)
        for s in sets
        for t in opened(s.corpus, s.digest).label("token")[s.indices]
    ]


def digests_of(sets: Sequence[QuerySet]) -> list[str]:
    """Return the SHA-256 of the pixels of every query."""
    return [str(d) for s in sets for d in opened(s.corpus, s.digest).label("digest")[s.indices]]


def is_constant(corpus: Corpus) -> NDArray[np.bool_]:
    """Return which slices have one grey level only: they correlate with nothing."""
    # below 2^63: 2^18 pixels, sums below 2^26
    total, squares = corpus.label("sum"), corpus.label("sum_of_squares")
    same: NDArray[np.bool_] = corpus.size_px**2 * squares == total * total
    return same


def constant(sets: Sequence[QuerySet]) -> int:
    """Count the queries that correlate with nothing."""
    return sum(int(is_constant(opened(s.corpus, s.digest))[s.indices].sum()) for s in sets)
