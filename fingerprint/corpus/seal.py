"""Writing a corpus: chunks first, then everything that names them, then one atomic pointer swap.

A corpus grows by parts. A part's rows follow those that are sealed, so the last chunk of pixels and
of every label may hold rows of two parts: such a file is staged beside the corpus and moved at the
end. A chunk always holds its full number of rows, and the old rows in it do not change: whoever
opened the old state with zarr sees the same slices before, during and after the move, and our own
reader, which knows the digest of every chunk, sees them or refuses.

    chunks   new files behind the sealed ones: invisible, they lie beyond the shape
    stage    the shared last chunk, labels, metadata and manifest, in ``.ingest/staged``
    journal  which files will be replaced; the old ones are kept as hard links in ``.ingest/undo``
    move     each staged file, the root ``zarr.json`` last: that rename is the seal
    clean    journal and links go

A crash before the last rename is undone by `recover`; after it, nothing is left to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from fingerprint.corpus import anatomy, store
from fingerprint.corpus.scan import sums
from fingerprint.corpus.screen import screen_of
from fingerprint.corpus.window import fit
from fingerprint.ledger import Damaged, digest_of, sync_folder
from fingerprint.ledger import replacing as replacing_file

STAGED = ".ingest/staged"
UNDO = ".ingest/undo"


def write_chunk(
    corpus: Path, k: int, slices: NDArray[np.uint8], chunk_slices: int, *, shared: bool
) -> tuple[dict[str, list[Any]], dict[str, NDArray[np.int64]]]:
    """Store one chunk of slices and of their small pictures.

    In place, or staged (`shared`) if the sealed state already has rows in chunk `k`.

    Returns
    -------
    entries : dict
        What the manifest says of each file: name -> [bytes, crc32c, sha256].
    sums : dict
        The labels `store.SUMS` of the slices: name -> int64, shape (n,).
    """
    pictures = pictures_of(slices)
    entries = {}
    for array, images in pictures.items():
        data = store.encode(images, chunk_slices)
        name = store.chunk_name(k, array)
        with replacing_file((corpus / STAGED if shared else corpus) / name) as out:
            out.write(data)
        entries[name] = store.entry(data)
    found = {}
    for array in ("mid", "thumb", "screen"):
        found[f"sum_{array}"], found[f"sum_of_squares_{array}"] = sums(pictures[array])
    return entries, {name: found[name] for name in store.SUMS}


def pictures_of(slices: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return slices (n, s, s) as each of `store.PIXELS`, the small ones from those before them."""
    size = slices.shape[-1]
    mid, thumb = (fit(slices, min(store.SMALLER[a], size), 0)[0] for a in ("mid", "thumb"))
    return {
        "pixels": slices,
        "mid": mid,
        "thumb": thumb,
        "screen": screen_of(thumb),
        "organs": anatomy.organs(mid),
    }


def is_written(corpus: Path, name: str, entry: list[Any]) -> bool:
    """Whether a chunk that was written, in place or staged, is there byte for byte."""
    for place in (corpus / STAGED / name, corpus / name):
        if place.exists():
            return store.entry(place.read_bytes()) == entry
    return False


def seal(
    corpus: Path,
    rows: pd.DataFrame,
    series: pd.DataFrame,
    attributes: Mapping[str, Any],
    written: Mapping[str, list[Any]],
    extra: Mapping[str, bytes],
    *,
    replacing: bool = False,
) -> None:
    """Make all rows (sealed and new) the state of the corpus, by one rename.

    Parameters
    ----------
    corpus : Path
        Its chunks are written (`write_chunk`).
    rows, series : DataFrame
        Columns `store.LABELS` and `store.SERIES`, in stored order.
    attributes : mapping
        ``set, key_id, window_hu, size_px, chunk_slices, parts, summary``.
    written : mapping
        Manifest entries of the chunks that `write_chunk` stored.
    extra : mapping
        Other files to seal with it: name -> bytes.
    replacing : bool
        Nothing of the sealed state stays; all chunks were staged.
    """
    staged = corpus / STAGED
    _clear_metadata(staged)
    attributes = dict(attributes) | {"n": len(rows)}
    _stage_metadata(staged, rows, series, attributes)
    for name, data in extra.items():
        with replacing_file(staged / name) as out:
            out.write(data)
    manifest = _manifest(corpus, staged, written, replacing)
    document = _pointer(staged, attributes, manifest)
    manifest_name = f"manifests/{document['attributes']['manifest']}.json"
    with replacing_file(staged / manifest_name) as out:
        out.write(store.canonical(manifest))
    with replacing_file(staged / store.POINTER) as out:
        out.write(store.canonical(document))
    _swap(corpus, staged, written)
    for old in (corpus / "manifests").iterdir():
        if old.name != Path(manifest_name).name:
            old.unlink()
    for old in corpus.glob("*/c/*/0/0"):
        if old.relative_to(corpus).as_posix() not in manifest:
            old.unlink()


def recover(corpus: Path) -> bool:
    """Undo a half-done seal, if there is one; return whether there was."""
    journal = corpus / store.JOURNAL
    if not journal.exists():
        return False
    plan = json.loads(journal.read_text())
    pointer = corpus / store.POINTER
    if not pointer.exists() or store.entry(pointer.read_bytes()) != plan["pointer"]:
        for name in plan["replaced"]:
            if (corpus / UNDO / name).exists():  # else a killed recovery did it
                (corpus / UNDO / name).replace(corpus / name)
        for name in plan["added"]:
            (corpus / name).unlink(missing_ok=True)
        _sync_tree(corpus)
    for name in [*plan["replaced"], *plan["added"]]:
        _moving(corpus / name).unlink(missing_ok=True)
    journal.unlink()
    shutil.rmtree(corpus / UNDO, ignore_errors=True)
    return True


def _stage_metadata(
    staged: Path, rows: pd.DataFrame, series: pd.DataFrame, head: dict[str, Any]
) -> None:
    """Write every array's metadata and all labels with zarr itself; pixels get metadata only."""
    root = zarr.open_group(staged, mode="a")
    low, high = head["window_hu"]
    for name in store.PIXELS:
        side = min(store.SMALLER.get(name, head["size_px"]), head["size_px"])
        array = root.create_array(
            name,
            shape=(len(rows), side, side),
            chunks=(head["chunk_slices"], side, side),
            dtype=store.dtype_of(name),
            fill_value=0,
            compressors=[
                BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=1),
                Crc32cCodec(),
            ],
            dimension_names=("slice", *_AXES.get(name, ("y", "x"))),
        )
        # no _FillValue: a fill of 0 would open air as NaN
        hu = {"scale_factor": (high - low) / 255, "add_offset": low, "units": "HU"}
        array.attrs.update(
            (hu if name in store.HU else {}) | {"coordinates": " ".join(store.LABELS)}
        )
    for name, kind in store.LABELS.items():
        _label(root, name, rows[name], kind, "slice")
    table = root.create_group("series_table")
    for name, kind in store.SERIES.items():
        _label(table, name, series[name], kind, "row")


def _label(group: zarr.Group, name: str, values: pd.Series, kind: str, dim: str) -> None:
    array = group.create_array(
        name,
        shape=(len(values),),
        chunks=(store.ROWS,),
        dtype=str if kind == "str" else kind,
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        dimension_names=(dim,),
        config={"write_empty_chunks": True},
    )
    for first in range(0, len(values), store.ROWS):  # a million texts as objects are large
        part = slice(first, first + store.ROWS)
        data = values.iloc[part].to_numpy(object if kind == "str" else kind)
        array[part] = data.astype(np.dtypes.StringDType()) if kind == "str" else data


def _clear_metadata(staged: Path) -> None:
    """Remove what an earlier, killed seal staged; chunks of pixels stay."""
    staged.mkdir(parents=True, exist_ok=True)
    for entry in staged.iterdir():
        if entry.name in store.PIXELS:
            (entry / store.POINTER).unlink(missing_ok=True)
        elif entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _manifest(
    corpus: Path, staged: Path, written: Mapping[str, list[Any]], replacing: bool
) -> dict[str, list[Any]]:
    """Every file of the new state: sealed chunks of pixels stay, all else is staged or written."""
    grows = store.is_corpus(corpus) and not replacing
    sealed = store.open_corpus(corpus).manifest if grows else {}
    manifest = {k: v for k, v in sealed.items() if store.is_chunk(k)} | dict(written)
    for name in written:
        place = staged / name if replacing or name in sealed else corpus / name
        if not place.exists() or place.stat().st_size != written[name][0]:
            raise Damaged(f"{corpus.name}: {name} was written and is gone; run the command again")
    for file in sorted(p for p in staged.rglob("*") if p.is_file()):
        name = file.relative_to(staged).as_posix()
        if name != store.POINTER and not store.is_chunk(name):
            manifest[name] = store.entry(file.read_bytes())
    return manifest


def _pointer(
    staged: Path, attributes: dict[str, Any], manifest: dict[str, list[Any]]
) -> dict[str, Any]:
    """Return the root document: consolidated metadata, attributes, manifest digest, seal."""
    with warnings.catch_warnings():
        # zarr says that consolidated metadata is not in its specification yet; xarray wants it
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(staged))
    document: dict[str, Any] = json.loads((staged / store.POINTER).read_bytes())
    document["attributes"] = attributes | {
        "fingerprint_format": list(store.FORMAT),
        "derived": store.DERIVED,
        "digest": digest_of({k: attributes[k] for k in _IDENTITY}),
        "manifest": hashlib.sha256(store.canonical(manifest)).hexdigest(),
    }
    document["attributes"]["seal"] = store.seal_of(document)
    return document


_AXES = {name: (f"{name}_y", f"{name}_x") for name in store.SMALLER}
_IDENTITY = ("set", "key_id", "window_hu", "size_px", "parts")


def _swap(corpus: Path, staged: Path, written: Mapping[str, list[Any]]) -> None:
    names = [p.relative_to(staged).as_posix() for p in staged.rglob("*") if p.is_file()]
    # a killed ingest of other files may have staged chunks that this seal does not know
    names = [name for name in names if not store.is_chunk(name) or name in written]
    names.sort(key=lambda name: name == store.POINTER)  # stable: the pointer goes last
    for name in names:
        with open(staged / name, "rb") as file:
            os.fsync(file.fileno())
    replaced = [name for name in names if (corpus / name).exists()]
    for name in replaced:
        link = corpus / UNDO / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.link(corpus / name, link)
    plan = {
        "pointer": store.entry((staged / store.POINTER).read_bytes()),
        "replaced": replaced,
        "added": [name for name in names if name not in replaced],
    }
    with replacing_file(corpus / store.JOURNAL) as out:
        out.write(store.canonical(plan))
    for name in names:
        target = corpus / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == store.POINTER:
            _sync_tree(corpus)  # all that the pointer names is durable before it is
        # a link, not a move: what is staged stays until the seal is whole
        moving = _moving(target)
        moving.unlink(missing_ok=True)
        os.link(staged / name, moving)
        moving.replace(target)
    sync_folder(corpus)
    (corpus / store.JOURNAL).unlink()
    shutil.rmtree(corpus / UNDO, ignore_errors=True)
    shutil.rmtree(staged, ignore_errors=True)


def _moving(target: Path) -> Path:
    return target.with_name(f"{target.name}.wip")


def _sync_tree(corpus: Path) -> None:
    for folder, _, _ in os.walk(corpus):
        sync_folder(Path(folder))
