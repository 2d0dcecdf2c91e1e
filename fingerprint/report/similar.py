"""The most similar pairs: scores as stored, at best pose and registered, and how they look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fingerprint.report import raster
from fingerprint.report.blocks import Inline, Pair, Pairs, Prose, Scale, Table, Value, View
from fingerprint.report.page import Page
from fingerprint.report.pairs import Shown

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
}
STEPS = {"raw": "as stored", "affine": "affine", "elastic": "elastic"}
SCORES = {
    "r_{}": ("r", "r"),
    "r_highpass_{}": ("r, high-pass", "r"),
    "mi_bits_{}": ("mutual information, bits", "bits"),
    "nmi_{}": ("mutual information, normalised (1 to 2)", "share"),
    "ssim_{}": ("structural similarity", "share"),
}
WARP = {
    "deformation_energy": ("deformation energy ", "energy"),
    "bending_energy": ("; bending energy ", "energy"),
    "min_jacobian": ("; smallest change of area ", "share"),
}
NAMED = 4  # regions of a kind that are written out, the largest
REGIONS = {"copied": "Copied: ", "differs": "Differs: "}


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
            "best pose. It is an order to look at, not a list of copies: which are more similar "
            "than strangers are stands under Findings. "
        ]
    about += [
        "Patients are pseudonyms: whoever holds the key turns them back with fingerprint locate. ",
        page.without_images
        or "Difference is generated minus real: black is equal. Pictures are compressed.",
        _registered(page),
    ]
    out: list[Any] = [Prose(about)]
    if not page.without_images:
        out.append(scale_of(page))
    return [*out, Pairs([pair_of(page, k) for k in range(1, shown + 1)])]


def _registered(page: Page) -> str:
    if not page.has("register.pairs"):
        return ""
    return (
        " As in Fig. 5 of paper 000: the generated image is brought onto the real slice by an "
        "affine map, then by an elastic one. Regions are tiles of 32 px whose detail is more alike "
        "(orange), or less (blue, dashed), than the same tiles are in the best pairs of the "
        "controls, at false-discovery rate q within the pair; which pairs are shown was chosen by "
        "likeness, so the rate holds for a pair that is a finding."
    )


def scale_of(page: Page) -> Scale:
    """Return the bar of colours of a difference."""
    what = "difference in grey levels (blue: generated is darker; orange: brighter"
    if page.posed:
        what += "; grey: outside the image that was moved"
    ends = [f"\u2212{raster.FULL_COLOUR}", f"+{raster.FULL_COLOUR}"]
    return Scale(raster.difference_bar(), ends, f"{what})")


def pair_of(page: Page, k: int) -> Pair:
    """Return one pair: its scores at every step, its warp, its pictures."""
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
    steps, notes = _steps(page, key), _notes(page, key)
    if page.without_images:
        return Pair(k, same, head, (), steps, notes)
    if isinstance(found, str):
        return Pair(k, same, head, (), steps, notes, absent=found)
    return Pair(k, same, head, views(page, k, found), steps, notes)


def views(page: Page, k: int, found: Shown) -> list[View]:
    """Return the pictures of a pair in order: as Fig. 5 of paper 000, where it was registered."""

    def view(name: str, uri: str, caption: str, alt: str) -> View:
        return View(name, caption, alt.format(k), uri)

    real = view("real", found.real, "real", "Real slice of pair {}")
    stored = view("generated", found.generated, "generated", "Generated image of pair {}")
    between = view(
        "difference", found.difference, "difference", "Difference of pair {}: black where equal"
    )
    if found.affine:
        out = [real, stored]
        out.append(view("affine", found.affine, "affine", "Generated image of pair {}, affine"))
        if found.elastic:
            alt = "Generated image of pair {}, elastic"
            out.append(view("elastic", found.elastic, "elastic", alt))
        else:
            out.append(View("", "elastic: not run for this pair"))
        out.append(between)
        if found.regions:
            alt = "Real slice of pair {}, with the regions that were copied and that differ"
            return [*out, view("regions", found.regions, "regions", alt)]
        tested = page.has(f"pair.{k}.regions.list")
        why = "no region stands out from the controls" if tested else "regions: not tested"
        if page.findings.get(f"pair.{k}.regions.resolved") is False:
            why = "regions: the controls are too few to tell at this level"
        return [*out, View("", why)]
    if not page.posed:
        return [stored, real, between]
    if found.moved:
        alt = "Generated image of pair {}, brought to its best pose"
        moved = view("moved", found.moved, "generated, best pose", alt)
    else:
        there = page.has(f"pair.{k}.angle_deg")
        moved = View("", "best pose: as stored" if there else "best pose: not refined")
    return [replace(stored, caption="generated, as stored"), moved, real, between]


def _steps(page: Page, key: str) -> list[Table]:
    """Return the scores of a pair before and after each step: MI-1, MI-2 and MI-3 of Fig. 5."""
    if not page.has(f"{key}.r_affine"):
        return []
    done = [step for step in STEPS if page.has(f"{key}.mi_bits_{step}")]
    rows = [
        [text, *(_score(page, f"{key}.{name.format(step)}", kind) for step in done)]
        for name, (text, kind) in SCORES.items()
    ]
    return [Table(["Scores"], ["", *(STEPS[step] for step in done)], rows)]


def _score(page: Page, key: str, kind: str) -> str | Value:
    """Return a score, or nothing where it is of another slice of the patient, or has no number."""
    other = key.endswith(".r_raw") and not _said(page, key.removesuffix(".r_raw"), "slice_raw")
    return page.value(key, kind) if page.has(key) and not other else ""


def _notes(page: Page, key: str) -> list[Inline]:
    """Return the warp that a pair took, and its regions in words."""
    warp = [
        part
        for name, (text, kind) in WARP.items()
        if page.has(f"{key}.{name}")
        for part in (text, page.value(f"{key}.{name}", kind))
    ]
    out: list[Inline] = [["Elastic: ", *warp, "."]] if warp else []
    regions = page.findings.get(f"{key}.regions.list") or []
    for kind, text in REGIONS.items():
        named = [_region(region) for region in regions if region["kind"] == kind]
        more = f"; and {len(named) - NAMED} smaller" if len(named) > NAMED else ""
        if named:
            out.append([text, "; ".join(named[:NAMED]), more, "."])
    return out


def _region(region: Mapping[str, Any]) -> str:
    where = " ".join(filter(None, (region["side"], region["organ"])))
    return (
        f"mostly {where or 'body'}, {region['area_px']:,} px around "
        f"({region['y_px']:.0f}, {region['x_px']:.0f})"
    )


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
