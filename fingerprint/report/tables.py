"""The tables: Table 1 of paper 000, the data, files refused, methods, settings, words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fingerprint.corpus.scan import CODES
from fingerprint.measure import fisher
from fingerprint.report.blocks import Items, Prose, Table, Value
from fingerprint.report.page import IMAGE_NAME, Page

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

# -- Table 1 of paper 000

STATISTICS = {
    "n": ("images", "n"),
    "identical": ("identical (r = 1)", "n"),
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
    "generated_capped": "Generated, capped",
    "control": "Controls",
    "control_capped": "Controls, capped",
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


POSED = {
    "generated_pose": "Generated, raw",
    "control_pose": "Controls, raw",
    "generated_pose_{image}": "Generated, {name}",
    "control_pose_{image}": "Controls, {name}",
}


def table1(page: Page) -> list[Any]:
    note = [
        "Best r of every image over all slices; capped: over an equal number of slices per "
        "patient. Identical images have no finite z: they are in the rows of r and not in those "
        "of z. tanh(SD z) is printed in paper 000 as the SD of r; "
        "it is the spread of nothing. tanh(mean z) is a location, not the mean of r."
    ]
    out = [_statistics(page, "This run, as stored", ROWS, note)]
    if page.posed:
        image = "body" if page.image == IMAGE_NAME["body"] else "highpass"
        rows = {
            row.format(image=image): text.format(name=IMAGE_NAME[image])
            for row, text in POSED.items()
        }
        note = [
            "Best r of every image at best pose, 128 px, over the patients that were refined. "
            "r = 1 at 128 px is not yet an identical image. The best of many poses is higher for "
            "strangers too: compare with the controls, never with the table above."
        ]
        out.append(_statistics(page, "This run, at best pose", rows, note))
    return [*out, printed(page)]


def _statistics(page: Page, title: str, named: Mapping[str, str], note: list[str]) -> Table:
    sets = [row for row in named if page.has(f"table1.{row}.n")]
    words = {name: text for name, (text, _) in STATISTICS.items()}
    if any("pose" in row for row in sets):
        words["identical"] = "r = 1 at 128 px"
    rows = [
        [words[name], *(page.value(f"table1.{row}.{name}", kind) for row in sets)]
        for name, (_, kind) in STATISTICS.items()
    ]
    return Table([title], ["Statistic", *(named[row] for row in sets)], rows, note)


def printed(page: Page) -> Table:
    """Return Table 1 of paper 000 as printed, and what can be recovered of the right columns."""
    sizes = [row.n for row in fisher.PRINTED]
    rows = [
        [text, *(page.value(f"paper000.table1.{n}.{name}", kind) for n in sizes)]
        for name, (text, kind) in PRINTED.items()
    ]
    note = [
        "240 generated images per column. The printed SD of r is above the largest that values "
        "between min r and max r can have, in every column. Mean r and SD of r can only be "
        "estimated from what is printed: the two estimates of the SD differ by up to 1.6 times. "
        "For 60 slices tanh of the printed mean z is 0.9974, not 0.9977."
    ]
    return Table(["Paper 000, Table 1"], ["Real slices", *(f"{n:,}" for n in sizes)], rows, note)


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


PEOPLE = "scans participants men women no_sex no_age slices_m slices_f slices_per_scan".split()


def data(page: Page) -> list[Any]:
    sets = [s for s in SETS if page.has(f"seen.{s}")]

    def cell(name: str, s: str, kind: str) -> str | Value:
        nobody = s == "generated" and name in PEOPLE
        there = f"{name}.{s}" in page.findings and not nobody
        return page.value(f"{name}.{s}", kind) if there else ""

    rows = [
        [text.replace("patient", page.person), *(cell(name, s, kind) for s in sets)]
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
                text = f"{code}: {sentences[code]}" if code in sentences else code
                rows.append([text, name, what[field], page.value(key)])
    if not rows:
        return [Prose(["Nothing was left out or refused."])]
    note = ["Every file is listed, by token, in rejections.tsv and excluded.tsv of its corpus."]
    return [Table(["By code"], ["Code", "Set", "Outcome", "Files"], rows, note, text=True)]


# -- methods


def methods(page: Page) -> list[Any]:
    v = page.value
    text: list[str | Value] = [
        "Slices are stored as 8-bit images of equal size: HU from ",
        v("settings.window_hu", "text"), " become 0 to 255, one mapping for a whole set. Each of ",
        v("queries.generated"), " generated images is correlated with each of ",
        v("slices.searched"),
        " real slices: Pearson r over all pixels from exact integer sums, with one square root, so "
        "that identical images give exactly 1 and the result does not depend on blocks, workers or "
        "device. For every image and patient the best r and its slice are kept; ties go to the "
        "lower slice. z = artanh r (Fisher); images with r = 1 have no finite z and are counted "
        "apart. Expected maxima for fewer patients are exact rarefaction. Patients are keyed "
        "pseudonyms. The seed of this run is ", v("settings.seed"), ".",
    ]  # fmt: skip
    if page.posed:
        text += [
            " Every pose: the query is turned, enlarged and shifted over a grid at 32 px (local "
            "contrast normalised, 8-bit rows of sum zero, exact integer products); the best "
            "patients are refined by Gauss\u2013Newton steps on the correlation at 64 and 128 px. "
            "r at best pose is computed over the area that both images cover."
        ]
    if page.has("images.effective"):
        text += [
            " Every image is compared with controls by ",
            v("images.score", "text"),
            ": p by ranks, "
            "weighted by control patient; beyond the largest controls a generalised Pareto tail, "
            "at the upper end of resampled control patients. Lists by ",
            v("images.method", "text"),
            " at q = ",
            v("settings.q", "q"),
            ".",
        ]
    return [Prose(text), Items([[reference] for reference in REFERENCES])]


REFERENCES = (
    "Benjamini Y., Hochberg Y. Controlling the false discovery rate: a practical and powerful "
    "approach to multiple testing. J. R. Stat. Soc. B 57(1), 1995, 289\u2013300.",
    "Benjamini Y., Yekutieli D. The control of the false discovery rate in multiple testing under "
    "dependency. Annals of Statistics 29(4), 2001, 1165\u20131188.",
    "Hosking J. R. M., Wallis J. R. Parameter and quantile estimation for the generalized Pareto "
    "distribution. Technometrics 29(3), 1987, 339\u2013349.",
    "Paper 000: Kovalev V. A method for detecting distinctive patterns of real patients in "
    "generated images. Doklady BGUIR 23(1), 2025, 47\u201353. "
    "doi:10.35596/1729-7648-2025-23-1-47-53",
    "Evangelidis G. D., Psarakis E. Z. Parametric image alignment using enhanced correlation "
    "coefficient maximization. IEEE TPAMI 30(10), 2008, 1858\u20131865.",
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
    ("control", "a real slice that goes through every step as a generated image does, but is never "
                "compared with its own patient: it shows how similar strangers are"),
    ("held-out patient", "a patient of CONTROLS, never used for training; needed for the patient "
                         "and set levels"),
    ("canary", "a copy of a real slice, changed in a known way and planted among the images, to "
               "see whether it is found"),
    ("detection limit", "the weakest planted copies, by kind, of which all were found; weaker "
                        "ones may be there unseen"),
    ("finding", "an image, a patient or a set that stands out from strangers, at a stated rate"),
    ("false-discovery rate q", "of the findings of a list, the expected share that are strangers "
                               "is at most q"),
    ("p", "how often a stranger would score at least so high; small is rare. It is no chance that "
          "an image is a copy"),
    ("guaranteed", "a finding by rank among control patients; needs no model, only that controls "
                   "are like the patients of the corpus; many controls are needed"),
    ("tail model", "a finding by extrapolating the scores of the controls beyond the largest; "
                   "stronger, and only as good as that model"),
    ("risk register", "the patients whom a finding shows, with the evidence"),
    ("s_excess", "z of the best patient of an image less the mean of its next ten: what is "
                 "compared with the controls; not raised by an image that resembles everybody"),
    ("r", "Pearson correlation of two images over all pixels: 1 is identical up to brightness and "
          "contrast, 0 is unrelated"),
    ("z", "Fisher z = artanh r: spreads out the values near 1; an effect size"),
    ("D", "best z of an image over trained patients less that over held-out patients"),
    ("identical", "r = 1 exactly, over all pixels as stored"),
    ("pose", "what brings a generated image onto a slice: mirrored or not, a turn about the image "
             "centre, a change of size, a shift (pixels of a 512 x 512 image)"),
    ("best pose", "the pose with the largest r that the search found"),
    ("high-pass", "an image less its blurred self: fine structure without the anatomy that all "
                  "people share"),
    ("body", "an image in which all that is outside the body is air"),
    ("not run", "not computed; what is missing stands beside it"),
)  # fmt: skip


def settings(page: Page) -> list[Any]:
    prefixes = ("run.", "input.", "settings.", "seeds.", "versions.", "hardware.")
    keys = [
        key
        for prefix in prefixes
        for key in sorted(page.findings)
        if key.startswith(prefix) and not key.endswith(".reason")
    ]
    rows = [[key, page.value(key, "text") if page.has(key) else "not set"] for key in keys]
    return [Table(["As in findings.json"], ["Name", "Value"], rows, text=True)]
