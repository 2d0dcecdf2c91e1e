"""Study sets by labels: exact parts, patients on one side, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools

import naive
import numpy as np
import pandas as pd
import pytest
from corpora import make_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint.corpus import cohort, deal, pool
from fingerprint.corpus.cohort import CONTROLS, Cohorts, Design, chosen
from fingerprint.corpus.counted import TITLES, counted, each_counted, line

CLASSES = ("c1", "c2", "c3")
PLAIN = Design(
    sizes=(6, 60),
    ages=(26, 26),
    ages_largest=None,
    balance_sex=True,
    classes=CLASSES,
    nested=True,
    held_out=0.25,
    sets=0,
    set_size=6,
    shrink=False,
    seed=1,
)


def design(**other) -> Design:
    return dataclasses.replace(PLAIN, **other)


def hospital(ages, each=4, classes=CLASSES, sexes="FM") -> pd.DataFrame:
    """One woman and one man for each of `ages`, with `each` slices of every class, and one more."""
    people = [(f"p{k}{sex}", sex, age) for k, age in enumerate(ages) for sex in sexes]
    regions = [*classes * each, ""]
    table = [(*person, region) for person in people for region in regions]
    frame = pd.DataFrame(table, columns=["participant", "sex", "age", "region"])
    return frame.astype({"age": "int16"})


def who(labels: pd.DataFrame, rows) -> set[str]:
    return set(labels["participant"].iloc[rows])


def parts(labels: pd.DataFrame, rows, asked: Design) -> set[int]:
    sex, region = labels["sex"].tolist(), labels["region"].tolist()
    counts = naive.cell_counts(rows, sex, region, asked.balance_sex, asked.classes)
    return set(counts.values())


def digest(cohorts: Cohorts) -> list[list[int]]:
    every = [*cohorts.training.values(), *cohorts.held_out.values(), *cohorts.sets]
    return [rows.tolist() for rows in every]


# -- any corpus, any design


@st.composite
def corpora(draw) -> pd.DataFrame:
    n = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sexes = rng.choice(["F", "M", ""], n, p=[0.45, 0.45, 0.1])
    ages = rng.choice([-1, 24, 26, 26, 26, 30, 39, 60], n)
    slices = rng.integers(1, draw(st.integers(2, 30)), n)
    person = rng.permutation(np.repeat(np.arange(n), slices))
    return pd.DataFrame(
        {
            "participant": np.array([f"p{k}" for k in range(n)], object)[person],
            # a few slices that do not say, and a scan some years later
            "sex": np.where(rng.random(len(person)) < 0.05, "", sexes[person]),
            "age": np.where(rng.random(len(person)) < 0.1, 39, ages[person]),
            "region": rng.choice([*CLASSES, ""], len(person)),
        }
    )


@st.composite
def designs(draw) -> Design:
    balance, classes = draw(st.booleans()), draw(st.sampled_from([(), ("c2",), CLASSES]))
    n = (2 if balance else 1) * max(len(classes), 1)
    multiples = sorted(draw(st.sets(st.integers(1, 12), min_size=1, max_size=4)))
    return Design(
        sizes=tuple(n * m for m in multiples),
        ages=draw(st.sampled_from([None, (26, 26), (24, 39)])),
        ages_largest=draw(st.sampled_from([None, (24, 39), (26, 26)])),
        balance_sex=balance,
        classes=classes,
        nested=draw(st.booleans()),
        held_out=draw(st.sampled_from([0.1, 0.25, 0.5, 0.8])),
        sets=draw(st.integers(0, 4)),
        set_size=n * draw(st.integers(1, 4)),
        shrink=True,
        seed=draw(st.integers(0, 2**40)),
    )


def eligible(labels: pd.DataFrame, asked: Design, band) -> set[int]:
    out = set()
    for row, (sex, age, region) in enumerate(
        zip(labels["sex"], labels["age"], labels["region"], strict=True)
    ):
        in_band = band is None or (age != -1 and band[0] <= age <= band[1])
        known = not asked.balance_sex or sex in ("F", "M")
        if in_band and known and (not asked.classes or region in asked.classes):
            out.add(row)
    return out


def cells_of(labels: pd.DataFrame, asked: Design, rows) -> list[list[int]]:
    """`rows` of each cell that is not empty."""
    keys = {}
    for row in rows:
        sex = labels["sex"].iloc[row] if asked.balance_sex else ""
        region = labels["region"].iloc[row] if asked.classes else ""
        keys.setdefault((sex, region), []).append(row)
    return list(keys.values())


def fewest(labels: pd.DataFrame, asked: Design, rows) -> tuple[int, int]:
    """Slices in the smallest part, and how many parts there are."""
    sex, region = labels["sex"].tolist(), labels["region"].tolist()
    counts = naive.cell_counts(rows, sex, region, asked.balance_sex, asked.classes)
    return min(counts.values()), len(counts)


def check(labels: pd.DataFrame, asked: Design, made: Cohorts) -> None:
    patient = labels["participant"].tolist()
    people = pool.pool(labels, asked.balance_sex, asked.classes, asked.used)
    held = set(labels["participant"][cohort._held_out(people, asked)])
    assert made.training
    assert made.training.keys() == made.held_out.keys() <= set(asked.sizes)
    for rows in (*made.training.values(), *made.sets):
        assert not who(labels, rows) & held
    for a, b in itertools.combinations(made.sets, 2):
        assert not who(labels, a) & who(labels, b)
    for rows in made.sets:
        assert set(rows.tolist()) <= eligible(labels, asked, asked.ages)
        assert 0 < len(rows) == len(made.sets[0]) <= asked.set_size
    for rows in (*made.training.values(), *made.held_out.values(), *made.sets):
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
        assert len(parts(labels, rows, asked)) == 1
    check_sizes(labels, asked, made, patient, held)


def check_sizes(labels, asked: Design, made: Cohorts, patient: list[str], held: set[str]) -> None:
    largest = {}
    for size, band in zip(asked.sizes, asked.bands, strict=True):
        there = eligible(labels, asked, band)
        if asked.balance_sex:
            sexes = labels[labels["sex"] != ""].groupby("participant")["sex"].nunique()
            there = {row for row in there if sexes[patient[row]] == 1}
        sides = [{r for r in there if (patient[r] in held) == side} for side in (False, True)]
        least, n = fewest(labels, asked, sides[0])
        expected = min(size, least * n)
        if size not in made.training:  # it came to as many as a smaller one
            assert expected == largest[band]
            continue
        largest[band] = expected
        assert len(made.training[size]) == expected
        scaled = any(note.startswith(f"{size:,} slices: scaled") for note in made.notes)
        assert scaled == (expected < size)
        for rows, side in zip((made.training[size], made.held_out[size]), sides, strict=True):
            assert set(rows.tolist()) <= side
            for cell in cells_of(labels, asked, side):
                took = sorted(set(cell) & set(rows.tolist()))
                assert naive.taken_unfairly(took, cell, patient) == []
        # fewer than a thousand: all that can be had in equal parts
        least, n = fewest(labels, asked, sides[1])
        assert len(made.held_out[size]) == least * n
    for a, b in itertools.pairwise(made.training):
        if asked.bands[asked.sizes.index(a)] == asked.bands[asked.sizes.index(b)]:
            assert not asked.nested or set(made.training[a]) < set(made.training[b])
            assert made.held_out[a] is made.held_out[b]


@settings(max_examples=50, deadline=None)
@given(corpora(), designs())
def test_any_corpus_gives_lawful_sets_or_is_refused_with_the_reasons(labels, asked):
    strict = dataclasses.replace(asked, shrink=False)
    try:
        made = chosen(labels, asked)
    except ValueError as error:
        lines = str(error).splitlines()
        assert len(lines) > 1
        assert all(": " in one for one in lines[1:])
        with pytest.raises(ValueError, match="cohorts: "):
            chosen(labels, strict)
        return
    check(labels, asked, made)
    changed = [note for note in made.notes if "scaled" in note or "left out" in note]
    if not changed:
        assert digest(chosen(labels, strict)) == digest(made)
        return
    with pytest.raises(ValueError, match="shrink = true scales"):
        chosen(labels, strict)


@settings(max_examples=40, deadline=None)
@given(corpora(), designs())
def test_one_seed_gives_one_choice(labels, asked):
    def once():
        try:
            return digest(chosen(labels.copy(), asked))
        except ValueError as error:
            return str(error)

    assert once() == once()


# -- exact parts


def test_women_are_half_and_classes_are_thirds_exactly():
    labels = hospital([26] * 40)
    made = chosen(labels, design(sizes=(6, 60, 300)))
    for size, rows in made.training.items():
        some = labels.iloc[rows]
        assert len(some) == size
        assert (some.groupby(["sex", "region"]).size() == size // 6).all()


@pytest.mark.parametrize(("balance", "classes"), [(True, ()), (False, CLASSES), (False, ())])
def test_with_fewer_constraints_there_are_fewer_parts(balance, classes):
    labels = hospital([26] * 40)
    asked = design(balance_sex=balance, classes=classes, sizes=(6, 120))
    made = chosen(labels, asked)
    n = (2 if balance else 1) * max(1, len(classes))
    assert parts(labels, made.training[120], asked) == {120 // n}


def test_without_constraints_slices_of_unknown_sex_age_and_region_are_taken():
    labels = hospital([26] * 20).assign(sex="", age=-1, region="")
    made = chosen(labels, design(ages=None, balance_sex=False, classes=(), sizes=(10,)))
    assert len(made.training[10]) == 10


def test_ages_outside_the_band_and_unknown_ones_are_not_taken():
    labels = hospital([25, 26, 27, -1] * 20)
    made = chosen(labels, design())
    for rows in (*made.training.values(), *made.held_out.values()):
        assert set(labels["age"].iloc[rows]) == {26}


# -- patients


@pytest.mark.parametrize("seed", range(5))
def test_a_set_is_of_as_many_patients_as_can_be(seed):
    labels = hospital([26] * 40)
    made = chosen(labels, design(sizes=(6, 60, 180, 360), seed=seed))
    patients = {size: len(who(labels, rows)) for size, rows in made.training.items()}
    assert patients == {6: 6, 60: 60, 180: 60, 360: 60}  # 60 of 80 are trained on


def test_e27_every_split_is_by_patient_scans_at_other_ages_too():
    young = hospital([26] * 30)
    older = young.assign(age=30)  # the same patients, four years later
    labels = pd.concat([young, older], ignore_index=True)
    made = chosen(labels, design(ages_largest=(24, 39), sizes=(6, 60, 120), sets=2))
    trained = [*made.training.values(), *made.sets]
    held = set().union(*(who(labels, rows) for rows in made.held_out.values()))
    assert held
    assert not held & set().union(*(who(labels, rows) for rows in trained))


@pytest.mark.parametrize("seed", range(4))
def test_the_same_patients_are_held_out_whatever_the_sizes(seed):
    labels = hospital([26] * 40)
    few = chosen(labels, design(sizes=(6,), seed=seed))
    many = chosen(labels, design(sizes=(6, 60, 240), seed=seed, nested=False))
    more = chosen(labels, design(sizes=(12, 120), seed=seed, sets=3))
    held = [who(labels, made.held_out[min(made.held_out)]) for made in (few, many, more)]
    assert held[0] == held[1] == held[2]
    assert len(held[0]) == 20


def test_held_out_slices_do_not_depend_on_the_slices_that_were_trained_on():
    labels = hospital([26] * 40)
    nested, not_nested = chosen(labels, design()), chosen(labels, design(nested=False))
    assert nested.training[60].tolist() != not_nested.training[60].tolist()
    assert nested.held_out[60].tolist() == not_nested.held_out[60].tolist()


def test_a_patient_of_two_sexes_is_of_none():
    labels = hospital([26] * 20)
    labels.loc[labels["participant"].isin(["p3F", "p5M"]), "sex"] = ["F", "M"] * 13
    made = chosen(labels, design())
    assert "2 patients have slices of both sexes" in made.notes[0]
    used = np.concatenate([*made.training.values(), *made.held_out.values()])
    assert not {"p3F", "p5M"} & who(labels, used)


# -- nested or not


def test_nested_sets_lie_in_each_other_and_others_are_drawn_for_themselves():
    labels = hospital([26] * 40)
    inside = chosen(labels, design(sizes=(6, 60, 240))).training
    assert set(inside[6]) < set(inside[60]) < set(inside[240])
    apart = chosen(labels, design(sizes=(6, 60, 240), nested=False)).training
    assert not set(apart[6]) <= set(apart[60])
    assert not set(apart[60]) <= set(apart[240])


def test_a_set_drawn_for_itself_does_not_depend_on_the_other_sizes():
    labels = hospital([26] * 40)
    both = chosen(labels, design(sizes=(6, 60), nested=False)).training
    assert chosen(labels, design(sizes=(60,), nested=False)).training[60].tolist() == (
        both[60].tolist()
    )


# -- ages


def test_e14_with_one_band_of_ages_size_and_age_are_not_confounded():
    labels = hospital(list(range(20, 60)) * 3)
    made = chosen(labels, design(ages=(24, 39), sizes=(60, 240, 600), held_out=0.2, shrink=True))
    assert not any("confounded" in note for note in made.notes)
    means = [labels["age"].iloc[rows].mean() for rows in made.training.values()]
    assert max(means) - min(means) < 2
    assert made.held_out[60] is made.held_out[600]


def test_e14_the_ages_of_the_paper_confound_size_and_age_and_are_noted():
    labels = hospital([26] * 30 + list(range(24, 40)) * 6)
    made = chosen(labels, design(ages_largest=(24, 39), sizes=(6, 60, 600)))
    assert [n for n in made.notes if "confounded" in n] == [
        "size and age are confounded: 600 slices are of patients aged 24 to 39, the others of "
        "patients aged 26; what differs between them may be due to either"
    ]
    ages = {size: labels["age"].iloc[rows] for size, rows in made.training.items()}
    assert set(ages[6]) == set(ages[60]) == {26}
    assert ages[600].min() == 24
    assert ages[600].max() == 39
    assert set(made.training[6]) < set(made.training[60])
    assert not set(made.training[60]) < set(made.training[600])
    assert set(labels["age"].iloc[made.held_out[60]]) == {26}
    assert labels["age"].iloc[made.held_out[600]].nunique() > 10


def test_the_same_ages_for_the_largest_are_no_other_ages():
    labels = hospital([26] * 40)
    same = chosen(labels, design(ages_largest=(26, 26)))
    assert digest(same) == digest(chosen(labels, design()))
    assert same.notes == ()


# -- held out


def test_held_out_slices_are_of_every_held_out_patient_and_a_thousand_at_most():
    labels = hospital([26] * 240, each=5)
    made = chosen(labels, design(sizes=(6, 60)))
    held = labels.iloc[made.held_out[60]]
    assert len(held) == CONTROLS // 6 * 6
    assert held["participant"].nunique() == 120
    # nobody's third of a class before everybody's second
    each = held.groupby(["participant", "region"]).size()
    assert set(each) == {2, 3}


def test_a_larger_set_has_as_many_held_out_slices_if_there_are():
    labels = hospital([26] * 240, each=5)
    made = chosen(labels, design(sizes=(6, 1500)))
    assert len(made.held_out[6]) == len(made.held_out[1500]) == 1500


def test_held_out_ages_are_those_of_the_training_set():
    rng = np.random.default_rng(3)
    ages = np.clip(rng.normal(45, 14, 600), 20, 80).astype(int).tolist()
    labels = hospital(ages, each=1)
    made = chosen(labels, design(ages=(20, 80), sizes=(6, 1200), held_out=0.5))
    for sex in "FM":
        a, b = (
            np.sort(some.loc[some["sex"] == sex, "age"].to_numpy(float))
            for some in (labels.iloc[made.training[1200]], labels.iloc[made.held_out[1200]])
        )
        quantiles = np.linspace(0.02, 0.98, 25)
        assert np.abs(np.quantile(a, quantiles) - np.quantile(b, quantiles)).max() <= 2


def test_a_small_share_of_a_small_corpus_holds_out_one_of_each_sex():
    labels = hospital([26] * 4)
    made = chosen(labels, design(sizes=(6,), held_out=0.05))
    assert len(who(labels, made.held_out[6])) == 2
    assert set(labels["sex"].iloc[made.held_out[6]]) == {"F", "M"}


def test_a_turn_that_is_not_taken_in_full_has_the_ages_of_the_training_set():
    # the old have more slices, so that a large training set has four of them for one of the young
    young, old = hospital([30] * 300, each=1), hospital([70] * 300, each=9)
    labels = pd.concat([young, old.assign(participant=old["participant"] + "old")])
    made = chosen(labels, design(ages=(20, 80), sizes=(1800,), held_out=0.8))
    ages = [labels["age"].iloc[rows] for rows in (made.training[1800], made.held_out[1800])]
    assert [(age == 30).sum() for age in ages] == [360, 360]
    assert len(made.held_out[1800]) == 1800


@pytest.mark.parametrize("seed", range(12))
def test_two_patients_of_a_narrow_band_are_on_either_side(seed):
    labels = hospital([26, 26] + list(range(27, 40)) * 3, each=1)
    made = chosen(
        labels, design(sizes=(6, 60), ages_largest=(24, 39), held_out=0.2, seed=seed, shrink=True)
    )
    assert len(who(labels, made.held_out[6])) == 2


@pytest.mark.parametrize("seed", range(12))
def test_two_patients_who_have_every_class_are_on_either_side(seed):
    labels = hospital([26] * 30, each=1)
    everything = labels["participant"].isin(["p3F", "p8F", "p0M", "p1M"])
    labels = labels[everything | (labels["region"] != "c2")]
    made = chosen(labels, design(sizes=(6,), held_out=0.2, seed=seed))
    held = labels.iloc[made.held_out[6]]
    assert (held["region"] == "c2").sum() == 2


# -- sets of Fig. 4


def test_further_sets_share_no_patient():
    labels = hospital([26] * 60)
    asked = design(sets=7, set_size=60)
    made = chosen(labels, asked)
    assert len(made.sets) == 7
    people = [who(labels, rows) for rows in made.sets]
    assert sum(map(len, people)) == len(set().union(*people))
    for rows in made.sets:
        assert len(rows) == 60
        assert parts(labels, rows, asked) == {10}
    assert not set().union(*people) & who(labels, made.held_out[60])


def test_sets_are_equally_large_where_patients_have_unlike_numbers_of_slices():
    parts_of = [hospital([26] * 6, each=n) for n in (1, 2, 4, 8, 16)]
    labels = pd.concat(
        [one.assign(participant=one["participant"] + f"_{k}") for k, one in enumerate(parts_of)],
        ignore_index=True,
    )
    asked = design(sets=3, set_size=10_002, shrink=True, held_out=0.1, sizes=(6,))
    made = chosen(labels, asked)
    trained = ~labels["participant"].isin(who(labels, made.held_out[6]))
    rest = labels[trained & (labels["region"] != "")]
    evenly = rest.groupby(["sex", "region"]).size().min() / 3
    assert len(made.sets) == 3
    assert len(made.sets[0]) >= 6 * 0.7 * evenly


def test_sets_are_scaled_in_size_before_in_number():
    labels = hospital([26] * 12, each=2)  # nine of each sex are trained on
    smaller = chosen(labels, design(sizes=(6,), sets=7, set_size=60, shrink=True))
    assert [len(rows) for rows in smaller.sets] == [12] * 7
    assert "7 sets of 60 slices: scaled down to 7 of 12" in smaller.notes[0]
    fewer = chosen(labels, design(sizes=(6,), sets=20, set_size=60, shrink=True))
    assert [len(rows) for rows in fewer.sets] == [12] * 9
    assert "20 sets of 60 slices: scaled down to 9 of 12" in fewer.notes[0]


# -- what is refused


@pytest.mark.parametrize("shrink", [False, True])
def test_slices_without_a_participant_are_refused_with_what_to_supply(shrink):
    labels = hospital([26] * 40)
    labels.loc[:9, "participant"] = ""
    with pytest.raises(ValueError, match=r"10 of 1,040 slices .* slices.tsv .* --participant-from"):
        chosen(labels, design(shrink=shrink))


@pytest.mark.parametrize("shrink", [False, True])
def test_what_no_slice_has_is_listed_at_once_and_shrinking_does_not_help(shrink):
    labels = hospital([-1] * 40, classes=("c1", "c3"), sexes="M")
    with pytest.raises(ValueError, match="lacks") as error:
        chosen(labels, design(shrink=shrink))
    age, sex, region = str(error.value).splitlines()[1:]
    assert "no slice has an age" in age
    assert "--participants" in age
    assert "no slice is known to be of women" in sex
    assert "balance_sex = false" in sex
    assert "no slice is of class c2" in region


@pytest.mark.parametrize("shrink", [False, True])
def test_a_part_that_is_empty_or_of_one_patient_is_refused(shrink):
    labels = hospital([26] * 12 + [30])
    women = labels["sex"] == "F"
    nobody = labels[~(women & (labels["age"] == 26) & (labels["region"] == "c2"))]
    with pytest.raises(ValueError, match="too small") as error:
        chosen(nobody, design(shrink=shrink, sizes=(6,)))
    assert "c2 women aged 26: none there: ask for other ages or classes" in str(error.value)
    assert "shrink" not in str(error.value)
    one = labels[~(women & (labels["region"] == "c2")) | (labels["participant"] == "p3F")]
    with pytest.raises(ValueError, match="too small") as error:
        chosen(one, design(shrink=shrink, sizes=(6,)))
    assert "c2 women aged 26: all 4 slices are of 1 patient who would be" in str(error.value)


def test_a_corpus_too_small_is_refused_with_every_shortfall():
    labels = hospital([26] * 8, each=2)  # six of each sex are trained on: 12 slices of each part
    labels = labels.drop(labels.index[(labels["region"] == "c2") & (labels["sex"] == "F")][::2])
    with pytest.raises(ValueError, match="too small") as error:
        chosen(labels, design(sizes=(6, 60, 120), sets=2, set_size=48))
    head, *lines, advice = str(error.value).splitlines()
    assert "shrink = true" in advice
    assert len(lines) == 1 + 6 + 6
    assert lines[0].strip() == (
        "60 slices: c2 women aged 26: 6 there, 10 needed (2 more are of held-out patients)"
    )
    assert "120 slices: c1 women aged 26: 12 there, 20 needed" in str(error.value)
    assert "2 sets of 48 slices: c2 women aged 26: 3 in the smallest set, 8 needed" in str(
        error.value
    )


def test_shrinking_takes_the_largest_multiple_and_leaves_out_what_repeats():
    labels = hospital([26] * 8, each=2)
    asked = design(sizes=(6, 60, 600, 6000), shrink=True)
    made = chosen(labels, asked)
    assert {size: len(rows) for size, rows in made.training.items()} == {6: 6, 60: 60, 600: 72}
    assert made.notes[0].startswith("600 slices: scaled down to 72; c1 women aged 26: 12")
    assert made.notes[1].startswith("6,000 slices: left out, as large as 600; ")
    exactly = chosen(labels, design(sizes=(6, 72, 600), shrink=True))
    assert list(exactly.training) == [6, 72]


def test_the_largest_of_other_ages_is_kept_though_it_is_as_large_as_a_smaller_one():
    labels = hospital([26] * 8, each=2)
    asked = design(sizes=(6, 72, 600), ages_largest=(24, 39), shrink=True)
    made = chosen(labels, asked)
    assert {size: len(rows) for size, rows in made.training.items()} == {6: 6, 72: 72, 600: 72}


def test_an_empty_corpus_is_refused():
    with pytest.raises(ValueError, match="no slice"):
        chosen(hospital([]), design())
    with pytest.raises(ValueError, match="any slice: none there"):
        chosen(hospital([]), design(ages=None, balance_sex=False, classes=(), shrink=True))


def test_the_labels_of_a_sealed_corpus_are_read_as_they_are(tmp_path, rng):
    images = rng.integers(0, 255, (24, 32, 32), np.uint8)
    sealed = make_corpus(tmp_path / "real.zarr", images, [f"P{k // 2:03d}" for k in range(24)])
    asked = design(ages=(40, 40), balance_sex=False, classes=(), sizes=(4, 9))
    made = chosen(sealed.slices, asked)
    assert [len(rows) for rows in made.training.values()] == [4, 9]
    assert len(who(sealed.slices, made.training[9])) == 9
    with pytest.raises(ValueError, match="too small"):  # every patient has slices of both sexes
        chosen(sealed.slices, design(ages=(40, 40), classes=(), shrink=True))


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="a column region"):
        chosen(hospital([26] * 9).drop(columns="region"), design())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sizes": ()}, r"sizes must be .* rise, got \(\)"),
        ({"sizes": (60, 6)}, r"sizes must be .* rise, got \(60, 6\)"),
        ({"sizes": (6, 6)}, "sizes must be .* rise"),
        ({"sizes": (0, 6)}, "sizes must be"),
        ({"ages": (39, 24)}, r"ages must be .* got \(39, 24\)"),
        ({"ages_largest": (-1, 24)}, "ages_largest must be"),
        ({"classes": ("c1", "c1")}, "classes must be different"),
        ({"classes": ("",)}, "classes must be"),
        ({"held_out": 0.0}, r"held_out must lie in \(0, 1\), got 0.0"),
        ({"held_out": 1.0}, "held_out must lie"),
        ({"held_out": float("nan")}, "held_out must lie"),
        ({"sets": -1}, "sets must be 0 or more, got -1"),
        ({"sets": 1, "set_size": 0}, "set_size must be 1 or more"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"sizes": (6, 10)}, r"multiples of 6 \(2 sexes x 3 classes\): 6, 12, 18, .*sizes 10"),
        ({"sizes": (3,), "classes": ()}, r"multiples of 2 \(2 sexes\): 2, 4, 6, .*sizes 3"),
        ({"sizes": (4,), "balance_sex": False}, r"multiples of 3 \(3 classes\)"),
        ({"sets": 2, "set_size": 8}, "multiples of 6 .*set_size 8"),
    ],
)
def test_a_design_that_cannot_be_is_refused_with_field_rule_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        design(**wrong)


def test_the_sizes_of_the_paper_can_be_asked_for():
    asked = design(sizes=(6, 60, 600, 6000, 60_000), ages_largest=(24, 39), sets=7, set_size=600)
    assert asked.bands == ((26, 26),) * 4 + ((24, 39),)


# -- the parts of it


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 90)), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 99),
)
def test_every_stratum_is_split_to_the_nearest_patient_and_evenly_over_its_ages(people, share, s):
    stratum, age = np.array(people).T
    out = deal.held_out(stratum, age, share, np.random.default_rng(s))
    for name in set(stratum.tolist()):
        mine = stratum == name
        n, k = int(mine.sum()), int(out[mine].sum())
        assert k == min(max(round(share * n), 1), n - 1)
        for oldest in set(age[mine].tolist()):
            up_to = mine & (age <= oldest)
            assert abs(int(out[up_to].sum()) - up_to.sum() * k / n) < 1 + 1e-9


def test_everybody_is_held_out_as_often():
    runs = [
        deal.held_out(np.zeros(9, int), np.arange(9) // 4, 1 / 3, np.random.default_rng(seed))
        for seed in range(3000)
    ]
    share = np.mean(runs, axis=0)
    assert np.abs(share - 1 / 3).max() < 4 * np.sqrt(2 / 9 / 3000)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), max_size=40),
    st.integers(1, 6),
    st.integers(0, 99),
)
def test_patients_are_dealt_to_sets_evenly_in_every_group(people, n, seed):
    group, slices = np.array(people, int).reshape(-1, 2).T
    part = deal.parts(group, slices[:, None], n, np.random.default_rng(seed))
    for name in (0, 1):
        each = np.bincount(part[group == name], minlength=n)
        assert each.max() - each.min() <= 1
        # sorted by what they have, each set gets one of every n: they differ by one patient's
        total = np.bincount(part[group == name], slices[group == name], minlength=n)
        assert total.max() - total.min() <= max(slices[group == name], default=0)


def test_no_set_has_the_patients_with_most_slices_more_often():
    slices = np.arange(12)[:, None]
    first = [
        deal.parts(np.zeros(12, int), slices, 3, np.random.default_rng(seed))[11]
        for seed in range(900)
    ]
    assert np.abs(np.bincount(first) - 300).max() < 4 * np.sqrt(200)


@given(st.lists(st.integers(0, 5), max_size=50))
def test_places_count_the_same_keys_before(keys):
    expected = [keys[:k].count(key) for k, key in enumerate(keys)]
    assert deal.places(np.array(keys, np.int64)).tolist() == expected


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.lists(st.integers(0, 6), min_size=5, max_size=5),
    st.integers(0, 9),
)
def test_groups_are_served_in_proportion_until_they_run_out(weights, there, seed):
    # of unlike weights, so that no two groups are equally late
    w = np.array(weights) + np.array([0.1, 0.23, 0.37, 0.59, 0.71])[: len(weights)]
    group = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(w)), there[: len(w)]))
    zeros = np.zeros(len(group), np.int64)
    order = deal.in_proportion(np.arange(len(group)), zeros, zeros, group, w)
    assert group[order].tolist() == naive.taken_in_proportion(w, there[: len(w)])


def test_turns_come_before_proportions():
    group, turn = np.array([0, 0, 0, 1]), np.array([0, 1, 2, 0])
    order = deal.in_proportion(
        np.arange(4), np.zeros(4, np.int64), turn, group, np.array([100.0, 0.0])
    )
    assert order.tolist() == [0, 3, 1, 2]


# -- numbers


def test_a_cohort_is_described_in_numbers():
    labels = hospital([26, 30], each=2)
    labels.loc[labels["participant"] == "p1M", "age"] = -1
    rows = np.array([0, 1, 2, 6, 7, 14, 21])  # p0F four times, p0M, p1F and p1M once
    assert counted(labels, rows) == {
        "slices": 7,
        "patients": 4,
        "slices_women": 5,
        "slices_men": 2,
        "patients_women": 2,
        "patients_men": 2,
        "age_min": 26,
        "age_max": 30,
        "age_mean": pytest.approx((26 * 5 + 30) / 6),
        "slices_c1": 4,
        "slices_c2": 1,
        "slices_c3": 1,
        "slices_elsewhere": 1,
    }
    assert list(counted(labels, rows)) == list(TITLES)


def test_a_cohort_is_said_in_a_line():
    labels = hospital([26] * 40)
    made = chosen(labels, design())
    assert line(counted(labels, made.training[60])) == (
        "60 slices of 60 patients aged 26 to 26 (mean 26.0); 30 slices of 30 women, 30 of 30 men; "
        "20 c1, 20 c2, 20 c3, 0 elsewhere"
    )
    nobody = line(counted(labels.assign(age=-1), made.training[60]))
    assert "60 patients of unknown age" in nobody


def test_every_cohort_has_a_name_and_numbers():
    labels = hospital([26] * 40)
    made = chosen(labels, design(sets=2))
    names = dict(each_counted(labels, made))
    assert list(names) == [
        "training.6", "training.60", "held_out.6", "held_out.60", "set.1", "set.2",
    ]  # fmt: skip
    assert names["training.60"]["slices"] == 60


# -- the size of the paper's corpus


def test_a_million_slices_are_chosen_from():
    rng = np.random.default_rng(5)
    n = rng.poisson(118, 8463)
    person = np.repeat(np.arange(len(n)), n)
    labels = pd.DataFrame(
        {
            "participant": np.array([f"p{k:05d}" for k in range(len(n))], object)[person],
            "sex": rng.choice(["F", "M"], len(n))[person],
            "age": rng.integers(15, 75, len(n)).astype(np.int16)[person],
            "region": rng.choice([*CLASSES, ""], len(person), p=[0.1, 0.1, 0.1, 0.7]),
        }
    )
    asked = design(
        sizes=(6, 60, 600, 60_000), ages_largest=(24, 39), sets=3, set_size=600, held_out=0.2
    )
    made = chosen(labels, dataclasses.replace(asked, shrink=True))
    assert [len(rows) for rows in made.training.values()] == [6, 60, 600, 60_000]
    assert parts(labels, made.training[60_000].tolist(), asked) == {10_000}
    trained = set().union(*(who(labels, rows) for rows in made.training.values()))
    assert not trained & who(labels, made.held_out[60_000])
