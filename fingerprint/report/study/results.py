"""What was found at each size: the table that the page is about, and the curves against size."""

from __future__ import annotations

from typing import Any

from fingerprint.measure.limit import LEAST
from fingerprint.report.blocks import Chart, Prose, Table
from fingerprint.report.limits import KINDS
from fingerprint.report.study import drawn
from fingerprint.report.study.drawn import Mark
from fingerprint.report.study.page import Parts, StudyPage, chunks, with_ends

COLUMNS = (
    "Training slices", "Patients", "Steps", "Time", "Images found [95 %]",
    "Mean z above controls [95 %]", "Mean best r", "of controls, the floor", "Weakest noisy copy",
    "Copies by a generator",
)  # fmt: skip


def results(page: StudyPage) -> list[Any]:
    """Return one row for each generator, the smallest training set first."""
    v = page.value
    about: Parts = [
        "Each generator was trained on one set, and images drawn from it were audited against that "
        "set, beside held-out patients who were never trained on. Images found stand on a list at "
        "false-discovery rate ", v("study.settings.q", "q"), ", or are identical to a slice. The "
        "floor is what slices of other patients reach against the same training set.",
    ]  # fmt: skip
    rows = [_row(page, name) for name in page.points]
    note: Parts = [
        "Intervals of the share: Clopper\u2013Pearson, images being independent draws of one "
        "generator; how much another training differs only further runs show. Intervals of z: over "
        "clusters of images that repeat each other and over control patients. Identical images "
        "have no finite z and are left out of it. A dash was not computed: what is missing stands "
        "under \u201cWhat was not run\u201d."
    ]  # fmt: skip
    return [Prose(about), Table(["By size of the training set"], COLUMNS, rows, note, text=True)]


def _row(page: StudyPage, name: str) -> list[Any]:
    key = f"{name}."
    made = "\u2013"
    if page.has(f"{key}limit.generator.cells.0.n"):
        cell = f"{key}limit.generator.cells.0"
        made = [page.value(f"{cell}.found"), " of ", page.value(f"{cell}.n"), " found"]  # type: ignore[assignment]
    return [
        page.label(name),
        page.cell(f"{key}cohort.patients"),
        page.cell(f"{key}training.steps"),
        page.cell(f"{key}seconds", "time"),
        _found(page, name),
        with_ends(page, f"{key}excess", "z"),
        page.cell(f"{key}table1.generated.mean_r", "r"),
        page.cell(f"{key}table1.control.mean_r", "r"),
        page.cell(f"{key}limit.noise", "text"),
        made,
    ]


def _found(page: StudyPage, name: str) -> Any:
    key = f"{name}.flagged"
    if not page.has(key):
        return "\u2013"
    share = [page.value(f"{key}.{x}", "percent") for x in ("share", "low", "high")]
    counted: Parts = [page.value(key), " of ", page.value(f"{name}.images.tested"), ": "]
    return [*counted, share[0], " [", share[1], ", ", share[2], "]"]


# -- against size


def against_size(page: StudyPage) -> list[Any]:
    """Return the share of images, the excess and the patients, each against the size of the set."""
    out: list[Any] = [
        _chart(page, "share", "Share of images found", {"images": "flagged.share"},
               "images found (%)", [
                   "Images on any list at q, of those audited, with exact 95 % intervals. Further "
                   "runs on the same set are hollow."], ends="flagged", percent=True),
        _chart(page, "excess", "Excess over the null", {"generated less controls": "excess"},
               "mean best z above controls", [
                   "Mean best z of the images less that of controls against the same training set, "
                   "with 95 % intervals: 0 is no more alike than strangers. The controls of each "
                   "size meet as many slices as the images do, so the sizes can be set side by "
                   "side. Smooth images resemble everybody: an excess alone is no copying, the "
                   "lists decide."]),
        _chart(page, "best", "Mean best r",
               {"generated": "table1.generated.mean_r", "controls": "table1.control.mean_r"},
               "mean best r", [
                   "As stored. Controls rise with the size by themselves (E13): a fall of the "
                   "generated towards them is copying at small sizes, not more distance at large "
                   "ones."], zero=False),
        _chart(page, "patients", "Patients shown", {"in the risk register": "risk.patients"},
               "patients", [
                   "Patients of the training set whom at least one image or the patient level "
                   "shows. A larger set has more patients who could be shown."]),
    ]  # fmt: skip
    return [*[chart for chart in out if chart], _levels(page)]


def _chart(
    page: StudyPage, name: str, title: str, keys: dict[str, str], label: str, caption: Parts,
    *, ends: str = "", percent: bool = False, zero: bool = True,
) -> Chart | None:  # fmt: skip
    sets = {who: _marks(page, key, ends or key) for who, key in keys.items()}
    sets = {who: marks for who, marks in sets.items() if marks}
    if not sets:
        return None
    svg = drawn.against_size(sets, name, label, percent=percent, zero=zero)
    return Chart(name, title, svg, f"{title} against the size of the training set.", caption)


def _marks(page: StudyPage, key: str, ends: str) -> list[Mark]:
    f = page.findings
    return [
        Mark(page.slices(name), f[f"{name}.run"], float(f[f"{name}.{key}"]),
             f.get(f"{name}.{ends}.low"), f.get(f"{name}.{ends}.high"))
        for name in page.audited if page.has(f"{name}.{key}")
    ]  # fmt: skip


def _levels(page: StudyPage) -> Table:
    """Return what each level says at each size."""
    rows = [
        [
            page.label(name),
            page.cell(f"{name}.images.identical"),
            page.cell(f"{name}.images.guaranteed"),
            page.cell(f"{name}.images.tail"),
            with_ends(page, f"{name}.images.share", "percent"),
            page.cell(f"{name}.risk.patients"),
            page.cell(f"{name}.patients.found"),
            page.cell(f"{name}.set.p_value", "p"),
        ]
        for name in page.points
    ]
    columns = ("Training slices", "Identical images", "Guaranteed", "Tail model",
               "Share [95 %, over duplicates]", "Patients at risk", "Found one by one",
               "Whole set, p")  # fmt: skip
    note: Parts = [
        "Lists and levels as in the audits. The interval over duplicates resamples clusters of "
        "images that repeat each other: a generator that draws one image 240 times made one test."
    ]
    return Table(["Levels"], columns, rows, note, text=True)


# -- the detection limit


def no_limit(page: StudyPage) -> str:
    """Say why there is no detection limit at any size."""
    if any(page.has(f"{name}.limit.kinds") for name in page.points):
        return ""
    return page.reason(f"{page.points[0]}.limit.weakest") if page.points else "no size was audited"


def limits(page: StudyPage) -> list[Any]:
    """Return the weakest copies that each audit found, by kind, and copies by a generator."""
    about: Parts = [
        "Copies of training slices were planted in each audit, changed in known ways, and went "
        "through every step. The limit of a kind is its weakest strength of which all were found, "
        f"at least {LEAST} planted. ",
        *_sampled(page),
        "At a size at which nothing was found, copies weaker than its limit may be there unseen.",
    ]
    tables = [_limits(page, names) for names in chunks(page.points)]
    return [Prose(about), *tables]


def _sampled(page: StudyPage) -> Parts:
    if not page.has("study.copies.copies"):
        return []
    return [
        "Copies made by a generator are images of the generator of the smallest set: ",
        page.value("study.copies.copies"), " of ", page.value("study.copies.images"),
        " have r above 0.95 with a slice of it; up to 29 of them are planted where the training "
        "set holds that slice. They are harder to find than copies made by rule. ",
    ]  # fmt: skip


def _limits(page: StudyPage, names: Any) -> Table:
    kinds = dict.fromkeys(
        kind for name in names for kind in page.findings.get(f"{name}.limit.kinds") or []
    )
    rows = [
        [{"generator": "made by a generator"}.get(kind) or KINDS.get(kind, kind),
         *(_limit(page, name, kind) for name in names)]
        for kind in kinds
    ]  # fmt: skip
    note: Parts = [
        "In brackets: at least so large a share of such copies is found, with 95 % confidence. "
        "A dash: none was planted."
    ]
    heads = [page.label(name, "slices") for name in names]
    return Table(["Weakest copies found"], ("Kind of copy", *heads), rows, note, text=True)


def _limit(page: StudyPage, name: str, kind: str) -> Any:
    key = f"{name}.limit.{kind}"
    if kind == "generator" and page.has(f"{key}.cells.0.n"):
        counted = [page.value(f"{key}.cells.0.found"), " of ", page.value(f"{key}.cells.0.n")]
        return counted + _bound(page, key)
    if page.has(key):
        return [page.value(key, "text"), *_bound(page, key)]
    return f"no limit: {page.reason(key)}" if page.has(f"{key}.cells") else "\u2013"


def _bound(page: StudyPage, key: str) -> Parts:
    if not page.has(f"{key}.bound"):
        return []
    return [" (", page.value(f"{key}.bound", "percent"), ")"]
