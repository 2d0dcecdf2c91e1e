"""Decide: the combination is learnt, arms and thresholds are chosen on DEV, everything is rated."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from fingerprint import ledger
from fingerprint.job import write_json
from fingerprint.ledger import Values
from fingerprint.measure import chosen, classify
from fingerprint.measure.chosen import LEARNED, Called, Side
from fingerprint.measure.classify import Bools, Row
from fingerprint.membership import methods
from fingerprint.membership.learned import fit_combination
from fingerprint.membership.noise import ARMS
from fingerprint.membership_job import TEST, MembershipJob
from fingerprint.phases import describe, score, shadow

FINDINGS, METRICS, CALLED = "findings.json", "metrics.json", "called.parquet"
FORMAT = 1
POINTS = 400  # of a drawn ROC
NATURAL = ("texture/", "vcmi/threshold")  # arms whose own cut is zero
Findings = dict[str, Any]


def finish(job: MembershipJob, values: Iterator[Values]) -> None:
    """Rate every arm of every task, and leave findings, metrics and answers."""
    del values
    table = pd.read_parquet(job.out / score.SCORES)
    out: Findings = {
        "format": FORMAT, "notes": job.read()["notes"], "seed": job.settings.seed,
        "tasks": [task.sets.name for task in job.tasks],
        "labelled": all(task.test.used is not None for task in job.tasks),
        **_counted(job), **_described(job),
    }  # fmt: skip
    answers, rows = [], {}
    for task in job.tasks:
        name = task.sets.name
        mine = table[table["task"] == name]
        dev, test = (_side(mine[mine["side"] == side]) for side in ("dev", TEST))
        dev, test = _with_learned(job, dev, test)
        rated = _Rated(job, dev, test)
        rows[name] = rated.draws
        _merge(out, name, rated.told)
        for method, called in rated.answers.items():
            asked = mine[mine["side"] == TEST]
            answers.append(asked[["task", "token"]].assign(method=method, called=called))
    out["mean"] = _mean(out["metrics"], rows)
    write_json(job.out / FINDINGS, out)
    write_json(job.out / METRICS, _metrics(out))
    with ledger.replacing(job.out / CALLED) as file:
        pd.concat(answers, ignore_index=True).to_parquet(file, index=False)


def _side(rows: pd.DataFrame) -> Side:
    arms = [name for name in rows.columns if name not in score.WHERE and rows[name].notna().all()]
    known = not rows["used"].isna().any()
    return Side(
        {arm: rows[arm].to_numpy(np.float64) for arm in arms},
        rows["used"].to_numpy(bool) if known else None,
        rows["patient"].to_numpy(np.int64),
        rows["fold"].to_numpy(np.int64),
    )


def _arms(side: Side, method: str) -> list[str]:
    return [arm for arm in side.scores if arm.startswith(f"{method}/")]


# -- the learned combination


def _with_learned(job: MembershipJob, dev: Side, test: Side) -> tuple[Side, Side]:
    """Add the combination of all methods: on each fold by what the other folds teach."""
    if "calibrated" not in job.settings.methods:
        return dev, test
    used = np.asarray(dev.used)
    everything = np.ones(len(used), bool)
    mine, theirs = np.empty(len(used)), np.empty(0)
    for fold in (*map(int, np.unique(dev.fold)), None):
        teach = everything if fold is None else dev.fold != fold
        arms = [
            chosen.best_arm(dev, _arms(dev, m), teach)
            for m in job.settings.methods
            if _arms(dev, m)
        ]
        features = np.stack([dev.scores[arm] for arm in arms], axis=1)
        fitted = fit_combination(features[teach], used[teach])
        if fold is None:
            theirs = fitted.scores(np.stack([test.scores[arm] for arm in arms], axis=1))
        else:
            mine[~teach] = fitted.scores(features[~teach])
    return (
        Side({**dev.scores, LEARNED: mine}, dev.used, dev.patient, dev.fold),
        Side({**test.scores, LEARNED: theirs}, test.used, test.patient, test.fold),
    )


# -- rating


class _Rated:
    """All rows of one task."""

    def __init__(self, job: MembershipJob, dev: Side, test: Side) -> None:
        self.seed, self.dev, self.test = job.settings.seed, dev, test
        self.draws: dict[str, dict[str, dict[str, Any]]] = {"dev": {}, TEST: {}}
        self.answers: dict[str, Bools] = {}
        self.told: Findings = {
            "metrics": {"dev": {}, TEST: {}}, "by_patient": {"dev": {}, TEST: {}},
            "confusion": {"dev": {}, TEST: {}}, "roc": {"dev": {}, TEST: {}},
            "cuts": {}, "predicted": {}, "noise": {},
        }  # fmt: skip
        for arm in dev.scores:
            self._arm(arm)
        for method in methods.METHODS:
            if why := methods.not_run(method, job.settings):
                for both in self.told["metrics"].values():
                    both[method] = {"reason": why}
            elif _arms(dev, method):
                self._method(method)
        for name, side in (("dev", dev), (TEST, test)):
            if side.used is not None:
                constant = classify.constants(side.used, side.patient, seed=self.seed)
                self.told["metrics"][name] |= constant
        self._noise()

    def _arm(self, arm: str) -> None:
        row = chosen.of_arm(self.dev, arm)
        self._rate("dev", self.dev, arm, row)
        self._rate(TEST, self.test, arm, chosen.on_test(self.test, arm, row.threshold))
        if arm.startswith(NATURAL):
            for name, side in (("dev", self.dev), (TEST, self.test)):
                own = Called(side.scores[arm], side.scores[arm] >= 0, 0.0)
                self._rate(name, side, f"{arm}@0", own)

    def _method(self, method: str) -> None:
        arm, row = chosen.of_method(self.dev, _arms(self.dev, method))
        used = np.asarray(self.dev.used)
        test = chosen.on_test(self.test, arm, row.threshold)
        scores = self.dev.scores[arm]
        f1, share = classify.threshold_f1(scores, used)
        median = float(np.median(test.scores))
        self._rate("dev", self.dev, method, row, arm)
        self._rate(TEST, self.test, method, test, arm)
        for at, cut in (("f1", f1), ("median", median)):
            called = Called(test.scores, test.scores >= cut, cut)
            self._rate(TEST, self.test, f"{method}@{at}", called, arm)
        self.told["cuts"][method] = {
            "balanced": row.threshold, "f1": f1, "f1_share_called_used": share, "median": median,
        }  # fmt: skip
        self.told["predicted"][method] = {
            "used": int(test.called.sum()), "not_used": int((~test.called).sum())
        }  # fmt: skip
        self.answers[method] = test.called
        for name, side, one in (("dev", self.dev, row), (TEST, self.test, test)):
            if side.used is None or side.used.all() or not side.used.any():
                continue
            self.told["roc"][name][method] = _curve(one.scores, side.used)
            people, who = chosen.by_patient(
                side, one if name == TEST else row, self.dev, scores if name == TEST else row.scores
            )
            told = classify.rated(
                people.scores, people.called, who, np.arange(len(who)), seed=self.seed
            )
            self.told["by_patient"][name][method] = told

    def _rate(self, name: str, side: Side, key: str, row: Called, arm: str = "") -> None:
        if side.used is None:
            return
        told: dict[str, Any] = dict(
            classify.rated(row.scores, row.called, side.used, side.patient, seed=self.seed)
        )
        self.told["metrics"][name][key] = (
            told | {"threshold": row.threshold} | ({"arm": arm} if arm else {})
        )
        c = classify.confusion(row.called, side.used, np.ones((1, len(side.used))))
        self.told["confusion"][name][key] = {
            k: int(getattr(c, k)[0]) for k in ("tp", "fp", "tn", "fn")
        }
        if arm or "/" not in key or key.count("/") < 4:
            self.draws[name][key] = classify.draws(
                row.scores, row.called, side.used, side.patient, seed=self.seed
            )

    def _noise(self) -> None:
        """Tell what noise does to each measure: the difference of two areas, with its interval."""
        side = self.test if self.test.used is not None else self.dev
        used = np.asarray(side.used)
        if used.all() or not used.any():
            return
        times = classify.resampled(side.patient, self.seed)
        plain = [a for a in _arms(side, "similarity") if "/none/" in a and a.endswith("/max")]
        for arm in plain:
            for noise in ARMS[1:]:
                other = arm.replace("/none/", f"/{noise.name}/")
                if other not in side.scores:
                    continue
                both = [side.scores[name] for name in (other, arm)]
                value = [float(classify.auc(scores, used)[0]) for scores in both]
                drawn = [classify.auc(scores, used, times) for scores in both]
                key = f"{arm.split('/')[1]}/{noise.name}"
                self.told["noise"][key] = {
                    "difference": value[0] - value[1],
                    "interval": classify.interval(drawn[0] - drawn[1]),
                }


def _curve(scores: classify.Floats, used: Bools) -> dict[str, list[float]]:
    fpr, tpr = classify.roc(scores, used)
    at = np.unique(np.linspace(0, len(fpr) - 1, POINTS).round().astype(int))
    return {"fpr": fpr[at].tolist(), "tpr": tpr[at].tolist()}


# -- over tasks, and what is counted


def _mean(metrics: Mapping[str, Any], draws: Mapping[str, Any]) -> Findings:
    """Return the mean over tasks of every row that all of them have, with its interval."""
    out: Findings = {"dev": {}, TEST: {}}
    tasks = list(metrics)
    for side, rows in out.items():
        for key in metrics[tasks[0]][side]:
            each = [metrics[task][side].get(key, {}) for task in tasks]
            if len(tasks) == 1:
                rows[key] = each[0]
            elif all("auc" in one for one in each):
                drawn = [draws[task][side].get(key) for task in tasks]
                rows[key] = _averaged(each, drawn)
            else:
                rows[key] = each[0] if all("reason" in one for one in each) else {}
    return out


def _averaged(each: list[Mapping[str, Any]], drawn: list[Any]) -> Row:
    out: Row = {}
    for name in classify.METRICS:
        values = [one[name]["value"] for one in each]
        if any(value is None for value in values):
            reason = next(one[name]["reason"] for one in each if one[name]["value"] is None)
            out[name] = {"value": None, "interval": None, "reason": reason}
            continue
        there = all(d is not None and len(d[name]) for d in drawn)
        of_all = np.mean([d[name] for d in drawn], axis=0) if there else np.empty(0)
        out[name] = {"value": float(np.mean(values)), "interval": classify.interval(of_all)}
    return out


def _metrics(out: Findings) -> Findings:
    """Return what ``metrics.json`` holds: the mean over tasks, and each of them.

    Of TEST, where it is labelled; else of DEV, out of fold.
    """
    side = TEST if out["labelled"] else "dev"
    return {
        "format": FORMAT,
        "judged_on": side,
        "tasks": out["tasks"],
        "by_task": out["metrics"],
        "by_patient": out["by_patient"],
        **out["mean"][side],
    }


def _merge(out: Findings, task: str, told: Findings) -> None:
    for key, value in told.items():
        out.setdefault(key, {})[task] = value


def _counted(job: MembershipJob) -> Findings:
    out: Findings = {"counts": {}, "rejected": {}, "patients": {}, "duplicates": {}}
    for task in job.tasks:
        name, corpora = task.sets.name, task.corpora
        out["counts"][name] = {
            side: {role: c.n for role, c in there.items()} for side, there in corpora.items()
        }
        out["rejected"][name] = {
            side: {role: job.rejected.get(f"{name}.{side}.{role}", 0) for role in there}
            for side, there in corpora.items()
        }
        out["patients"][name] = {
            side: {"known": not a.groups.note, "n": len(np.unique(a.groups.patient))}
            for side, a in (("dev", task.dev), (TEST, task.test))
        }
        sets = {
            f"{side}.{role}": Counter(c.label("digest").tolist())
            for side, there in corpora.items()
            for role, c in there.items()
        }
        names = list(sets)
        out["duplicates"][name] = {
            f"{a}~{b}": n
            for i, a in enumerate(names)
            for b in names[i + 1 :]
            if (n := sum((sets[a] & sets[b]).values()))
        }
    return out


def _described(job: MembershipJob) -> Findings:
    told = json.loads((job.out / describe.TOLD).read_bytes())
    out: Findings = {"table1": {}, "histogram": {}, "shadow": {}}
    for name, one in told.items():
        task, what = name.rsplit("/", 1)
        if what == "check":
            out["shadow"][task] = one
            continue
        for key in ("table1", "histogram"):
            out[key].setdefault(task, {})[what] = one[key]
    if (job.out / shadow.TOLD).exists():
        out["trained"] = json.loads((job.out / shadow.TOLD).read_bytes())
    return out
