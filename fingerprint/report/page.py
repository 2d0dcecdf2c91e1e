"""What a page is made from, and the section of what was tested and what was not."""

from __future__ import annotations

from collections.abc import Mapping
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
    queries: pd.DataFrame | None = None  # every query with its scores and p

    def value(self, key: str, kind: str = "n") -> Value:
        """Return one entry of the findings as it is shown."""
        return blocks.value(self.findings, key, kind)

    def has(self, key: str) -> bool:
        """Whether a number was computed."""
        return blocks.lookup(self.findings, key) is not None

    def cell(self, key: str, kind: str = "n") -> str | Value:
        """Return a number for a table, a dash where there is none."""
        return self.value(key, kind) if self.has(key) else "\u2013"

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
