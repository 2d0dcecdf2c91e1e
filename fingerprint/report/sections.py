"""The sections of a report, in one list: title, what is in it, and what is absent and why.

Each builder turns the findings into blocks; numbers come from ``findings.json`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from fingerprint.corpus.scan import CODES
from fingerprint.measure import findings as measure
from fingerprint.measure import fisher
from fingerprint.report import blocks, figures
from fingerprint.report.blocks import Chart, Items, Pair, Pairs, Picture, Prose, Scale, Table, Value

LISTED = 100  # identical pairs that are written out on the page
MARKED = 400  # identical pairs that get a ring on the matrix
SETS = {"real": "Real", "generated": "Generated", "control": "Controls"}
EXCLUDED = {
    "no_age": "age missing, and it was required",
    "no_sex": "sex missing, and it was required",
}
FLAGS = {
    "deidentified": "the header says that identity was removed",
    "burned_in": "the header says that text is burned into the pixels",
    "recognizable_face": "the header says that a face can be recognised",
}


@dataclass(frozen=True)
class Page:
    """What a page is made from."""

    findings: Mapping[str, Any]
    matrix: xr.Dataset | None
    pictures: Mapping[int, tuple[str, str, str] | str]
    without_images: str  # why no picture of a slice is shown; empty: they are

    def value(self, key: str, kind: str = "n") -> Value:
        """Return one entry of the findings as it is shown."""
        return blocks.value(self.findings, key, kind)

    def has(self, key: str) -> bool:
        """Whether a number was computed."""
        return self.findings.get(key) is not None

    def reason(self, key: str) -> str:
        """Why a number was not computed."""
        return str(self.findings.get(f"{key}.reason", "not recorded"))


@dataclass(frozen=True)
class Section:
    """One section: `absent` says why it cannot be shown, or nothing."""

    name: str
    title: str
    build: Callable[[Page], Sequence[Any]]
    absent: Callable[[Page], str] = lambda page: ""


# -- first page


def verdict(page: Page) -> list[str | Value]:
    """Return the sentence that the page is about; it never claims more than was tested."""
    v = page.value
    if not page.has("identical.images"):
        return ["This run did not finish its search: it says nothing yet."]
    if page.findings["identical.images"] == 0:
        return [
            "No generated image is identical to a real slice: ", v("queries.generated"),
            " images were compared with ", v("slices.searched"), " slices. Copies that were "
            "moved, resized, blurred or made noisy were not looked for: nothing is said of them.",
        ]  # fmt: skip
    who: list[str | Value] = ["."]
    if page.has("identical.patients"):
        who = [", of ", v("identical.patients"), " patients of the corpus."]
    return [
        v("identical.images"), " of ", v("queries.generated"),
        " generated images are identical to ", v("identical.slices"), " real slices", *who,
    ]  # fmt: skip


def headlines(page: Page) -> list[dict[str, Any]]:
    """Return the five numbers of the first page, each with its n or with what to supply."""
    v = page.value
    q = page.findings.get("settings.q")
    patients = [v("patients.searched"), " patients, "] if page.has("patients.searched") else []
    groups = [v("groups.searched"), " groups, "] if page.has("groups.searched") else []
    identical: list[str | Value] = ["of ", v("queries.generated")]
    if page.has("identical.patients"):
        identical += [
            "; ",
            v("identical.patients"),
            " patients, ",
            v("identical.slices"),
            " slices",
        ]
    return [
        {"label": "Generated images audited", "value": [v("queries.generated")],
         "note": ["and ", v("queries.control"), " control images"]},
        {"label": "Patients and slices searched",
         "value": [*(patients or groups), v("slices.searched"), " slices"],
         "note": [] if patients else [page.reason("patients.searched")]},
        {"label": "Identical images", "value": [v("identical.images")], "note": identical,
         "alarm": bool(page.findings.get("identical.images"))},
        {"label": f"Patients found at false-discovery rate {q if q is not None else 'q'}",
         "value": [v("patients.found")], "note": []},
        {"label": "Weakest planted copy found", "value": [v("limit.weakest", "text")], "note": []},
    ]  # fmt: skip


# -- what was tested


def tested(page: Page) -> list[Any]:
    v = page.value
    done: list[list[str | Value]] = [
        ["Every generated image against every real slice: ", v("pairs.compared.generated"),
         " pairs, Pearson r over all pixels, in exact integer arithmetic, at the stored position."],
        ["Left out because they have one grey level and correlate with nothing: ",
         v("queries.excluded"), " images and ", v("slices.excluded"), " real slices."],
    ]  # fmt: skip
    if page.has("queries.control"):
        done.insert(1, [
            "In the same way, real slices of other patients as controls: ", v("queries.control"),
            " images, ", v("pairs.compared.control"), " pairs; none with its own patient.",
        ])  # fmt: skip
    questions = {
        "pose.poses": "Copies that were turned, resized or shifted",
        "register.pairs": "Copies after alignment, and which region was copied",
        "images.found": "Images that show a patient, at a stated false-discovery rate",
        "patients.found": "Patients that are shown, at a stated false-discovery rate",
        "set.p_value": "Whether the whole set is closer to its patients than to strangers",
        "limit.weakest": "The weakest copy that this run would still find",
        "fid.value": "Distances between whole sets (FID, KID)",
        "queries.control": "How similar slices of other patients are",
        "patients.searched": "Anything that is counted in patients",
    }
    missing = [[text, v(key)] for key, text in questions.items() if not page.has(key)]
    return [
        Items(done),
        Table(["Not tested, and what to supply"], ["Question", "Answer"], missing, text=True),
    ]


# -- identical images


def identical(page: Page) -> list[Any]:
    pairs = page.findings["identical.list"]
    if not pairs:
        return [Prose(["None: no pair of a generated image and a real slice has r = 1."])]
    rows = [[pair["query"], pair["participant"], f"{pair['slice']:,}"] for pair in pairs[:LISTED]]
    note = ["The slice is its number in the real corpus; the lowest where a patient has several."]
    if len(pairs) > LISTED:
        note.append(f" The first {LISTED} are listed; all are in findings.json.")
    about: list[str | Value] = [
        "r = 1 exactly: the same pixels, or the same up to brightness and contrast. ",
        page.value("identical.images"), " images, ", page.value("identical.slices"), " slices.",
    ]  # fmt: skip
    return [
        Prose(about),
        Table(["Identical pairs"], ["Generated image", "Patient", "Slice"], rows, note, text=True),
    ]


# -- the matrix


def matrix(page: Page) -> list[Any]:
    assert page.matrix is not None  # `no_matrix` said so
    raw = page.matrix["r"].sel(stage="raw", slices="all").values
    sets = page.matrix["query_set"].values.astype(object)
    shown = {s: raw[sets == s] for s in ("generated", "control")}
    columns = np.argsort(-_largest(shown["generated"], 0), kind="stable")
    low = float(np.floor(np.nanquantile(raw, 0.02) * 20) / 20)
    pictures = [
        _picture(s, r[np.argsort(-_largest(r, 1), kind="stable")][:, columns], low)
        for s, r in shown.items()
        if len(r) and r.shape[1]
    ]
    ends = [f"{low:.2f}".replace("-", "\u2212"), "1"]
    label = "best r over the slices of a patient; grey: not compared"
    return [Scale(figures.colour_bar(), ends, label), *pictures]


def _largest(r: np.ndarray, axis: int) -> np.ndarray:
    if r.size == 0:
        return np.zeros(r.shape[1 - axis])
    return np.nan_to_num(np.fmax.reduce(r, axis=axis), nan=-2.0)


def _picture(query_set: str, r: np.ndarray, low: float) -> Picture:
    uri, rows, columns = figures.matrix_image(r, low)
    at = np.argwhere(r == 1)[:MARKED]
    n, p = r.shape
    caption = [f"{n:,} images (most similar above) x {p:,} patients (most similar left)."]
    if rows > 1 or columns > 1:
        caption.append(f" One dot is the maximum of {rows} x {columns} cells.")
    if len(at):
        caption.append(" Rings: identical.")
    name = {"generated": "Generated images", "control": "Control images"}[query_set]
    return Picture(
        title=name,
        uri=uri,
        alt=f"{name} against patients: colour is the best r; {len(at)} identical pairs are ringed.",
        x_label="patients",
        y_label="images",
        x_ticks=figures.ticks(p),
        y_ticks=figures.ticks(n),
        marks=[((j + 0.5) / p * 100, (i + 0.5) / n * 100) for i, j in at],
        height_px=int(np.clip(60 + 1.5 * n, 120, 420)),
        caption=caption,
    )


def no_matrix(page: Page) -> str:
    """Say why there is no matrix to draw."""
    if page.matrix is None:
        return measure.UNFINISHED
    finite = np.isfinite(page.matrix["r"].values).any()
    return "" if finite else "no pair could be compared"


# -- curves


def curves(page: Page) -> list[Any]:
    assert page.matrix is not None  # `no_matrix` said so
    v, data = page.value, page.matrix
    best = {s: measure.best_r(data, s) for s in ("generated", "control")}
    best = {s: r[np.isfinite(r)] for s, r in best.items() if np.isfinite(r).any()}
    z = {s: fisher.z_of(r[~fisher.is_identical(r)]) for s, r in best.items()}
    z = {s: values for s, values in z.items() if len(values)}
    out: list[Any] = []
    if best:
        out.append(Chart(
            "sorted", "Best correlation of every image", figures.sorted_curve(best),
            "Best r of every image, sorted ascending, for generated images and controls.",
            ["As Fig. 2 of paper 000. Generated: mean r ", v("table1.generated.mean_r", "r"),
             ", smallest ", v("table1.generated.min_r", "r"), "; controls: mean r ",
             v("table1.control.mean_r", "r"), ". The generated curve says little alone: what "
             "counts is its distance from the controls."],
        ))  # fmt: skip
    if z and page.has("slices.searched"):
        printed = [row.__dict__ for row in fisher.PRINTED]
        out.append(Chart(
            "effect", "Effect size",
            figures.effect_sizes(z, int(page.findings["slices.searched"]), printed),
            "Mean, smallest and largest Fisher z against the number of real slices.",
            ["As Fig. 3 of paper 000. Mean z of the generated images ",
             v("table1.generated.mean_z", "z"), ", of the controls ",
             v("table1.control.mean_z", "z"), "; ", v("table1.generated.identical"),
             " identical images have no finite z and are left out. z is an effect size: among "
             "more slices the best z of a stranger is larger by itself, so only controls against "
             "the same slices are a comparison."],
        ))  # fmt: skip
    counts = _histograms(data)
    if counts:
        out.append(Chart(
            "histogram", "All pairs", figures.histogram_of_r(counts),
            "Share of all pairs at every r, for generated images and controls.",
            ["Generated: ", v("pairs.compared.generated"), " pairs; controls: ",
             v("pairs.compared.control"), ". Exact counts, no sample."],
        ))  # fmt: skip
    fewer = {s: _rarefied(page.findings, s) for s in ("generated", "control")}
    fewer = {s: points for s, points in fewer.items() if len(points) > 1}
    if fewer:
        out.append(Chart(
            "rarefied", "What fewer patients would give", figures.rarefied(fewer),
            "Expected best r against the number of patients searched.",
            ["Expected best r if only N' of the patients were searched (exact rarefaction, mean "
             "over images). A set is compared with another at an equal number of patients."],
        ))  # fmt: skip
    return out


def _histograms(data: xr.Dataset) -> dict[str, np.ndarray]:
    if "histogram" not in data:
        return {}
    rows = dict(zip(data["histogram_of"].values.astype(object), data["histogram"].values, strict=True))
    return {s: rows[s] for s in ("generated", "control") if s in rows and rows[s].any()}


def _rarefied(findings: Mapping[str, Any], query_set: str) -> dict[int, float]:
    prefix = f"rarefied.{query_set}."
    keys = [k for k in findings if k.startswith(prefix) and findings[k] is not None]
    return {
        int(k.removeprefix(prefix)): findings[k]
        for k in sorted(keys, key=lambda k: int(k.rsplit(".", 1)[1]))
    }


# -- Table 1 of paper 000

STATISTICS = {
    "n": ("images", "n"),
    "identical": ("identical (r = 1), in no column of z", "n"),
    "mean_z": ("mean z", "z"),
    "tanh_mean_z": ("tanh(mean z), in print \u201cmean r\u201d", "r"),
    "mean_r": ("mean r", "r"),
    "min_z": ("smallest z", "z"),
    "min_r": ("smallest r", "r"),
    "max_z": ("largest z", "z"),
    "max_r": ("largest r", "r"),
    "sd_z": ("SD z", "sd"),
    "as_printed": ("tanh(SD z), in print \u201cSTD r\u201d", "sd"),
    "sd_r": ("SD r", "sd"),
}
ROWS = {
    "generated": "Generated",
    "generated_capped": "Generated, equal slices per patient",
    "control": "Controls",
    "control_capped": "Controls, equal slices per patient",
}
PRINTED = {
    "mean_z": ("mean z, as printed", "z"),
    "mean_r": ("\u201cmean r\u201d, as printed", "r"),
    "tanh_mean_z": ("tanh(mean z)", "r"),
    "mean_r_normal": ("mean r, estimate", "r"),
    "min_z": ("min z, as printed", "z"),
    "min_r": ("min r, as printed", "r"),
    "max_z": ("max z, as printed", "z"),
    "max_r": ("max r, as printed", "r"),
    "sd_z": ("SD z, as printed", "sd"),
    "std_r": ("\u201cSTD r\u201d, as printed", "sd"),
    "largest_sd_r": ("largest SD that r can have", "sd"),
    "sd_r_delta": ("SD r, estimate (first order)", "sd"),
    "sd_r_normal": ("SD r, estimate (cut normal z)", "sd"),
}


def table1(page: Page) -> list[Any]:
    sets = [row for row in ROWS if page.has(f"table1.{row}.n")]
    rows = [
        [text, *(page.value(f"table1.{row}.{name}", kind) for row in sets)]
        for name, (text, kind) in STATISTICS.items()
    ]
    note = [
        "Best r of every image over all slices. tanh(SD z) is printed in paper 000 as the SD of r; "
        "it is the spread of nothing. tanh(mean z) is a location, not the mean of r."
    ]
    return [
        Table(["This run"], ["Statistic", *(ROWS[row] for row in sets)], rows, note),
        _printed(page),
    ]


def _printed(page: Page) -> Table:
    sizes = [row.n for row in fisher.PRINTED]
    rows = [
        [text, *(page.value(f"paper000.table1.{n}.{name}", kind) for n in sizes)]
        for name, (text, kind) in PRINTED.items()
    ]
    note = [
        "240 generated images per column. The printed SD of r is above the largest that values "
        "between min r and max r can have, in every column. Mean r and SD of r can only be "
        "estimated from what is printed: the two estimates of the SD differ by up to 1.6 times."
    ]
    return Table(["Paper 000, Table 1"], ["Real slices", *(f"{n:,}" for n in sizes)], rows, note)


# -- pairs


def pairs(page: Page) -> list[Any]:
    shown = int(page.findings["pairs.shown"])
    about = (
        "The best patient of each of the most similar generated images, best first. Patients are "
        "pseudonyms: whoever holds the key turns them back with fingerprint locate. "
    )
    if page.without_images:
        about += page.without_images
    else:
        about += "Difference is generated minus real: black is equal. Pictures are compressed."
    out: list[Any] = [Prose([about])]
    if not page.without_images:
        out.append(_difference_scale())
    return [*out, Pairs([_pair(page, k) for k in range(1, shown + 1)])]


def _difference_scale() -> Scale:
    return Scale(
        figures.difference_bar(),
        [f"\u2212{figures.FULL_COLOUR}", f"+{figures.FULL_COLOUR}"],
        "difference in grey levels (blue: generated is darker; orange: brighter)",
    )


def _pair(page: Page, k: int) -> Pair:
    key = f"pair.{k}"
    names = {"query": ("Generated image", "text"), "participant": ("Patient", "text"),
             "slice": ("Slice", "n"), "r_raw": ("r", "r"), "z": ("z", "z"),
             "r_pose": ("r, best position", "r"), "r_affine": ("r, affine", "r"),
             "r_elastic": ("r, elastic", "r")}  # fmt: skip
    head = [
        (text, page.value(f"{key}.{name}", kind))
        for name, (text, kind) in names.items()
        if page.has(f"{key}.{name}")
    ]
    same = ""
    if page.findings[f"{key}.same_pixels"]:
        same = "same pixels"
    elif page.findings[f"{key}.r_raw"] == 1:
        same = "same up to brightness and contrast"
    found = page.pictures.get(k, "no picture")
    if page.without_images:
        return Pair(k, same, head)
    if isinstance(found, str):
        return Pair(k, same, head, absent=found)
    return Pair(k, same, head, *found)


# -- the data

DATA = {
    "seen": ("files seen", "n"),
    "accepted": ("files kept", "n"),
    "excluded": ("files left out by a rule", "n"),
    "rejected": ("files refused", "n"),
    "scans": ("scans", "n"),
    "participants": ("patients", "n"),
    "men": ("men", "n"),
    "women": ("women", "n"),
    "no_sex": ("patients without sex", "n"),
    "no_age": ("patients without age", "n"),
    "slices": ("slices", "n"),
    "slices_m": ("slices of men", "n"),
    "slices_f": ("slices of women", "n"),
    "slices_per_scan": ("slices per scan, mean", "mean"),
    "bytes_in": ("bytes before", "bytes"),
    "bytes_out": ("bytes after", "bytes"),
}


def data(page: Page) -> list[Any]:
    sets = [s for s in SETS if page.has(f"seen.{s}")]
    rows = [
        [
            text,
            *(
                page.value(f"{name}.{s}", kind) if f"{name}.{s}" in page.findings else ""
                for s in sets
            ),
        ]
        for name, (text, kind) in DATA.items()
        if any(page.has(f"{name}.{s}") for s in sets)
    ]
    out: list[Any] = [Table(["Data table"], ["", *(SETS[s] for s in sets)], rows)]
    notes = [[f"{SETS[s]}: {note}"] for s in sets for note in page.findings.get(f"notes.{s}", [])]
    return [*out, Items(notes)] if notes else out


def no_data(page: Page) -> str:
    """Say why there is no data table."""
    return "" if any(page.has(f"seen.{s}") for s in SETS) else page.reason("seen.real")


def refused(page: Page) -> list[Any]:
    meaning = {"excluded": EXCLUDED, "rejected": CODES, "flags": FLAGS}
    what = {"excluded": "left out", "rejected": "refused", "flags": "kept, counted"}
    rows = []
    for s, name in SETS.items():
        for field, sentences in meaning.items():
            prefix = f"{field}.{s}."
            for key in sorted(k for k in page.findings if k.startswith(prefix)):
                code = key.removeprefix(prefix)
                row = [code, sentences.get(code, code), name, what[field], page.value(key)]
                rows.append(row)
    if not rows:
        return [Prose(["Nothing was left out or refused."])]
    note = ["Every file is listed, by token, in rejections.tsv and excluded.tsv of its corpus."]
    columns = ["Code", "Meaning", "Set", "Outcome", "Files"]
    return [Table(["By code"], columns, rows, note, text=True)]


# -- methods


def methods(page: Page) -> list[Any]:
    v = page.value
    text: list[str | Value] = [
        "Slices are stored as 8-bit images of equal size: HU from ",
        v("settings.window_hu", "text"), " become 0 to 255, one mapping for a whole set. Each of ", v("queries.generated"),
        " generated images is correlated with each of ", v("slices.searched"),
        " real slices: Pearson r over all pixels from exact integer sums, with one square root, so "
        "that identical images give exactly 1 and the result does not depend on blocks, workers or "
        "device. For every image and patient the best r and its slice are kept; ties go to the "
        "lower slice. z = artanh r (Fisher); images with r = 1 have no finite z and are counted "
        "apart. Expected maxima for fewer patients are exact rarefaction. Patients are keyed "
        "pseudonyms. The seed of this run is ", v("settings.seed"), ".",
    ]  # fmt: skip
    return [Prose(text), Items([[reference] for reference in REFERENCES])]


REFERENCES = (
    "Paper 000: Kovalev V. A method for detecting distinctive patterns of real patients in "
    "generated images. Doklady BGUIR 23(1), 2025, 47\u201353. "
    "doi:10.35596/1729-7648-2025-23-1-47-53",
    "Fisher R. A. Frequency distribution of the values of the correlation coefficient in samples "
    "from an indefinitely large population. Biometrika 10(4), 1915, 507\u2013521.",
)


def words(page: Page) -> list[Any]:
    del page
    return [Table(["Words of this page"], ["Word", "Meaning"], GLOSSARY, text=True)]


GLOSSARY = (
    ("slice", "one axial CT image, 8-bit grey"),
    ("patient", "a keyed pseudonym; whoever holds the key and the source can turn it back"),
    ("generated image", "output of the generator under audit; its name here is a keyed token"),
    ("control", "a real slice that goes through every step as a generated image does, never compared "
                "with its own patient: it shows how similar strangers are"),
    ("r", "Pearson correlation of two images over all pixels: 1 is identical up to brightness and "
          "contrast, 0 is unrelated"),
    ("z", "Fisher z = artanh r: spreads out the values near 1; an effect size"),
    ("identical", "r = 1 exactly"),
    ("not run", "not computed; what is missing stands beside it"),
)  # fmt: skip


def settings(page: Page) -> list[Any]:
    prefixes = {"settings.": "Settings", "versions.": "Versions", "hardware.": "Machine",
                "seeds.": "Seeds", "input.": "Inputs", "run.": "Run"}  # fmt: skip
    out = []
    for prefix, title in prefixes.items():
        keys = [
            k for k in sorted(page.findings) if k.startswith(prefix) and not k.endswith(".reason")
        ]
        rows = [[k.removeprefix(prefix), page.value(k, "text")] for k in keys]
        if rows:
            out.append(Table([title], ["Name", "Value"], rows, text=True))
    return out


def not_finished(key: str) -> Callable[[Page], str]:
    """Make a section absent while a number is missing."""
    return lambda page: "" if page.has(key) else page.reason(key)


SECTIONS = (
    Section("tested", "What was tested, and what was not", tested),
    Section("identical", "Identical images", identical, not_finished("identical.list")),
    Section("matrix", "Every image against every patient", matrix, no_matrix),
    Section("curves", "How similar the most similar slices are", curves, no_matrix),
    Section("table1", "Statistics of the correlation", table1, not_finished("table1.generated.n")),
    Section("pairs", "Most similar pairs", pairs, not_finished("pairs.shown")),
    Section("data", "The data", data, no_data),
    Section("refused", "Files left out or refused", refused, no_data),
    Section("methods", "Methods", methods),
    Section("settings", "Settings and versions", settings),
    Section("words", "Words", words),
)
