"""Corpora that no file was read for: planted copies, generated images, study sets.

Their slices come from this program, so there is nothing to survey or to reject; they are stored and
sealed as those of an ingest are, and any command opens them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fingerprint.corpus import anatomy, seal, store
from fingerprint.corpus.books import Book
from fingerprint.corpus.images import enlarged
from fingerprint.corpus.scan import sums
from fingerprint.corpus.window import fit
from fingerprint.ledger import digest_of

MID_PX = 128
KEPT = ("key_id", "window_hu", "size_px", "chunk_slices")  # of the corpus that a new one is made of
MADE = ("sum", "sum_of_squares", "digest", "part", *store.SUMS)  # labels of the pixels


def is_made(path: Path, made_with: Mapping[str, Any]) -> bool:
    """Whether a sealed corpus is there that was made so; half of a seal is undone first."""
    seal.recover(path)
    return store.is_corpus(path) and store.open_corpus(path).head["made_with"] == made_with


def write(
    path: Path,
    set_name: str,
    slices: Iterator[NDArray[np.uint8]],
    labels: pd.DataFrame,
    head: Mapping[str, Any],
    made_with: Mapping[str, Any],
    *,
    series: pd.DataFrame | None = None,
    notes: tuple[str, ...] = (),
) -> store.Corpus:
    """Seal slices as a corpus, in place of what is there.

    Parameters
    ----------
    slices : iterator of uint8, shape (n, side, side)
        A chunk at a time: all of ``chunk_slices``, the last of what is left.
    labels : DataFrame
        One row per slice: ``participant, scan, series, z_mm, sex, age, region, region_confidence,
        native_px, token``.
    head : mapping
        `KEPT`, as in the attributes of a corpus.
    made_with : mapping
        What decides the slices; `is_made` asks for it.
    series : DataFrame, optional
        One row per stack; without it each slice is a stack of its own, without geometry.
    notes : tuple of str
        For the data table.
    """
    shutil.rmtree(path, ignore_errors=True)
    written: dict[str, list[Any]] = {}
    found = []
    for k, images in enumerate(slices):
        entries, small = seal.write_chunk(path, k, images, head["chunk_slices"], shared=False)
        written |= entries
        total, squares = sums(images)
        digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        own = {"sum": total, "sum_of_squares": squares, "digest": digests}
        found.append(pd.DataFrame(small | own))
    rows = labels.reset_index(drop=True).assign(**pd.concat(found, ignore_index=True), part=0)
    rows = rows.astype({name: kind for name, kind in store.LABELS.items() if kind != "str"})
    book = Book(Book.empty().files, rows, alone(rows) if series is None else series)
    summary = book.summary(set_name) | {"notes": list(notes)}
    size = sum(entry[0] for entry in written.values())
    seal.seal(
        path,
        rows,
        book.series,
        {
            **{name: head[name] for name in KEPT},
            "set": set_name,
            "parts": [{"n": len(rows), "digest": store.content_digest(rows)}],
            "made_with": dict(made_with),
            "summary": summary | {"seen": len(rows), "accepted": len(rows), "bytes_out": size},
        },
        written,
        book.sidecars(),
    )
    return store.open_corpus(path)


def in_chunks(rows: NDArray[Any], step: int) -> Iterator[NDArray[Any]]:
    """Cut slices, or their indices, as `write` takes them."""
    return (rows[first : first + step] for first in range(0, len(rows), step))


def alone(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of stacks in which every slice is one, without geometry."""
    missing = dict.fromkeys(name for name in store.SERIES if name.endswith("_mm"))
    table = rows.assign(n_slices=1, source_digest=rows["digest"], notes="", **missing)
    return table[list(store.SERIES)].astype(
        {name: kind for name, kind in store.SERIES.items() if kind != "str"}
    )


def write_subset(
    corpus: store.Corpus, indices: NDArray[np.int64], path: Path, set_name: str, note: str
) -> store.Corpus:
    """Seal some slices of a corpus, with their labels, as a corpus of their own.

    Parameters
    ----------
    indices : int64, shape (n,), rising

    Raises
    ------
    ledger.Damaged
        A chunk of the corpus is not what was sealed.
    """
    indices = np.asarray(indices, np.int64)
    made_with = {"subset_of": corpus.digest, "slices": digest_of(indices.tolist()), "set": set_name}
    if is_made(path, made_with):
        return store.open_corpus(path)
    chunks = map(corpus.at, in_chunks(indices, corpus.chunk_slices))
    kept = [name for name in store.LABELS if name not in MADE]
    rows = pd.DataFrame({name: corpus.label(name)[indices] for name in kept})
    count = rows.groupby("series").size()
    scans = corpus.scans[corpus.scans["series"].isin(count.index)].reset_index(drop=True)
    series = scans.assign(n_slices=scans["series"].map(count).astype("int64"), part=np.int32(0))
    return write(
        path,
        set_name,
        chunks,
        rows,
        corpus.head,
        made_with,
        series=series,
        notes=(note,),
    )


def write_images(
    path: Path,
    set_name: str,
    images: NDArray[np.uint8],
    tokens: list[str],
    head: Mapping[str, Any],
    made_with: Mapping[str, Any],
    *,
    note: str,
) -> store.Corpus:
    """Seal images (n, px, px) of nobody, enlarged to the slices of a corpus where they are smaller.

    As an ingest of generated images does: bilinear, ``native_px`` kept, each told its class alone.
    """
    if is_made(path, made_with):
        return store.open_corpus(path)
    side, step = int(head["size_px"]), int(head["chunk_slices"])
    bands = list(in_chunks(images, step))
    told = [anatomy.regions(fit(enlarged(band, side), min(MID_PX, side), 0)[0]) for band in bands]
    labels = pd.DataFrame({"token": tokens, "scan": tokens, "series": tokens}).assign(
        participant="",
        z_mm=0.0,
        sex="",
        age=-1,
        native_px=images.shape[-1],
        region=np.concatenate([region for region, _ in told]),
        region_confidence=np.concatenate([share for _, share in told]),
    )
    chunks = (enlarged(band, side) for band in bands)
    return write(path, set_name, chunks, labels, head, made_with, notes=(note,))
