"""The page of a study: what it says of each size, what it leaves out, what cannot happen on it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from studies import STEPS, WORLDS, MadeStudy, copied, document, make_study, point, recollect
from test_report import NEVER, PAYLOADS, Parsed, _chromium
from test_report import SCHEMA as AUDIT
from test_study_findings import SCHEMA

from fingerprint.measure import study
from fingerprint.report import blocks
from fingerprint.report.blocks import Items, Prose, Value
from fingerprint.report.study import drawn
from fingerprint.report.study.build import build
from fingerprint.report.study.page import ACROSS, StudyPage, chunks, listed, rekeyed, spent
from fingerprint.report.study.sections import SECTIONS

NUMBER = r"n[1-9][0-9]*(-s[1-9][0-9]*)?\."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStudy:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def page(made: MadeStudy) -> str:
    return made.build()


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> MadeStudy:
    """A study of which nothing was audited yet: seven sizes, trained, sampled, followed."""
    path = tmp_path_factory.mktemp("waiting")
    sizes = [6 * 10**k for k in range(7)]
    (path / "study.json").write_text(json.dumps(document(("n6", "n60")) | {"status": "running"}))
    return recollect(
        MadeStudy(path), [study.Point(f"n{n}", n, 0, {"slices": n, "patients": n}) for n in sizes]
    )


def section(text: str, name: str) -> str:
    inner = re.search(rf'<section id="{name}".*?</section>', text, re.S)
    assert inner, name
    return re.sub(r"\s+([.,:;\u2019])", r"\1", Parsed(inner.group()).text)


def written(f: dict[str, Any], key: str) -> set[str]:
    """Return every way in which a page may write a number."""
    found = blocks.lookup(f, key)
    if found is None:
        return {"not run"}
    out = set()
    for write in (*blocks.WRITE.values(), spent):
        try:
            out.add(write(found))
        except (TypeError, ValueError, AttributeError):
            continue  # a text is not written as a number
    return out


# -- what it says


@pytest.mark.parametrize("name", ["made", "waiting"])
def test_every_number_on_the_page_is_that_of_the_findings(
    name: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    f, parsed = run.findings, Parsed(run.build())
    assert len(parsed.numbers) > (700 if name == "made" else 100)
    for key, text, _ in parsed.numbers:
        assert key in f or blocks.lookup(f, key) is not None, key
        assert text in written(f, key), key


def test_every_table_of_numbers_has_their_keys(page: str) -> None:
    inner = re.search(r"<main>.*</main>", page, re.S)
    assert inner
    cells = re.findall(r"<td>((?:(?!</td>).)*)</td>", inner.group(), re.S)
    bare = [cell for cell in cells if re.fullmatch(r"\s*[\u2212-]?[\d.,]+( %)?\s*", cell)]
    assert set(bare) <= {"6", "60", "600"}  # sizes are names here


def test_findings_obey_the_schema(made: MadeStudy) -> None:
    jsonschema.validate(made.findings, SCHEMA)


def test_what_was_taken_from_an_audit_obeys_its_schema(made: MadeStudy) -> None:
    own = ("asked", "run", "expected_maximum", "levels", "cohort.", "training.", "sampling.",
           "curve.", "seconds", "flagged", "excess")  # fmt: skip
    for name in WORLDS:
        of = study.under(made.findings, name)
        of = {k: v for k, v in of.items() if k == "run.digest" or not k.startswith(own)}
        jsonschema.validate(of, {k: v for k, v in AUDIT.items() if k != "required"})


def test_the_first_page_says_where_copies_were_found_and_where_none(page: str) -> None:
    text = section(page, "first")
    assert "Generators trained on 6 and 60 slices copied" in text
    assert "On 600 slices none was found above the detection limit, at false-discovery rate" in text
    assert "28 of 40 generated images show patients of the corpus: 3 identical" in text
    assert "None found above detection limit exact; noise of SD" in text
    assert "60 slices, run 2" in text
    assert "One set was made smaller." in text


@pytest.mark.parametrize("name", ["made", "waiting"])
@pytest.mark.parametrize("bare", [True, False])
def test_words_that_promise_too_much_are_never_printed(
    name: str, bare: bool, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    texts = [Parsed(run.build(without_real_images=bare)).text, json.dumps(run.findings)]
    for text in texts:
        assert [w for w in NEVER if re.search(rf"\b{w}\b", text, re.I)] == []
        assert "z-score of significance" not in text
        for none in re.finditer(r"[Nn]one (was )?found(?! at the)", text):
            after = text[none.start() : none.start() + 400]
            assert re.search(r"limit|not computed", after), after


def test_silence_without_a_limit_says_so(made: MadeStudy, tmp_path: Path) -> None:
    f = made.findings
    edits = {"n600.limit.weakest": None, "n600.limit.weakest.reason": "canaries = 0"}
    text = section(copied(made, tmp_path, findings=edits).build(), "first")
    assert "not every audit has a detection limit" in text
    assert "and there is no detection limit: canaries = 0" in text
    assert f["n600.limit.weakest"]


def test_the_whole_set_alone_is_said_apart(made: MadeStudy, tmp_path: Path) -> None:
    other = copied(made, tmp_path)
    path = other.path / "audits" / "n600" / "findings.json"
    leaning = json.loads(path.read_bytes()) | {"set.found": True, "set.p_value": 0.001}
    path.write_text(json.dumps(leaning))
    recollect(other, [point(other, name) for name in WORLDS])
    text = section(other.build(), "first")
    assert "No copies found from no size the largest training set was found too" in text
    assert "On 600 slices no single image stands out, yet the images as a whole" in text
    assert "none was found" not in text


def test_the_table_of_sizes_has_cost_share_excess_limit_and_floor(
    made: MadeStudy, page: str
) -> None:
    text, f = section(page, "results"), made.findings
    assert "12 of 40: 30.0 % [ 16.6 %, 46.5 % ]" in text
    for words in ("4,000", "1.7 h", "noise of SD 16 grey levels", "29 of 29 found"):
        assert words in text
    for name in WORLDS:
        assert f"{f[f'{name}.excess']:.3f}" in text
        assert f"{f[f'{name}.table1.control.mean_r']:.4f}" in text


def test_both_intervals_and_all_levels_stand_against_size(page: str) -> None:
    text = section(page, "size")
    for words in ("Share of images found", "Excess over the null", "Mean best r", "Patients shown",
                  "an excess alone is no copying", "Whole set, p"):  # fmt: skip
        assert words in text


# -- what paper 000 does otherwise


def test_the_order_of_the_paper_is_named(page: str) -> None:  # E09
    text = section(page, "differs")
    assert "aligns images before they are correlated in one place and after it in another" in text
    assert "at every pose of a grid, and only the best pairs are registered" in text


def test_sizes_are_not_compared_without_controls(page: str) -> None:  # E13
    text = section(page, "curves")
    assert "Under no copying the best r of an image rises with the number of slices" in text
    assert "only against the controls of its own size" in text
    assert "Only at an equal number of patients are sizes read against each other" in text
    assert "Under no copying it rises with the number of slices" in section(page, "differs")


def test_ages_are_confounded_with_size_only_where_they_differ(  # E14
    made: MadeStudy, page: str, tmp_path: Path
) -> None:
    for name in ("cohorts", "differs"):
        assert "All sets are of the same ages, so that size and age are not confounded" in section(
            page, name
        )
    edits = {"study.settings.ages_largest": [24, 39]}
    other = copied(made, tmp_path, findings=edits).build(without_real_images=True)
    for name in ("cohorts", "differs"):
        assert "The largest set has other ages than the others, as in paper 000: size and age are "\
               "confounded" in section(other, name)  # fmt: skip


def test_table_1_stands_as_printed_and_as_correct(page: str) -> None:  # E02 to E05
    text = section(page, "table1")
    for words in ("tanh(SD z), in print", "tanh(mean z), in print", "as printed", "an effect size",
                  "a location and not the mean of r (E04)"):  # fmt: skip
        assert words in text
    keys = {key for key, _, _ in Parsed(page).numbers}
    for stat in ("mean_z", "min_z", "max_z", "sd_z", "mean_r", "sd_r", "as_printed"):
        for name in WORLDS:
            assert f"{name}.table1.generated.{stat}" in keys
            assert f"{name}.table1.control.{stat}" in keys


def test_distances_stand_at_their_n_beside_their_floor(
    made: MadeStudy, page: str, tmp_path: Path
) -> None:  # E10
    text = section(page, "table2")
    assert "6 (unstable)" in text
    assert "n differs between the columns" in text
    assert "70.080" in text
    assert "FID: not run: no weights were given" in text
    same = {f"{name}.distance.n": 40 for name in WORLDS}
    other = copied(made, tmp_path, findings=same).build(without_real_images=True)
    assert "n is the same in all columns, yet each is measured from another training set" in (
        section(other, "table2")
    )


def test_fig_4_is_drawn_with_the_key_of_every_number(page: str) -> None:  # E11
    keys = [key for key, _, name in Parsed(page).numbers if name == "figure4"]
    for name in ("figure4.pixels.matrix", "figure4.texture.matrix", "paper000.figure4"):
        shown = [key for key in keys if re.fullmatch(rf"{re.escape(name)}\.\d\.\d", key)]
        assert len(shown) >= 49
    text = section(page, "figure4")
    assert "7 and 7 of 7" in text
    assert "of the next best pairing 149.2" in text


def test_fig_5_stands_at_three_stages_for_each_size(made: MadeStudy, page: str) -> None:
    text = section(page, "pairs")
    assert text.count("mutual information, bits") == 3
    assert "8-bit images hold at most 8 bits" in text
    inner = re.search(r'<section id="pairs".*?</section>', page, re.S)
    assert inner
    for article in re.findall(r"<article.*?</article>", inner.group(), re.S):
        captions = re.findall(r"<figcaption>(.*?)</figcaption>", article)
        assert captions == [
            "real", "generated", "affine", "elastic", "regions", "difference, as stored",
            "difference, affine", "difference, elastic",
        ]  # fmt: skip
    assert made.findings["n6.pair.1.same_pixels"]


def test_a_training_is_followed_by_its_steps(page: str) -> None:
    text = section(page, "steps")
    assert "6 250 64 of 64" in text
    assert "600 none 0 of 64" in text
    assert f"{STEPS[0]}" in page


def test_what_was_not_run_says_what_to_supply(page: str) -> None:
    text = section(page, "notrun")
    assert "FID 6; 60; 60, run 2; 600 not run: no weights were given" in text
    assert "Distances without a network 6 not run: components: too few rows" in text
    assert "Fig. 4 by FID" in text


def test_the_audit_of_each_size_is_a_relative_link(made: MadeStudy, parsed: Parsed) -> None:
    links = [a["href"] for a in parsed.of("a") if not str(a["href"]).startswith("#")]
    assert links == [f"audits/{name}/report.html" for name in WORLDS]
    assert all((made.path / str(link)).exists() for link in links)


def test_images_that_were_brought_have_no_cost(made: MadeStudy, tmp_path: Path) -> None:
    other = copied(made, tmp_path, study={"brought": True})
    bare = [point(other, name, training=None, sampling=None, curve=[]) for name in WORLDS]
    recollect(other, bare, study.Crossed({"pixels": "images were brought"}, None))
    text = other.build(without_real_images=True)
    assert "nothing is known here of how they were trained" in section(text, "differs")
    assert "images were brought by the user: nothing was trained here" in section(text, "notrun")
    assert "not run: no earlier state" in section(text, "steps")
    assert "not run" in section(text, "figure4")


# -- what it leaves out


def test_version_to_pass_on_holds_no_picture_of_a_slice(made: MadeStudy, page: str) -> None:
    text = made.build(without_real_images=True)
    assert page.count("data:image/webp") > 20
    assert "data:image/webp" not in text
    assert "Images of patients were left out" in Parsed(text).text
    assert "contains images of patients" not in text
    assert (made.path / "report-without-real-images.html").exists()


def test_page_is_for_its_owner_alone_and_nothing_is_left_beside_it(made: MadeStudy) -> None:
    made.build()
    assert (made.path / "report.html").stat().st_mode & 0o777 == 0o600
    assert list(made.path.glob("*.wip")) == []


def test_corpora_that_are_gone_cost_the_pictures_only(made: MadeStudy, tmp_path: Path) -> None:
    other = copied(made, tmp_path)
    other.corpora = {}
    text = other.build()
    assert "data:image/webp" not in text
    assert "The real corpus cannot be opened where the run left it" in text
    assert "Generators trained on 6 and 60 slices copied" in section(text, "first")


def test_a_damaged_chunk_costs_its_picture(made: MadeStudy, tmp_path: Path) -> None:
    other = copied(made, tmp_path)
    other.corpora["pools/n60"].damaged = set(range(100))
    text = other.build()
    assert "the stored bytes are damaged" in section(text, "pairs")
    assert section(text, "examples").count("training slices") == 2


# -- a study that did not finish


def test_a_study_without_findings_is_put_together_from_what_is_there(
    made: MadeStudy, tmp_path: Path
) -> None:
    other = copied(made, tmp_path, study={
        "status": "incomplete", "phases": {"train": {"planned": 11, "done": 4}},
    })  # fmt: skip
    (other.path / "findings.json").unlink()
    shutil.rmtree(other.path / "audits" / "n600")
    (other.path / "audits" / "n60-s2" / "findings.json").unlink()
    text = other.build()
    assert "<title>INCOMPLETE" in text
    first = section(text, "first")
    assert "Phase train: 4 of 11 shards are done" in first
    assert "The audit of n600 has not ended" in first
    assert "The audit of n60-s2 has not ended" in first
    assert "Not audited yet: 600 slices" in first
    shown = {key: number for key, number, _ in Parsed(text).numbers}
    f = made.findings
    for key in ("n6.flagged", "n60.flagged", "n60.curve.begins", "figure4.pixels.row_hits"):
        assert shown[key] in written(f, key), key
    assert "none was found" not in first


def test_a_study_that_only_began_has_a_page(tmp_path: Path) -> None:
    run = {"status": "running", "settings": {"sizes": [6, 60], "runs": 2}, "phases": {}}
    (tmp_path / "study.json").write_text(json.dumps(run))
    text = MadeStudy(tmp_path).build()
    assert "<title>INCOMPLETE" in text
    assert "it says nothing yet" in section(text, "first")
    assert "60 slices, run 2" in section(text, "first")


@pytest.mark.parametrize("name", ["study.json", "findings.json", "figure4.json"])
def test_a_damaged_file_is_named_and_the_page_is_built(
    made: MadeStudy, tmp_path: Path, name: str
) -> None:
    other = copied(made, tmp_path)
    shutil.rmtree(other.path / "audits")
    if name == "figure4.json":
        (other.path / "findings.json").unlink()
    (other.path / name).write_bytes(b"{broken")
    text = other.build()
    assert f"{name} cannot be read: it is damaged" in text
    assert "<title>INCOMPLETE" in text


def test_a_complete_study_is_not_called_incomplete(page: str) -> None:
    assert "INCOMPLETE" not in page
    assert "not complete" not in page


def test_a_study_that_is_not_marked_complete_is_incomplete(made: MadeStudy, tmp_path: Path) -> None:
    other = copied(made, tmp_path, study={"status": "running"})
    text = other.build(without_real_images=True)
    assert "<title>INCOMPLETE" in text
    assert "The study is marked running, not complete" in text


def test_a_study_without_a_size_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    text = MadeStudy(tmp_path).build()
    assert "no training set was chosen yet" in section(text, "results")
    assert "Order (E09)" in section(text, "differs")


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a study"):
        build(tmp_path)


def test_the_same_study_gives_the_same_bytes(made: MadeStudy, page: str) -> None:
    assert made.build() == page


def test_many_sizes_go_below_each_other(waiting: MadeStudy) -> None:
    text = waiting.build()
    widths = [int(n) for n in re.findall(r'class="numbers columns-(\d+)', text)]
    assert max(widths) <= ACROSS + 1
    assert "6,000,000" in section(text, "cohorts")


# -- what cannot happen on it


def test_page_allows_its_own_script_and_fetches_nothing(page: str, parsed: Parsed) -> None:
    policies = [a["content"] for a in parsed.of("meta") if "http-equiv" in a]
    digest = base64.b64encode(hashlib.sha256("".join(parsed.scripts).encode()).digest()).decode()
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    ]
    assert len(parsed.of("script")) == 1
    for tag, attrs in parsed.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            if name in attrs:
                assert str(attrs[name]).startswith(("data:image/", "#", "audits/n")), (tag, name)
    style = page.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_text_from_outside_is_inert_wherever_it_stands(
    made: MadeStudy, tmp_path: Path, parsed: Parsed
) -> None:
    f = made.findings
    places = [k for k in f if k.endswith((".query", ".participant", ".reason", ".scan"))]
    edits: dict[str, Any] = {key: PAYLOADS[i % 60] for i, key in enumerate(places)}
    edits |= {f"study.settings.{p}": p for p in PAYLOADS} | {"notes": PAYLOADS}
    edits |= {"n60.limit.weakest": PAYLOADS[0], "n60.limit.noise": PAYLOADS[3]}
    edits |= {"n60.training.generator": PAYLOADS[1], "n600.run.digest": PAYLOADS[5]}
    hostile = copied(made, tmp_path, findings=edits, study={
        "versions": {"fingerprint": PAYLOADS[0]}, "started": PAYLOADS[1], "ended": None,
        "study": PAYLOADS[2], "phases": {p: {"planned": 2, "done": 1} for p in PAYLOADS},
    })  # fmt: skip
    got = Parsed(hostile.build())
    assert got.scripts == parsed.scripts
    assert len(got.of("script")) == 1
    assert {tag for tag, _ in got.elements} <= {tag for tag, _ in parsed.elements} | {"div"}
    assert [a for _, a in got.elements if any(name.startswith("on") for name in a)] == []
    assert "<script>alert(1)</script>0" in got.text  # shown as it is, as text
    assert "{{ 7 * 7 }}" in got.text


def test_page_can_be_read_with_a_screen_reader(parsed: Parsed) -> None:
    assert parsed.of("html")[0]["lang"] == "en"
    assert len(parsed.of("h1")) == 1
    assert [attrs for attrs in parsed.of("img") if "alt" not in attrs] == []
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


# -- the pieces


def test_sections_are_declared_once_each() -> None:
    names = [section.name for section in SECTIONS]
    assert len(names) == len(set(names))
    assert names[0] == "results"


def test_a_block_of_an_audit_is_put_under_its_point() -> None:
    block = Items([["a ", Value("x.y", "1"), [Value("z", "2")]], [Prose([Value("w", "3")])]])
    got = rekeyed(block, "n6")
    assert got == Items(
        [["a ", Value("n6.x.y", "1"), [Value("n6.z", "2")]], [Prose([Value("n6.w", "3")])]]
    )
    assert block.rows[0][1] == Value("x.y", "1")


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 6, 11])
def test_sizes_are_listed_and_cut_without_losing_any(n: int) -> None:
    names = [f"n{k}" for k in range(1, n + 1)]
    assert [name for part in chunks(names) for name in part] == names
    text = "".join(p if isinstance(p, str) else p.text for p in listed(
        [Value("k", name) for name in names]))  # fmt: skip
    assert re.split(", | and ", text) == (names or [""])


def test_times_are_written_for_people() -> None:
    assert [spent(x) for x in (0, 59, 60, 5400, 90_000)] == [
        "0\u00a0s", "59\u00a0s", "1.0\u00a0min", "1.5\u00a0h", "25.0\u00a0h"
    ]  # fmt: skip


def test_sizes_have_colours_of_their_own() -> None:
    for n in (1, 2, 5, 9):
        assert len(set(drawn.colours(n))) == n


@pytest.mark.parametrize("k", [2, 7, 10])
def test_a_matrix_of_any_size_is_drawn(k: int) -> None:
    svg = drawn.heat(np.eye(k).tolist(), "figure4.pixels.matrix", "bits")
    assert svg.count("<rect") == svg.count("data-key") == k * k
    assert svg.count('stroke="#9a2c12"') == k


def test_equal_numbers_are_drawn_although_there_is_no_spread() -> None:
    marks = [drawn.Mark(6, 0, 0.1, 0.1 + 1e-17, 0.1 - 1e-17), drawn.Mark(60, 1, 0.1)]
    assert drawn.against_size({"a": marks}, "x", "y")
    assert drawn.effect_sizes({"generated": marks}, [])


def test_a_page_names_a_size_by_what_it_holds() -> None:
    f = {"points": ["n60"], "n60.asked": 60, "n60.run": 1, "n60.cohort.slices": 54}
    page = StudyPage(f, None, {}, "")
    assert (page.label("n60"), page.label("n60", "slices")) == ("54, run 2", "54 slices, run 2")


# -- in a browser


@pytest.mark.browser
@pytest.mark.skipif(_chromium() is None, reason="Chromium is not installed")
@pytest.mark.parametrize(("name", "width"), [("made", 390), ("made", 1280), ("waiting", 390)])
def test_page_fits_in_a_browser(name: str, width: int, request: pytest.FixtureRequest) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    made = request.getfixturevalue(name)
    made.build()
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=_chromium(), args=flags)
        tab = browser.new_page(viewport={"width": width, "height": 700})
        said: list[str] = []
        asked: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto((made.path / "report.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert said == []
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        browser.close()
