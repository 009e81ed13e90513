"""The suite itself: its small models, its report, its page."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch
from captum.attr import Saliency

import captum_robust.testing as suite
from captum_robust._utils.captum import as_tuple, format_like, run_forward
from captum_robust.robust import ERAttack
from captum_robust.testing import (
    ATTACK_RULES,
    LOSS_RULES,
    MAPS_RULES,
    MODEL_RULES,
    AttackTraits,
    CheckFailure,
    LossTraits,
    MetricTraits,
    attack_checks,
    check_attack,
    check_loss,
    loss_checks,
    metric_checks,
    small_models,
)
from captum_robust.testing.models import N_EXAMPLES
from captum_robust.testing.snapshot import changes, random_state

FILES = sorted(Path(suite.__file__).parent.glob("*.py"))
PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
RULES = {
    "attacks": ATTACK_RULES,
    "maps": MAPS_RULES,
    "models": MODEL_RULES,
    "losses": LOSS_RULES,
}
every_model = pytest.mark.parametrize("model", small_models(), ids=str)


# --- the small models ----------------------------------------------------------------------------


@every_model
def test_a_small_model_is_the_same_at_every_build_and_leaves_the_generators_alone(model):
    before = random_state()
    first, second = model.build(), model.build()
    assert changes(before, random_state()) == []
    assert first is not second and not first.training
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a is not b and torch.equal(a, b) and a.dtype == torch.float64
    for a, b in zip(as_tuple(model.inputs), as_tuple(model.inputs), strict=True):
        assert a is not b and torch.equal(a, b) and a.dtype == torch.float64


@every_model
def test_a_small_model_has_the_declared_outputs_and_a_ranking(model):
    arguments = model.draw_arguments() or None
    outputs = run_forward(model.build(), as_tuple(model.inputs), arguments)
    shape = (N_EXAMPLES,) if model.n_outputs == 1 else (N_EXAMPLES, model.n_outputs)
    assert outputs.shape == shape
    assert all(N_EXAMPLES not in t.shape[1:] for t in as_tuple(model.inputs))
    inputs = format_like(model.inputs, tuple(t.requires_grad_() for t in as_tuple(model.inputs)))
    maps = as_tuple(Saliency(model.build()).attribute(inputs, **model.arguments))
    rows = torch.cat([m.flatten(1) for m in maps], dim=1)
    assert rows.shape[1] > 2 * model.k - 1 and (rows.std(dim=1) > 1e-3).all()
    same = [torch.equal(rows[0], rows[i]) for i in range(N_EXAMPLES) if i % model.n_outputs == 0]
    assert all(same) == model.constant_map
    assert set(model.labels.tolist()) <= set(range(max(2, model.n_outputs)))


@every_model
def test_what_is_declared_of_curvature_holds(model):
    inputs = tuple(t.requires_grad_() for t in as_tuple(model.inputs))
    outputs = run_forward(model.build(), inputs, model.draw_arguments() or None)
    explained = outputs if model.target is None else outputs.gather(1, model.target[:, None])
    gradients = torch.autograd.grad(explained.sum(), inputs, create_graph=True)
    flat = not any(g.requires_grad for g in gradients)
    if not flat:
        weighted = sum(
            (g * (1 + torch.arange(g[0].numel()).view_as(g[0]))).sum() for g in gradients
        )
        second = torch.autograd.grad(weighted, inputs, allow_unused=True)
        flat = all(s is None or bool((s == 0).all()) for s in second)
    assert flat == (model.hides_gradients or model.constant_map)
    assert not model.quadratic or bool((gradients[0] > 0).all())


@every_model
def test_rows_follow_the_order(model):
    inputs, arguments = model.rows([3, 1])
    for t, whole in zip(as_tuple(inputs), as_tuple(model.inputs), strict=True):
        assert torch.equal(t, whole[[3, 1]])
    assert arguments.keys() == model.arguments.keys()
    if model.target is not None:
        assert torch.equal(arguments["target"], model.target[[3, 1]])


# --- what is selected, what is reported ----------------------------------------------------------


def rules_of(checks):
    return {name.split("[")[0] for name, _ in checks}


CANNOT_MOVE = "check_rows_that_cannot_move_are_not_robust"


def test_every_rule_is_among_the_checks_unless_declared_otherwise():
    assert rules_of(attack_checks(budget=True)) == {r.name for r in ATTACK_RULES}
    full = {"perfect": 1.0, "symmetric": True, "radius": "radius"}
    assert rules_of(metric_checks(**full)) == {r.name for r in MAPS_RULES}
    of_models = {r.name for r in MODEL_RULES}
    assert rules_of(metric_checks(call="explanation", **full)) == of_models
    of_explanations = {
        "check_constant_map_gives_nan", "check_random_map_at_radius_zero_is_perfect",
    }  # fmt: skip
    assert rules_of(metric_checks(call="model", **full)) == of_models - of_explanations
    assert rules_of(loss_checks()) == {r.name for r in LOSS_RULES}


@pytest.mark.parametrize(
    "trait, without",
    [
        (
            {"keeps_prediction": False},
            {
                "check_prediction_is_kept",
                "check_dense_prediction_is_that_of_the_target",
                "check_outputs_stay_within_the_tolerance",
            },
        ),
        ({"tolerance": False}, {"check_outputs_stay_within_the_tolerance"}),
        ({"restarts": False}, {"check_more_restarts_are_never_weaker"}),
        ({"bounds": False}, {"check_bounds", "check_bounds_follow_their_examples"}),
        ({"mask": False}, {"check_mask", CANNOT_MOVE}),
        ({"radius_per_example": False}, {"check_radius_of_every_example"}),
        (
            {"info": None},
            {
                "check_info_tells_the_objective",
                "check_training_mode_is_seen",
                "check_random_map_is_scored_as_by_captum",
                "check_ties_are_flagged",
                "check_constant_map_has_no_objective",
                "check_small_budget_is_no_proof",
                CANNOT_MOVE,
            },
        ),
        (
            {"budget": False},
            {
                "check_budget_is_kept",
                "check_larger_budget_is_never_weaker",
                "check_small_budget_is_no_proof",
            },
        ),
        ({"beats_noise": False}, {"check_at_least_as_strong_as_random_draws"}),
        (
            {"aims_at_top_k": False},
            {"check_large_radius_breaks_the_ranking", "check_ties_are_flagged"},
        ),
        (
            {"objective_of_maps": False},
            {
                "check_never_worse_than_no_attack",
                "check_more_steps_are_never_weaker",
                "check_more_restarts_are_never_weaker",
                "check_larger_radius_is_never_weaker",
                "check_at_least_as_strong_as_random_draws",
                "check_quadratic_model_reaches_the_optimum",
                "check_info_tells_the_objective",
                "check_larger_budget_is_never_weaker",
                "check_random_map_is_scored_as_by_captum",
            },
        ),
        ({"warm_start": False}, set()),
        ({"keeps_best": False}, set()),
    ],
    ids=lambda value: next(iter(value), "nothing") if isinstance(value, dict) else "",
)
def test_a_declared_trait_leaves_out_its_own_check_and_no_other(trait, without):
    every_trait = {"budget": True, **trait}
    assert rules_of(attack_checks(budget=True)) - rules_of(attack_checks(**every_trait)) == without


def test_an_unknown_trait_is_refused():
    for checks in (attack_checks, metric_checks, loss_checks):
        with pytest.raises(TypeError, match="waterproof"):
            list(checks(waterproof=True))


def test_norms_take_turns_or_are_all_run():
    some = [name for name, _ in attack_checks()]
    both = [name for name, _ in attack_checks(every_norm=True)]
    assert len(both) == 2 * len(some) and set(some) < set(both)
    assert all("L2" not in name for name, _ in attack_checks(norms=("Linf",)))
    for norm in ("Linf", "L2"):
        of_norm = [name for name in some if name.endswith(f"-{norm}]")]
        assert {m.name for m in small_models()} == {
            n[n.index("[") + 1 : -len(norm) - 2] for n in of_norm
        }


def test_one_error_names_every_failure_and_its_reason():
    class Idle:
        def __init__(self, attribution, k):
            pass

        def perturb(self, inputs, radius, **arguments):
            return inputs

    with pytest.raises(AssertionError) as caught:
        check_attack(Idle, models=small_models()[:1])
    message = str(caught.value)
    assert re.match(r"\d+ of \d+ checks failed:\n", message)
    assert "check_bounds[mlp_softplus-L2]: raised TypeError" in message
    assert "check_at_least_as_strong_as_random_draws[mlp_softplus-Linf]: weaker than" in message
    assert "check_stays_in_ball" not in message


def test_all_that_ran_is_returned():
    names = check_attack(ERAttack, models=small_models()[:1])
    assert names == [name for name, _ in attack_checks(models=small_models()[:1])]


@pytest.mark.parametrize("check", [check_attack, check_loss])
def test_no_check_at_all_is_no_pass(check):
    with pytest.raises(ValueError, match="no check applies"):
        check(None, models=[])


def test_failures_are_assertion_errors():
    assert issubclass(CheckFailure, AssertionError)


# --- the code ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_nothing_depends_on_assert_or_pytest(file):
    tree = ast.parse(file.read_text())
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    imported = {
        name.split(".")[0]
        for n in ast.walk(tree)
        if isinstance(n, ast.Import | ast.ImportFrom)
        for name in (
            [n.module or ""] if isinstance(n, ast.ImportFrom) else [a.name for a in n.names]
        )
    }
    assert "pytest" not in imported


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_every_check_of_a_module_is_in_the_table(rules):
    every_rule = [rule for table in RULES.values() for rule in table]
    for module in {inspect.getmodule(rule.check) for rule in rules}:
        here = {rule.name for rule in every_rule if inspect.getmodule(rule.check) is module}
    every = [rule for table in RULES.values() for rule in table]
    for module in {inspect.getmodule(rule.check) for rule in rules}:
        here = {rule.name for rule in every if inspect.getmodule(rule.check) is module}
        assert here == set(module.__all__)


# --- the page ------------------------------------------------------------------------------------


def row(rule):
    """A check and the first paragraph of its docstring."""
    paragraph = inspect.getdoc(rule.check).split("\n\n")[0].replace("\n", " ")
    return f"| `{rule.name}` | {paragraph.replace('``', '`').replace('|', '&#124;')} |"


@pytest.mark.parametrize("kind", RULES)
def test_the_page_states_every_rule(kind):
    page = PAGE.read_text()
    section = page.split(f"<!-- {kind} -->\n")[1].split("\n\n")[0].splitlines()
    assert section[2:] == [row(rule) for rule in RULES[kind]]


@pytest.mark.parametrize("traits", [AttackTraits, MetricTraits, LossTraits])
def test_the_traits_are_documented(traits):
    for name in traits.__dataclass_fields__:
        assert re.search(rf"^\s+([a-z, ]+, )?{name}(, [a-z, ]+)? \(", traits.__doc__, re.M), name


def test_the_examples_of_the_page_run():
    names = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
        exec(compile(block, str(PAGE), "exec"), names)
    for _, check in list(attack_checks(models=small_models()[:1], aims_at_top_k=False))[:2]:
        names["test_first_feature"]("", check)
