"""A membership run in a few lines: what it would do, and what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fingerprint.membership import memory, methods
from fingerprint.membership_run import Membership, find
from fingerprint.settings import Settings


def of_membership(dev: str, test: str, settings: Settings, cluster: str) -> dict[str, Any]:
    """Return the plan of a membership run, a flat table: nothing is read but names of files.

    Raises
    ------
    ValueError
        Folders that are no tasks; a task whose workers would need more than ``memory_gib``.
    """
    told: dict[str, Any] = {"cluster": cluster}
    needed: list[int] = []
    found = find(Path(dev), Path(test), settings)
    for task in found:
        dev, test = (
            {role: _files(folder) for role, folder in folders.items()}
            for folders in (task.dev, task.test)
        )
        for side, counts in (("dev", dev), ("test", test)):
            told[f"{task.name}.{side}"] = ", ".join(f"{n:,} {role}" for role, n in counts.items())
        asked = sum(test[role] for role in task.asked)
        told[f"pairs.{task.name}"] = test["generated"] * asked
        largest = memory.Counts(
            max(dev["used"] + dev["not_used"], asked),
            max(dev["generated"], test["generated"]),
            dev["not_used"],
            settings.size_px,  # at most: no image is read
        )
        needed.append(memory.refuse_more(task.name, largest, settings))
    parts = settings.folds + 1
    kinds = 2 - (settings.same_kind == "none")
    trained = parts * kinds if "texture" in settings.methods else 0
    trained += bool("embedding" in settings.methods and settings.mae_steps)
    told["trainings"] = len(found) * trained
    told["noise arms"] = len(methods.parts_of("similarity", settings, False))
    for name in methods.METHODS:
        if why := methods.not_run(name, settings):
            told[f"not run.{name}"] = why
    told["memory.worker_bytes"] = max(needed)
    told["memory.worker_limit_bytes"] = int(settings.memory_gib * 2**30)
    return told


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def told_of(run: Membership) -> dict[str, Any]:
    """Return what is told on the terminal: the page, and how well each method tells."""
    found = run.findings
    side = "test" if found["labelled"] else "dev"
    told: dict[str, Any] = {"report": str(run.report.resolve()), "judged on": side}
    for name in methods.METHODS:
        row = found["mean"][side].get(name) or {}
        told[name] = row.get("reason") or (
            f"AUC {_value(row, 'auc')}, kappa {_value(row, 'kappa')}, F1 {_value(row, 'f1')}"
        )
    always = found["mean"][side].get("always")
    if always:
        told["always used"] = f"AUC {_value(always, 'auc')}, kappa 0, F1 {_value(always, 'f1')}"
    return told


def _value(row: dict[str, Any], name: str) -> str:
    one = row.get(name) or {}
    if one.get("value") is None:
        return "not estimable"
    low_high = one.get("interval")
    return f"{one['value']:.3f}" + (
        f" ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else ""
    )
