"""What a long command would do: files, slices, shards, bytes, hours, before it does anything.

Nothing is opened but the heads of corpora, and nothing is written. A whole number stands for a
corpus of so many slices, so that a run can be costed before its data exist. What an audit costs is
computed in `flows/costs.py`; here its inputs are counted and its answer is put into words.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fingerprint.corpus import store
from fingerprint.search import tiling
from fingerprint.search.triangle import Triangle, outline, shape_of
from fingerprint.settings import Settings
from flows import costs
from flows.places import gpus, lanes

BYTES_A_SLICE = 512 * 512 * 2  # as scanners store them
SLICES_A_PATIENT = 118  # paper 000: 1,002,012 slices of 8,463 scans
SLICES_A_SECOND = 100.0  # ingest, one core
PACKED = 1.7  # blosc-lz4 with bitshuffle on CT
SURVEY_FILES, READ_SLICES, WRITE_CHUNKS = 512, 1024, 16


@dataclass(frozen=True)
class Source:
    """One input of an audit: how many slices of how many patients, and what it would be to ingest.

    `name` tells two inputs apart: the digest of a corpus, else the path or the number.
    """

    name: str
    slices: int
    patients: int
    side: int
    chunk: int
    ingest: dict[str, Any]


def of_ingest(sources: Sequence[str], settings: Settings, cluster: str = "local") -> dict[str, Any]:
    """Return the forecast of an ingest."""
    files, size = _count(sources)
    slices = min(max(files, size // BYTES_A_SLICE), max(files, 1) * 4096) if files else 0
    return _ingest(files, size, slices, settings, cluster)


def of_audit(
    real: str,
    generated: str,
    controls: str | None,
    settings: Settings,
    *,
    cluster: str = "local",
) -> dict[str, Any]:
    """Return the forecast of an audit, a flat table; folders are counted as if they were scans.

    Raises
    ------
    ValueError
        A source that is not there; a run whose workers would need more than ``memory_gib``.
    """
    asked = {"real": real, "generated": generated} | ({"control": controls} if controls else {})
    sources = {role: _source(text, role, settings, cluster) for role, text in asked.items()}
    told = _heading(settings, cluster)
    if sources["real"].name == sources["generated"].name:
        one = sources["real"]
        return told | _inputs({"real": one}) | _of_itself(one, settings, cluster)
    return told | _inputs(sources) | _of_blocks(sources, settings, cluster)


def whole_number(text: str) -> bool:
    """Whether a source is a number of slices rather than a path."""
    return text.isascii() and text.isdecimal() and not Path(text).exists()


def refuse_numbers(*sources: str | None) -> None:
    """Refuse a number in place of a corpus: only a forecast knows what to do with it.

    Raises
    ------
    ValueError
    """
    for text in filter(None, sources):
        if whole_number(text):
            raise ValueError(
                f"audit: {text} is neither a corpus nor a folder; a number of slices can be "
                "planned with --dry-run, not run"
            )


# -- what there is


def _source(text: str, role: str, s: Settings, cluster: str) -> Source:
    if whole_number(text):
        n = int(text)
        return Source(text, n, _patients(n, role), s.size_px, s.chunk_slices, {})
    if store.is_corpus(Path(text)):
        head = store.pointer(Path(text))["attributes"]
        people = int(head["summary"].get("participants") or 0)
        n = int(head["n"])
        return Source(
            str(head["digest"]),
            n,
            n if role == "generated" else people,
            int(head["size_px"]),
            int(head["chunk_slices"]),
            {},
        )
    known = of_ingest([text], s, cluster)
    n = known["files"] if role == "generated" else known["slices"]
    told = {f"ingest.{role}.{name}": value for name, value in known.items()}
    path = str(Path(text).resolve())
    return Source(path, n, _patients(n, role), s.size_px, s.chunk_slices, told)


def _patients(slices: int, role: str) -> int:
    """Patients among so many slices; each generated image stands for itself."""
    return slices if role == "generated" else -(-slices // SLICES_A_PATIENT)


def _inputs(sources: dict[str, Source]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for role, source in sources.items():
        told |= {f"slices.{role}": source.slices}
        if role != "generated":
            told |= {f"patients.{role}": source.patients}
    for source in sources.values():
        told |= source.ingest
    return told


def _heading(s: Settings, cluster: str) -> dict[str, Any]:
    rates = _rates(cluster)
    known = "measured on" if rates.measured else "assumed for"
    return {
        "cluster": cluster,
        "workers": _workers(s, cluster),
        "rates": f"{known} {rates.name}",
    }


# -- what it costs


def _of_blocks(sources: dict[str, Source], s: Settings, cluster: str) -> dict[str, Any]:
    real, blocks = sources["real"], blocks_of(sources, s)
    size = {"side": real.side, "chunk": max(source.chunk for source in sources.values())}
    band = costs.band_of(blocks, s, **size)
    bank = _bank(blocks, s, size["chunk"]) if s.pose else costs.Bank()
    phases = costs.of_phases(blocks, s, band=band, bank=bank, rates=_rates(cluster), **size)
    slices = sum(source.slices for source in sources.values())
    told: dict[str, Any] = {f"queries.{b.set_name}": b.queries for b in blocks}
    told |= {"poses_of_a_query": bank.poses, "queries.in_a_band": band}
    kept = {"correlation.zarr": costs.matrix(blocks, 3 if bank.poses else 1)}
    if s.register_patients:
        asked = sum(b.queries for b in blocks if b.against == "real")
        kept |= {"registration.zarr": costs.BENT * asked}
    if s.keep_matrix:
        kept |= {"matrix.zarr": costs.pairs_matrix(blocks)}
        tiling.within_cap(kept["matrix.zarr"], s.keep_matrix_gib)
    memory = {
        "worker": costs.worker_bytes(blocks, s, band=band, bank=bank, **size),
        "flow": costs.flow_bytes(blocks, slices, s, band),
    }
    return told | _table(phases, memory, kept, sources, s, cluster)


def _of_itself(real: Source, s: Settings, cluster: str) -> dict[str, Any]:
    shape = _triangle(real, s)
    plan = outline(shape, block=s.block_slices, side=real.side, keep=s.keep_itself)
    cost = costs.itself(plan, side=real.side, rates=_rates(cluster))
    folding = costs.FLOW_BASE + costs.FLOW_SLICE * real.slices + plan.result_bytes
    memory = {"worker": plan.memory_bytes, "flow": folding}
    kept = {"correlation.zarr": plan.result_bytes * 3 // 2}  # who is written beside r and slice
    told = {"pairs": plan.pairs, "queries.in_a_band": plan.band}
    return told | _table({"search": cost}, memory, kept, {"real": real}, s, cluster)


def _table(
    phases: dict[str, costs.Cost],
    memory: dict[str, int],
    kept: dict[str, int],
    sources: dict[str, Source],
    s: Settings,
    cluster: str,
) -> dict[str, Any]:
    """Put counts, bytes and hours of the phases side by side, with their totals."""
    workers = _workers(s, cluster)
    written = {f"ledger.{name}": cost.written for name, cost in phases.items()} | kept
    ingest = sum(
        value
        for source in sources.values()
        for key, value in source.ingest.items()
        if key.endswith(".hours")
    )
    hours = ({"ingest": ingest} if ingest else {}) | {
        name: cost.hours(workers) for name, cost in phases.items()
    }
    columns = {
        "shards": {name: cost.shards for name, cost in phases.items()},
        "multiply_adds": {n: c.multiply_adds for n, c in phases.items() if c.multiply_adds},
        "bytes_read": {n: c.read for n, c in phases.items() if c.read},
        "bytes_written": written,
        "hours": hours,
    }
    told: dict[str, Any] = {
        "memory.worker_bytes": memory["worker"],
        "memory.worker_limit_bytes": int(s.memory_gib * 2**30),
        "memory.flow_bytes": memory["flow"],
    }
    for column, values in columns.items():
        told |= {f"{column}.{name}": _rounded(value) for name, value in values.items()}
        told[f"{column}.total"] = _rounded(sum(values.values()))
    return told


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.4g}")


def blocks_of(sources: dict[str, Source], s: Settings) -> list[costs.Block]:
    """Return the blocks A to E of METHOD.md, section 3.0, as far as the inputs allow them."""
    real, generated = sources["real"], sources["generated"]
    asked = {"generated": min(generated.slices, s.sample or generated.slices)}
    if "control" in sources:
        asked["control"] = min(s.controls, sources["control"].slices)
    elif real.patients > 1:
        asked["control"] = min(s.controls, real.slices)
    compared = dict(asked)  # with the other corpora too
    if s.canaries and real.patients > 1:
        grades = import_module("fingerprint.phantom.canaries").GRADES  # late: it loads scipy
        asked["canary"] = s.canaries * sum(map(len, grades.values()))
    blocks = [costs.Block("real", k, q, real.slices, real.patients) for k, q in asked.items()]
    if "control" in sources:
        of = sources["control"]
        blocks += [
            costs.Block("control", k, q, of.slices, of.patients) for k, q in compared.items()
        ]
    q = asked["generated"]
    return [*blocks, costs.Block("generated", "generated", q, generated.slices, q)]


# -- what the search will do, asked of the search itself


def _bank(blocks: Sequence[costs.Block], s: Settings, chunk: int) -> costs.Bank:
    """Ask the search how it cuts its poses, and refuse what does not fit into a worker.

    Raises
    ------
    ValueError
    """
    # these load torch, which alone takes a second: only if poses are searched
    pose, screen, candidates = (
        import_module(f"fingerprint.search.{name}") for name in ("pose", "screen", "candidates")
    )
    grid = pose.grid_of(s)
    met = max(b.met(screen.SHARD) for b in blocks)
    need = {
        "shift_px": screen.bytes_needed(grid, met=met),
        "refine_64": candidates.bytes_needed(s, side=costs.MID_PX, chunk=chunk),
    }
    knob = max(need, key=need.__getitem__)
    total = tiling.BASE_BYTES + need[knob]
    if total > s.memory_gib * 2**30:
        raise ValueError(
            f"memory_gib: the search over poses needs {total / 2**30:.2f} GiB, the limit is "
            f"{s.memory_gib:g}; raise memory_gib, or lower {knob}"
        )
    return costs.Bank(len(grid), screen.band_of(grid), screen.SHARD, candidates.QUERIES, need[knob])


def _triangle(real: Source, s: Settings) -> Triangle:
    return shape_of(real.slices, s, side=real.side, chunk=real.chunk)


def _rates(cluster: str) -> costs.Rates:
    return costs.GPU if cluster == "cuda" else costs.CPU


def _workers(s: Settings, cluster: str) -> int:
    """Return how many workers there will be; of a scheduler elsewhere, what the settings say."""
    if cluster == "serial":
        return 1
    if cluster in ("local", "threads"):
        return lanes(s)
    return s.workers or (max(1, gpus()) if cluster == "cuda" else 1)


# -- ingest


def _ingest(files: int, size: int, slices: int, s: Settings, cluster: str) -> dict[str, Any]:
    step = WRITE_CHUNKS * s.chunk_slices
    cuts = ((files, SURVEY_FILES), (slices, READ_SLICES), (slices, step))
    seconds = slices / SLICES_A_SECOND / _workers(s, "local" if cluster == "cuda" else cluster)
    return {
        "files": files,
        "bytes_in": size,
        "slices": slices,
        "shards": sum(-(-a // b) for a, b in cuts),
        "bytes_out": int(slices * s.size_px**2 / PACKED),
        "hours": _rounded(seconds / 3600),
    }


def _count(sources: Sequence[str]) -> tuple[int, int]:
    """Return the number of files below the sources and their bytes."""
    found = [Path(source) for source in sources]
    for source in found:
        if not source.exists():
            raise ValueError(f"source: {source} is not there")
    files = [p for p in found if p.is_file()]
    for folder in (p for p in found if p.is_dir()):
        files += [Path(top) / name for top, _, names in os.walk(folder) for name in names]
    return len(files), sum(p.lstat().st_size for p in files)
