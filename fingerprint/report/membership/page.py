"""What the page of a membership run is made from, and how it takes a number of its findings.

The key of a number is a JSON pointer (RFC 6901): names of arms and metrics hold dots and slashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fingerprint.report.blocks import NOT_RUN, WRITE, Value
from fingerprint.report.page import Page

Parts = list["str | Value"]
DASH = "\u2013"
METHODS = ("similarity", "embedding", "texture", "density", "vcmi", "calibrated")
CONSTANTS = {"always": "always \u201cused\u201d", "never": "never \u201cused\u201d", "coin": "coin"}
METRIC = {
    "auc": "AUC", "kappa": "kappa", "f1": "F1", "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy", "precision": "precision", "recall": "recall",
    "specificity": "specificity", "tpr_at_fpr_0.1": "TPR at FPR 10 %",
    "tpr_at_fpr_0.01": "TPR at FPR 1 %", "tpr_at_fpr_0.001": "TPR at FPR 0.1 %",
}  # fmt: skip
SPLIT = {"test": "TEST", "dev": "DEV"}
ROLE = {"generated": "generated", "used": "used", "not_used": "not used", "unknown": "unknown"}
MEAN = "mean"


def pointer(path: Sequence[str | int]) -> str:
    """Return the JSON pointer of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def at(held: Any, path: Sequence[str | int]) -> Any:
    """Return what lies at a path of nested mappings and lists, None where nothing does."""
    for part in path:
        if isinstance(held, Mapping):
            held = held.get(str(part))
        elif isinstance(held, list) and isinstance(part, int) and part < len(held):
            held = held[part]
        else:
            return None
    return held


@dataclass(frozen=True)
class MembershipPage(Page):
    """What a page is made from: findings, the tables of the papers among them, and settings."""

    @property
    def tasks(self) -> list[str]:
        """Every task, in order."""
        return list(self.findings.get("tasks") or [])

    @property
    def split(self) -> str:
        """Where the result stands: TEST if its labels are known, else DEV."""
        return "test" if self.findings.get("labelled") else "dev"

    @property
    def scopes(self) -> list[str]:
        """The mean of tasks where there are several, and every task."""
        return [*([MEAN] if len(self.tasks) > 1 else []), *self.tasks]

    def at(self, *path: str | int) -> Any:
        """Return one entry of the findings."""
        return at(self.findings, path)

    def number(self, *path: str | int, kind: str = "share") -> Value:
        """Return one entry as it is shown; a missing one says why, if that is known."""
        held = self.at(*path)
        if held is None or isinstance(held, Mapping) or (isinstance(held, str) and kind != "text"):
            return Value(pointer(path), NOT_RUN, self.why(*path))
        return Value(pointer(path), WRITE[kind](held))

    def why(self, *path: str | int) -> str:
        """Return why an entry is missing: the reason that stands nearest above it."""
        for end in range(len(path), 0, -1):
            reason = self.at(*path[:end], "reason")
            if isinstance(reason, str):
                return reason
        return "not recorded"

    def metrics(self, scope: str, split: str) -> tuple[str, ...]:
        """Return where the metrics of a task stand, or of the mean of tasks."""
        return (MEAN, split) if scope == MEAN else ("metrics", scope, split)

    def methods(self, scope: str, split: str = "") -> list[str]:
        """Return the plain methods that have a row, or a reason for none."""
        there = self.at(*self.metrics(scope, split or self.split)) or {}
        return [name for name in METHODS if name in there]

    def arms(self, scope: str, split: str, method: str = "") -> list[str]:
        """Return every arm, of one method or of all, in the order of the methods."""
        there = self.at(*self.metrics(scope, split)) or {}
        return [name for m in ([method] if method else METHODS) for name in there
                if name.startswith(f"{m}/")]  # fmt: skip

    def metric(self, path: Sequence[str], name: str, *, ends: bool = True) -> Parts:
        """Return a metric with its interval."""
        where = (*path, name)
        value = self.number(*where, "value")
        if value.why:
            return [Value(value.key, DASH, value.why)]
        if not ends or self.at(*where, "interval") is None:
            return [value]
        low, high = (self.number(*where, "interval", k) for k in (0, 1))
        return [value, " [", low, ", ", high, "]"]

    def ran(self, path: Sequence[str]) -> bool:
        """Whether a method has metrics."""
        return self.at(*path, "kappa", "value") is not None

    def beats(self, path: Sequence[str]) -> bool:
        """Whether kappa is above 0, that of every constant predictor, by its interval."""
        low = self.at(*path, "kappa", "interval", 0)
        return low is not None and low > 0

    def reasons(self, paths: Sequence[Sequence[str]]) -> Parts:
        """Return why numbers below these paths are missing, each reason once."""
        found: dict[str, None] = {}
        for path in paths:
            held = self.at(*path)
            for name, entry in held.items() if isinstance(held, Mapping) else ():
                reason = entry if name == "reason" else at(entry, ("reason",))
                if isinstance(reason, str):
                    found.setdefault(reason)
        return ["Not shown: " + "; ".join(found) + "."] if found else []


def named(scope: str) -> str:
    """Return the words for a task, or for the mean of all."""
    return "mean of tasks" if scope == MEAN else scope
