"""What may be said of an explanation, and what may not."""

import math
from dataclasses import replace

import pytest

from captum_robust.auditing import verdict
from captum_robust.auditing.flag_notes import PLAIN, flag_note
from captum_robust.auditing.verdict import DECISIVE
from captum_robust.robust.flags import FLAGS
from tests.report import made_up

NAN = math.nan


def test_broken_counts_the_rows_that_lost_and_what_is_left() -> None:
    one = made_up.explanation(1, 1, 0.5, 0.5, 0.5, 0)
    found = verdict(made_up.audit(one), one)
    assert (found.status, found.n_rows, found.n_lost) == ("broken", 6, 4)
    assert "within an L∞ radius of 0.1, 4 of 6 rows lose" in found.sentence
    assert "on average 1.2 of 2 remain" in found.sentence  # 2 · 3.5 / 6


def test_only_the_largest_radius_counts() -> None:
    one = made_up.explanation(1, 1, 1)
    small = next(t for t in one.trials if t.attack == "ensemble")
    assert small.radius == 0.05
    worse = replace(small, precision=(0.0, 0.0, 0.0))
    kept = [t for t in one.trials if t is not small]
    assert verdict(made_up.audit(one), replace(one, trials=(worse, *kept))).status == "held"


def test_held_says_that_a_stronger_attack_may_break_it() -> None:
    one = made_up.explanation(1, 1, 1)
    found = verdict(made_up.audit(one), one)
    assert found.status == "held" and found.n_lost == 0
    assert "a stronger attack may" in found.sentence


@pytest.mark.parametrize("flag", DECISIVE)
def test_nothing_found_in_doubt_is_undecided_unless_it_is_proven(flag: str) -> None:
    one = made_up.explanation(1, 1, 1, flags={flag: 1})
    found = verdict(made_up.audit(one), one)
    assert found.status == "undecided" and DECISIVE[flag] in found.sentence
    proven = replace(one, certified=(0.1, 0.1, 0.1), not_certified="")
    assert verdict(made_up.audit(proven), proven).status == "proven"


def test_a_doubt_does_not_mend_what_is_broken() -> None:
    one = made_up.explanation(1, 0.5, flags=dict.fromkeys(DECISIVE, 1))
    assert verdict(made_up.audit(one), one).status == "broken"


def test_proven_needs_every_row_and_the_whole_radius() -> None:
    audit = made_up.audit(made_up.explanation(1, 1, 1))
    for radii, status in (
        ((0.1, 0.1, 0.1), "proven"),
        ((0.1, 0.1, 0.0999), "held"),
        ((0.1, 0.1, NAN), "held"),
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


def test_ties_are_told_apart_from_broken_maps() -> None:
    one = made_up.explanation(1, NAN, NAN, tied=(False, True, False))
    details = " ".join(verdict(made_up.audit(one), one).details)
    assert "1 row has no top 2" in details and "1 row has no value" in details


def test_a_proof_that_an_attack_contradicts_is_said() -> None:
    one = made_up.explanation(1, 0.5, certified=(0.1, 0.1), not_certified="")
    found = verdict(made_up.audit(one), one)
    assert found.status == "broken"
    assert any("contradict" in detail for detail in found.details)


def test_every_flag_has_plain_words() -> None:
    assert set(FLAGS) | {"unmoved", "outside_ball"} == set(PLAIN)
    assert set(DECISIVE) <= set(PLAIN)
    assert flag_note("brand_new", "3 of 6 rows").title == "brand new (3 of 6 rows)"
