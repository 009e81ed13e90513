"""The verdict on an explanation, case by case."""

import math
from dataclasses import replace

import pytest

from captum_robust.auditing import verdict
from captum_robust.robust.flags import FLAGS, Flag, flag_called
from tests.report import made_up

NAN = math.nan
DECISIVE = [flag for flag, text in FLAGS.items() if text.decisive]


def test_a_verdict_counts_the_rows_that_lost_and_what_is_left() -> None:
    one = made_up.explanation(1, 1, 0.5, 0.5, 0.5, 0)
    found = verdict(made_up.audit(one), one)
    assert (found.status, found.n_rows, found.n_lost) == ("not stable", 6, 4)
    assert "Not stable: within an L∞ radius of 0.1, 4 of 6 rows (67 %) lose" in found.sentence
    assert "on average 1.2 of 2 features remain" in found.sentence  # 2 · 3.5 / 6
    assert found.details[0] == "No change found in 2 of 6 rows (33 %)."


def test_only_the_largest_radius_counts() -> None:
    one = made_up.explanation(1, 1, 1)
    small = next(t for t in one.trials if t.attack == "ensemble")
    assert small.radius == 0.05
    worse = made_up.trial("ensemble", 0.05, 0, 0, 0)
    kept = [t for t in one.trials if t is not small]
    assert (
        verdict(made_up.audit(one), replace(one, trials=(worse, *kept))).status == "no change found"
    )


def test_no_change_found_says_that_a_stronger_attack_may_find_one() -> None:
    one = made_up.explanation(1, 1, 1)
    found = verdict(made_up.audit(one), one)
    assert found.status == "no change found" and found.n_lost == 0
    assert "a stronger attack may" in found.sentence


@pytest.mark.parametrize("flag", DECISIVE)
def test_nothing_found_with_a_warning_is_undecided_unless_it_is_proven(flag: str) -> None:
    one = made_up.explanation(1, 1, 1, flags={flag: 1})
    found = verdict(made_up.audit(one), one)
    assert found.status == "undecided" and FLAGS[flag].title in found.sentence
    proven = replace(one, certified=(0.1, 0.1, 0.1), not_certified="")
    assert verdict(made_up.audit(proven), proven).status == "proven stable"


def test_a_warning_does_not_make_a_lost_row_stable() -> None:
    one = made_up.explanation(1, 0.5, flags=dict.fromkeys(DECISIVE, 1))
    assert verdict(made_up.audit(one), one).status == "not stable"


def test_proven_needs_every_row_and_the_whole_radius() -> None:
    audit = made_up.audit(made_up.explanation(1, 1, 1))
    for radii, status in (
        ((0.1, 0.1, 0.1), "proven stable"),
        ((0.1, 0.1, 0.0999), "no change found"),
        ((0.1, 0.1, NAN), "no change found"),
    ):
        one = replace(audit.explanations[0], certified=radii, not_certified="")
        found = verdict(audit, one)
        assert found.status == status
        assert found.n_proven == sum(r >= 0.1 for r in radii)


def test_rows_without_a_value_are_never_stable_ones() -> None:
    one = made_up.explanation(1, 1, NAN)
    found = verdict(made_up.audit(one), one)
    assert found.status == "undecided" and found.n_rows == 2
    assert "1 row has no value" in " ".join(found.details)
    proven = replace(one, certified=(0.1, 0.1, 0.1), not_certified="")
    assert verdict(made_up.audit(proven), proven).status == "undecided"


def test_no_row_with_a_value_is_no_verdict() -> None:
    one = made_up.explanation(NAN, NAN)
    found = verdict(made_up.audit(one), one)
    assert (found.status, found.n_rows, found.n_lost) == ("no value", 0, 0)


def test_ties_are_told_apart_from_maps_without_a_value() -> None:
    one = made_up.explanation(1, NAN, NAN, tied=(False, True, False))
    details = " ".join(verdict(made_up.audit(one), one).details)
    assert "1 row has no top 2" in details and "1 row has no value" in details


def test_a_contradiction_of_proof_and_attack_is_reported() -> None:
    one = made_up.explanation(1, 0.5, certified=(0.1, 0.1), not_certified="")
    found = verdict(made_up.audit(one), one)
    assert found.status == "not stable"
    assert any("contradict" in detail for detail in found.details)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag not in DECISIVE])
def test_other_warnings_leave_the_verdict_alone(flag: str) -> None:
    one = made_up.explanation(1, 1, 1, flags={flag: 1})
    assert verdict(made_up.audit(one), one).status == "no change found"


def test_every_flag_has_plain_words() -> None:
    assert flag_called("brand_new") == Flag("", "brand new", "")
