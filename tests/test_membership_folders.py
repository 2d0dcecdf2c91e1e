"""The folders of both years, the halves that share no patient, and the file that is sent in."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint import membership_run
from fingerprint.corpus.identity import Key, token
from fingerprint.membership.folders import Names, Task, tasks
from fingerprint.membership.split import folds_of, grouped
from fingerprint.membership.submission import written


def made(root: Path, *folders: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "a.png").write_bytes(b"x")


DEV = ("generated", "real_used", "real_not_used")


def test_one_task_as_in_2023_and_tasks_side_by_side_as_in_2024(tmp_path: Path) -> None:
    made(tmp_path / "dev", *DEV)
    made(tmp_path / "test", "Generated", "Real-Unknown")
    (one,) = tasks(tmp_path / "dev", tmp_path / "test")
    assert (one.name, set(one.dev), one.asked) == (
        "task",
        {"generated", "used", "not_used"},
        ("unknown",),
    )
    for name in ("Task 1", "task_2"):
        made(tmp_path / "dev4" / name, *DEV)
        made(tmp_path / "test4" / name.upper(), "generated", "real_used", "real_not_used")
    both = tasks(tmp_path / "dev4", tmp_path / "test4")
    assert [task.name for task in both] == ["Task 1", "task_2"]
    assert both[0].asked == ("used", "not_used")


def test_names_may_be_paths_and_labels_lie_beside(tmp_path: Path) -> None:
    made(tmp_path / "dev", "made", "real/used", "real/not used")
    made(tmp_path / "test", "made", "real/unknown")
    (tmp_path / "test" / "labels.csv").write_text("name,label\na.png,1\nb,0\n")
    names = Names("made", "real/used", "real/not_used", "real/unknown")
    (one,) = tasks(tmp_path / "dev", tmp_path / "test", names)
    assert (one.label("a.png"), one.label("b.png"), one.label("c.png")) == (True, False, None)
    (tmp_path / "test" / "labels.csv").write_text("a,1\nb,maybe\n")
    with pytest.raises(ValueError, match="line 2: a name and 1 or 0"):
        tasks(tmp_path / "dev", tmp_path / "test", names)
    (tmp_path / "test" / "labels.csv").write_text("a.1.png,1\na.1.png,0\n")
    with pytest.raises(ValueError, match="line 2: this name has the other label above"):
        tasks(tmp_path / "dev", tmp_path / "test", names)


def test_labels_are_of_slices_also_where_a_file_holds_several(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "stack#0,1\nstack#1.npy,0\nalone,1\n"
    made(tmp_path / "dev", *DEV)
    made(tmp_path / "test", "generated", "real_unknown")
    (tmp_path / "test" / "labels.csv").write_text(text)
    (one,) = tasks(tmp_path / "dev", tmp_path / "test")
    unknown = one.test["unknown"]
    (unknown / "a.png").rename(unknown / "alone.png")
    np.save(unknown / "stack.npy", np.zeros((2, 8, 8), np.uint8))
    files = {path.name: of for of, path in membership_run._files(unknown, key)}
    several = [token(key, f"{files['stack.npy']}#{k}") for k in range(2)]
    tokens = np.array([several[1], files["alone.png"], several[0]], object)
    sealed = SimpleNamespace(label=lambda name: tokens)
    monkeypatch.setattr(membership_run.store, "open_corpus", lambda path: sealed)
    found = membership_run._truth(one, {"unknown": tmp_path}, key)
    assert found == dict(zip(tokens, (False, True, True), strict=True))
    fewer = Task(one.name, one.dev, one.test, {"stack#0": True})
    with pytest.raises(ValueError, match="labels.csv of task task lacks 2 of 3 slices"):
        membership_run._truth(fewer, {"unknown": tmp_path}, key)


@pytest.mark.parametrize(
    ("dev", "test", "said"),
    [
        (("real_used",), ("generated", "real_unknown"), "holds no folder 'generated'"),
        (DEV[:2], ("generated", "real_unknown"), "no image in 'real_not_used'"),
        (DEV, ("generated",), "nothing is asked"),
        (DEV, ("generated", "real_unknown", "real_used"), "either all are labelled, or none"),
        (DEV, ("a/generated", "b/generated"), "give both the same names"),
        (DEV, ("real_unknown",), "TEST: .* holds no folder"),
    ],
)
def test_what_is_missing_is_one_line(tmp_path: Path, dev, test, said: str) -> None:
    made(tmp_path / "dev", *dev)
    made(tmp_path / "test", *test)
    with pytest.raises(ValueError, match=said):
        tasks(tmp_path / "dev", tmp_path / "test")


def test_links_are_not_followed(tmp_path: Path) -> None:
    made(tmp_path / "dev", *DEV)
    made(tmp_path / "elsewhere", "generated", "real_unknown")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "task").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="holds no folder"):
        tasks(tmp_path / "dev", tmp_path / "test")


def test_a_submission_is_in_the_order_of_names() -> None:
    called = [("b.2.png", True), ("a,1.png", False)]
    assert written(called, header=False, extension=False) == '"a,1",0\nb.2,1\n'
    assert written(called, header=True, extension=True) == 'name,label\n"a,1.png",0\nb.2.png,1\n'


def _dealt(patient: np.ndarray, used: np.ndarray, folds: int, seed: int) -> np.ndarray | None:
    """Return the folds; None where patients of both classes leave none for one of them."""
    with contextlib.suppress(ValueError):
        return folds_of(patient, used, folds, seed)
    assert len(set(patient[used]) & set(patient[~used]))
    return None


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=80),
    st.integers(2, 4),
    st.integers(0, 5),
)
def test_no_patient_is_in_two_folds_and_every_fold_has_both_classes(rows, folds, seed) -> None:
    patient, used = (np.array(column) for column in zip(*rows, strict=True))
    if min(len(set(patient[used])), len(set(patient[~used]))) < folds:
        with pytest.raises(ValueError, match="as many patients of each class"):
            folds_of(patient, used, folds, seed)
        return
    fold = _dealt(patient, used, folds, seed)
    if fold is None:
        return
    for one in np.unique(patient):
        assert len(set(fold[patient == one])) == 1
    for k in range(folds):
        assert len(set(used[fold == k])) == 2
    assert (fold == folds_of(patient, used, folds, seed)).all()


def test_halves_are_dealt_evenly() -> None:
    patient, used = np.repeat(np.arange(20), 5), np.repeat(np.arange(20) % 2 == 0, 5)
    fold = folds_of(patient, used, 2, 1)
    assert np.bincount(fold).tolist() == [50, 50]
    assert used[fold == 0].mean() == 0.5


def test_the_limit_rises_where_nearly_all_slices_chain(rng: np.random.Generator) -> None:
    used = np.arange(40) % 2 == 0
    apart = rng.integers(0, 256, (40, 32, 32), dtype=np.uint8)
    assert len(np.unique(grouped(apart, used, 2).patient)) == 40
    base = rng.integers(0, 256, (1, 32, 32))
    alike = np.clip(base + rng.normal(0, 10, (40, 32, 32)), 0, 255).astype(np.uint8)
    found = grouped(alike, used, 2)
    assert "would join too many" in found.note or "of its own" in found.note
    assert len(np.unique(found.patient)) > 4
    same = np.repeat(base, 40, 0).astype(np.uint8)
    same[20:] = alike[20:]
    assert len(set(grouped(same, used, 2).patient[:20])) == 1
