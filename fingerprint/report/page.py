"""The first page: the verdict in one sentence, five numbers, and what was not tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import xarray as xr

from fingerprint.report import blocks
from fingerprint.report.blocks import Items, Table, Value
from fingerprint.report.pairs import Shown

IMAGE_NAME = {"raw": "raw", "body": "body", "highpass": "high-pass"}


@dataclass(frozen=True)
class Page:
    """What a page is made from."""

    findings: Mapping[str, Any]
    matrix: xr.Dataset | None
    pictures: Mapping[int, Shown | str]
    without_images: str  # why no picture of a slice is shown; empty: they are
    best: pd.DataFrame | None = None  # the best registered pair of each query
    sheets: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (set, class) -> picture

    def value(self, key: str, kind: str = "n") -> Value:
        """Return one entry of the findings as it is shown."""
        return blocks.value(self.findings, key, kind)

    def has(self, key: str) -> bool:
        """Whether a number was computed."""
        return self.findings.get(key) is not None

    @property
    def posed(self) -> bool:
        """Whether other positions than the stored one were searched."""
        return self.has("table1.generated_pose.n")

    @property
    def image(self) -> str:
        """Name of the image whose r at best pose orders the pairs."""
        return IMAGE_NAME.get(str(self.findings.get("pose.image")), "raw")

    @property
    def person(self) -> str:
        """What the columns of the matrix are: patients, or groups that stand in for them."""
        return "group" if self.has("groups.searched") else "patient"

    @property
    def itself(self) -> bool:
        """Whether a corpus was compared with itself."""
        real = self.findings.get("input.real.digest")
        return real is not None and real == self.findings.get("input.generated.digest")

    @property
    def controls(self) -> str:
        """Who the controls are: given, of other patients, or drawn from the real corpus."""
        return "the given controls" if self.has("seen.control") else "real slices as controls"

    @property
    def question(self) -> str:
        """What the page answers."""
        if self.itself:
            return "Are slices of different patients the same?"
        return "Do the generated images show patients of the real corpus?"

    def reason(self, key: str) -> str:
        """Why a number was not computed."""
        return str(self.findings.get(f"{key}.reason", "not recorded"))


@dataclass(frozen=True)
class Headline:
    """One of the five numbers, with its n, or with what to supply."""

    label: str
    value: Sequence[str | Value]
    note: Sequence[str | Value] = ()
    alarm: bool = False


def verdict(page: Page) -> list[str | Value]:
    """Return the sentence that the page is about; it never claims more than was tested."""
    v = page.value
    if not page.has("identical.images"):
        return ["This run did not finish its search: it says nothing yet."]
    if page.findings["identical.images"] == 0:
        if page.itself:
            return [
                "No slice is identical to one of another patient: ", v("queries.generated"),
                " slices were compared with each other."
            ]  # fmt: skip
        return [
            "No generated image is identical to a real slice: ", v("queries.generated"),
            " images were compared with ", v("slices.searched"), " slices. ", *_copies(page),
        ]  # fmt: skip
    who: list[str | Value] = [". "]
    if page.has("identical.patients"):
        who = [", of ", v("identical.patients"), " patients of the corpus. "]
    if page.itself:
        return [
            v("identical.images"), " of ", v("queries.generated"),
            " slices are identical to a slice of another patient", *who,
        ]  # fmt: skip
    return [
        v("identical.images"), " of ", v("queries.generated"),
        " generated images are identical to ", v("identical.slices"), " real slices", *who,
        *_copies(page),
    ]  # fmt: skip


def _copies(page: Page) -> list[str | Value]:
    """Say what the sentence about identical images does not speak of."""
    if not page.posed:
        return [
            "Copies that were moved, resized, blurred or made noisy were not looked for: nothing "
            "is said of them."
        ]
    return [
        "Each was also turned, resized and shifted to ", page.value("pose.poses"), " poses: the "
        "most similar pairs are below. Whether they are copies this version does not decide: "
        "nothing is said of copies that are not identical.",
    ]  # fmt: skip


def headlines(page: Page) -> list[Headline]:
    """Return the five numbers of the first page, each with its n or with what to supply."""
    v = page.value
    q = page.findings.get("settings.q")
    return [
        Headline(
            "Slices compared with each other" if page.itself else "Generated images audited",
            [v("queries.generated")],
            ["and ", v("queries.control"), " control images"]
            if page.has("queries.control")
            else [],
        ),
        _searched(page),
        _identical(page),
        Headline(
            f"Patients found at false-discovery rate {q if q is not None else 'q'}",
            [v("patients.found")],
        ),
        Headline("Weakest planted copy found", [v("limit.weakest", "text")]),
    ]


def _searched(page: Page) -> Headline:
    v, label = page.value, "Patients and slices searched"
    slices: list[str | Value] = [v("slices.searched"), " slices"]
    if page.has("patients.searched"):
        return Headline(label, [v("patients.searched"), " patients, ", *slices])
    if page.has("groups.searched"):
        reason = [page.reason("patients.searched")]
        return Headline(label, [v("groups.searched"), " groups, ", *slices], reason)
    return Headline(label, [v("slices.searched")])


def _identical(page: Page) -> Headline:
    v, label = page.value, "Identical images"
    if not page.has("identical.images"):
        return Headline(label, [v("identical.images")])
    note: list[str | Value] = ["of ", v("queries.generated")]
    if page.has("identical.patients"):
        note += ["; ", v("identical.patients"), " patients, ", v("identical.slices"), " slices"]
    alarm = page.findings["identical.images"] > 0
    return Headline(label, [v("identical.images")], note, alarm)


# -- what was tested


def tested(page: Page) -> list[Any]:
    v = page.value
    done: list[list[str | Value]] = [
        ["Every slice against every slice of another patient, each pair once: " if page.itself
         else "Every generated image against every real slice: ", v("pairs.compared.generated"),
         " pairs, Pearson r over all pixels, in exact integer arithmetic, at the stored position."],
        ["Left out, because an image of one grey level correlates with nothing: images ",
         v("queries.excluded"), ", real slices ", v("slices.excluded"), "."],
    ]  # fmt: skip
    if page.has("queries.control"):
        done.insert(1, [
            "In the same way, " + page.controls + ": ", v("queries.control"), " images, ",
            v("pairs.compared.control"), " pairs; none was compared with its own patient.",
        ])  # fmt: skip
    questions = {
        "table1.generated_pose.n": "Images that fit a slice once turned, resized or shifted",
        "register.pairs": "Copies after registration, and which region was copied",
        "images.found": "Images that show a patient, at a stated false-discovery rate",
        "patients.found": "Patients that are shown, at a stated false-discovery rate",
        "set.p_value": "Whether the whole set is closer to its patients than to strangers",
        "limit.weakest": "The weakest copy that this run would still find",
        "fid.value": "Distances between whole sets (FID, KID)",
        "queries.control": "How similar slices of other patients are",
        "patients.searched": "Anything that is counted in patients",
    }
    missing = [[text, v(key)] for key, text in questions.items() if not page.has(key)]
    if page.posed:
        done.append([
            "At other positions: every image turned, resized and shifted to ", v("pose.poses"),
            " poses, ", v("pose.pairs_screened.generated"), " generated pairs at 32 px; the best ",
            v("pose.pairs_refined.generated"), " pairs of image and patient closely, at 128 px.",
        ])  # fmt: skip
    if page.has("register.pairs"):
        done.append([
            "Registered: ", v("register.pairs"), " pairs of image and slice by an affine map, ",
            v("register.elastic"), " of them elastically too.",
        ])  # fmt: skip
    if not page.has("queries.generated"):
        done = [["Nothing yet: the search did not finish."]]
    return [
        Items(done),
        Table(["Not tested, and what to supply"], ["Question", "Answer"], missing, text=True),
    ]
