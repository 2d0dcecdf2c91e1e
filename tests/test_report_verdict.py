"""The verdict on the page: three levels, lists at any q, the register, limits, and the card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import test_report
import xarray as xr
from test_report import (
    NEVER,
    SCHEMA,
    SEEDS,
    MadeRun,
    Parsed,
    _chromium,
    changed,
    make_run,
)
from verdicts import judged_run, told_and_held

from fingerprint.measure import fdr, side_by_side
from fingerprint.report import blocks, card, found

WORLDS: dict[str, dict[str, Any]] = {
    "copies": {},
    "nothing": {"copies": 0, "identical": 0},
    "leaning": {"copies": 0, "identical": 0, "shown": 40},
    "few": {"controls": 6, "slices": 3},
    "repeating": {"repeats": 4},
    "unplanted": {"copies": 0, "identical": 0, "planted": 0},
}
TOO_MUCH = (*NEVER, "z-score of significance")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MadeRun]:
    """Make a judged run for each world."""
    runs = {n: judged_run(tmp_path_factory.mktemp(n), **w) for n, w in WORLDS.items()}
    return runs | {"unjudged": make_run(tmp_path_factory.mktemp("unjudged"), copies=0)}


@pytest.fixture
def copies(worlds: dict[str, MadeRun]) -> MadeRun:
    return worlds["copies"]


def section(made: MadeRun, name: str) -> str:
    text = made.build()
    inner = re.search(rf'<section id="{name}".*?</section>', text, re.S)
    assert inner, name
    return Parsed(inner.group()).text.replace(" .", ".").replace(" ,", ",").replace(" :", ":")


# -- what it says


@pytest.mark.parametrize("world", WORLDS)
def test_findings_obey_the_schema(world: str, worlds: dict[str, MadeRun]) -> None:
    jsonschema.validate(worlds[world].findings, SCHEMA)


@pytest.mark.parametrize("world", WORLDS)
def test_every_number_is_that_of_the_findings(world: str, worlds: dict[str, MadeRun]) -> None:
    class Request:
        def getfixturevalue(self, name: str) -> MadeRun:
            return worlds[name]

    test_report.test_every_number_on_the_page_is_that_of_the_findings(world, Request())


@pytest.mark.parametrize("world", [*WORLDS, "unjudged"])
def test_no_page_and_no_card_promises_too_much(world: str, worlds: dict[str, MadeRun]) -> None:
    made = worlds[world]
    texts = [Parsed(made.build()).text, (made.path / card.NAME).read_text()]
    for text in texts:
        assert [w for w in TOO_MUCH if re.search(rf"\b{re.escape(w)}\b", text, re.I)] == []
        for none in re.finditer(r"None found(?! at the)", text):
            after = re.sub(r"\s+([.,:;])", r"\1", text[none.start() : none.start() + 600])
            assert re.match(r"None found (above detection limit .{3,400}? )?"
                            r"at\s+false-discovery\s+rate\s+0\.05", after)  # fmt: skip
            assert re.search(r"detection limit|limit known", after)


def test_copies_are_named_with_their_lists(copies: MadeRun) -> None:
    text = section(copies, "first")
    assert "6 of 60 generated images show patients of the corpus: 2 identical to a real" in text
    assert "0 guaranteed (ranks among 40 control patients), 6 by the tail model" in text


def test_none_found_stands_with_its_limit(worlds: dict[str, MadeRun]) -> None:
    assert "None found above detection limit exact; noise of SD" in section(
        worlds["nothing"], "first"
    )
    without = section(worlds["unplanted"], "first")
    assert "and there is no detection limit: canaries = 0 in the settings" in without


def test_the_set_may_speak_while_its_images_are_silent(worlds: dict[str, MadeRun]) -> None:
    made = worlds["leaning"]
    assert made.findings["images.found"] == 0
    assert "No single image stands out, yet the set is closer to its training patients" in section(
        made, "first"
    )
    assert "although no single image stands out" in section(made, "first")


def test_ranks_that_cannot_speak_are_not_called_silent(worlds: dict[str, MadeRun]) -> None:
    text = section(worlds["few"], "first")
    assert "Not decided: a tail needs 10 control patients, there are 6" in text
    assert "86 would have to be found at once: more than there are" in text


def test_a_run_that_was_not_judged_says_what_is_missing(worlds: dict[str, MadeRun]) -> None:
    made = worlds["unjudged"]
    for name in ("findings", "risk", "limit", "side", "null", "set"):
        assert "the search did not finish" in section(made, name)


def test_every_patient_of_the_register_is_on_the_page(copies: MadeRun) -> None:
    text, f = section(copies, "risk"), copies.findings
    assert f["risk.patients"] == len(f["risk.list"]) == 6
    assert all(line["participant"] in text and line["query"] in text for line in f["risk.list"])


def test_planted_copies_stand_by_kind_and_strength(copies: MadeRun) -> None:
    text = section(copies, "limit")
    cells = copies.findings["limit.noise.cells"]
    assert [c["words"] in text for c in cells] == [True] * 3
    assert "74.1 %" in text


# -- lists at another q


def test_rates_of_the_slider_hold_that_of_the_run() -> None:
    for q in (0.05, 0.037, 0.2):
        steps = found.rates(q)
        assert steps == sorted(set(steps))
        assert (steps[0], steps[-1], q in steps) == (0.001, 0.5, True)


def test_data_of_the_page_cannot_end_its_element(copies: MadeRun, tmp_path: Path) -> None:
    listed = copies.findings["images.list"]
    hostile = [one | {"query": SEEDS[i % 20]} for i, one in enumerate(listed)]
    risk = [one | {"participant": SEEDS[1]} for one in copies.findings["risk.list"]]
    made = changed(copies, tmp_path, findings={"images.list": hostile, "risk.list": risk})
    got, parsed = Parsed(made.build()), Parsed(copies.build())
    assert got.scripts == parsed.scripts
    assert {tag for tag, _ in got.elements} == {tag for tag, _ in parsed.elements}
    assert [d for d in got.data if "<" in d] == []
    assert "<svg/onload=x()>" in got.text


@pytest.mark.browser
@pytest.mark.skipif(_chromium() is None, reason="Chromium is not installed")
@pytest.mark.parametrize("world", ["copies", "few", "repeating"])
def test_the_browser_lists_what_python_lists(world: str, worlds: dict[str, MadeRun]) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    made = worlds[world]
    made.build()
    listed = made.findings["images.list"]
    steps = found.rates(0.05)
    p = {
        name: np.array([np.nan if one[key] is None else one[key] for one in listed])
        for name, key in (("guaranteed", "p_patient"), ("tail", "p_value"))
    }
    by = made.findings["images.method"] == "Benjamini-Yekutieli"
    reject = fdr.benjamini_yekutieli if by else fdr.benjamini_hochberg
    same = np.array([one["list"] == "identical" for one in listed])
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=_chromium(), args=flags)
        tab = browser.new_page()
        said: list[str] = []
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("console", lambda message: said.append(message.text))
        tab.goto((made.path / "report.html").as_uri())
        for q in (0.05, 0.001, 0.004, 0.02, 0.3, 0.5):
            tab.locator(".explorer input").fill(str(steps.index(q)))
            lists = {name: reject(values, q) for name, values in p.items()}
            want = {name: int(of.sum()) for name, of in lists.items()}
            want |= {"identical": int(same.sum())}
            want |= {"any": int((same | lists["guaranteed"] | lists["tail"]).sum())}
            for name, n in want.items():
                got = tab.locator(f'.explorer [data-list="{name}"]').inner_text()
                assert got in (str(n), "not run"), (q, name)
            named = tab.locator(".explorer tbody tr.is-found").count()
            assert named == want["any"]
            assert tab.locator(".explorer .rate b").inner_text() == str(q)
        assert said == []
        browser.close()


@pytest.mark.browser
@pytest.mark.skipif(_chromium() is None, reason="Chromium is not installed")
def test_the_page_fits_a_narrow_screen(copies: MadeRun) -> None:
    class Request:
        def getfixturevalue(self, name: str) -> MadeRun:
            return copies

    test_report.test_page_fits_and_compares_in_a_browser("copies", 390, Request())


# -- the card


def test_card_is_for_its_owner_and_names_nobody(copies: MadeRun) -> None:
    page = copies.build()
    path = copies.path / card.NAME
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    names = [one["query"] for one in copies.findings["images.list"]]
    names += [line["participant"] for line in copies.findings["risk.list"]]
    assert [name for name in names if name in text] == []
    assert "6 of 60 generated images show patients of the corpus" in text
    assert text.strip() in Parsed(page).pieces[Parsed(page).pieces.index(text)]


def test_card_keeps_text_inside_its_cell(worlds: dict[str, MadeRun], tmp_path: Path) -> None:
    edits = {"set.p_value": None, "set.p_value.reason": "a|b\n<script>x()</script> [c](d)"}
    text = card.text(worlds["nothing"].findings | edits)
    line = next(x for x in text.splitlines() if x.startswith("| The whole set"))
    assert line.count("|") - line.count("\\|") == 3
    assert "\\<script\\>" in line


def test_an_unfinished_run_has_a_card_that_says_so(tmp_path: Path) -> None:
    assert "it says nothing yet" in card.text({"notes": []})


# -- control, baseline, main


def test_comparisons_are_those_of_the_scores() -> None:
    told, held = told_and_held()
    tested = told.generated
    r = np.tanh(held.z[:, 30:])
    matrix = xr.Dataset(
        {"r": (("stage", "slices", "query", "patient"), r[None, None])},
        coords={"stage": ["raw"], "slices": ["all"], "query": tested["query"].to_numpy(),
                "query_set": ("query", ["generated"] * len(r)), "patient": held.patient[30:]},
    )  # fmt: skip
    out = side_by_side.compared(told, matrix, "highpass")
    control = told.table[told.table["query_set"] == "control"]["s_excess"]
    least = np.quantile(control, 0.95)
    assert out["side.quantile"] == pytest.approx(least)
    assert out["side.main.above"] == pytest.approx((tested["s_excess"] > least).mean())
    assert out["side.control.above"] == pytest.approx(0.05, abs=0.003)
    assert out["side.baseline.r"] == pytest.approx(r.max(1).mean())
    assert out["side.main.s_excess"] > 1.3 * out["side.baseline.s_excess"]  # copies stand apart
    low, mean, high = (out[f"side.main.s_excess{end}"] for end in (".low", "", ".high"))
    assert low < mean < high


def test_without_held_out_patients_the_baseline_says_so() -> None:
    told, _ = told_and_held()
    out = side_by_side.compared(told, None, "highpass")
    assert out["side.baseline.r"] is None
    assert "no held-out patients" in out["side.baseline.r.reason"]
    assert out["side.main.n"] == 60


def test_a_field_of_a_list_has_a_key() -> None:
    f = {"a.list": [{"b": 1, "c": ["x", "y"]}], "a.list.0.d": 5}
    keys = ("a.list.0.b", "a.list.0.c.1", "a.list.0.d", "a.list.1.b", "a.list.x", "z")
    assert [blocks.lookup(f, key) for key in keys] == [1, "y", 5, None, None, None]


def test_a_run_without_its_queries_is_drawn_without_their_scores(
    copies: MadeRun, tmp_path: Path
) -> None:
    made = changed(copies, tmp_path)
    (made.path / "queries.parquet").write_bytes(b"broken")
    text = made.build()
    assert "queries.parquet cannot be read: it is damaged" in text
    assert "Behind every p" in text
