"""The first page of a membership run: whether used slices are told from others, and how well."""

from __future__ import annotations

from fingerprint.report.first import Headline, Verdict
from fingerprint.report.membership.page import SPLIT, MembershipPage, Parts, named

QUESTION = "Which of these real slices was the generator trained on?"
PLAIN = (
    "No correction is made for their number: of several useless methods one may seem better than "
    "chance."
)


def scope_of(page: MembershipPage) -> str:
    """Return what the answer is about: the mean of several tasks, else the one task."""
    return page.scopes[0] if page.scopes else ""


def verdict(page: MembershipPage) -> Verdict:
    """Return which methods are better than a constant predictor, and a line for each."""
    scope = scope_of(page)
    path = page.metrics(scope, page.split)
    ran = [name for name in page.methods(scope) if page.ran((*path, name))]
    if not ran:
        return Verdict(["No method has been judged yet: this run says nothing."])
    better = [name for name in ran if page.beats((*path, name))]
    levels = [(name, _line(page, (*path, name))) for name in page.methods(scope)]
    levels += [("always \u201cused\u201d", _line(page, (*path, "always")))]
    return Verdict([*_lead(page, ran, better), *_papers(page)], levels, bool(better))


def _lead(page: MembershipPage, ran: list[str], better: list[str]) -> Parts:
    path = page.metrics(scope_of(page), page.split)
    where = "" if page.split == "test" else " (on DEV, on which arms and cuts were chosen: TEST "\
        "has no labels)"  # fmt: skip
    if not better:
        untold = [n for n in ran if page.at(*path, n, "kappa", "interval") is None]
        words = "could be shown to beat" if untold else "beats"
        return [f"No method of {len(ran)} {words} the constant predictor{where}: kappa is not "
                "above 0 by its 95 % interval. "]  # fmt: skip
    out: Parts = [f"{len(better)} of {len(ran)} methods tell used slices from others better than "
                  f"a constant predictor{where}: "]  # fmt: skip
    for k, name in enumerate(better):
        out += [", " if k else "", name, " (kappa ", *page.metric((*path, name), "kappa"), ")"]
    return [*out, ". "]


def _papers(page: MembershipPage) -> Parts:
    return [
        "The ImageCLEF scores of papers 001 to 003 all lie below calling every slice used: F1 at "
        "most ", page.number("papers", "largest_f1", kind="text"), ", as printed, against ",
        page.number("papers", "always_f1"), ".",
    ]  # fmt: skip


def _line(page: MembershipPage, path: tuple[str, ...]) -> Parts:
    if not page.ran(path):
        return [f"Not run: {page.why(*path)}."]
    arm = page.at(*path, "arm")
    out: Parts = [f"Arm {arm}: "] if isinstance(arm, str) else []
    for metric, text in (("auc", "AUC "), ("kappa", ", kappa "), ("f1", ", F1 ")):
        out += [text, *page.metric(path, metric)]
    return [*out, "."]


def headlines(page: MembershipPage) -> list[Headline]:
    """Return AUC, kappa and F1 of the method that is best on DEV, and how many beat a constant."""
    scope = scope_of(page)
    best = best_on_dev(page, scope)
    if best is None:
        return []
    path = page.metrics(scope, page.split)
    where = f"{best}, best on DEV by AUC; {named(scope)}, {SPLIT[page.split]}"
    ran = [name for name in page.methods(scope) if page.ran((*path, name))]
    better = sum(page.beats((*path, name)) for name in ran)

    def one(label: str, metric: str, note: Parts) -> Headline:
        value = page.metric((*path, best), metric)
        return Headline(label, value[:1], [*value[1:], "; " if value[1:] else "", *note])

    return [
        one("AUC", "auc", [where]),
        one("kappa", "kappa", ["0 for any constant predictor"]),
        one("F1", "f1", ["read beside that of a constant"]),
        Headline("F1 of calling every slice used",
                 page.metric((*path, "always"), "f1", ends=False), ["kappa 0"]),
        Headline("Better than a constant", [f"{better} of {len(ran)} methods"], [PLAIN],
                 alarm=better > 0, words=True),
    ]  # fmt: skip


def best_on_dev(page: MembershipPage, scope: str) -> str | None:
    """Return the plain method of the largest AUC on DEV, where it was chosen."""
    path = page.metrics(scope, "dev")
    known = {name: page.at(*path, name, "auc", "value") for name in page.methods(scope, "dev")}
    there = {name: value for name, value in known.items() if value is not None}
    return max(there, key=lambda name: there[name]) if there else None
