"""What sets a study asks for: sizes, ages, sexes, classes, and who is held out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from fingerprint.corpus.pool import Band, cells


@dataclass(frozen=True)
class Design:
    """What is asked for.

    Attributes
    ----------
    sizes : tuple of int, rising
        Slices in each training set: 6, 60, 600, 6,000 and 60,000 in paper 000.
    ages : (int, int) or None
        Ages in complete years, both ends included, of every size; None: any age, unknown too. A
        corpus keeps no age above 89, which stands for all of them.
    ages_largest : (int, int) or None
        Other ages for the largest size alone. Paper 000 has 26 to 26, and 24 to 39 for 60,000: size
        and age are then confounded.
    balance_sex : bool
        Half of the slices are of women, exactly; False: any sex, unknown too.
    classes : tuple of str
        Regions in equal parts, exactly; empty: any slice.
    nested : bool
        A smaller set lies inside the next larger one, where the ages are the same; False: each is
        drawn for itself.
    held_out : float
        Share of the patients with any slice that may be chosen, in (0, 1).
    sets, set_size : int
        Further training sets (Fig. 4) of `ages`, and the slices of each; 0 sets: none.
    shrink : bool
        Scale down to what the corpus holds, and note it, instead of refusing.
    seed : int
        Not below 0.
    """

    sizes: tuple[int, ...]
    ages: Band
    ages_largest: Band
    balance_sex: bool
    classes: tuple[str, ...]
    nested: bool
    held_out: float
    sets: int
    set_size: int
    shrink: bool
    seed: int

    def __post_init__(self) -> None:
        """Refuse what cannot be asked for: field, rule, value."""
        _check(self)

    @property
    def bands(self) -> tuple[Band, ...]:
        """Ages of each size."""
        largest = self.ages if self.ages_largest is None else self.ages_largest
        return (self.ages,) * (len(self.sizes) - 1) + (largest,)

    @property
    def asked(self) -> tuple[tuple[int, Band], ...]:
        """Each size with its ages."""
        return tuple(zip(self.sizes, self.bands, strict=True))

    @property
    def used(self) -> tuple[Band, ...]:
        """Ages that are asked for by any size or set: one band or two."""
        return tuple(dict.fromkeys([*[self.ages] * bool(self.sets), *self.bands]))


def _check(design: Design) -> None:
    def refuse(field: str, rule: str) -> None:
        raise ValueError(f"Design: {field} must {rule}, got {getattr(design, field)!r}")

    sizes, names = design.sizes, design.classes
    if not sizes or sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)):
        refuse("sizes", "be one or more numbers of slices that rise")
    for field in ("ages", "ages_largest"):
        band = getattr(design, field)
        if band is not None and not 0 <= band[0] <= band[1]:
            refuse(field, "be two ages in years, the lower one first")
    if len(set(names)) < len(names) or "" in names:
        refuse("classes", "be different regions with a name")
    if not 0 < design.held_out < 1:
        refuse("held_out", "lie in (0, 1)")
    if design.sets < 0:
        refuse("sets", "be 0 or more")
    if design.sets and design.set_size < 1:
        refuse("set_size", "be 1 or more")
    if design.seed < 0:
        refuse("seed", "be 0 or more")
    _check_multiples(design)


def _check_multiples(design: Design) -> None:
    n = len(cells(design.balance_sex, design.classes))
    sexes = ["2 sexes"] * design.balance_sex
    classes = [f"{len(design.classes)} classes"] * bool(design.classes)
    wrong = [f"sizes {size:,}" for size in design.sizes if size % n]
    wrong += [f"set_size {design.set_size:,}"] * bool(design.sets and design.set_size % n)
    if wrong:
        raise ValueError(
            f"Design: sizes and set_size must be multiples of {n} ({' x '.join(sexes + classes)}): "
            f"{n:,}, {2 * n:,}, {3 * n:,}, ..; got {', '.join(wrong)}"
        )
