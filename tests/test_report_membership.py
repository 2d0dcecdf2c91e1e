"""The page of a membership run: what it says, what it leaves out, and what it never is."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import NEVER, PAYLOADS, Parsed

from fingerprint.measure import papers
from fingerprint.report.blocks import WRITE
from fingerprint.report.membership.build import build
from fingerprint.report.membership.page import METHODS, METRIC, at, pointer
from fingerprint.report.membership.sections import SECTIONS

ARMS = {
    "similarity": ["ssim/max", "ssim/gaussian-5-both/max", "cosine/max", "euclidean/top10"],
    "embedding": ["vgg16/cosine/plain/max", "mae/cosine/plain/max"],
    "texture": ["lbp/linear", "lbp/rbf"],
    "density": ["mc"], "vcmi": ["ranking"], "calibrated": ["z"],
}  # fmt: skip


def row(level: float, *, wide: float = 0.05) -> dict[str, Any]:
    """Return the metrics of a method of some AUC; kappa is twice what AUC is above one half."""
    value = dict.fromkeys(METRIC, level) | {"kappa": 2 * level - 1, "f1": 0.61}
    out: dict[str, Any] = {
        name: {"value": x, "interval": [x - wide, x + wide]} for name, x in value.items()
    }
    few = "not estimable: 40 slices that were not used, 1,000 are needed"
    out["tpr_at_fpr_0.001"] = {"value": None, "interval": None, "reason": few}
    return out | {"threshold": 0.25}


def rows(level: float) -> dict[str, Any]:
    """Return a row for each method, each arm, and each constant predictor."""
    out: dict[str, Any] = {}
    for k, (method, arms) in enumerate(ARMS.items()):
        out[method] = row(level + k / 200) | {"arm": arms[0]}
        for j, arm in enumerate(arms):
            out[f"{method}/{arm}"] = row(level + k / 200 - j / 500)
    out["embedding/vgg16/cosine/plain/max"] = {"reason": "no weights of vgg16 were given"}
    out["calibrated"] = {"reason": "no control slices"}
    out.pop("calibrated/z")
    constant = {"always": 2 / 3, "never": None, "coin": 0.5}
    for name, f1 in constant.items():
        out[name] = row(0.5, wide=0) | {"f1": {"value": f1, "interval": None, "reason": "none"}}
    return out


def per(tasks: list[str], held: Any) -> dict[str, Any]:
    return {task: copy.deepcopy(held) for task in tasks}


def made(tasks: tuple[str, ...] = ("task1", "task2"), level: float = 0.7) -> dict[str, Any]:
    """Return findings of a whole run."""
    names = list(tasks)
    grid = np.linspace(0, 1, 900)
    share = np.random.default_rng(0).dirichlet(np.ones(256), 2)
    part = {"mean": 0.4, "min": 0.2, "max": 0.6, "pairs": 50}
    subsets = {"real-real": part, "generated-real": part | {"min": 0.1, "pairs": 100},
               "generated-used": part, "generated-not_used": part | {"min": 0.1}}  # fmt: skip
    split = {"dev": rows(level + 0.02), "test": rows(level)}
    roc = {m: {"fpr": list(grid), "tpr": list(grid**0.5)} for m in METHODS[:-1]}
    matrix = {"tp": 31, "fp": 12, "tn": 28, "fn": 9}
    plain = {m: {"used": 30, "not_used": 50} for m in METHODS[:-1]}
    return {
        "notes": ["One slice is in DEV and in TEST."], "tasks": names, "labelled": True, "seed": 0,
        "counts": per(names, {"dev": {"generated": 500, "used": 80, "not_used": 80},
                              "test": {"generated": 400, "unknown": 80}}),
        "rejected": per(names, {"dev": {"generated": 3}, "test": {}}),
        "patients": per(names, {"dev": {"known": False, "n": 61}, "test": {"known": True, "n": 9}}),
        "duplicates": per(names, {"dev.used~test.unknown": 1}),
        "metrics": per(names, split),
        "mean": split,
        "by_patient": per(names, {k: {m: v[m] for m in METHODS} for k, v in split.items()}),
        "cuts": per(names, {m: {"balanced": 0.25, "f1": 0.05, "f1_share_called_used": 0.97,
                                "median": 0.3} for m in METHODS[:-1]}),
        "roc": per(names, {"dev": roc, "test": roc}),
        "confusion": per(names, {"test": {"texture": matrix, "similarity": matrix}}),
        "table1": per(names, {"dev": subsets}),
        "histogram": per(names, {"dev": {"generated": list(share[0]), "real": list(share[1]),
                                         "tv": 0.12, "tv_control": 0.03}}),
        "noise": per(names, {"ssim/gaussian-5-both": {"difference": -0.01,
                                                      "interval": [-0.03, 0.02]}}),
        "shadow": per(names, {"given-against-shadow": {"lbp/linear": 1.0},
                              "same-kind": {"lbp/linear": 0.53},
                              "called_used": {"linear": 9}, "asked": 80}),
        "predicted": per(names, plain),
    }  # fmt: skip


def lay(path: Path, findings: Any = None, **document: Any) -> Path:
    """Lay down the folder of a run."""
    path.mkdir(parents=True, exist_ok=True)
    told = {
        "status": "complete", "run": "ab" * 32, "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T01:00:00+00:00", "settings": {"seed": 0, "texture": {"epochs": 3}},
        "versions": {"fingerprint": "0.1.0"}, "phases": {"score": {"done": 4, "planned": 4}},
        "notes": [],
    }  # fmt: skip
    (path / "membership.json").write_text(json.dumps(told | document))
    if findings is not None:
        (path / "findings.json").write_text(json.dumps(findings))
    return path


def section(text: str, name: str) -> str:
    inner = re.search(rf'<section id="{name}".*?</section>', text, re.S)
    assert inner, name
    return re.sub(r"\s+", " ", re.sub(r"\s+([.,:;])", r"\1", Parsed(inner.group()).text))


def page_of(path: Path, findings: Any, **document: Any) -> str:
    return build(lay(path, findings, **document)).read_text()


@pytest.fixture(scope="module")
def findings() -> dict[str, Any]:
    return made()


@pytest.fixture(scope="module")
def page(findings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(tmp_path_factory.mktemp("whole"), findings)


def parts_of(key: str) -> list[str | int]:
    """Return the path of a JSON pointer."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in key.split("/")[1:]]
    return [int(part) if part.isdigit() else part for part in parts]


def resolved(held: Any, key: str) -> Any:
    """Follow a JSON pointer."""
    for part in parts_of(key):
        held = held[part]
    return held


# -- numbers


def test_every_number_on_the_page_is_that_of_the_findings(
    page: str, findings: dict[str, Any]
) -> None:
    held = findings | papers.collect()
    numbers = Parsed(page).numbers
    assert len(numbers) > 900
    for key, text, _ in numbers:
        if text in ("not run", "\u2013"):
            assert not isinstance(at(held, parts_of(key)), int | float | str), key
            continue
        found, ways = resolved(held, key), set()
        for write in WRITE.values():
            try:
                ways.add(write(found))
            except (TypeError, ValueError, AttributeError):
                continue  # a text is not written as a number
        assert text in ways, key


def test_a_pointer_leads_back_to_its_number() -> None:
    held = {"a/b": {"0.1~x": [1, 2]}}
    path = ("a/b", "0.1~x", 1)
    assert resolved(held, pointer(path)) == at(held, path) == 2
    assert at(held, ("a/b", "other", 1)) is None
    assert at(held, ("a/b", "0.1~x", 5)) is None


# -- what it says


def test_the_answer_stands_first_beside_the_constant_predictor(page: str) -> None:
    text = section(page, "first")
    assert "5 of 5 methods tell used slices from others better than a constant predictor" in text
    assert "F1 at most 0.626, as printed, against 0.667" in text
    assert "Arm ssim/max: AUC 0.700 [ 0.650, 0.750 ], kappa 0.400 [ 0.350, 0.450 ], F1" in text
    assert "always “used” AUC 0.500" in text
    assert "Not run: no control slices." in text
    assert "One slice is in DEV and in TEST." in text
    assert "vcmi, best on DEV by AUC; mean of tasks, TEST" in text


def test_useless_methods_are_said_to_be_no_better(tmp_path: Path) -> None:
    text = section(page_of(tmp_path, undrawn(made(level=0.5))), "first")
    assert "No method of 5 beats the constant predictor: kappa is not above 0" in text
    assert "class=" not in text


def test_without_an_interval_nothing_is_claimed(tmp_path: Path) -> None:
    f = made(("task",))
    f.pop("mean")
    for name in METHODS[:-1]:
        f["metrics"]["task"]["test"][name]["kappa"]["interval"] = None
    text = page_of(tmp_path, undrawn(f))
    assert "No method of 5 could be shown to beat the constant predictor" in section(text, "first")
    assert "no interval" in section(text, "answer")


def test_one_task_has_no_mean_and_test_without_labels_none(tmp_path: Path) -> None:
    f = made(("task",)) | {"labelled": False}
    f.pop("mean")
    f["metrics"]["task"].pop("test")
    text = page_of(tmp_path, undrawn(f))
    assert "mean of tasks" not in section(text, "answer")
    assert "task, TEST" not in section(text, "answer")
    assert "TEST has no labels" in section(text, "first")
    assert "arms and cuts were chosen on these slices" in section(text, "answer")
    assert "Table 3 of this run" not in section(text, "paper001")


def test_all_arms_are_folded_and_the_best_is_no_result(page: str) -> None:
    inner = re.search(r'<section id="arms".*?</section>', page, re.S)
    assert inner
    assert inner.group().count("<details>") == inner.group().count("</details>") == 6
    assert "never the best row on TEST" in section(page, "arms")
    assert "similarity/ssim/gaussian-5-both/max" in section(page, "arms")


def test_drawings_are_there_for_each_task(page: str) -> None:
    assert len(re.findall(r'<section id="roc".*?</section>', page, re.S)[0].split("<svg")) == 5
    assert "Total variation distance of generated and real 0.120" in section(page, "paper002")
    assert "Fig. 1, mean of tasks" in section(page, "paper002")
    assert "ssim/gaussian-5-both -0.010".replace("-0", "−0") in section(page, "noise")
    assert "leaves 0.993 at SD 5, 0.973 at SD 10, 0.900 at SD 20" in section(page, "noise")


def test_a_table_of_ours_that_disagrees_with_itself_says_so_e12(
    page: str, findings: dict[str, Any], tmp_path: Path
) -> None:
    assert "DEV: parts and whole agree" in section(page, "paper001")
    f = copy.deepcopy(findings)
    f["table1"]["task1"]["dev"]["generated-real"]["min"] = 0.15
    text = section(page_of(tmp_path, undrawn(f)), "paper001")
    assert "DEV: does not hold: generated-real: the min is that of its parts" in text


@pytest.mark.parametrize(("name", "words"), [
    ("paper001", "the mean of generated, real would be 14.3, not 13.4"),  # E12
    ("paper001", "lies outside its recall and specificity, which imply 0.696"),  # E15
    ("paper001", "the mean of its two tasks is 0.529"),  # E16
    ("paper001", "001 cosine = 002 MAE (task 1)"),  # E17
    ("paper001", "they are of real slices (E18)"),
    ("paper002", "that is an accuracy, and the best F1 of Table 4 is 0.603, as printed"),  # E19
    ("paper002", "the accuracy of MAE, 0.743 as printed"),  # E20
    ("paper002", "hold the encoder only (E21)"),
    ("paper003", "Only one confusion matrix of whole numbers prints as each row does"),  # E22
    ("paper003", "0.705 or 0.708"),  # E24
    ("noise", "not all gains, at a standard error of accuracy of about 0.025 (E25)"),
    ("paper003", "it says nothing about membership (E26)"),
    ("paper003", "Accuracy between generators; not membership"),  # E26
])  # fmt: skip
def test_what_cannot_be_in_print_is_said(page: str, name: str, words: str) -> None:
    assert words in section(page, name)


def test_the_matrices_of_003_are_drawn_as_recovered_e22(page: str) -> None:
    keys = {key: text for key, text, _ in Parsed(page).numbers}
    got = [[keys[f"/paper003/table3/{name}/confusion/{cell}"] for cell in ("tp", "fp", "tn", "fn")]
           for name in ("LBP", "VGG-16")]  # fmt: skip
    assert got == [["77", "69", "31", "23"], ["75", "81", "19", "25"]]


def test_tables_of_the_papers_are_labelled_as_printed(page: str) -> None:
    for caption in re.findall(r"<caption>(.*?)</caption>", page):
        if re.match(r"00[123],", caption):
            assert "as printed" in caption or "recovered" in caption
    assert page.count("as printed</caption>") == 7


def test_networks_without_weights_are_not_run(page: str) -> None:
    assert "vgg16 not run: no weights of vgg16 were given" in section(page, "paper002")


# -- what is missing, and what it never is


@pytest.mark.parametrize("findings", [None, {}, {"tasks": ["task1", "task2"]}])
def test_a_page_of_nothing_is_a_page(findings: Any, tmp_path: Path) -> None:
    phases = {"score": {"done": 1, "planned": 4}}
    text = page_of(tmp_path, findings, status="running", phases=phases)
    assert "INCOMPLETE: membership report" in text
    assert "Phase score: 1 of 4 shards are done." in text
    assert "No method has been judged yet" in section(text, "first")
    assert {s.name for s in SECTIONS} <= set(re.findall(r'<section id="(\w+)"', text))
    for name in ("paper001", "paper002", "paper003"):
        assert "as printed" in section(text, name)


DRAWN = ("roc", "histogram", "noise")  # drawings take most of the time of a page


def undrawn(findings: dict[str, Any], but: str = "") -> dict[str, Any]:
    return {k: x for k, x in findings.items() if k not in DRAWN or k == but}


@pytest.mark.parametrize("name", sorted(set(made()) - {"tasks", "labelled", "seed", "notes"}))
def test_any_part_may_be_missing(name: str, tmp_path: Path) -> None:
    f = undrawn(made(("task1",)), but=name)
    page_of(tmp_path / "gone", {k: x for k, x in f.items() if k != name})
    reason = {"reason": "it was not asked for"}
    page_of(tmp_path / "half", f | {name: {"task1": reason}})
    page_of(tmp_path / "none", f | {name: reason})


def test_a_damaged_file_costs_its_numbers_alone(findings: dict[str, Any], tmp_path: Path) -> None:
    lay(tmp_path, findings)
    (tmp_path / "findings.json").write_text("{")
    text = build(tmp_path).read_text()
    assert "findings.json cannot be read: it is damaged. Run the membership again." in text


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a membership run"):
        build(tmp_path)


def test_nothing_is_fetched_and_no_text_of_a_file_can_run(tmp_path: Path) -> None:
    f = made()
    f["notes"] = list(PAYLOADS)
    f["metrics"]["task1"]["test"]["calibrated"] = {"reason": PAYLOADS[0]}
    text = page_of(tmp_path, undrawn(f), settings={"name": PAYLOADS[0]})
    assert not re.search(r'(src|href)="(?!#|data:)', text)
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert "url(" not in text.replace("url(#", "")
    assert text.count("<script") == 1
    assert "default-src &#39;none&#39;" in text
    assert "<img" not in text


def test_the_version_to_pass_on_has_the_same_content(
    page: str, findings: dict[str, Any], tmp_path: Path
) -> None:
    path = build(lay(tmp_path, findings), without_real_images=True)
    assert path.name == "report-without-real-images.html"
    assert path.read_text() == page
    assert path.stat().st_mode & 0o777 == 0o600


def test_words_that_promise_too_much_are_never_printed(page: str) -> None:
    text = Parsed(page).text
    assert [w for w in NEVER if re.search(rf"\b{w}\b", text, re.I)] == []


def test_the_same_run_gives_the_same_bytes(
    page: str, findings: dict[str, Any], tmp_path: Path
) -> None:
    assert page_of(tmp_path, findings) == page


def test_ids_of_drawings_are_unique(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
