"""The page of a run whose pairs were registered: the pictures of Fig. 5, scores, warp, regions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from test_report import SCHEMA, MadeRun, Parsed, changed, jsonschema, make_run, matrices

from fingerprint import warp
from fingerprint.measure import findings as measure
from fingerprint.measure import registered
from fingerprint.register import kept
from fingerprint.report import figures, pairs, raster
from fingerprint.search import matches

STEPS = ("raw", "affine", "elastic")
REGIONS = [
    {"kind": "copied", "tiles": [[0, 0], [0, 1]], "tile_px": 8, "area_px": 128, "y_px": 3.5,
     "x_px": 7.5, "organ": "lung", "side": "right"},
    {"kind": "differs", "tiles": [[4, 4]], "tile_px": 8, "area_px": 64, "y_px": 35.5,
     "x_px": 35.5, "organ": "", "side": ""},
]  # fmt: skip


def register(made: MadeRun, *, elastic: int) -> MadeRun:
    """Leave what the registration leaves; `elastic`: pairs of each query that were bent."""
    path, size = made.path / "matches.parquet", made.corpora["real"].pixels.shape[1]
    table = matches.load(path)
    draw = np.random.default_rng(5)
    bent = (table["rank"] <= elastic).to_numpy()
    for step in STEPS:
        there = bent if step == "elastic" else np.ones(len(table), bool)
        for name in ("mi_bits", "nmi", "ssim"):
            table.loc[there, f"{name}_{step}"] = draw.uniform(1, 2, there.sum())
        for name in ("r_", "r_highpass_") if step != "raw" else ():
            table.loc[there, name + step] = draw.uniform(0.5, 1, there.sum())
    table.loc[bent, "deformation_energy"] = draw.uniform(0, 0.1, bent.sum())
    table.loc[bent, "bending_energy"] = 1e-4
    table.loc[bent, "min_jacobian"] = 0.8
    matches.save(table, path)

    first = table[table["rank"] == 1].reset_index(drop=True)
    n = len(first)
    turned = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, size - 1.0]])  # a quarter: no rounding
    field = np.full((n, 2, 8, 8), np.nan, np.float32)
    field[: n if elastic else 0] = 0
    values = {"matrix": np.repeat(turned[None], n, 0), "slice": first["slice"].to_numpy(np.int64)}
    values |= {"field": field, "tiles": np.zeros((n, 6, 6))}
    names = first["query"].astype(str).tolist()
    with kept.writing(made.path / "registration.zarr", names, first["query_set"].tolist()) as out:
        out.add({name: rows[:5] for name, rows in values.items()})
        out.add({name: rows[5:] for name, rows in values.items()})

    run = json.loads((made.path / "run.json").read_bytes())
    counts = {"pairs": len(table), "elastic": int(bent.sum()), "diverged": 3}
    run |= {"registration": counts, "settings": run["settings"] | {"register_patients": 4}}
    (made.path / "run.json").write_text(json.dumps(run))
    image = measure.primary_image(run)
    found = measure.collect(
        matrices(made.path / "correlation.zarr", []),
        matches.most_similar(path, image),
        run,
        {role: corpus.summary for role, corpus in made.corpora.items()},
        best=matches.best_pairs(path),
        parts={1: {"list": REGIONS, "null": "tile"}},
    )
    (made.path / "findings.json").write_text(json.dumps(found, allow_nan=False))
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    run = make_run(tmp_path_factory.mktemp("registered"), moved=3, pose=True)
    return register(run, elastic=1)


@pytest.fixture(scope="module")
def parsed(made: MadeRun) -> Parsed:
    return Parsed(made.build())


def shown(parsed: Parsed) -> list[list[str]]:
    """Classes of the pictures of each pair, in order."""
    rows: list[list[str]] = []
    for tag, found in parsed.elements:
        if tag == "article":
            rows.append([])
        elif tag == "img" and rows and (found.get("src") or "").startswith("data:image/webp"):
            rows[-1].append(found.get("class") or "")
    return rows


def test_pictures_stand_in_the_order_of_fig_5(parsed: Parsed) -> None:
    rows = shown(parsed)
    fig5 = ["real", "generated", "affine", "elastic", "difference", "regions"]
    assert rows[0] == fig5
    assert all(row == fig5[:-1] for row in rows[1:])
    assert "regions: not tested" in parsed.text


def test_a_pair_that_is_like_a_stranger_has_no_region(made: MadeRun, tmp_path: Path) -> None:
    same = changed(made, tmp_path, findings={"pair.2.regions.list": []})
    assert "no region stands out from the controls" in Parsed(same.build()).text


def test_too_few_controls_are_no_answer(made: MadeRun, tmp_path: Path) -> None:
    edits = {"pair.2.regions.list": [], "pair.2.regions.resolved": False}
    page = changed(made, tmp_path, findings=edits).build()
    assert "the controls are too few to tell at this level" in page


def test_numbers_follow_the_schema(made: MadeRun) -> None:
    jsonschema.validate(made.findings, SCHEMA)


def test_scores_of_every_step_stand_on_the_page_as_in_the_findings(
    made: MadeRun, parsed: Parsed
) -> None:
    on_page = {key: text for key, text, section in parsed.numbers if section == "pairs"}
    for step in STEPS:
        assert on_page[f"pair.1.mi_bits_{step}"] == f"{made.findings[f'pair.1.mi_bits_{step}']:.2f}"
        assert f"pair.1.ssim_{step}" in on_page
    assert on_page["pair.1.min_jacobian"] == "0.800"
    assert "pair.1.r_highpass_elastic" in on_page


def test_regions_are_named_with_organ_and_side(parsed: Parsed) -> None:
    assert "Copied: mostly right lung, 128 px around (4, 8)." in parsed.text
    assert "Differs: mostly body, 64 px around (36, 36)." in parsed.text


def test_many_regions_are_counted(made: MadeRun, tmp_path: Path) -> None:
    one = REGIONS[0]
    edits = {"pair.1.regions.list": [one | {"tiles": [[0, k]]} for k in range(6)]}
    parsed = Parsed(changed(made, tmp_path, findings=edits).build())
    assert parsed.text.count("mostly right lung") == 4
    assert "; and 2 smaller ." in parsed.text or "; and 2 smaller." in parsed.text


def test_medians_of_both_sets_stand_side_by_side(made: MadeRun, parsed: Parsed) -> None:
    best = matches.best_pairs(made.path / "matches.parquet")
    for query_set in ("generated", "control"):
        energy = registered.of_set(best, query_set, "deformation_energy")
        key = f"register.deformation_energy.{query_set}.median"
        assert made.findings[key] == np.median(energy[np.isfinite(energy)])
        assert any(name == key for name, _, section in parsed.numbers if section == "registered")
    assert made.findings["register.diverged"] == 3


def test_a_pair_that_was_not_bent_says_so(tmp_path: Path) -> None:
    parsed = Parsed(register(make_run(tmp_path, pose=True), elastic=0).build())
    assert all(row[:4] == ["real", "generated", "affine", "difference"] for row in shown(parsed))
    assert "elastic: not run for this pair" in parsed.text


def test_a_run_without_registration_says_why(tmp_path: Path) -> None:
    made = make_run(tmp_path, settings={"register_patients": 0})
    assert made.findings["register.pairs"] is None
    assert "register_patients = 0" in Parsed(made.build()).text


def test_a_damaged_store_costs_its_pictures_and_nothing_else(tmp_path: Path) -> None:
    made = register(make_run(tmp_path, pose=True), elastic=1)
    chunks = (made.path / "registration.zarr" / "field" / "c").rglob("*")
    chunk = next(path for path in chunks if path.is_file())
    chunk.write_bytes(b"\0" + chunk.read_bytes()[1:])
    parsed = Parsed(made.build())
    assert "registration.zarr cannot be read" in parsed.text
    assert ["generated", "real"] == [
        name for name in shown(parsed)[0] if name in ("generated", "real")
    ]
    chunk.unlink()
    assert "registration.zarr cannot be read" in Parsed(made.build()).text


def test_no_picture_leaves_with_the_version_to_pass_on(made: MadeRun) -> None:
    parsed = Parsed(made.build(without_real_images=True))
    assert not any(shown(parsed))
    assert "pair.1.mi_bits_elastic" in {key for key, _, _ in parsed.numbers}


def test_aligned_shows_the_image_at_the_map(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    quarter = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 31.0]])
    got, inside = pairs.aligned(image, quarter, None)
    # (y, x) shows what lies at (x, 31 - y)
    np.testing.assert_array_equal(got, image.T[::-1])
    assert inside.all()
    pose = (10.0, 1.05, 3.0, -2.0, 0.0)
    back = np.linalg.inv(warp.matrix(pose, 32))[:2]
    smooth = ndimage.gaussian_filter(image.astype(float), 2).round().astype(np.uint8)
    np.testing.assert_allclose(
        pairs.aligned(smooth, back, None)[0], warp.apply(smooth[None], pose)[0], atol=0.51
    )


def test_aligned_adds_the_field_of_the_coarse_grid(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    down = np.zeros((2, 4, 4), np.float32)
    down[0] = 2
    identity = np.eye(2, 3)
    got, inside = pairs.aligned(image, identity, down)
    np.testing.assert_array_equal(got[:30], image[2:])
    assert not inside[30:].any()
    assert inside[:30].all()


def test_regions_are_drawn_where_their_tiles_are() -> None:
    image = np.full((48, 48), 100, np.uint8)
    got = raster.outlined(image, REGIONS)
    assert (got[0, 0] == raster.COPIED).all()
    assert (got[6, 15] == raster.COPIED).all()
    assert (got[4, 8] == 100).all()  # inside: the slice is seen
    coloured = (got != 100).any(axis=2)
    assert not coloured[10:30].any()
    assert coloured[32:40, 32:40].any()
    assert not coloured[33, 41:].any()


def test_likeness_and_warp_draws_both_sets_and_energies_of_zero() -> None:
    r = np.linspace(0.2, 1, 7)
    svg = figures.likeness_and_warp({"generated": (r, r * 0), "control": (r, r / 10)})
    assert svg.count("<use ") >= 14
    assert "deformation energy" in svg
