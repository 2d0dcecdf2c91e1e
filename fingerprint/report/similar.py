"""The most similar pairs in words: scores as stored and at best pose, and what the pose is."""

from __future__ import annotations

from typing import Any

from fingerprint.report import raster
from fingerprint.report.blocks import Inline, Pair, Pairs, Prose, Scale, Value
from fingerprint.report.page import Page

HEAD = {
    "query": ("Generated image", "text"),
    "participant": ("Patient", "text"),
    "slice": ("Slice", "n"),
    "r_raw": ("r, as stored", "r"),
    "slice_raw": ("of slice", "n"),
    "r_pose": ("r, best pose", "r"),
    "r_highpass": ("r, high-pass", "r"),
    "r_body": ("r, body", "r"),
    "z": ("z", "z"),
    "r_affine": ("r, affine", "r"),
    "r_elastic": ("r, elastic", "r"),
}


def title(page: Page) -> str:
    """Return the title of the section: at which pose pairs were compared."""
    return "Most similar pairs, at best pose" if page.posed else "Most similar pairs"


def pairs(page: Page) -> list[Any]:
    shown = int(page.findings["pairs.shown"])
    about: list[str | Value] = [
        f"The best {page.person} of each of the most similar generated images, most similar first. "
    ]
    if page.posed:
        about += [
            f"Identical images come first, then the order is by r of the {page.image} image at "
            "best pose. It is an order to look at, not a list of copies: this version does not "
            "decide which of them are more similar than strangers are. "
        ]
    about += [
        "Patients are pseudonyms: whoever holds the key turns them back with fingerprint locate. ",
        page.without_images
        or "Difference is generated minus real: black is equal. Pictures are compressed.",
    ]
    out: list[Any] = [Prose(about)]
    if not page.without_images:
        out.append(_scale(page))
    return [*out, Pairs([_pair(page, k) for k in range(1, shown + 1)])]


def _scale(page: Page) -> Scale:
    what = "difference in grey levels (blue: generated is darker; orange: brighter"
    if page.posed:
        what += "; grey: outside the image that was moved"
    ends = [f"\u2212{raster.FULL_COLOUR}", f"+{raster.FULL_COLOUR}"]
    return Scale(raster.difference_bar(), ends, f"{what})")


def _pair(page: Page, k: int) -> Pair:
    key = f"pair.{k}"
    head: list[tuple[str, Value | Inline]] = [
        (page.person.title() if name == "participant" else text, page.value(f"{key}.{name}", kind))
        for name, (text, kind) in HEAD.items()
        if page.has(f"{key}.{name}") and not _said(page, key, name)
    ]
    if page.posed:
        head.append(("Best pose", pose_in_words(page, key)))
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
    return Pair(
        k, same, head, found.generated, found.real, found.difference, found.moved,
        ("best pose: as stored" if page.has(f"{key}.angle_deg") else "best pose: not refined")
        if page.posed and not found.moved
        else "",
    )  # fmt: skip


def _said(page: Page, key: str, name: str) -> bool:
    """Whether a number says nothing here: z beside a pose, and the slice that was named already."""
    if name == "slice_raw":
        return bool(page.findings[f"{key}.slice_raw"] == page.findings[f"{key}.slice"])
    return page.posed and name == "z"


def pose_in_words(page: Page, key: str) -> Inline:
    """Return what brings the generated image onto the slice, in the order in which it is done."""
    if not page.has(f"{key}.angle_deg"):
        return ["not refined: too far down in the search over poses"]
    v, found = page.value, page.findings
    turn, scale = found[f"{key}.angle_deg"], found[f"{key}.scale"]
    down, right = found[f"{key}.shift_y_px"], found[f"{key}.shift_x_px"]
    parts: list[list[str | Value]] = []
    if found.get(f"{key}.mirrored"):
        parts.append(["mirrored"])
    if round(abs(turn), 1):
        parts.append(["turned ", v(f"{key}.angle_deg", "turn")])
    if round(abs(scale - 1), 3):
        way = "enlarged by " if scale > 1 else "reduced by "
        parts.append([way, v(f"{key}.scale", "size")])
    moved = [
        v(f"{key}.{name}", kind)
        for name, kind, far in (("shift_y_px", "down", down), ("shift_x_px", "right", right))
        if round(abs(far))
    ]
    if moved:
        parts.append(["moved ", moved[0], *(part for m in moved[1:] for part in (" and ", m))])
    if not parts:
        return ["as stored"]
    words = parts[0]
    for part in parts[1:]:
        words += [", ", *part]
    return words
