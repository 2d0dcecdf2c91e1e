"""Which image, which grid, how many are kept: planted copies of real slices, and who stands above.

    python tests/bench/pose_study.py docs/pose.md

Reads the real CT that FINGERPRINT_DATA names (its README says what that is). Every number of the
page it writes comes from the run that wrote it.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from pose_copies import (
    BOOTSTRAPS,
    PATIENTS,
    SEED,
    SLICES,
    Change,
    Copies,
    Data,
    Found,
    Scores,
    copies_of,
    found,
    intervals,
    load,
    members,
    scores_of,
)
from pose_images import IMAGES_TRIED, Image, tried

from fingerprint.corpus.scan import sums
from fingerprint.corpus.screen import PIXELS, SIDE, inside, screen_of
from fingerprint.corpus.window import fit
from fingerprint.search import pose, refine
from fingerprint.search.align import Limits
from fingerprint.search.candidates import MARGIN
from fingerprint.search.correlate import correlate, queries_from, slices_from
from fingerprint.search.pose import Grid, grid_of
from fingerprint.settings import IMAGES, Settings

PER_GROUP = 10  # copies in the main set; one per group at each level of a factor
PER_GROUP_OF_CHOICES = 3
KEPT = (32, 64, 128, 256, 512, 1024)
COMMAND = "python tests/bench/pose_study.py docs/pose.md"
MOVED = Change(15, 0.10, 40, 6, 1.4, whole=False)


# -- scores, (q, s) each


def raw_r(data: Data, copies: Copies) -> np.ndarray:
    queries, slices = (
        make(stack, *sums(stack))
        for make, stack in ((queries_from, copies.pixels), (slices_from, data.pixels))
    )
    return np.concatenate(
        [correlate(queries, slices[i : i + 256]).numpy() for i in range(0, len(slices), 256)], 1
    )


def screened(data: Data, mids: np.ndarray, grid: Grid) -> np.ndarray:
    """Return r of the screen, as the search computes it."""
    screens = inside(screen_of(fit(data.pixels, SIDE, 0)[0]))
    lengths = np.linalg.norm(screens.astype(float), axis=1)
    out = []
    for i in range(0, len(mids), 32):
        rows = pose.posed(mids[i : i + 32], grid)
        best = pose.best_over_poses(torch.from_numpy(rows), torch.from_numpy(screens)).numpy()
        out.append(best / (pose.norms_of(rows)[:, None] * lengths))
    return np.concatenate(out)


def refined(data: Data, mids: np.ndarray, r: np.ndarray, grid: Grid) -> np.ndarray:
    """Return r of the primary image at 128 px, of the best slice of each group; others NaN."""
    s = Settings()
    limits = Limits(
        s.angle_deg + MARGIN.angle_deg, s.scale + MARGIN.scale, s.shift_px + MARGIN.shift_px
    )
    small, scored = refine.coarse_images(data.mids), refine.scored_images(data.mids)
    screens = inside(screen_of(fit(data.pixels, SIDE, 0)[0])).astype(np.float32)
    out = np.full(r.shape, np.nan)
    for i, mid in enumerate(mids):
        best = np.array([np.flatnonzero(m)[r[i, m].argmax()] for m in members(data)])
        rows = pose.posed(mid[None], grid)[0].astype(np.float32)  # integers below 2^24: exact
        starts = grid.poses[(screens[best] @ rows.T).argmax(1)]
        poses, _ = refine.coarse(refine.coarse_images(mid[None]), small[best], starts, limits)
        _, fine = refine.fine(refine.scored_images(mid[None]), scored[best], poses, limits)
        out[i, best] = fine[IMAGES.index(s.image)]
    return out


# -- the page


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def count(x: float) -> str:
    return f"{x:,.0f}" if x >= 10 else f"{x:.1f}" if x >= 0.05 else "0"


def cells(f: Found) -> list[str]:
    middle, high = np.percentile(f.above, [50, 90])
    return [
        f"{np.mean(f.rank == 1):.3f}", f"{np.mean(f.rank <= 10):.3f}", count(middle), count(high),
    ]  # fmt: skip


FACTOR_HEAD = [
    "change",
    "raw r: top 10",
    "screen: source first",
    "in the top 10",
    "strangers above, median",
    "90 %",
    "within 1,024",
    "refined: first",
    "in the top 10",
    "within 32",
]
HEAD = ["source first", "in the top 10", "strangers above, median", "90 %"]
FACTORS: dict[str, tuple[str, list[Change]]] = {
    "angle": ("{0.angle_deg:g}°", [Change(angle_deg=v) for v in (0, 5, 10, 15, 20, 25)]),
    "scale": ("{0.scale:.0%}", [Change(scale=v) for v in (0.05, 0.10, 0.15, 0.20)]),
    "shift": ("{0.shift_px:g} px", [Change(shift_px=v) for v in (20, 40, 60)]),
    "elastic": ("{0.elastic_px:g} px", [Change(elastic_px=v) for v in (6, 12, 24)]),
    "gamma": ("{0.gamma:g} or its inverse", [Change(gamma=v) for v in (1.4, 2, 3)]),
    "noise": ("SD {0.noise:g} grey levels", [Change(noise=v) for v in (10, 20, 40, 80)]),
    "covered": ("{0.covered:.0%}", [Change(covered=v) for v in (0.25, 0.5, 0.75, 0.9)]),
}
GRIDS = (
    (10.0, 0.10, 16.0), (5.0, 0.08, 16.0), (6.0, 0.07, 10.0), (6.0, 0.07, 8.0), (4.5, 0.07, 8.0),
    (4.5, 0.05, 8.0), (3.0, 0.04, 8.0),
)  # fmt: skip


@functools.cache
def shared() -> tuple[Data, Grid]:
    """Return what every row needs, read once per process."""
    torch.set_num_threads(1)
    return load(Path(os.environ["FINGERPRINT_DATA"])), grid_of(Settings())


@functools.cache
def few() -> Copies:
    return copies_of(shared()[0], MOVED, PER_GROUP_OF_CHOICES, SEED + 2_000_000)


def factor(job: tuple[str, str, Change, int]) -> list[str]:
    name, label, change, seed = job
    data, grid = shared()
    copies = copies_of(data, change, 1, seed)
    r = screened(data, copies.mids, grid)
    raw, f, close = (
        found(scores_of(data, copies, values))
        for values in (raw_r(data, copies), r, refined(data, copies.mids, r, grid))
    )
    return [
        f"{name} {label.format(change)}",
        f"{np.mean(raw.rank <= 10):.2f}",
        *cells(f),
        f"{f.within(1024):.2f}",
        f"{np.mean(close.rank == 1):.2f}",
        f"{np.mean(close.rank <= 10):.2f}",
        f"{close.within(32):.2f}",
    ]


def choice(image: Image) -> list[str]:
    data, grid = shared()
    f = found(scores_of(data, few(), tried(data, few().mids, image, grid)))
    cost = len(grid) * (image.pixels or image.side**2) / 512**2
    return [image.name, f"{cost:.2f}", *cells(f)]


def one_grid(steps: tuple[float, float, float]) -> list[str]:
    data, used = shared()
    names = ("angle_step_deg", "scale_step", "shift_step_px")
    grid = grid_of(Settings(**dict(zip(names, steps, strict=True))))
    f = found(scores_of(data, few(), screened(data, few().mids, grid)))
    label = "{:g}°, {:.0%}, {:g} px".format(*steps) + (" (**used**)" if grid == used else "")
    return [label, f"{len(grid):,}", f"{len(grid) * PIXELS / 512**2:.2f}", *cells(f)]


def kept(job: tuple[str, Scores]) -> tuple[str, list[str], str]:
    """Recall against kept patients with intervals, and a line on the tail."""
    name, scores = job
    f = found(scores)
    low, high = intervals(scores, lambda one: [one.within(k) for k in KEPT])
    column = [
        f"{f.within(k):.3f} ({lo:.2f} to {hi:.2f})"
        for k, lo, hi in zip(KEPT, low, high, strict=True)
    ]
    note = (
        f"- {name}: shape of the tail {f.shape:+.2f}; share of strangers above the source, summed\n"
        f"  over copies: {f.counted:.3f} counted, {f.expected:.3f} by the tail."
    )
    return name, column, note


def shown(rows: Iterable[list[str]]) -> list[list[str]]:
    done = []
    for row in rows:
        print(*row, sep=" | ", flush=True)
        done.append(row)
    return done


@dataclass(frozen=True)
class Cost:
    raw_us: float
    screen_us: float
    ratio: float
    posed_ms: float


def cost(data: Data, grid: Grid) -> Cost:
    """Time product and maximum for a query and a slice, on one thread, in turn with the raw one."""
    queries = queries_from(data.pixels[:240], *sums(data.pixels[:240]))
    slices = slices_from(data.pixels[:512], *sums(data.pixels[:512]))
    rows = torch.from_numpy(pose.posed(data.mids[:24], grid))
    screens = inside(screen_of(fit(data.pixels, SIDE, 0)[0]))
    many = torch.from_numpy(np.tile(screens, (8, 1))[:4096].copy())
    seconds = []
    for _ in range(7):
        start = time.process_time()
        for i in range(0, 512, 256):
            correlate(queries, slices[i : i + 256])
        middle = time.process_time()
        pose.best_over_poses(rows, many)
        end = time.process_time()
        seconds.append(((middle - start) / 240 / 512, (end - middle) / 24 / 4096))
    start = time.process_time()
    pose.posed(data.mids[:24], grid)
    posed = (time.process_time() - start) / 24
    raw, screen = (statistics.median(column) for column in zip(*seconds[1:], strict=True))
    ratio = statistics.median(b / a for a, b in seconds[1:])
    return Cost(1e6 * raw, 1e6 * screen, ratio, 1e3 * posed)


PAGE = """# Finding a copy that moved

Regenerated by `make pose-study`: `{command}`.
Every number below comes from that run: seed {seed}, {minutes:.0f} minutes on {cores} cores
({machine}).

**Data.** {slices} real axial slices of {groups} groups: {dicom} slices of {dicom_groups} patients
(DICOM, -1000 to 1000 HU) and {pictures} 8-bit pictures of {picture_groups} groups of
near-duplicates. A group (all series of a patient, or all near-duplicates) is never split: its
slices are never strangers to each other. The pictures have no patient, so some strangers there may
be the same person: what is said of strangers is rather too high.

**Copies.** {copies} copies, {each} of slices of each group: elastic 6 px, then turned by up to 15°,
resized by up to 10 %, shifted by up to 40 px in a random direction, gamma between 1/1.4 and 1.4,
each drawn evenly (the shift evenly over the disc).

**Refined.** The best slice of each group is aligned at 64 and 128 px, from the best pose of the
grid, and scored by r of the {image} image. The search also tries the slices beside the best ones;
that is left out here.

**Strangers above.** A source is found if few strangers score higher. For each copy the Fisher z of
slices of other groups of the same kind is centred and scaled, every group with one weight; a
generalised Pareto tail is fitted to the highest hundredth of all of them together, and read at the
source's z. Its shape is held at 0 or more: a tail with an end would promise what so few groups
cannot show. The figure is for a corpus of {n:,} slices ({patients:,} patients). A patient counts
once however many of its slices are above, so it is an upper bound for patients. Of refined pairs
only the best slice of each group has a score; the corpus then counts as {as_groups:,.0f} groups of
{mean_slices:.1f} slices, as here. An extrapolation from {groups} groups to {patients:,} patients is
what it is; intervals are those of {boots} draws of groups with replacement.

## What is found

{main}

Within the best so many patients, of {n:,} slices, with 95 % intervals:

{kept}

{notes}

## By what was done to the copy

One change at a time, at its full strength, one copy of each group ({groups} copies in a row).
*Covered*: so much of the copy shows somebody else, all but a rectangle. The search covers 15°,
10 % and 40 px: what is beyond is there to show where it ends.

{factors}

## Which image

{chosen} copies as above, {poses} poses, float32. *Products, of raw*: multiply-adds for a query and
a slice, of those of raw r at 512 px.

{choices}

The ring outside of the {pixels} pixels holds skin, arms and table: it makes strangers alike, and a
small error of angle or scale moves it most. Leaving it out costs nothing and saves most.

## Which grid

The same copies, on the image that is used, int8 as in the search.

{grids}

## What it costs

On one core, in one run: raw r at 512 px {cost.raw_us:.2f} µs for a query and a slice; the screen
with its maximum over {poses} poses {cost.screen_us:.2f} µs, {cost.ratio:.1f} times as much. A
million slices take {cost.screen_us:.1f} s of a core for each query. Moving a query over the grid
takes {cost.posed_ms:.0f} ms, once.
"""


def main(out: Path) -> None:
    start = time.time()
    data, grid = shared()
    price = cost(data, grid)
    print(f"{len(data.group)} slices, {data.groups} groups, {len(grid)} poses", price, flush=True)
    jobs = [(name, label, change) for name, (label, many) in FACTORS.items() for change in many]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        each: dict[Callable[..., list[str]], list[list[str]]] = {}
        for row, work in (
            (choice, IMAGES_TRIED),
            (one_grid, GRIDS),
            (factor, [(*job, SEED + i) for i, job in enumerate(jobs)]),
        ):
            each[row] = shown(pool.map(row, work))
        copies, scores, rows = whole(data, grid)
        columns = list(pool.map(kept, scores.items()))
    for name, column, _ in columns:
        print(name, *column, sep=" | ", flush=True)
    dicom = data.kind == 0
    text = PAGE.format(
        command=COMMAND,
        seed=SEED,
        cores=os.cpu_count(),
        machine=platform.machine(),
        slices=len(data.group),
        groups=data.groups,
        dicom=int(dicom.sum()),
        dicom_groups=len(set(data.group[dicom])),
        pictures=int((~dicom).sum()),
        picture_groups=len(set(data.group[~dicom])),
        copies=len(copies.source),
        each=PER_GROUP,
        n=SLICES,
        patients=PATIENTS,
        boots=BOOTSTRAPS,
        as_groups=SLICES * data.groups / len(data.group),
        mean_slices=len(data.group) / data.groups,
        main=table(["score", *HEAD], rows),
        kept=table(
            ["patients kept", *scores],
            [[str(k), *(c[i] for _, c, _ in columns)] for i, k in enumerate(KEPT)],
        ),
        notes="\n".join(note for *_, note in columns),
        image=Settings().image,
        factors=table(FACTOR_HEAD, each[factor]),
        chosen=PER_GROUP_OF_CHOICES * data.groups,
        poses=f"{len(grid):,}",
        choices=table(["image", "products, of raw", *HEAD], each[choice]),
        pixels=PIXELS,
        grids=table(["largest steps", "poses", "products, of raw", *HEAD], each[one_grid]),
        cost=price,
        minutes=(time.time() - start) / 60,
    )
    out.write_text(text, encoding="utf-8")


def whole(data: Data, grid: Grid) -> tuple[Copies, dict[str, Scores], list[list[str]]]:
    """Score the main set, and the set in which every change is as large as it may be."""
    copies = copies_of(data, MOVED, PER_GROUP, SEED + 1_000_000)
    screen = screened(data, copies.mids, grid)
    close = refined(data, copies.mids, screen, grid)
    r = {"raw r, 512 px": raw_r(data, copies), "screen": screen, "refined, 128 px": close}
    scores = {name: scores_of(data, copies, values) for name, values in r.items()}
    rows = [[name, *cells(found(one))] for name, one in scores.items()]
    corner = copies_of(data, replace(MOVED, whole=True), 2, SEED + 3_000_000)
    screen = screened(data, corner.mids, grid)
    close = refined(data, corner.mids, screen, grid)
    for name, values in (("screen", screen), ("refined", close)):
        label = f"{name}, {len(values)} copies changed by the whole of each"
        rows.append([label, *cells(found(scores_of(data, corner, values)))])
    return copies, scores, rows


if __name__ == "__main__":
    if len(sys.argv) != 2 or "FINGERPRINT_DATA" not in os.environ:
        sys.exit(f"FINGERPRINT_DATA=folder-of-real-ct {COMMAND}")
    main(Path(sys.argv[1]))
