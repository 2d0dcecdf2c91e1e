"""What an audit costs, from counts alone: shards, bytes, multiply-adds, seconds.

One block is a set of queries compared with a corpus (METHOD.md, section 3.0). The formulas stand
here and nowhere else; the rates are those of one worker, measured on the machine that each names.

    plant    every canary is made once, at full size
    search   s x pixels bytes are decoded for every band of queries; q x s x pixels multiply-adds
    poses    every query is moved n times, at 32 x 32
    screen   q x n x s x 384 multiply-adds: what is kept of 32 x 32
    refine   the best patients of every query at 64 px, the best of those at 128 px
    register the listed pairs at full size: affine, the most alike of them elastic

On CPU cores decoding and multiplying share the core and their times add up; a GPU overlaps decoding
(by CPU threads), copy and product, so that the slowest decides; queries are moved and candidates
aligned by the cores beside it. Reading from disks is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fingerprint.corpus.screen import PIXELS, SIDE
from fingerprint.search import tiling
from fingerprint.search.triangle import Outline
from fingerprint.settings import Settings

MID_PX = 128
PAIR_IMAGES = 128  # float32 images while one pair is registered and scored: 102 measured
PLANTED_TOGETHER = 16  # canaries in one shard
ALIGNED_TOGETHER = 4  # queries in one shard of the registration
NEIGHBOURS = 64  # slices beside the best few of a query, at 128 px, at most
REGISTERED = 240  # bytes of one registered pair: map, scores, warp
BENT = 36_000  # bytes of the field and the tiles of a query's best pair
REFINED = 80  # bytes of one refined pair: slice, patient, pose, r on three images
PLANNED = 16  # bytes of a candidate in the plan
BINS = 4096
ENTRY = 16  # bytes of r and its slice
POSE_ENTRY = 57  # bytes beside those: pose (4 x 8 + 1), r on three images


@dataclass(frozen=True)
class Rates:
    """How fast one worker is: a core, or a GPU with the cores beside it.

    Attributes
    ----------
    decode : bytes of pixels in a second, from stored bytes that were checked
    copy : bytes in a second to the device
    raw : multiply-adds in a second, 8-bit, at full size
    finish : pairs in a second: sums to r, best of each patient, histogram
    screen : multiply-adds in a second, 8-bit, with the maximum over poses
    moved : posed queries in a second, quantised
    aligned : pixels of candidates in a second, refined to the end
    affine, elastic : pixels of pairs in a second, registered and scored
    planted : pixels of canaries in a second
    overlapped : whether decode, copy and product run side by side
    """

    name: str
    measured: bool
    decode: float
    copy: float
    raw: float
    finish: float
    screen: float
    moved: float
    aligned: float
    affine: float
    elastic: float
    planted: float
    overlapped: bool


CPU = Rates(
    name="one core with AVX-512 VNNI, 2.1 GHz",
    measured=True,
    decode=1.6e9,
    copy=math.inf,
    raw=4.0e11,
    finish=4e7,
    screen=3.9e11,
    moved=1.0e5,
    aligned=8e6,
    affine=2.8e6,
    elastic=7e5,
    planted=4e6,
    overlapped=False,
)
GPU = Rates(
    name="one H200 fed by 16 cores",
    measured=False,
    decode=2.0e10,
    copy=5.0e10,
    raw=4.0e14,
    finish=1e10,
    screen=1.5e14,
    moved=16 * 1.0e5,
    aligned=16 * 8e6,
    affine=50 * 2.8e6,
    elastic=50 * 7e5,
    planted=16 * 4e6,
    overlapped=True,
)
FOLD = 2e8  # bytes in a second, by the process of the flow: values read back, matrix written
FLOW_BASE = 600 * 2**20  # bytes of the flow's process with its libraries and its Prefect client
FLOW_SLICE = 500  # bytes there for the labels of one slice and its places in the plan: 210 measured
LISTED = 400  # bytes there for one row of the matches


@dataclass(frozen=True)
class Block:
    """A set of queries and the corpus that it is compared with."""

    against: str
    set_name: str
    queries: int
    slices: int
    patients: int

    def met(self, shard: int) -> int:
        """Patients of whom some slices lie in one shard, about."""
        share = min(shard, self.slices) * self.patients
        return min(self.patients, -(-share // max(self.slices, 1)) + 1)


@dataclass(frozen=True)
class Bank:
    """How the search over poses is cut, as `search.screen` and `search.candidates` have it.

    Attributes
    ----------
    poses : int
        Of one query; 0: they are not searched.
    band, shard : int
        Queries moved, and slices multiplied, together.
    refined : int
        Queries in one shard of the refinement: they share the chunks that they read.
    memory : int
        Bytes that the largest of their tiles takes.
    """

    poses: int = 0
    band: int = 1
    shard: int = 1
    refined: int = 1
    memory: int = 0


@dataclass(frozen=True)
class Cost:
    """What a phase costs; two of them add up.

    Attributes
    ----------
    seconds : float
        Of workers, all together.
    alone : float
        Seconds of the flow's process, which has no helpers.
    """

    shards: int = 0
    read: int = 0
    written: int = 0
    multiply_adds: int = 0
    seconds: float = 0.0
    alone: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.shards + other.shards,
            self.read + other.read,
            self.written + other.written,
            self.multiply_adds + other.multiply_adds,
            self.seconds + other.seconds,
            self.alone + other.alone,
        )

    def hours(self, workers: int) -> float:
        """Wall time on so many workers; a shard is never split between two."""
        lanes = max(1, min(workers, self.shards))
        return (self.seconds / lanes + self.alone) / 3600


def of_phases(
    blocks: Sequence[Block],
    s: Settings,
    *,
    side: int,
    chunk: int,
    band: int,
    bank: Bank,
    rates: Rates,
) -> dict[str, Cost]:
    """Return what each phase of an audit costs, by name and in order.

    Parameters
    ----------
    side, chunk : int
        Of a stored slice, in pixels; slices in a stored chunk.
    band : int
        Queries in one tile of the search.
    """
    planted = sum(b.queries for b in blocks if b.set_name == "canary")
    phases = {"plant": _plant(planted, side, rates)} if planted else {}
    phases |= {"search": _sum(_search(b, s, side, band, rates) for b in blocks)}
    if bank.poses:
        sets = {b.set_name: b.queries for b in blocks}
        phases |= {
            "poses": _sum(_poses(queries, bank, rates) for queries in sets.values()),
            "screen": _sum(_screen(b, bank, rates) for b in blocks),
            "refine": _sum(_refine(b, s, bank, chunk, rates) for b in blocks),
        }
    if s.register_patients:
        listed = (b for b in blocks if b.against == "real")
        phases["register"] = _sum(_register(b, s, side, chunk, rates) for b in listed)
    return phases


def itself(plan: Outline, *, side: int, rates: Rates) -> Cost:
    """Return what it costs to compare a corpus with itself, each pair once."""
    read, written = plan.decoded * side * side, plan.ledger_bytes
    multiplied = plan.multiply_adds / rates.raw + plan.pairs / rates.finish
    seconds = _streamed(read, multiplied, rates)
    return Cost(plan.shards, read, written, plan.multiply_adds, seconds, written / FOLD)


def matrix(blocks: Sequence[Block], stages: int) -> int:
    """Return the bytes of ``correlation.zarr`` before compression, an upper bound."""
    cells = sum(b.queries * b.patients for b in blocks)
    return cells * (2 * stages * ENTRY + (POSE_ENTRY if stages == 3 else 0))


def pairs_matrix(blocks: Sequence[Block]) -> int:
    """Return the bytes of r of every query and slice."""
    return 8 * sum(b.queries * b.slices for b in blocks)


def flow_bytes(blocks: Sequence[Block], slices: int, s: Settings, band: int) -> int:
    """Return the memory of the process that plans and folds: labels, and one band of the matrix.

    Parameters
    ----------
    slices : int
        Of all corpora of the audit.
    """
    patients = max(b.patients for b in blocks)
    met = max(b.met(s.shard_slices) for b in blocks)
    folded = tiling.bytes_folded(band=band, patients=patients, met=met)
    queries = sum({b.set_name: b.queries for b in blocks}.values())
    listed = LISTED * s.keep_patients * queries
    planned = PLANNED * sum(b.queries * min(s.refine_64, b.patients) for b in blocks) * s.pose
    return FLOW_BASE + FLOW_SLICE * slices + folded + listed + planned


def worker_bytes(
    blocks: Sequence[Block], s: Settings, *, band: int, bank: Bank, side: int, chunk: int
) -> int:
    """Return the largest memory of one worker."""
    tile = tiling.bytes_needed(
        band=band,
        block=s.block_slices,
        chunk=chunk,
        side=side,
        met=max(b.met(s.shard_slices) for b in blocks),
        kept=s.shard_slices if s.keep_matrix else 0,
    )
    return tiling.BASE_BYTES + max(tile, bank.memory, _registering(s, side, chunk))


def _registering(s: Settings, side: int, chunk: int) -> int:
    """Bytes of one shard of the registration: its images, a stored chunk, and one pair at work."""
    if not s.register_patients:
        return 0
    images = ALIGNED_TOGETHER * (1 + min(s.register_patients, s.keep_patients))
    return (images + 2 * chunk + PAIR_IMAGES * 4) * side * side


def band_of(blocks: Sequence[Block], s: Settings, *, side: int, chunk: int) -> int:
    """Return how many queries a tile of the search takes.

    Raises
    ------
    ValueError
        Not even a few fit into the memory of a worker; the knobs are named.
    """
    return tiling.band_for(
        s,
        side=side,
        chunk=chunk,
        patients=max(b.patients for b in blocks),
        met=max(b.met(s.shard_slices) for b in blocks),
        kept=s.shard_slices if s.keep_matrix else 0,
    )


# -- one block


def _plant(canaries: int, side: int, rates: Rates) -> Cost:
    pixels = canaries * side * side
    shards = _cuts(canaries, PLANTED_TOGETHER)
    return Cost(shards, 2 * pixels, pixels, 0, pixels / rates.planted, pixels / FOLD)


def _search(b: Block, s: Settings, side: int, band: int, rates: Rates) -> Cost:
    bands, shards = _cuts(b.queries, band), _cuts(b.slices, s.shard_slices)
    pairs = b.queries * b.slices
    read, products = bands * b.slices * side * side, pairs * side * side
    seconds = _streamed(read, products / rates.raw + pairs / rates.finish, rates)
    written = _tile_bytes(b, bands, s.shard_slices) + (8 * pairs if s.keep_matrix else 0)
    return Cost(bands * shards, read, written, products, seconds, written / FOLD)


def _poses(queries: int, bank: Bank, rates: Rates) -> Cost:
    written = queries * bank.poses * PIXELS
    seconds = queries * bank.poses / rates.moved
    return Cost(_cuts(queries, bank.band), written=written, seconds=seconds)


def _screen(b: Block, bank: Bank, rates: Rates) -> Cost:
    bands, shards = _cuts(b.queries, bank.band), _cuts(b.slices, bank.shard)
    read = bands * b.slices * SIDE**2 + bands * shards * bank.band * bank.poses * PIXELS
    products = b.queries * bank.poses * b.slices * PIXELS
    seconds = products / rates.screen + b.queries * b.slices / rates.finish
    written = _tile_bytes(b, bands, bank.shard)
    return Cost(bands * shards, read, written, products, seconds, written / FOLD)


def _refine(b: Block, s: Settings, bank: Bank, chunk: int, rates: Rates) -> Cost:
    half = min(s.refine_64, b.patients) + min(s.keep_patients, b.patients)
    full = min(s.refine_128, half) + NEIGHBOURS
    shards = _cuts(b.queries, bank.refined)
    slices = min(bank.refined, b.queries) * (half + NEIGHBOURS)
    chunks = _distinct(slices, _cuts(b.slices, chunk))
    read = shards * chunks * chunk * MID_PX**2
    pixels = b.queries * (half * (MID_PX // 2) ** 2 + full * MID_PX**2)
    written = b.queries * full * REFINED
    # the pose of the grid is found again: the screen keeps none
    seconds = read / rates.decode + b.queries * bank.poses / rates.moved + pixels / rates.aligned
    return Cost(shards, read, written, 0, seconds, written / FOLD)


def _register(b: Block, s: Settings, side: int, chunk: int, rates: Rates) -> Cost:
    most = min(s.register_patients, s.keep_patients, b.patients)
    most = most if b.set_name == "generated" else min(most, 1)
    bent = min(s.elastic_patients, most)
    shards, pixels = _cuts(b.queries, ALIGNED_TOGETHER), b.queries * side * side
    chunks = _distinct(min(ALIGNED_TOGETHER, b.queries) * most, _cuts(b.slices, chunk))
    read = shards * chunks * chunk * side * side
    seconds = read / rates.decode + pixels * (most / rates.affine + bent / rates.elastic)
    written = b.queries * (most * REGISTERED + BENT)
    return Cost(shards, read, written, 0, seconds, written / FOLD)


def _distinct(draws: int, of: int) -> int:
    """Count the chunks that so many slices lie in, if they lie anywhere."""
    return math.ceil(of * -math.expm1(draws * math.log1p(-1 / of))) if of > 1 else 1


def _streamed(read: int, multiplied: float, rates: Rates) -> float:
    if rates.overlapped:
        return max(read / rates.decode, read / rates.copy, multiplied)
    return read / rates.decode + multiplied


def _tile_bytes(b: Block, bands: int, shard: int) -> int:
    """Bytes of the best of each patient that a tile met, and of its histogram, over all tiles."""
    met = b.met(shard)
    return _cuts(b.slices, shard) * (2 * ENTRY * b.queries * met + bands * 8 * (met + BINS))


def _cuts(n: int, step: int) -> int:
    return -(-n // max(step, 1))


def _sum(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())
