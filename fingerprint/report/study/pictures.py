"""Pictures of a study: training slices above generated images, and the most similar pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from fingerprint.register import kept
from fingerprint.report import pairs, raster, similar
from fingerprint.report.blocks import Pair, Pairs, Prose, Sheet, View
from fingerprint.report.pairs import Slices, webp
from fingerprint.report.study.page import Parts, StudyPage, rekeyed

CLASSES = {"c1": "c1 upper liver", "c2": "c2 heart", "c3": "c3 shoulders"}
EACH, TILE_PX, GAP_PX = 3, 116, 8
GREY = 255

# -- Fig. 1


def no_examples(page: StudyPage) -> str:
    """Say why there are no pictures."""
    if page.examples:
        return ""
    return page.without_images or "no training set and no generated images are there to be opened"


def examples(page: StudyPage) -> list[Any]:
    """Return a picture for each size: training slices above, generated images below."""
    about: Parts = [
        "As Fig. 1 of paper 000: slices of the training set above, images of its generator below; "
        f"from the left {', '.join(CLASSES.values())}, as far as there are any. Both are told from "
        "the image by the same rules. Spread evenly over what there is of a class, not chosen; "
        "over all where the slices, or the images, are of none."
    ]
    return [Prose(about), *(_sheet(page, name, uri) for name, uri in page.examples.items())]


def _sheet(page: StudyPage, name: str, uri: str) -> Sheet:
    title = f"{page.label(name)} training slices"
    return Sheet(title, uri, f"{title}: real above, generated below, by class")


def strip(real: Slices, generated: Slices) -> str:
    """Draw `EACH` slices of each class above as many generated images, as a data URI."""
    width = (TILE_PX * EACH + GAP_PX) * len(CLASSES) - GAP_PX
    out = np.full((2 * TILE_PX + GAP_PX, width), GREY, np.uint8)
    told = any((real.label("region") == name).any() for name in CLASSES)
    for row, corpus in enumerate((real, generated)):
        for column, places in enumerate(_groups(corpus, told)):
            images = corpus.at(_spread(places))
            for k, image in enumerate(images):
                x = column * (TILE_PX * EACH + GAP_PX) + k * TILE_PX
                y = row * (TILE_PX + GAP_PX)
                out[y : y + TILE_PX, x : x + TILE_PX] = _small(image)
    return webp(out, width)


def _groups(corpus: Slices, told: bool) -> list[NDArray[np.int64]]:
    """Return the slices of each class; where none was `told`, or none is here, thirds of all."""
    region = corpus.label("region").astype(object)
    groups = [np.flatnonzero(region == name) for name in CLASSES]
    if told and any(map(len, groups)):
        return groups
    return np.array_split(np.arange(len(region)), len(CLASSES))


def _spread(places: NDArray[np.int64]) -> list[int]:
    k = min(EACH, len(places))
    return [int(places[i]) for i in ((np.arange(k) + 0.5) * len(places) / max(k, 1)).astype(int)]


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (TILE_PX, TILE_PX)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


# -- Fig. 5


def no_tops(page: StudyPage) -> str:
    """Say why no pair is shown."""
    if any(page.has(f"{name}.pairs.shown") for name in page.once):
        return ""
    return page.reason(f"{page.points[0]}.pairs.shown") if page.points else "no size was audited"


def tops(page: StudyPage) -> list[Any]:
    """Return the most similar pair of each size: as stored, after affine, after elastic."""
    about: Parts = [
        "As Fig. 5 of paper 000: the most similar pair of each size, with its scores as stored, "
        "after an affine map and after an elastic one. The paper prints MI of 10.5, 11.7 and 12.5 "
        "of one pair; 8-bit images hold at most 8 bits of it (E07), and its unit is not stated. "
        "The elastic step makes strangers alike too: the audit of each size sets the scores beside "
        "those of its controls. What the paper calls rigid-body affine is a similarity of four "
        "parameters (E08); here the pose search finds one, and the affine step has six.",
    ]  # fmt: skip
    shown = [name for name in page.once if page.findings.get(f"{name}.pairs.shown")]
    out: list[Any] = [Prose(about)]
    if not page.without_images and shown:
        out.append(similar.scale_of(page.of(shown[0])))
    return [*out, Pairs([_pair(page, name) for name in shown])]


def _pair(page: StudyPage, name: str) -> Pair:
    pair: Pair = rekeyed(similar.pair_of(page.of(name), 1), name)
    of = f"of {page.label(name, 'slices')}"
    views = pair.views if name not in page.between else _eight(pair.views, *page.between[name])
    views = [replace(view, alt=view.alt.replace("of pair 1", of)) for view in views]
    head = [("Training slices", page.value(f"{name}.asked")), *pair.head]
    return replace(pair, place=page.slices(name), head=head, views=views)


def _eight(views: Sequence[View], stored: str, affine: str) -> list[View]:
    """Put the difference of each stage below its image; the regions are below the real slice."""
    *four, last, regions = views
    if four[3].uri:
        last = replace(last, caption="difference, elastic")
    else:  # what it shows is after the affine map then
        last = View("", "elastic: not run for this pair")
    words = {"as stored": stored, "affine": affine}
    two = [View("", f"difference, {stage}", f"Difference of pair 1, {stage}", uri)
           for stage, uri in words.items()]  # fmt: skip
    return [*four, regions, *two, last]


def between(
    findings: Mapping[str, Any], generated: Slices, real: Slices, registration: xr.Dataset | None
) -> tuple[str, str] | None:
    """Return the differences of the first pair as stored and after its affine map, as data URIs.

    None where the pair was not registered; `report.pairs.pictures` has the last difference, and
    found the images by the digest of their pixels.
    """
    at = (findings["pair.1.query"], int(findings["pair.1.slice"]))
    row = None if registration is None else kept.places(registration).get(at)
    if registration is None or row is None:
        return None
    digests = [str(digest) for digest in generated.label("digest")]
    image = generated.at([digests.index(findings["pair.1.query_digest"])])[0]
    other = real.at([at[1]])[0]
    matrix = registration["matrix"].isel(query=row).to_numpy()
    moved, inside = pairs.aligned(image, matrix, None)
    both = raster.difference(image, other), raster.difference(moved, other, inside)
    return webp(both[0], pairs.LARGE_PX), webp(both[1], pairs.LARGE_PX)
