"""How well does each method tell used slices from others, where the truth is known?

    python tests/bench/membership_study.py docs/membership_world.md

A world is made for every size of training set: patients are dealt to DEV and TEST; on each side a
generator is trained on slices of half of the patients, and nothing is trained on the other half.
``fingerprint membership`` is asked about both. Real CT, if FINGERPRINT_DATA names it, else
phantoms.
The page holds a curve of every method against the size.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib as mpl  # noqa: E402
import numpy as np  # noqa: E402
from clef import save  # noqa: E402
from pose_copies import load  # noqa: E402
from study_world import SLICES, world  # noqa: E402

from fingerprint.corpus.window import fit  # noqa: E402
from fingerprint.models import sampling, training  # noqa: E402
from fingerprint.models.recipe import Recipe  # noqa: E402
from fingerprint.models.resuming import WEIGHTS  # noqa: E402
from fingerprint.phases.sample import nearest  # noqa: E402
from fingerprint.report.figures import RC, _figure, _svg  # noqa: E402
from fingerprint.report.membership.drawn import LOOK  # noqa: E402
from fingerprint.settings import METHODS  # noqa: E402
from flows import chain  # noqa: E402

PX = 64
SIZES = (8, 24, 72)
COPY = 0.95
METRICS = ("auc", "kappa", "tpr_at_fpr_0.1")


@dataclass(frozen=True)
class How:
    """How a world is made: steps of its generators, images drawn with each, settings of methods."""

    steps: int = 1200
    pool: int = 160
    knobs: Mapping[str, Any] = field(
        default_factory=lambda: {
            "mae_steps": 2000, "shadow_px": 64, "same_kind": "dcgan", "seed": 1,
        }
    )  # fmt: skip


def slices(people: int = 80) -> tuple[str, np.ndarray, np.ndarray]:
    """Return the name of the data, slices uint8 (n, PX, PX), and whose each is."""
    if folder := os.environ.get("FINGERPRINT_DATA"):
        data = load(Path(folder))
        pictures = data.kind == 1  # one source, one look: only the patient tells them apart
        return "real slices", fit(data.pixels[pictures], PX, 0)[0], data.group[pictures]
    images, _ = world(people)
    return "phantoms", fit(images, PX, 0)[0], np.arange(len(images)) // SLICES


def dealt(group: np.ndarray, seed: int) -> list[np.ndarray]:
    """Deal patients to DEV used, DEV not used, TEST used, TEST not used: rows of each."""
    rng = np.random.default_rng(seed)
    people = rng.permutation(np.unique(group))
    sizes = np.array([np.sum(group == p) for p in people])
    order = people[np.argsort(-sizes, kind="stable")]
    parts: list[list[int]] = [[], [], [], []]
    for person in order:
        min(parts, key=len).extend(np.flatnonzero(group == person).tolist())
    return [rng.permutation(part) for part in parts]


def generated(images: np.ndarray, folder: Path, seed: int, how: How) -> np.ndarray:
    """Train a generator on some slices and draw from it."""
    recipe = Recipe(
        generator="ddpm", px=images.shape[-1], steps=how.steps, batch=8, learning_rate=2e-3,
        width=16, ema=0.98, seed=seed, predicts="velocity",
    )  # fmt: skip
    trained = training.train(images, recipe, folder)
    return sampling.sample(folder / WEIGHTS, trained.weights, 0, how.pool, seed)


def world_of(
    size: int, images: np.ndarray, group: np.ndarray, folder: Path, how: How = How()
) -> dict[str, Any]:
    """Make one world and ask every method; return its metrics and how much was learnt by heart."""
    parts = [part[:size] for part in dealt(group, size)]
    copied = []
    for side, used, others in (("dev", *parts[:2]), ("test", *parts[2:])):
        made = generated(images[used], folder / f"model-{side}", 1 + (side == "test"), how)
        copied.append(float((nearest(made, images[used])[0] > COPY).mean()))
        save(folder / side / "generated", made, "made")
        save(folder / side / "real_used", images[used])
        save(folder / side / "real_not_used", images[others])
    return asked(folder, how) | {"copied": copied, "slices": len(parts[2])}


def asked(folder: Path, how: How) -> dict[str, Any]:
    """Run every method on a world."""
    where = [str(folder / name) for name in ("dev", "test", "out")]
    chain.membership_of(*where, knobs=dict(how.knobs), how=chain.How("serial"))
    return dict(json.loads((folder / "out" / "metrics.json").read_bytes()))


def curves(found: Mapping[int, Mapping[str, Any]], metric: str) -> str:
    """Draw a metric of every method against the size of the training set, with intervals."""
    with mpl.rc_context(RC):
        figure, axes = _figure()
        for k, name in enumerate(METHODS):
            rows = [(n, one[name][metric]) for n, one in found.items() if metric in one[name]]
            there = [(n, row) for n, row in rows if row["value"] is not None]
            if not there:
                continue
            at = np.array([n for n, _ in there]) * 1.04 ** (k - 2.5)
            value = np.array([row["value"] for _, row in there])
            ends = [row["interval"] or (v, v) for (_, row), v in zip(there, value, strict=True)]
            spread = np.abs(np.array(ends).T - value)
            colour, dashes = LOOK[name]
            axes.errorbar(at, value, spread, color=colour, linestyle=dashes, label=name, capsize=2)
        axes.set(xscale="log", xlabel="slices trained on", ylabel=metric.replace("_", " "))
        axes.set_xticks(list(found), [str(n) for n in found])
        axes.minorticks_off()
        if axes.containers:  # of few slices nothing may be estimable
            axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
        return _svg(figure, metric)


def page(name: str, found: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "# Membership, where the truth is known"
    yield ""
    yield f"`make study-membership`: {name}, {PX} px; a DDPM of {How.steps:,} steps for every side"
    yield f"of every world; {platform.machine()}, {os.cpu_count()} cores. TEST, 95 % intervals over"
    yield "patients. *Learnt by heart*: share of the images with r > 0.95 to a slice trained on."
    for metric in METRICS:
        yield f"\n![{metric}](membership-{metric}.svg)\n"
        yield f"| slices trained on | learnt by heart | {' | '.join(METHODS)} |"
        yield "|" + "---|" * (len(METHODS) + 2)
        for size, one in found.items():
            cells = [_cell(one[method].get(metric)) for method in METHODS]
            yield f"| {size} | {one['copied'][1]:.2f} | {' | '.join(cells)} |"


def _cell(row: Mapping[str, Any] | None) -> str:
    if not row or row["value"] is None:
        return "-"
    ends = row["interval"]
    return f"{row['value']:.2f}" + (f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else "")


def main(path: Path, sizes: tuple[int, ...] = SIZES) -> None:
    name, images, group = slices()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            found[size] = world_of(size, images, group, Path(folder) / str(size))
            print(size, {m: _cell(found[size][m].get("auc")) for m in METHODS}, flush=True)
    written(path, name, found)


def written(path: Path, name: str, found: Mapping[int, Mapping[str, Any]]) -> None:
    """Write the page, and its figures beside it."""
    for metric in METRICS:
        (path.parent / f"membership-{metric}.svg").write_text(curves(found, metric))
    path.write_text("\n".join(page(name, found)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(map(int, sys.argv[2:])) or SIZES)
