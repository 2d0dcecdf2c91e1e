"""A page about a finished study: what was trained, what was found at each size, and the curves.

    python tests/bench/study.py STUDY docs/study.md

Every number is read from the study's ``findings.json``; curves are those of its report. Pictures of
slices stay in the report.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fingerprint.corpus import store
from fingerprint.report.study import build, read, results, training
from fingerprint.report.study.page import StudyPage

COMMANDS = """\
fingerprint ingest $FINGERPRINT_DATA/slices_8bit --out corpus --settings deploy/settings/study.toml
fingerprint study corpus study --settings deploy/settings/study.toml
python tests/bench/study.py study docs/study.md"""
DRAWN = ("excess", "steps-excess")
COLUMNS = (
    "slices",
    "groups",
    "steps",
    "hours",
    "images found",
    "groups found",
    "p of the set",
    "mean best z above held-out",
    "held-out: mean best z",
    "detection limit",
)


def main(out: Path, page: Path) -> None:
    """Write the page, and its drawings beside it."""
    found = json.loads((out / "findings.json").read_bytes())
    drawn = dict(_drawings(build.page_of(read.read(out, store.open_corpus), "left out")))
    for name, svg in drawn.items():
        (page.parent / f"{name}.svg").write_text(svg)
    page.write_text("\n".join(_lines(found, list(drawn))) + "\n")


def _lines(found: dict[str, Any], drawn: list[str]) -> Iterator[str]:
    s = {k.removeprefix("study.settings."): v for k, v in found.items()}
    yield "# How much generators copy: a small study on real CT"
    yield ""
    yield "```"
    yield COMMANDS
    yield "```"
    yield ""
    yield (
        f"{s['generator'].upper()}, {s['train_px']} px, {s['train_steps']:,} steps of "
        f"{s['train_batch']} images, predicting {s['predicts']}; {s['sample']} images of each "
        f"audited at q = {s['q']:g}. {platform.machine()}, torch {found['study.versions.torch']}, "
        f"{found[found['points'][0] + '.training.device']}. Every number is read from "
        "`findings.json` of the study. The patients of these images are not known: a group is a "
        "cluster of near-duplicate slices that stands in for one."
    )
    yield ""
    for note in [*found["notes"], *_reasons(found)]:
        yield f"- {note}"
    yield ""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "---:|" * len(COLUMNS)
    for name in found["points"]:
        yield "| " + " | ".join(_row(found, name)) + " |"
    yield ""
    for name in drawn:
        yield f"![{name}]({name}.svg)"


def _reasons(found: dict[str, Any]) -> list[str]:
    """Return why something was not decided, each once."""
    keys = [f"{name}.{key}.reason" for key in ("images.found", "limit.noise")
            for name in found["points"]]  # fmt: skip
    return list(dict.fromkeys(str(found[key]) for key in keys if key in found))


def _row(found: dict[str, Any], name: str) -> Iterator[str]:
    def get(key: str) -> Any:
        return found.get(f"{name}.{key}")

    yield f"{get('cohort.slices'):,}"
    yield f"{get('cohort.patients'):,}"
    yield f"{get('training.steps'):,}"
    yield f"{get('training.seconds') / 3600:.2f}"
    for key, tested in (("images.found", "images.tested"), ("patients.found", "patients.tested")):
        yield "not decided" if get(key) is None else f"{get(key)} of {get(tested)}"
    yield "not run" if get("set.p_value") is None else f"{get('set.p_value'):.4f}"
    yield f"{get('excess'):.3f} [{get('excess.low'):.3f}, {get('excess.high'):.3f}]"
    yield f"{get('side.control.s_r'):.3f}"
    yield str(get("limit.weakest") or "none")


def _drawings(page: StudyPage) -> Iterator[tuple[str, str]]:
    for chart in [*results.against_size(page), *training.curve(page)]:
        if chart.kind == "chart" and chart.name in DRAWN:
            yield f"study-{chart.name.removeprefix('study-')}", chart.svg


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
