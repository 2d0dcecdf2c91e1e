"""The plan of a corpus against itself, in integers only: each pair of slices i < j once.

        j ->
    i   0 0 0 0 0 0     each digit a cell, a band of rows x a chunk of columns, and its shard
    |     0 0 1 1 1     cells are taken band by band, from left to right, and cut where a shard
    v       1 1 1 2     has its pairs: anywhere in a band, always on a chunk border, and on into
              2 2 2     the next; rows are held in memory, columns stream by

Cut by pairs and not by rows: equal numbers of rows would give the first shard twice the mean.
Everything is arithmetic on `Triangle`: a million slices against themselves are planned in a moment
and no shard is made before it is asked for.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from fingerprint.search.tiling import BASE_BYTES, Tile
from fingerprint.settings import Settings

ENTRY = 16  # bytes of r and its slice, as a shard leaves them
BINS = 4096  # as `best.BINS`, whose module loads torch
HEAD = 4096  # bytes of names and sizes in the file of a shard, more than enough
COPIES = 4  # of the lists of a shard, while its file is written
PARTS = 10  # arrays of 8 bytes a pair that one block takes: product, r, its parts, its best


@dataclass(frozen=True)
class Triangle:
    """All pairs i < j of `n` slices, in bands of rows and shards of nearly equal numbers of pairs.

    Attributes
    ----------
    n : int
        Slices.
    band : int
        Rows of a band, a multiple of `chunk`; the last band has what is left.
    chunk : int
        Slices in a stored chunk: columns are cut nowhere else.
    shard_pairs : int
        Pairs asked for in a shard; raised to two cells (`band` x `chunk`), so that none is empty.
    """

    n: int
    band: int
    chunk: int
    shard_pairs: int

    def __post_init__(self) -> None:
        sizes = (self.band, self.chunk, self.shard_pairs)
        if self.n < 0 or min(sizes) < 1 or self.band % self.chunk:
            raise ValueError(
                "Triangle: n >= 0, sizes >= 1 and a band of whole chunks are needed, got "
                f"n={self.n}, band={self.band}, chunk={self.chunk}, shard_pairs={self.shard_pairs}"
            )

    @property
    def pairs(self) -> int:
        """Number of unordered pairs, those of one patient among them."""
        return self.n * (self.n - 1) // 2

    @property
    def bands(self) -> int:
        return -(-self.n // self.band)

    @property
    def shards(self) -> int:
        return -(-self.pairs // max(self.shard_pairs, 2 * self.band * self.chunk))

    def tiles(self, shard: int) -> list[Tile]:
        """Return the tiles of one shard: rows [q0, q1) against columns [s0, s1), where i < j.

        Every pair lies in exactly one tile of all shards; the number of pairs in a shard differs
        from the mean by less than one cell.

        Raises
        ------
        IndexError
            There is no such shard.
        """
        if not 0 <= shard < self.shards:
            raise IndexError(f"tiles: shard must be below {self.shards}, got {shard}")
        (band, column), (last, end) = self._cut(shard), self._cut(shard + 1)
        found = []
        for b in range(band, last + 1):
            q0 = b * self.band
            s0 = column if b == band else q0
            s1 = end if b == last else self.n
            # rows at s1 and below have no column to their right here
            tile = Tile(q0, min(q0 + self.band, self.n, s1), s0, s1)
            if pairs_of(tile):
                found.append(tile)
        return found

    def _cut(self, shard: int) -> tuple[int, int]:
        """Return band and column where a shard begins: the last cell border before its pairs."""
        ideal = shard * self.pairs // self.shards
        band = bisect_right(range(self.bands), ideal, key=self._before) - 1
        q0 = band * self.band
        rest = ideal - self._before(band)
        width = min(self.band, self.n - q0)
        cells = range(-(-(self.n - q0) // self.chunk) + 1)
        cell = bisect_right(cells, rest, key=lambda c: _left_of(self._column(q0, c) - q0, width))
        return band, self._column(q0, cell - 1)

    def _column(self, q0: int, cell: int) -> int:
        return min(q0 + cell * self.chunk, self.n)

    def _before(self, band: int) -> int:
        """Count the pairs in all bands above this one."""
        rows = band * self.band
        return rows * (self.n - 1) - rows * (rows - 1) // 2


def pairs_of(tile: Tile) -> int:
    """Count the pairs i < j of a tile whose columns do not begin above its rows."""
    width = tile.q1 - tile.q0
    return _left_of(tile.s1 - tile.q0, width) - _left_of(tile.s0 - tile.q0, width)


def _left_of(x: int, width: int) -> int:
    """Count the pairs of `width` rows and the first `x` columns, counted from the diagonal."""
    if x <= width:
        return x * (x - 1) // 2
    return width * (width - 1) // 2 + (x - width) * width


# -- sizes


def most_lists(*, band: int, chunk: int, shard_pairs: int) -> int:
    """Return how many lists a shard leaves at most, for any number of slices.

    Columns: its pairs over the height of a band, and half a band more for each triangle on the
    diagonal. Rows: those of its bands; where it has many, they lie in the last corner.
    """
    pairs = max(shard_pairs, 2 * band * chunk) + 2 * band * chunk
    return pairs // band + 2 * math.isqrt(2 * pairs) + 2 * (band + chunk)


def bytes_needed(
    *, band: int, block: int, chunk: int, side: int, shard_pairs: int, keep: int
) -> int:
    """Memory that one shard takes, from the settings alone: independent of the number of slices.

    The band as int8; pages of slices on their way (two, of whole chunks) and one of the diagonal;
    arrays of block x band; the lists of a shard, in some copies while its file is written.
    """
    pages = (2 * max(1, block // chunk) * chunk + 2 * chunk + block) * side * side
    lists = COPIES * ENTRY * keep * most_lists(band=band, chunk=chunk, shard_pairs=shard_pairs)
    return BASE_BYTES + band * side * side + pages + PARTS * 8 * band * block + lists


def shape_of(n: int, settings: Settings, *, side: int, chunk: int) -> Triangle:
    """Return how a corpus of `n` slices is cut, from the settings alone.

    Raises
    ------
    ValueError
        The memory of a worker is too small for any cut.
    """
    return triangle_of(
        n,
        rows=settings.band_queries,
        memory=int(settings.memory_gib * 2**30),
        block=settings.block_slices,
        chunk=chunk,
        side=side,
        shard_pairs=settings.shard_pairs,
        keep=settings.keep_itself,
    )


def triangle_of(
    n: int,
    *,
    rows: int,
    memory: int,
    block: int,
    chunk: int,
    side: int,
    shard_pairs: int,
    keep: int,
) -> Triangle:
    """Choose the bands: at most `rows` (0: any number), and no more than the memory holds.

    A tile is about square at most: its rows are read as well as its columns, and what a shard
    leaves grows with their sum, while its pairs grow with their product.

    Raises
    ------
    ValueError
        No band of whole chunks fits into the memory.
    """
    if rows < 0 or chunk < 1:
        raise ValueError(f"triangle_of: rows >= 0 and chunk >= 1 are needed, got {rows}, {chunk}")
    all_chunks = max(1, -(-n // chunk))
    most = max(1, min(math.isqrt(shard_pairs), rows or n) // chunk)
    # a small corpus has fewer pairs than a shard may have
    pairs = max(1, min(shard_pairs, n * n // 2))
    sizes = {"block": block, "chunk": chunk, "side": side, "shard_pairs": pairs, "keep": keep}
    need = {
        chunks: bytes_needed(band=chunks * chunk, **sizes)
        for chunks in range(1, min(most, all_chunks) + 1)
    }
    # half is the allocator's, as for a tile of the search: what is freed is kept for the next array
    room = min(memory, memory // 2 + BASE_BYTES)
    fit = [chunks for chunks, size in need.items() if size <= room]
    if not fit:
        raise ValueError(
            f"memory_gib: a worker would need {min(need.values()) / 2**30:.2f} GiB, "
            f"{room / 2**30:.2f} of {memory / 2**30:.2f} are free for it; "
            "raise memory_gib, or lower block_slices or shard_pairs"
        )
    return Triangle(n, fit[-1] * chunk, chunk, shard_pairs)


@dataclass(frozen=True)
class Outline:
    """What comparing a corpus with itself costs, by arithmetic alone.

    Attributes
    ----------
    pairs : int
        Of slices, those of one patient among them.
    shards, bands, band : int
        `band`: rows of a band.
    decoded : int
        Slices read and decoded, at most: each band once for every shard that works on it, and all
        slices to its right.
    lists : int
        Lists that all shards leave, at most: one for each row and column of their tiles.
    multiply_adds : int
    ledger_bytes, result_bytes, memory_bytes : int
        Of all shards; of the lists in the end (also what folding them holds); of one worker.
    """

    pairs: int
    shards: int
    bands: int
    band: int
    decoded: int
    lists: int
    multiply_adds: int
    ledger_bytes: int
    result_bytes: int
    memory_bytes: int


def outline(shape: Triangle, *, block: int, side: int, keep: int) -> Outline:
    """Cost a plan without making its shards."""
    n, bands, shards = shape.n, shape.bands, shape.shards
    # the sum of n - q0 over bands, and what each cut inside a band reads and leaves again
    columns = bands * n - shape.band * bands * (bands - 1) // 2
    rows = n + max(0, shards - 1) * min(shape.band, n)
    lists = rows + columns if shards else 0
    return Outline(
        pairs=shape.pairs,
        shards=shards,
        bands=bands,
        band=shape.band,
        decoded=rows + columns - n if shards else 0,
        lists=lists,
        multiply_adds=shape.pairs * side * side,
        ledger_bytes=lists * keep * ENTRY + shards * (8 * BINS + HEAD),
        result_bytes=n * keep * ENTRY,
        memory_bytes=bytes_needed(
            band=shape.band,
            block=block,
            chunk=shape.chunk,
            side=side,
            shard_pairs=shape.shard_pairs,
            keep=keep,
        ),
    )
