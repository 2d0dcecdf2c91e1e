"""Decide: the combination is learnt, arms and thresholds are chosen on DEV, everything is rated."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from fingerprint import ledger
from fingerprint.job import write_json
from fingerprint.ledger import Values
from fingerprint.measure import chosen
from fingerprint.measure.chosen import LEARNED, Side
from fingerprint.measure.rated import SIDES, difference, mean_of, rated
from fingerprint.membership import methods
from fingerprint.membership.learned import fit_combination
from fingerprint.membership_job import TEST, MembershipJob
from fingerprint.phases import describe, score, shadow

FINDINGS, METRICS, CALLED = "findings.json", "metrics.json", "called.parquet"
FORMAT = 1
NATURAL = ("texture/", "vcmi/threshold")  # arms whose own cut is zero
TOLD = ("metrics", "confusion", "roc", "by_patient", "cuts", "predicted")
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
    answers, each = [], {}
    for task in job.tasks:
        name = task.sets.name
        mine = table[table["task"] == name]
        dev, test = (_side(mine[mine["side"] == side]) for side in SIDES)
        dev, test = _with_learned(job, dev, test)
        each[name] = one = rated(dev, test, methods.METHODS, NATURAL, seed=job.settings.seed)
        for method in methods.METHODS:
            if why := methods.not_run(method, job.settings):
                for rows in one.metrics.values():
                    rows[method] = {"reason": why}
        for key in TOLD:
            out.setdefault(key, {})[name] = getattr(one, key)
        out.setdefault("noise", {})[name] = _noise(job, dev, test)
        asked = mine.loc[mine["side"] == TEST, ["task", "role", "token"]]
        answers += [asked.assign(method=m, called=called) for m, called in one.answers.items()]
    out["mean"] = {side: mean_of(each, side) for side in SIDES}
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


# -- what is told


def _noise(job: MembershipJob, dev: Side, test: Side) -> Findings:
    """Tell what noise does to the best similarity of each measure, where labels are known."""
    side, out = (test if test.used is not None else dev), {}
    for arm in _arms(dev, "similarity"):
        _, measure, noise, reduction = arm.split("/")
        if noise == "none" or reduction != "max":
            continue
        plain = f"similarity/{measure}/none/max"
        told = difference(side, plain, arm, seed=job.settings.seed)
        if told is not None:
            out[f"{measure}/{noise}"] = told
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
