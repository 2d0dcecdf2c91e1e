"""How the search was done: who was compared with whom, at which poses, and what was left out."""

from __future__ import annotations

from typing import Any

from fingerprint.report.blocks import Items, Prose, Table, Value
from fingerprint.report.page import Page

BLOCKS = {
    "generated": "Generated, against real",
    "control": "Controls, against real",
    "generated_control": "Generated, against controls",
    "control_control": "Controls, against controls",
    "generated_generated": "Generated, against generated",
}
COLUMNS = {"n": "n", "mean_r": "r", "max_r": "r"}


def blocks(page: Page) -> list[Any]:
    """Return the five comparisons: how similar the best of each image is."""
    v, posed = page.value, page.posed
    done = [name for name in BLOCKS if page.has(f"table1.{name}.n")]
    columns = ["Comparison", "Images", "Mean best r", "Largest r"]
    columns += ["Mean, best pose", "Largest, best pose"] if posed else []
    rows = []
    for name in done:
        row: list[str | Value] = [
            BLOCKS[name],
            *(v(f"table1.{name}.{stat}", kind) for stat, kind in COLUMNS.items()),
        ]
        if posed:
            row += [v(f"table1.{name}_pose.{stat}", "r") for stat in ("mean_r", "max_r")]
        rows.append(row)
    note = ["Over the best r of every image. No image is compared with itself, no control with "
            "its own patient."]  # fmt: skip
    if posed:
        note.append(" At best pose: raw image, 128 px, over the patients that were refined.")
    out: list[Any] = [Table(["Every comparison of this run"], columns, rows, note)]
    if page.has("duplicates.identical_images"):
        out.append(Prose([
            "Generated images that are identical to another generated image: ",
            v("duplicates.identical_images"), " of ", v("table1.generated_generated.n"), ".",
        ]))  # fmt: skip
    missing = [[text, v(f"table1.{name}.n")] for name, text in BLOCKS.items() if name not in done]
    if missing:
        out.append(Table(["Not compared, and what to supply"], ["Comparison", "Answer"], missing,
                         text=True))  # fmt: skip
    return out


def search(page: Page) -> list[Any]:
    """Return the steps of the search with their sizes, and what lies outside of it."""
    v = page.value
    rows: list[list[Any]] = [["As stored, all pixels", [
        "Every image against every slice: ", v("pairs.compared.generated"),
        " generated pairs, Pearson r in exact integer arithmetic."]]]  # fmt: skip
    if page.posed:
        rows += _poses(page)
    else:
        rows.append(["Every pose", v("table1.generated_pose.n")])
    return [
        Table(["Steps"], ["Step", "What was done"], rows, text=True),
        *([_grid(page)] if page.posed else []),
        Prose(["Not searched:"]),
        Items([*_limits(page), *([line] for line in _outside(page))]),
    ]


def _poses(page: Page) -> list[list[Any]]:
    v = page.value
    return [
        ["Every pose, 32 px", [
            "Every image at ", v("pose.poses"), " poses against every slice, 32 x 32 (the 384 "
            "pixels in the middle), local contrast normalised (sigma 1.5 px), 8 bits: ",
            v("pose.pairs_screened.generated"), " generated pairs, each at its best pose.",
        ]],
        ["Closer, 64 and 128 px", [
            f"The best {page.person}s of each image, by pose and as stored, between the steps of "
            "the grid too: up to ", v("pose.refined_64"), " at 64 px, up to ",
            v("pose.refined_128"), " at 128 px; ", v("pose.pairs_refined.generated"),
            " generated pairs in all. r at best pose is taken at 128 px on three images: raw; body "
            "(what is outside the body set to air); high-pass (anatomy that all people share taken "
            "away).",
        ]],
        ["Order", [f"Pairs stand in the order of r of the {page.image} image at best pose."]],
    ]  # fmt: skip


def _grid(page: Page) -> Table:
    v = page.value
    rows = [
        ["Turn about the centre, degrees", v("pose.angle_deg", "range"), v("pose.angle_deg.steps")],
        ["Size", v("pose.scale", "sizes"), v("pose.scale.steps")],
        ["Shift along y and along x, pixels of a 512 x 512 image", v("pose.shift_px", "range"),
         v("pose.shift_px.steps")],
        ["Mirrored", v("pose.mirrored", "text"), ""],
    ]  # fmt: skip
    return Table(["Grid of poses"], ["", "Searched", "Steps"], rows)


def _limits(page: Page) -> list[list[str | Value]]:
    """Return the ends of the grid as sentences: copies that were moved further are not found."""
    if not page.has("pose.angle_deg"):
        return []
    v = page.value
    out: list[list[str | Value]] = [[
        "copies that were turned beyond ", v("pose.angle_deg", "range"), "\u00b0, resized beyond ",
        v("pose.scale", "sizes"), ", or shifted beyond ", v("pose.shift_px", "range"), " px",
    ]]  # fmt: skip
    if page.findings.get("pose.mirrored") is False:
        out.append(["mirrored copies: give --mirror and another OUT"])
    return out


def _outside(page: Page) -> list[str]:
    if not page.posed:
        return ["copies that were turned, resized, shifted, mirrored or bent"]
    return [
        "copies that were bent so far that no turn, size and shift brings their source among the "
        "listed pairs: only those are registered elastically",
        "copies of a part of a slice, or blended with another slice: r is taken over whole images",
        f"{page.person}s that were not among the best of the search over poses: their r at best "
        "pose is not refined",
    ]
