"""The page of a run: what it says, what it leaves out, and what cannot happen on it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import warnings
from copy import deepcopy
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image
from scipy import ndimage

from fingerprint import warp
from fingerprint.ledger import Damaged
from fingerprint.measure import findings as measure
from fingerprint.report import blocks, figures, pairs, raster, sections, similar
from fingerprint.report.build import build, matrices
from fingerprint.report.page import Page
from fingerprint.search import correlation, matches
from fingerprint.search.layout import Labels
from fingerprint.search.tile import Band

SCHEMA = json.loads(files("fingerprint.report").joinpath("findings.schema.json").read_text())
NEVER = ("private", "safe", "anonymous", "compliant", "no leakage", "probability of copying")


# -- a run without a search: synthetic patients, and r from the same integers


def thorax(patient: int, level: float, size: int) -> np.ndarray:
    """Draw an axial slice of a made-up patient: body, lungs, heart, spine, vessels, texture."""
    rng = np.random.default_rng(patient)
    p = rng.normal(0, 1, 24)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]

    def inside(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        edge = 1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2
        return np.clip(edge * size / 12, 0, 1)

    image = np.full((size, size), 6.0)
    image += 118 * inside(0.03 * p[0], 0.05, 0.86 + 0.04 * p[1], 0.62 + 0.05 * p[2])
    image += 12 * inside(0.03 * p[0], 0.05, 0.79 + 0.04 * p[1], 0.54 + 0.05 * p[2])
    grow = 1 - 0.25 * level
    for side in (-1, 1):
        lung = inside(
            side * (0.40 + 0.02 * p[3]),
            0.03 * p[4],
            (0.27 + 0.03 * p[5 + side]) * grow,
            (0.40 + 0.04 * p[7 + side]) * grow,
        )
        image -= 100 * lung
        for k in range(9):
            cx = side * (0.40 + 0.12 * np.sin(7.1 * k + p[9]))
            cy = 0.25 * np.cos(5.3 * k + p[10] + 2 * level)
            image += 55 * lung * inside(cx, cy, 0.012 + 0.003 * k, 0.012 + 0.003 * k)
    image += 22 * inside(0.08 + 0.03 * p[11], -0.04 + 0.1 * level, 0.22 + 0.02 * p[12], 0.2)
    image += 90 * inside(0.01 * p[13], 0.42, 0.09, 0.08)
    image += 60 * inside(0.0, 0.72, 0.95, 0.02)
    texture = np.random.default_rng([patient, int(1000 * level)]).normal(0, 4, (size, size))
    return np.clip(np.round(image + texture), 0, 255).astype(np.uint8)


@dataclass
class FakeCorpus:
    """A corpus in memory: what a page asks of one."""

    pixels: np.ndarray
    labels: pd.DataFrame
    summary: dict[str, Any]
    digest: str = "d" * 64
    damaged: set[int] = field(default_factory=set)

    @property
    def n(self) -> int:
        return len(self.pixels)

    def label(self, name: str) -> np.ndarray:
        return self.labels[name].to_numpy()

    def at(self, indices) -> np.ndarray:
        if self.damaged & {int(i) for i in indices}:
            raise Damaged("real: pixels/c/0/0/0 is not what was sealed")
        return self.pixels[np.asarray(indices)]


def fake(pixels: np.ndarray, owners: list[str], **summary: Any) -> FakeCorpus:
    labels = pd.DataFrame(
        {
            "participant": owners,
            "scan": ["S" + p[1:] for p in owners],
            "digest": [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels],
            "token": [f"{i:012x}" for i in range(len(pixels))],
        }
    )
    n = len(pixels)
    table = {
        "seen": n + 3, "accepted": n, "excluded": {"no_age": 1}, "rejected": {"truncated": 2},
        "bytes_in": n * 526_336, "bytes_out": n * 262_144, "scans": len(set(owners)),
        "participants": len(set(owners)), "men": 3, "women": 2, "slices": n,
        "slices_m": n // 2, "slices_f": n - n // 2, "slices_per_scan": 5.5, "no_age": 0,
        "no_sex": 0, "flags": {"deidentified": n}, "participants_known": "known", "notes": [],
    }  # fmt: skip
    return FakeCorpus(pixels, labels, table | summary)


def exact_r(queries: np.ndarray, slices: np.ndarray) -> np.ndarray:
    x, y = (a.reshape(len(a), -1).astype(np.float64) for a in (queries, slices))
    n = x.shape[1]
    num = n * (x @ y.T) - x.sum(1)[:, None] * y.sum(1)
    var_x, var_y = (n * (a * a).sum(1) - a.sum(1) ** 2 for a in (x, y))
    return num / np.sqrt(var_x[:, None] * var_y)


def highpass(images: np.ndarray) -> np.ndarray:
    return images - ndimage.gaussian_filter(images.astype(np.float64), (0, 2, 2))


def best_per_patient(r: np.ndarray, owner: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, ...]:
    n = int(owner.max()) + 1
    best, at = np.full((len(r), n), np.nan), np.full((len(r), n), -1, np.int64)
    for p in range(n):
        members = np.flatnonzero(owner == p)
        k = r[:, members].argmax(axis=1)
        best[:, p], at[:, p] = r[np.arange(len(r)), members[k]], members[k]
    left_out = own[:, None] == np.arange(n)
    best[left_out], at[left_out] = np.nan, -1
    return best, at


MOVED = (-7.5, 1.04, 12.0, -8.0, 0.0)  # best pose of the moved copies


@dataclass
class Searched:
    """Images, their sets and own patients, and the slices and patients that they meet."""

    images: np.ndarray
    sets: list[str]
    own: np.ndarray
    slices: np.ndarray
    owner: np.ndarray
    patients: list[str]


def store(path: Path, searched: dict[str, Searched], tokens: list[str], *, pose: bool) -> None:
    """Write ``correlation.zarr`` as a search leaves it."""
    stages = ("raw", "screen", "pose") if pose else ("raw",)
    labels = {
        name: Labels(tokens[: len(s.images)], s.sets, s.patients, {"queries": 1, "slices": 2})
        for name, s in searched.items()
    }
    correlation.create_from(path, labels, stages=stages, image="highpass")
    for name, s in searched.items():
        bands = {stage: [] for stage in stages}
        for query_set in dict.fromkeys(s.sets):
            mine = np.flatnonzero(np.array(s.sets) == query_set)
            rows = slice(int(mine[0]), int(mine[-1]) + 1)
            r_all = exact_r(s.images[mine], s.slices)
            r, at = best_per_patient(r_all, s.owner, s.own[mine])
            r_all[s.own[mine][:, None] == s.owner] = np.nan  # not compared with its own patient
            counts = np.histogram(r_all[~np.isnan(r_all)], 4096, (-1, 1))[0].astype(np.int64)
            twice = np.stack([r, r]), np.stack([at, at])
            for stage in stages[:2]:
                bands[stage].append(Band(query_set, rows, *twice, counts))
            if pose:
                bands["pose"].append(posed(query_set, rows, s.images[mine], s.slices, r, at))
        for stage in stages:
            correlation.write_stage(path, name, stage, bands[stage])


def posed(query_set: str, rows: slice, images, slices, r: np.ndarray, at: np.ndarray) -> Band:
    """Refine by trying two poses on the best slice of each patient."""
    shape, more = r.shape, {name: np.full(r.shape, np.nan) for name in warp.POSE[:4]}
    more["mirrored"] = np.full(shape, -1, np.int8)
    found = np.full((3, *shape), np.nan)
    for i, j in np.argwhere(at >= 0):
        if j == 0 and r[i, j] < 0.5:
            continue  # not among the best: not refined
        tried = [warp.IDENTITY, MOVED]
        shown = warp.apply(images[i][None], np.array(tried))
        other = slices[at[i, j]][None].astype(np.float64)
        both = [
            exact_r(shown, other),
            exact_r(shown, other),
            exact_r(highpass(shown), highpass(other)),
        ]
        k = int(both[2].argmax())
        found[:, i, j] = np.clip([scores[k, 0] for scores in both], -1, 1)
        for name, value in zip(warp.POSE, tried[k], strict=True):
            more[name][i, j] = value
    there = ~np.isnan(found[2])
    return Band(
        query_set, rows, found[2][None], np.where(there, at, -1)[None],
        np.zeros(4096, np.int64), more | {"r_image": found},
    )  # fmt: skip


@dataclass
class MadeRun:
    """A run folder and the corpora it points to."""

    path: Path
    corpora: dict[str, FakeCorpus]

    def open(self, path: Path) -> FakeCorpus:
        return self.corpora[path.name]

    def build(self, **options: Any) -> str:
        return build(self.path, open_corpus=self.open, **options).read_text(encoding="utf-8")

    @property
    def findings(self) -> dict[str, Any]:
        return json.loads((self.path / "findings.json").read_bytes())


def make_run(
    path: Path,
    *,
    queries: int = 12,
    patients: int = 5,
    slices: int = 3,
    size: int = 48,
    copies: int = 2,
    moved: int = 0,
    pose: bool = False,
    controls: bool = True,
    held_out: bool = False,
    notes: tuple[str, ...] = (),
    settings: dict[str, Any] | None = None,
    **summary: Any,
) -> MadeRun:
    """Leave in `path` what an audit leaves, made from synthetic patients.

    The first `copies` generated images are exact copies, the next `copies` noisy ones, and the next
    `moved` of them lie at `MOVED`. `pose`: as if every pose had been searched. `held_out`: the
    controls are those of other patients.
    """
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    levels = np.linspace(0, 1, slices)
    real = np.array([thorax(p, z, size) for p in range(patients) for z in levels])
    owner = np.repeat(np.arange(patients), slices)
    names = [f"P{hashlib.sha256(bytes([p])).hexdigest()[:12]}" for p in range(patients)]
    copied = rng.choice(len(real), 2 * copies, replace=False)
    noisy = np.clip(real[copied[copies:]] + rng.normal(0, 6, (copies, size, size)), 0, 255)
    elsewhere = warp.apply(real[:moved], warp.inverse(MOVED)).round() if moved else real[:0]
    fresh = queries - 2 * copies - moved
    novel = [thorax(1000 + k, rng.uniform(), size) for k in range(fresh)]
    parts = [*real[copied[:copies]], *noisy, *elsewhere, *novel]
    generated = np.array(parts).astype(np.uint8)

    own = np.full(len(generated), -1)
    images, sets = generated, ["generated"] * len(generated)
    strangers = np.array([thorax(500 + p, 0.5, size) for p in range(4)])
    if controls:
        chosen = np.flatnonzero(np.arange(len(real)) % slices == slices // 2)
        images = np.concatenate([generated, strangers if held_out else real[chosen]])
        own = np.append(own, np.full(4, -1) if held_out else owner[chosen])
        sets += ["control"] * (len(images) - len(generated))
    tokens = [f"{'g' if s == 'generated' else 'c'}_{i:012x}" for i, s in enumerate(sets)]
    searched = {"real": Searched(images, sets, own, real, owner, names)}
    if held_out:
        at_home = np.append(np.full(len(generated), -1), np.arange(4))
        others = [f"Q{p}" for p in range(4)]
        searched["control"] = Searched(images, sets, at_home, strangers, np.arange(4), others)
    if pose:
        each = np.arange(len(generated))
        searched["generated"] = Searched(
            generated, sets[: len(generated)], each, generated, each, tokens[: len(generated)]
        )
    store(path / "correlation.zarr", searched, tokens, pose=pose)
    corpora = {
        "real": fake(real, [names[p] for p in owner], **summary),
        "generated": fake(generated, [""] * len(generated), participants=0),
    }
    if held_out:
        corpora["controls"] = fake(strangers, [f"Q{p}" for p in range(4)])
    for role, corpus in corpora.items():
        corpus.digest = hashlib.sha256(role.encode()).hexdigest()
    matrix = correlation.load(path / "correlation.zarr")
    assert matrix.sizes["query"] == len(tokens)
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    table = matches.matches(matrix, digests, corpora["real"], 4)
    matches.save(table, path / "matches.parquet")
    run = {
        "format": [1, 0], "run": "ab12" * 16, "status": "complete",
        "settings": {"window_hu": [-1000, 1000], "q": 0.05, "seed": 7, "range": None,
                     "pose": pose, "image": "highpass", "refine_64": 1024, "refine_128": 256,
                     "angle_deg": 15.0, "scale": 0.1, "shift_px": 40.0}
        | (settings or {}),
        "inputs": {
            role: {"digest": c.digest, "path": f"corpora/{role}", "key_id": "0" * 12, "n": c.n,
                   "patients": patients}
            for role, c in corpora.items()
        },
        "grid": {"angles_deg": [-15.0, 0.0, 15.0], "scales": [0.9, 1.0, 1.1], "poses": 81,
                 "shifts_px": [-40.0, 0.0, 40.0], "mirrors": [0]},
        "versions": {"fingerprint": "0.1.0", "python": "3.11.7"},
        "hardware": {"machine": "x86_64", "cores": 2}, "seeds": {"seed": 7},
        "started": "2026-11-20T10:00:00+00:00", "ended": "2026-11-20T10:01:00+00:00",
        "notes": list(notes),
        "phases": {name: {"planned": 2, "done": 2} for name in ("search", "match", "stats")},
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps(run))
    summaries = {role: corpus.summary for role, corpus in corpora.items()}
    searched_all = matrices(path / "correlation.zarr", [])
    found = measure.collect(searched_all, matches.load(path / "matches.parquet"), run, summaries)
    (path / "findings.json").write_text(json.dumps(found, allow_nan=False))
    return MadeRun(path, corpora)


# -- reading a page


BLOCK = {"script": "data-block"}  # a script element that holds data


class Parsed(HTMLParser):
    """The elements of a page with their attributes, its text, and what stands under each key."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []  # that run; a block of data is no script
        self.data: list[str] = []
        self.pieces: list[str] = []
        self.numbers: list[tuple[str, str, str]] = []  # key, text, id of the section
        self._open: list[tuple[str, str | None]] = []
        self._section = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag == "section":
            self._section = found.get("id") or ""
        if tag not in ("meta", "img", "br", "link", "input"):
            block = tag == "script" and found.get("type") == "application/json"
            self._open.append(("data-block" if block else tag, found.get("data-key")))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] not in (tag, BLOCK.get(tag)):
            pass

    def handle_data(self, data: str) -> None:
        tag, key = self._open[-1] if self._open else ("", None)
        if tag == "script":
            self.scripts.append(data)
        elif tag == "data-block":
            self.data.append(data)
        elif tag != "style":
            self.pieces.append(data)
            if key:
                self.numbers.append((key, data, self._section))

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.pieces))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return make_run(tmp_path_factory.mktemp("run"), notes=("The windows differ.",))


@pytest.fixture(scope="module")
def page(made: MadeRun) -> str:
    return made.build()


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    """A run that searched every pose: copies that were moved, and held-out controls."""
    return make_run(tmp_path_factory.mktemp("moved"), moved=3, pose=True, held_out=True)


@pytest.fixture(scope="module")
def parsed_moved(moved: MadeRun) -> Parsed:
    return Parsed(moved.build())


def changed(made: MadeRun, path: Path, **edits: Any) -> MadeRun:
    """Copy a run, with entries of its JSON files replaced: ``run={...}, findings={...}``."""
    shutil.copytree(made.path, path, dirs_exist_ok=True)
    copy = MadeRun(path, deepcopy(made.corpora))
    for name, changes in edits.items():
        file = copy.path / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_bytes()) | changes))
    return copy


# -- what it says


def test_first_line_says_that_patients_are_shown(parsed: Parsed) -> None:
    assert "contains images of patients" in parsed.text.split("fingerprint")[0]


def test_first_page_holds_five_numbers_as_in_the_findings(made: MadeRun, parsed: Parsed) -> None:
    first = {key: text for key, text, section in parsed.numbers if section == "first"}
    f = made.findings
    for key in ("queries.generated", "patients.searched", "slices.searched", "identical.images"):
        assert first[key] == f"{f[key]:,}"
    assert first["patients.found"] == first["limit.weakest"] == "not run"
    assert f["patients.found.reason"] in parsed.text
    assert f["limit.weakest.reason"] in parsed.text
    assert (f["queries.generated"], f["identical.images"]) == (12, 2)
    assert len(parsed.of("dl")[0:1]) == 1


@pytest.mark.parametrize("name", ["made", "moved"])
def test_every_number_on_the_page_is_that_of_the_findings(
    name: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    f, parsed = run.findings, Parsed(run.build())
    assert len(parsed.numbers) > 150
    for key, text, _ in parsed.numbers:
        found = blocks.lookup(f, key)
        assert found is not None or key in f, key
        written = {"not run"} if found is None else set()
        for kind in () if found is None else blocks.WRITE:
            try:
                written.add(blocks.value(f, key, kind).text)
            except (TypeError, ValueError, AttributeError):
                continue  # a text is not written as a number
        assert text in written, key


@pytest.mark.parametrize("name", ["made", "moved"])
def test_findings_of_a_run_obey_the_schema(name: str, request: pytest.FixtureRequest) -> None:
    jsonschema.validate(request.getfixturevalue(name).findings, SCHEMA)


def test_verdict_names_copies_or_says_what_it_does_not_speak_of(tmp_path: Path) -> None:
    copies = Parsed(make_run(tmp_path / "a").build()).text
    assert "2 of 12 generated images are identical to 2 real slices" in copies
    none = Parsed(make_run(tmp_path / "b", copies=0).build()).text
    assert "No generated image is identical to a real slice" in none
    assert "Nothing is said of them" in none
    assert "no pair of a generated image and a real slice has r = 1" in none


@pytest.mark.parametrize("name", ["made", "moved"])
def test_words_that_promise_too_much_are_never_printed(
    name: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    pages = [Parsed(run.build(without_real_images=bare)).text for bare in (True, False)]
    for text in (*pages, json.dumps(run.findings)):
        assert [word for word in NEVER if re.search(rf"\b{word}\b", text, re.I)] == []


def test_notes_of_the_run_are_read_first(parsed: Parsed) -> None:
    assert "The windows differ." in parsed.text.split("What was tested, and what was not")[0]


def test_codes_stand_beside_their_sentence(parsed: Parsed) -> None:
    assert "truncated: the file ends before its data does" in parsed.text


def test_unknown_patients_are_said_to_be_unknown(tmp_path: Path) -> None:
    text = Parsed(make_run(tmp_path, participants_known="clusters").build()).text
    assert "patients unknown" in text.split("What was tested")[0]
    assert "5 groups" in text
    assert "x 5 patients" not in text
    assert "x 5 groups" in text


def test_a_run_without_controls_is_built(tmp_path: Path) -> None:
    text = Parsed(make_run(tmp_path, controls=False).build()).text
    assert "How similar slices of other patients are" in text


@pytest.mark.parametrize(("name", "curves"), [("parsed", 4), ("parsed_moved", 6)])
def test_page_can_be_read_with_a_screen_reader(
    name: str, curves: int, request: pytest.FixtureRequest
) -> None:
    parsed = request.getfixturevalue(name)
    assert parsed.of("html")[0]["lang"] == "en"
    assert len(parsed.of("h1")) == 1
    assert [attrs for attrs in parsed.of("img") if "alt" not in attrs] == []
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert len(parsed.of("svg")) == curves


# -- at best pose


def test_a_moved_copy_is_shown_as_stored_and_at_best_pose(
    moved: MadeRun, parsed_moved: Parsed
) -> None:
    f, parsed = moved.findings, parsed_moved
    assert "Most similar pairs, at best pose" in parsed.text
    turned = [k for k in range(1, f["pairs.shown"] + 1) if f.get(f"pair.{k}.angle_deg")]
    words = "turned 7.5\u00b0 anticlockwise , enlarged by 4 % , moved 12 px down and 8 px left"
    assert parsed.text.count(words) == len(turned) >= 3
    k = turned[0]
    assert f[f"pair.{k}.r_pose"] > f[f"pair.{k}.r_raw"]
    shown = [a["src"] for a in parsed.of("img") if a.get("class") == "moved"]
    as_stored = [a["src"] for a in parsed.of("img") if a.get("class") == "generated"]
    real = moved.corpora["real"].pixels[f[f"pair.{k}.slice"]].astype(int)
    far, near = (
        np.abs(_pixels(uri).astype(int) - real)[8:40, 8:40].mean()
        for uri in (as_stored[k - 1], shown[0])
    )
    assert near < 0.4 * far


def test_a_pair_that_fits_as_stored_says_so(parsed_moved: Parsed) -> None:
    assert "Best pose as stored" in parsed_moved.text
    assert "best pose: as stored" in parsed_moved.text


def test_pairs_are_called_similar_and_not_copies(parsed_moved: Parsed, tmp_path: Path) -> None:
    assert "It is an order to look at, not a list of copies" in parsed_moved.text
    none = Parsed(make_run(tmp_path, copies=0, moved=2, pose=True).build()).text
    assert "No generated image is identical to a real slice" in none
    assert "which are copies was not decided" in none


def test_the_search_is_described_with_its_limits(parsed_moved: Parsed, parsed: Parsed) -> None:
    text = parsed_moved.text.split("How the search was done")[-1]
    for words in ("81 poses", "up to 1,024", "up to 256", "\u221215 to 15", "0.90 to 1.10",
                  "\u221240 to 40", "mirrored copies: give --mirror"):  # fmt: skip
        assert words in text
    without = parsed.text.split("How the search was done")[-1]
    assert "pose = false in the settings" in without
    assert "copies that were turned, resized, shifted, mirrored or bent" in without


def test_all_five_comparisons_are_on_the_page_or_say_what_to_supply(
    parsed_moved: Parsed, parsed: Parsed
) -> None:
    numbers = {key for key, text, _ in parsed_moved.numbers if text != "not run"}
    for name in ("generated", "control", "generated_control", "control_control",
                 "generated_generated"):  # fmt: skip
        assert {f"table1.{name}.max_r", f"table1.{name}_pose.max_r"} <= numbers
    assert "duplicates.identical_images" in numbers
    text = parsed.text.split("Who was compared with whom")[-1].split("How the search was done")[0]
    assert "no held-out patients" in text


def test_version_to_pass_on_holds_no_moved_picture_either(moved: MadeRun) -> None:
    text = moved.build(without_real_images=True)
    assert "data:image/webp" not in text
    assert "anticlockwise" in text


def test_an_unfinished_search_over_poses_says_so(moved: MadeRun, tmp_path: Path) -> None:
    run = changed(moved, tmp_path, run={"status": "incomplete"})
    for name in ("matches.parquet", "findings.json"):
        (run.path / name).unlink()
    shutil.rmtree(run.path / "correlation.zarr")
    labels = {"real": Labels(["g_1"], ["generated"], ["P1"], {"queries": 0, "slices": 0})}
    correlation.create_from(
        run.path / "correlation.zarr", labels, stages=("raw",), image="highpass"
    )
    text = Parsed(run.build()).text
    assert "it says nothing yet" in text
    assert "it is damaged" not in text


def test_a_damaged_matrix_of_another_block_is_named(moved: MadeRun, tmp_path: Path) -> None:
    run = changed(moved, tmp_path)
    (run.path / "correlation.zarr" / "control" / "zarr.json").write_bytes(b"{broken")
    (run.path / "findings.json").unlink()
    text = run.build()
    assert "correlation.zarr cannot be read: it is damaged" in text
    assert "data:image/webp" in text


@pytest.mark.parametrize(
    ("pose", "words"),
    [
        ((0, 1, 0, 0, 0), "as stored"),
        ((0.04, 1.0004, 0.4, -0.4, 0), "as stored"),
        ((7.5, 1.04, 12, -8, 0),
         "turned 7.5\u00b0 clockwise, enlarged by 4 %, moved 12 px down and 8 px left"),
        ((-12, 0.955, -3, 0, 1),
         "mirrored, turned 12\u00b0 anticlockwise, reduced by 4.5 %, moved 3 px up"),
        ((0, 1, 0, 20, 0), "moved 20 px right"),
    ],
)  # fmt: skip
def test_a_pose_is_written_in_words(pose: tuple[float, ...], words: str) -> None:
    f = {f"pair.1.{name}": value for name, value in zip(warp.POSE, pose, strict=True)}
    made = Page({**f, "pair.1.mirrored": bool(pose[4])}, None, {}, "")
    parts = similar.pose_in_words(made, "pair.1")
    assert "".join(p if isinstance(p, str) else p.text for p in parts) == words


def test_a_moved_picture_is_where_the_pose_puts_it() -> None:
    image = np.zeros((64, 64), np.uint8)
    image[20:24, 30:34] = 200
    moved, inside = pairs.at_pose(image, (0.0, 1.0, 80.0, -40.0, 0.0))  # 10 px down, 5 left
    assert np.argwhere(moved == 200).min(axis=0).tolist() == [30, 25]
    assert not inside[:10].any()
    assert inside[10:, :59].all()
    mirrored, _ = pairs.at_pose(image, (0.0, 1.0, 0.0, 0.0, 1.0))
    assert np.array_equal(mirrored, image[:, ::-1])


def test_what_lies_outside_a_moved_image_is_grey_in_the_difference() -> None:
    x = np.full((2, 2), 9, np.uint8)
    got = raster.difference(x, x, np.array([[True, False], [True, True]]))
    assert got[0, 1].tolist() == list(raster.OUTSIDE)
    assert got[1].max() == 0


def test_many_images_do_not_make_the_drawing_large() -> None:
    rng = np.random.default_rng(0)
    raw, posed = rng.random(50_000) * 0.5, rng.random(50_000) * 0.5 + 0.4
    svg = figures.raw_against_pose({"generated": (raw, posed), "control": (raw, posed)})
    assert len(svg) < 800_000
    assert len(figures.sorted_curve({"generated": raw, "generated_pose": posed})) < 200_000


def test_equal_values_are_drawn_although_their_mean_is_rounded() -> None:
    z = np.full(3, 0.1)  # their mean is above the largest of them
    assert z.mean() > z.max()
    assert figures.effect_sizes({"generated": z}, 20, [])


def test_a_corpus_against_itself_has_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path, controls=False)
    path, dims = run.path / "correlation.zarr", ("stage", "slices", "query", "rank")
    whole = correlation.load(path).load()
    order = np.argsort(-whole["r"].values, axis=-1)[..., :2]
    arrays = {name: np.take_along_axis(whole[name].values, order, -1) for name in ("r", "slice")}
    itself = xr.Dataset(
        {name: (dims, array[:, :1]) for name, array in (arrays | {"who": order}).items()}
        | {"histogram": whole["histogram"]},
        coords={"stage": ["raw"], "slices": ["all"], "query": whole["query"],
                "query_set": whole["query_set"], "patient": whole["patient"]},
        attrs=whole.attrs,
    ).drop_encoding()  # fmt: skip
    shutil.rmtree(path)
    (run.path / "findings.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata is not in the Zarr 3 specification
        itself.to_zarr(path, zarr_format=3, consolidated=True, write_empty_chunks=True)
    text = Parsed(run.build()).text
    assert "only the best 2 patients of each slice were kept" in text
    assert "a corpus compared with itself is searched at the stored position only" in text
    assert "2 of 12 generated images are identical" in text


# -- what it leaves out


def test_version_to_pass_on_holds_no_picture_of_a_slice(made: MadeRun, page: str) -> None:
    text = made.build(without_real_images=True)
    assert "data:image/webp" in page
    assert "data:image/webp" not in text
    without = Parsed(text)
    assert "Images of patients were left out" in without.text.split("fingerprint")[0]
    assert "contains images of patients" not in text
    assert dict((k, t) for k, t, _ in without.numbers)["identical.images"] == "2"
    assert (made.path / "report-without-real-images.html").exists()


def test_page_is_for_its_owner_alone_and_nothing_is_left_beside_it(made: MadeRun) -> None:
    made.build()
    assert (made.path / "report.html").stat().st_mode & 0o777 == 0o600
    assert list(made.path.glob("*.wip")) == []


def test_pictures_are_those_of_the_pair(made: MadeRun, parsed: Parsed) -> None:
    shown = [attrs for attrs in parsed.of("img") if attrs.get("class") in ("generated", "real")]
    assert len(shown) == 2 * made.findings["pairs.shown"] == 24
    first = [_pixels(attrs["src"]) for attrs in shown[:2]]
    assert np.array_equal(*first)  # pair 1 is an exact copy
    real = made.corpora["real"].pixels[made.findings["pair.1.slice"]]
    assert np.abs(first[1].astype(int) - real).mean() < 8  # compressed, but this slice


def _pixels(uri: str | None) -> np.ndarray:
    data = base64.b64decode(str(uri).split(",")[1])
    return np.asarray(Image.open(BytesIO(data)).convert("L"))


def test_a_changed_corpus_puts_no_wrong_picture_on_the_page(made: MadeRun, tmp_path: Path) -> None:
    run = changed(made, tmp_path)
    sealed, run.corpora["real"].digest = run.corpora["real"].digest, "e" * 64
    text = run.build()
    assert "data:image/webp" not in text
    assert "has changed since the run" in text
    run.corpora["real"].digest = sealed
    run.corpora["real"].labels["digest"] = "another"
    assert "the corpora no longer hold these images" in run.build()


def test_a_damaged_chunk_costs_its_pictures_not_the_page(made: MadeRun, tmp_path: Path) -> None:
    run = changed(made, tmp_path)
    run.corpora["real"].damaged = {run.findings["pair.1.slice"]}
    text = run.build()
    assert "the stored bytes are damaged" in text
    assert "data:image/webp" in text


# -- a run that did not finish


@pytest.mark.parametrize("gone", ["correlation.zarr", "matches.parquet", "findings.json"])
def test_unfinished_run_has_a_report_that_says_so(made: MadeRun, tmp_path: Path, gone: str) -> None:
    run = changed(made, tmp_path, run={
        "status": "incomplete",
        "phases": {"search": {"planned": 8, "done": 3}},
    })  # fmt: skip
    for name in {"correlation.zarr": [gone, "matches.parquet", "findings.json"]}.get(gone, [gone]):
        (run.path / name).rename(run.path / f"gone-{name}")
    text = run.build()
    assert re.search(r"<title>INCOMPLETE", text)
    assert "3 of 8 shards are done" in text
    assert f"{gone} is not there" in text
    if gone == "correlation.zarr":
        assert "it says nothing yet" in Parsed(text).text


def test_a_run_that_is_not_marked_complete_is_incomplete(made: MadeRun, tmp_path: Path) -> None:
    run = changed(made, tmp_path, run={"status": "running"})
    assert "<title>INCOMPLETE" in run.build()


def test_a_complete_run_is_not_called_incomplete(page: str) -> None:
    assert "INCOMPLETE" not in page


@pytest.mark.parametrize(
    "name", ["run.json", "findings.json", "matches.parquet", "correlation.zarr/zarr.json"]
)
def test_a_damaged_file_of_the_run_is_named_and_the_page_is_built(
    made: MadeRun, tmp_path: Path, name: str
) -> None:
    run = changed(made, tmp_path)
    (run.path / name).write_bytes(b"{broken")
    text = run.build()
    assert f"{name.split('/')[0]} cannot be read: it is damaged" in text


def test_corpora_that_are_gone_cost_the_pictures_only(made: MadeRun, tmp_path: Path) -> None:
    run = changed(made, tmp_path)

    def gone(path: Path) -> FakeCorpus:
        raise ValueError("not a corpus")

    text = build(run.path, open_corpus=gone).read_text()
    assert "cannot be opened where the run left it" in text
    assert "data:image/webp" not in text


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run"):
        build(tmp_path)


def test_the_same_run_gives_the_same_bytes(made: MadeRun, page: str) -> None:
    assert made.build() == page


# -- what cannot happen on it


def test_page_allows_its_own_script_and_nothing_else(parsed: Parsed) -> None:
    policies = [a["content"] for a in parsed.of("meta") if "http-equiv" in a]
    digest = base64.b64encode(hashlib.sha256("".join(parsed.scripts).encode()).digest()).decode()
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    ]
    assert len(parsed.of("script")) == 1


def test_page_fetches_nothing(page: str, parsed: Parsed) -> None:
    for tag, attrs in parsed.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            if name in attrs:
                assert str(attrs[name]).startswith(("data:image/", "#")), (tag, name)
    style = page.split("<style>")[1]
    assert "url(" not in style.split("</style>")[0]
    assert "@import" not in page


SEEDS = (
    "<script>alert(1)</script>", "</script><script>x()</script>", '"><img src=x onerror=x()>',
    "' onerror='x()", '" onmouseover="x()', "<svg/onload=x()>", "</style><script>x()</script>",
    "{{ 7 * 7 }}", "{% raw %}", "javascript:x()", "<iframe src=//e.x>", "</title><script>x()",
    "<!--<script>", "]]><script>x()</script>", "&lt;script&gt;", "<base href=//e.x>",
    "<meta http-equiv=refresh content=0>", "\u202e<b>", "<a href=//e.x>", "=cmd|'/c calc'!A0",
)  # fmt: skip
PAYLOADS = [f"{before}{seed}{k}" for before in ("", "x ", "\"'>") for k, seed in enumerate(SEEDS)]


def test_text_from_outside_is_inert_wherever_it_stands(
    made: MadeRun, tmp_path: Path, parsed: Parsed
) -> None:
    f = made.findings
    places = [k for k in f if k.endswith((".query", ".participant", ".reason", ".scan"))]
    edits: dict[str, Any] = {key: PAYLOADS[i % 60] for i, key in enumerate(places)}
    edits["identical.list"] = [
        {"query": p, "participant": p, "slice": i} for i, p in enumerate(PAYLOADS)
    ]
    edits |= {f"settings.{p}": p for p in PAYLOADS}
    edits |= {f"rejected.real.{p}": 1 for p in PAYLOADS} | {"notes.real": PAYLOADS}
    edits["notes"] = PAYLOADS
    versions = {"versions": {"fingerprint": PAYLOADS[0]}, "started": PAYLOADS[1], "ended": None}
    phases = {p: {"planned": 2, "done": 1} for p in PAYLOADS}
    hostile = changed(
        made, tmp_path, findings=edits, run=versions | {"run": PAYLOADS[2], "phases": phases}
    )
    got = Parsed(hostile.build())
    assert len(got.of("script")) == 1
    assert got.scripts == parsed.scripts
    assert {tag for tag, _ in got.elements} <= {tag for tag, _ in parsed.elements} | {"div"}
    assert [a for _, a in got.elements if any(name.startswith("on") for name in a)] == []
    assert "<script>alert(1)</script>0" in got.text  # shown as it is, as text
    assert "{{ 7 * 7 }}" in got.text


def test_a_hostile_patient_name_in_the_matches_is_inert(
    made: MadeRun, tmp_path: Path, parsed: Parsed
) -> None:
    run = changed(made, tmp_path)
    (run.path / "findings.json").unlink()
    table = pd.read_parquet(run.path / "matches.parquet")
    table["participant"] = PAYLOADS[0]
    table.to_parquet(run.path / "matches.parquet", index=False)
    got = Parsed(run.build())
    assert got.scripts == parsed.scripts
    assert PAYLOADS[0] in got.text


# -- the pieces


def test_only_one_is_written_as_one() -> None:
    f = {"a": 1.0, "b": 1 - 5.6e-10, "c": 0.99994, "d": -0.25, "e": -1.0, "f": 0.99996}
    written = {key: blocks.value(f, key, "r").text for key in f}
    assert written == {
        "a": "1", "b": "1 \u2212 5.6e-10", "c": "0.9999", "d": "\u22120.2500", "e": "-1",
        "f": "1 \u2212 4.0e-05",
    }  # fmt: skip


def test_bytes_are_written_for_people() -> None:
    sizes = {"a": 12, "b": 262_144 * 1_002_012, "c": 700 * 1024**3}
    assert [blocks.value(sizes, k, "bytes").text for k in sizes] == [
        "12 B", "244.6 GiB", "700.0 GiB"
    ]  # fmt: skip


def test_equal_pixels_have_no_difference_and_its_sign_has_a_colour() -> None:
    x = np.array([[10, 200, 10]], np.uint8)
    y = np.array([[10, 10, 200]], np.uint8)
    got = raster.difference(x, y)
    assert got[0, 0].tolist() == [0, 0, 0]
    assert got[0, 1].tolist() == list(raster.BRIGHTER)
    assert got[0, 2].tolist() == list(raster.DARKER)


def test_a_large_matrix_is_joined_by_its_maximum() -> None:
    r = np.full((1300, 8463), 0.5)
    r[1299, 8462], r[0, 0] = 1.0, np.nan
    parts = ((np.arange(k, min(k + 7, 1300)), r[k : k + 7]) for k in range(0, 1300, 7))
    joined, rows, columns = raster.join(parts, *r.shape)
    uri = raster.matrix_image(joined, 0.5)
    image = Image.open(BytesIO(base64.b64decode(uri.split(",")[1])))
    cells = np.asarray(image)
    assert (rows, columns) == (3, 9)
    assert cells.shape == (434, 941)
    assert cells[-1, -1] == 254
    assert (cells == 254).sum() == 1
    assert cells[0, 0] == 0  # one cell of the 27 is missing, the others are there
    assert len(uri) < 20_000


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40, 240, 8463, 1_002_012])
def test_axes_have_a_few_ticks_inside_them(n: int) -> None:
    places = raster.ticks(n)
    assert 1 <= len(places) <= 7
    assert all(0 <= at <= 100 for at, _ in places)


def test_sections_are_declared_once_each() -> None:
    names = [section.name for section in sections.SECTIONS]
    assert len(names) == len(set(names))
    assert names[0] == "decision"


# -- in a browser


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.browser
@pytest.mark.skipif(_chromium() is None, reason="Chromium is not installed")
@pytest.mark.parametrize(("name", "width"), [("made", 390), ("made", 1280), ("moved", 390)])
def test_page_fits_and_compares_in_a_browser(
    name: str, width: int, request: pytest.FixtureRequest
) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    made = request.getfixturevalue(name)
    made.build()
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=_chromium(), args=flags)
        tab = browser.new_page(viewport={"width": width, "height": 900})
        said: list[str] = []
        asked: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto((made.path / "report.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        slider = tab.locator(".compare input").first
        slider.fill("100")
        over = tab.locator("img.over").first
        assert over.evaluate("e => e.style.clipPath").startswith("inset(0px")
        tab.locator(".compare button").first.click()
        assert tab.locator(".compare button").first.get_attribute("aria-pressed") == "true"
        assert said == []
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        browser.close()
