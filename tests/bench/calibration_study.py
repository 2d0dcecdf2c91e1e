"""Is the verdict calibrated on real slices? Many audits without a copy, and with known copies.

    python tests/bench/calibration_study.py docs/calibration.md

One search gives z of every slice, and of copies of slices, with every patient. An audit is then a
draw: some patients are the real corpus, the others stand for a generator that copies nobody; copies
of real slices are added. Controls are drawn from the real corpus, each without its own patient.
Reads the real CT that FINGERPRINT_DATA names. Every number of the page comes from the run that
wrote it.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import numpy as np  # noqa: E402 - it reads the variable above
import pandas as pd  # noqa: E402
from corpora import make_corpus  # noqa: E402
from pose_copies import Data, load  # noqa: E402

from fingerprint.measure import fdr, fisher, intervals, judged, null, rows  # noqa: E402
from fingerprint.measure.null import Controls  # noqa: E402
from fingerprint.phantom.copies import plant  # noqa: E402
from fingerprint.run import open_run  # noqa: E402
from fingerprint.search.draw import spread  # noqa: E402
from flows import chain  # noqa: E402

COMMAND = "python tests/bench/calibration_study.py docs/calibration.md"
SEEDS, IMAGES, TRAINED, CONTROLS, Q = 60, 60, 40, 240, 0.05
KINDS = {
    "exact": ("exact", 0.0),
    "noise, SD 8 grey levels": ("noise", 8.0),
    "blur, sigma 2.8 px (0.7 at 128)": ("blur", 2.8),
    "moved, half strength": ("pose", 0.5),
    "moved, full strength": ("pose", 1.0),
}
MIXED = tuple(KINDS)[:4]  # the kinds of one audit
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
    source: np.ndarray  # (c,) the patient that is copied
    kind: np.ndarray  # (c,)

    @property
    def patients(self) -> int:
        return self.z.shape[1]


def measured(data: Data, folder: Path) -> Measured:
    """Search every slice, and a copy of each kind of one slice of each patient."""
    rng = np.random.default_rng(1)
    make_corpus(folder / "real", data.pixels, [f"P{g:012d}" for g in data.group], chunk=64)
    cells = [(label, group) for label in KINDS for group in range(data.groups)]
    images = [
        plant(data.pixels[rng.choice(np.flatnonzero(data.group == group))], *KINDS[label], seed=k)
        for k, (label, group) in enumerate(cells)
    ]
    make_corpus(folder / "generated", np.stack(images), [""] * len(images), chunk=64)
    sets = (str(folder / name) for name in ("real", "generated", "out"))
    chain.audit_sets(*sets, knobs=KNOBS, how=chain.How("local"))
    matrix = open_run(folder / "out").correlation
    z = fisher.z_of(rows.cells(matrix, image="highpass"))
    told = pd.read_parquet(folder / "out" / "queries.parquet")
    mine = (told["query_set"] == "control").to_numpy()
    group = told["owner"][mine].str[1:].astype(int).to_numpy()
    kind, source = (np.array(column) for column in zip(*cells, strict=True))
    return Measured(z[mine], group, z[~mine], source.astype(int), kind)


# -- one audit


@dataclass(frozen=True)
class Audit:
    """What one audit found: of images that copy nobody, and of copies by kind."""

    false: int
    found: dict[str, list[bool]]

    @property
    def share_false(self) -> float:
        true = sum(map(sum, self.found.values()))
        return self.false / max(self.false + true, 1)


def audits(m: Measured, score: str, share: float, kinds: tuple[str, ...]) -> Iterator[Audit]:
    for seed in range(SEEDS):
        yield _audit(m, score, share, kinds, np.random.default_rng(seed), seed)


def _audit(
    m: Measured, score: str, share: float, kinds: tuple[str, ...], rng: np.random.Generator,
    seed: int,
) -> Audit:  # fmt: skip
    trained = np.isin(np.arange(m.patients), rng.permutation(m.patients)[:TRAINED])
    copies = round(share * IMAGES)
    novel = _some(m.group, ~trained[m.group], IMAGES - copies, rng)
    control = _some(m.group, trained[m.group], CONTROLS, rng)
    there = np.flatnonzero(trained[m.source] & np.isin(m.kind, kinds))
    planted = rng.permutation(there)[:copies]
    z = np.concatenate([m.z[novel], m.copy_z[planted]])[:, trained]
    strangers = m.z[control][:, trained]
    k = {"s_excess": null.ranks_of, "s_gap": null.spacings_of, "s_r": int}[score](TRAINED - 1)
    same = np.zeros(len(control))
    controls = Controls(judged.SCORES[score](strangers, k), m.group[control], same)
    p = null.p_values(judged.SCORES[score](z, k), np.zeros(len(z)), controls, seed)
    found = fdr.benjamini_hochberg(p.image, Q)
    columns = np.flatnonzero(trained)
    right = columns[np.nanargmax(z, axis=1)][len(novel) :] == m.source[planted]
    hit = found[len(novel) :] & right
    by_kind = {kind: hit[m.kind[planted] == kind].tolist() for kind in kinds}
    return Audit(int(found.sum() - hit.sum()), by_kind)


def _some(group: np.ndarray, which: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    at = np.flatnonzero(which)
    same = np.zeros(len(at))
    return at[spread(group[at], same, same, n, rng)]


# -- the page


def table(head: list[str], lines: list[list[str]]) -> str:
    rows_of = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows_of)


def null_row(m: Measured, score: str) -> list[str]:
    """Return how many audits without a copy have any finding."""
    any_found = sum(audit.false > 0 for audit in audits(m, score, 0.0, MIXED))
    low, high = intervals.clopper_pearson(any_found, SEEDS)
    return [score, f"{any_found / SEEDS:.3f} ({low:.3f} to {high:.3f})"]


def copies_row(m: Measured, score: str, share: float, kinds: tuple[str, ...]) -> list[str]:
    done = list(audits(m, score, share, kinds))
    cells = []
    for kind in KINDS:
        hits = [hit for audit in done for hit in audit.found.get(kind, [])]
        cells.append(f"{np.mean(hits):.3f}" if hits else "")
    false = np.array([audit.share_false for audit in done])
    low, high = intervals.cluster_bootstrap(false, np.arange(SEEDS), seed=1)
    return [score, f"{share:.0%}", *cells, f"{false.mean():.3f} ({low:.3f} to {high:.3f})"]


def altered_row(m: Measured, score: str, kind: str) -> list[str]:
    """Return p of altered slices of patients who are not in the corpus: a smoother generator."""
    p = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        trained = np.isin(np.arange(m.patients), rng.permutation(m.patients)[:TRAINED])
        control = _some(m.group, trained[m.group], CONTROLS, rng)
        altered = np.flatnonzero(~trained[m.source] & (m.kind == kind))
        k = {"s_excess": null.ranks_of, "s_gap": null.spacings_of, "s_r": int}[score](TRAINED - 1)
        of = judged.SCORES[score]
        same = np.zeros(len(control))
        controls = Controls(of(m.z[control][:, trained], k), m.group[control], same)
        p.append(null.p_pooled(of(m.copy_z[altered][:, trained], k), controls))
    every = np.concatenate(p)
    return [kind, score, *(f"{(every <= a).mean():.3f}" for a in (0.01, 0.05, 0.1, 0.5))]


def page(data: Data, m: Measured) -> str:
    scores = list(judged.SCORES)
    kinds = [*MIXED, "moved, full strength"]
    copies = [copies_row(m, score, share, MIXED) for share in (0.2, 0.05) for score in scores]
    copies += [copies_row(m, score, share, kinds[-1:]) for share in (0.2, 0.05) for score in scores]
    altered = [altered_row(m, score, kind) for kind in kinds[1:4] for score in scores]
    head = ["score", "copies", *KINDS, "share of findings that is false (95 % interval)"]
    return f"""# Calibration on real slices

`{COMMAND}`, on {platform.processor() or platform.machine()} ({os.cpu_count()} cores), CPU.

{len(data.pixels)} axial slices of {data.groups} groups: patients, and clusters of near-duplicate
8-bit pictures whose patients are not known. Several clusters are probably of one patient: such a
twin closes a gap, and is a stranger that looks like a copy. {SEEDS} audits for each line: {TRAINED}
groups are the real corpus, {IMAGES} images are judged at q = {Q}, slices of the other groups and
copies of real ones; up to {CONTROLS} control slices are drawn from the real corpus. Scores are of
the high-pass image at best pose (`score` in the settings: excess, gap, r). List: tail model,
Benjamini-Hochberg. A copy counts as found if it is on the list and its patient is the most similar.

## No copy: share of audits with any finding

At most {Q} is promised.

{table(["score", "audits with a finding (95 % interval)"], [null_row(m, s) for s in scores])}

## Copies: share found

{table(head, copies)}

s_excess is the default: at the same rate of false findings it finds more than s_gap, the default of
METHOD.md 3.5. A gap of order statistics closes where one more patient resembles the source.

## Images that differ from controls in sharpness or noise, and copy nobody

Altered slices of groups outside the corpus, against unaltered controls: share of p_pooled up to a.

{table(["altered", "score", "0.01", "0.05", "0.1", "0.5"], altered)}
"""


def main(path: Path) -> None:
    data = load(Path(os.environ["FINGERPRINT_DATA"]))
    with tempfile.TemporaryDirectory() as folder:
        m = measured(data, Path(folder))
    path.write_text(page(data, m), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
