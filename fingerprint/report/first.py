"""The first page: the verdict, one line for each level, and five numbers.

The sentences are those of METHOD.md, section 3.20: what was found, in which list; or that none was
found above the detection limit; or why that was not run. A level may be silent while another
speaks, and then the page says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fingerprint.measure import findings as measure
from fingerprint.report.blocks import Value
from fingerprint.report.page import Page

Parts = list["str | Value"]
OTHERS = "copies that were moved, resized, blurred, made noisy or cut"


@dataclass(frozen=True)
class Headline:
    """One of the five numbers, with its n, or with what to supply."""

    label: str
    value: Sequence[str | Value]
    note: Sequence[str | Value] = ()
    alarm: bool = False
    words: bool = False  # a phrase, not a number


@dataclass(frozen=True)
class Verdict:
    """The sentence that the page is about, and one line for each level that it rests on."""

    lead: Parts
    levels: Sequence[tuple[str, Parts]] = ()
    alarm: bool = False


def verdict(page: Page) -> Verdict:
    """Return the verdict; it never claims more than was tested."""
    if not page.has("identical.images"):
        return Verdict(["This run did not finish its search: it says nothing yet."])
    if page.itself:
        return Verdict(_itself(page), alarm=page.findings["identical.images"] > 0)
    found = measure.levels_found(page.findings)
    levels = [
        ("Identical images", _identical(page)),
        ("Other copies", _images(page)),
        ("Single patients", _patients(page)),
        ("The whole set", _set(page)),
        ("Training membership", list[str | Value](["Whether single slices were used for training "
                                                   "is not in this audit."])),
    ]  # fmt: skip
    return Verdict(_lead(page, found), levels, bool(found))


def q_of(page: Page) -> Parts:
    """Return the words for the rate at which findings are listed."""
    return ["at false-discovery rate ", page.value("settings.q", "q")]


def who_of(page: Page) -> str:
    """Return what an image is said to show: patients only where they are known."""
    return "patients" if page.person == "patient" else "slices"


def none_found(page: Page) -> Parts:
    """Return the sentence for a level of images without findings; never without its limit."""
    if page.has("limit.weakest"):
        weakest = page.value("limit.weakest", "text")
        return ["None found above detection limit ", weakest, " ", *q_of(page)]
    return ["None found ", *q_of(page), ", and there is no detection limit: ",
            page.reason("limit.weakest")]  # fmt: skip


def _lead(page: Page, found: Sequence[str]) -> Parts:
    v = page.value
    if {"identical", "image"} & set(found):
        return _shown(page)
    if "patient" in found:
        return ["No single image stands out, yet ", v("patients.found"), " patients of the corpus "
                "appear in the generated images, ", *q_of(page), "."]  # fmt: skip
    if "set" in found:
        return ["No single image stands out, yet the set is closer to its training patients than "
                "to strangers: p = ", v("set.p_value", "p"), "."]  # fmt: skip
    if page.has("images.found"):
        return [*none_found(page), "."]
    return ["No generated image is identical to a real slice.", *_others(page)]


def _others(page: Page) -> Parts:
    """Say what is not known beside identical images."""
    if page.has("images.found"):
        return []
    return [" Other copies were not decided on: ", page.reason("images.found"), "."]


def _shown(page: Page) -> Parts:
    f, v = page.findings, page.value
    if not f.get("images.any"):
        return [v("identical.images"), " of ", v("queries.generated"), " generated images are "
                "identical to a real slice.", *_others(page)]  # fmt: skip
    same, shown = f["images.identical"], f["images.any"]
    out: Parts = [v("images.any"), " of ", v("images.tested"), " generated images show "
                  f"{who_of(page)} of the corpus"]  # fmt: skip
    if same == shown:
        return [*out, ": identical to a real slice.", *_others(page)]
    if not same:
        return [*out, ", ", *q_of(page), "."]
    return [*out, ": ", v("images.identical"), " identical to a real slice, the others ",
            *q_of(page), "."]  # fmt: skip


def _itself(page: Page) -> Parts:
    v = page.value
    if page.findings["identical.images"] == 0:
        return ["No slice is identical to one of another patient: ", v("queries.generated"),
                " slices were compared with each other."]  # fmt: skip
    return [v("identical.images"), " of ", v("queries.generated"),
            " slices are identical to a slice of another patient", *_whose(page)]  # fmt: skip


# -- one line for each level


def _identical(page: Page) -> Parts:
    v = page.value
    if page.findings["identical.images"] == 0:
        return ["No generated image is identical to a real slice: ", v("queries.generated"),
                " images were compared with ", v("slices.searched"), " slices."]  # fmt: skip
    return [v("identical.images"), " of ", v("queries.generated"),
            " generated images are identical to ", v("identical.slices"), " real slices",
            *_whose(page)]  # fmt: skip


def _whose(page: Page) -> Parts:
    if not page.has("identical.patients"):
        return ["."]
    return [", of ", page.value("identical.patients"), " patients of the corpus."]


def _images(page: Page) -> Parts:
    v = page.value
    if not page.has("images.any"):
        return _undecided(page)
    listed: Parts = [v("images.guaranteed"), " guaranteed (ranks among ",
                     v("images.control_patients"), " control patients)"]  # fmt: skip
    if page.has("images.tail"):
        listed += [", ", v("images.tail"), " by the tail model of the controls"]
    tail: Parts = [] if page.has("images.tail") else [
        " The tail model was not run: ", page.reason("images.tail"), "."]  # fmt: skip
    if not page.has("images.found"):
        return ["Not decided: ", page.reason("images.found"), "."]
    if page.findings["images.found"]:
        return [v("images.found"), " of ", v("images.tested"), " images ", *q_of(page), ": ",
                *listed, ". Identical ones are counted here too. ", *_limit(page),
                *tail]  # fmt: skip
    return [*none_found(page), ". On the lists: ", *listed, ".", *tail, *_no_limit(page)]


def _undecided(page: Page) -> Parts:
    """Say why copies that are not identical were not decided on."""
    if not page.posed:
        return [f"Not looked for: {OTHERS}. Nothing is said of them: ",
                page.reason("images.found"), "."]  # fmt: skip
    return ["Each image was turned, resized and shifted to ", page.value("pose.poses"),
            " poses; which are copies was not decided: ", page.reason("images.found"),
            "."]  # fmt: skip


def _limit(page: Page) -> Parts:
    if not page.has("limit.weakest"):
        return ["There is no detection limit: ", page.reason("limit.weakest"), "."]
    return ["Detection limit: ", page.value("limit.weakest", "text"), ".", *_no_limit(page)]


def _no_limit(page: Page) -> Parts:
    """Name the kinds of copies for which nothing is known."""
    kinds = page.findings.get("limit.kinds") or []
    without = [kind for kind in kinds if not page.has(f"limit.{kind}")]
    if not without or not page.has("limit.weakest"):
        return []
    return [f" No limit for {', '.join(without)}: such copies may be there."]


def _patients(page: Page) -> Parts:
    v = page.value
    if not page.has("patients.found"):
        return ["Not run: ", page.reason("patients.found"), "."]
    rests: Parts = [" Each of the ", v("patients.tested"), " patients was ranked among ",
                    v("patients.controls"), " held-out ones. ", *at_once(page)]  # fmt: skip
    if not page.findings["patients.found"] and mute(page):
        return ["Not decided: ranks cannot show any patient, and the tail model was not run: ",
                page.reason("patients.tail"), ".", *rests]  # fmt: skip
    if page.findings["patients.found"]:
        return [v("patients.found"), " of ", v("patients.tested"), " patients of the corpus appear "
                "in these generated images, ", *q_of(page), ".", *rests]  # fmt: skip
    return ["None found ", *q_of(page), ". No detection limit is known at this level: planted "
            "copies are single images.", *rests]  # fmt: skip


def mute(page: Page) -> bool:
    """Whether no patient could have been found at all, with so few held-out ones."""
    needed, tested = (page.findings[f"patients.{x}"] for x in ("findings_needed", "tested"))
    return bool(needed > tested and not page.has("patients.tail"))


def at_once(page: Page) -> Parts:
    """Say how many patients ranks alone need."""
    needed = page.value("patients.findings_needed")
    if page.findings["patients.findings_needed"] > page.findings["patients.tested"]:
        return ["By ranks alone ", needed, " would have to be found at once: more than there are."]
    return ["By ranks alone at least ", needed, " must be found at once."]


def _set(page: Page) -> Parts:
    v = page.value
    if not page.has("set.p_value"):
        return ["Not run: ", page.reason("set.p_value"), "."]
    p: Parts = ["p = ", v("set.p_value", "p")]
    if page.findings["set.found"]:
        silent: Parts = [] if page.findings.get("images.any") else [
            " It says so although no single image stands out."]  # fmt: skip
        return ["The set is closer to its training patients than to strangers: ", *p, ".", *silent]
    return ["The set is not found to be closer to its training patients than to strangers: ", *p,
            ". No detection limit is known at this level."]  # fmt: skip


# -- five numbers


def headlines(page: Page) -> list[Headline]:
    """Return the five numbers of the first page, each with its n or with what to supply."""
    v = page.value
    control: Parts = ["and ", v("queries.control"), " control images"]
    return [
        Headline(
            "Slices compared with each other" if page.itself else "Generated images audited",
            [v("queries.generated")],
            control if page.has("queries.control") else [],
        ),
        _searched(page),
        _found(page),
        _at_risk(page),
        Headline(
            "Weakest planted copies found",
            [v("limit.weakest", "text")],
            ["the detection limit, by kind of copy"] if page.has("limit.weakest") else [],
            words=True,
        ),
    ]


def _searched(page: Page) -> Headline:
    v, label = page.value, "Patients and slices searched"
    slices: Parts = [v("slices.searched"), " slices"]
    if page.has("patients.searched"):
        return Headline(label, [v("patients.searched"), " patients, ", *slices])
    if page.has("groups.searched"):
        reason = [page.reason("patients.searched")]
        return Headline(label, [v("groups.searched"), " groups, ", *slices], reason)
    return Headline(label, [v("slices.searched")])


def _found(page: Page) -> Headline:
    f, v = page.findings, page.value
    if page.has("images.any"):
        note: Parts = ["identical ", v("images.identical"), "; guaranteed ",
                       v("images.guaranteed"), "; tail model ", v("images.tail")]  # fmt: skip
        return Headline("Images found, on any list", [v("images.any")], note, f["images.any"] > 0)
    if not page.has("identical.images"):
        return Headline("Images found, on any list", [v("identical.images")])
    note = ["of ", v("queries.generated")]
    if not page.itself:
        note += ["; other copies: not run: ", page.reason("images.found")]
    alarm = f["identical.images"] > 0
    return Headline("Identical images", [v("identical.images")], note, alarm)


def _at_risk(page: Page) -> Headline:
    label = "Patients in the risk register"
    if not page.has("risk.patients"):
        key = "risk.patients" if "risk.patients" in page.findings else "patients.found"
        return Headline(label, [page.value(key)])
    tested: Parts = ["tested one by one: ", page.value("patients.found"), " found"]
    note = tested if page.has("patients.found") else ["shown by the images found"]
    alarm = page.findings["risk.patients"] > 0
    return Headline(label, [page.value("risk.patients")], note, alarm)
