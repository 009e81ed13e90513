"""Our attacks inside Captum's own tools, and inside our metrics."""

import pytest
import torch
from captum.attr import FeatureAblation, Saliency
from captum.metrics import sensitivity_max
from captum.robust import FGSM, AttackComparator, MinParamPerturbation
from torch import nn

from captum_robust.metrics import precision_at_k, precision_at_k_min, ranking_thickness
from captum_robust.robust import ERAttack, GaussianNoise, MSEAttack, UniformNoise, as_perturb_func
from tests.robust.targets import TwoInputs, mlp, normal, stock_scores

K, RADIUS = 2, 0.5
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


@pytest.fixture
def explained():
    """A model behind its saliency, with examples, targets and maps."""
    saliency, x = Saliency(mlp()), normal(8, 6).requires_grad_()
    return saliency, x, LABELS, saliency.attribute(x, target=LABELS)


def explain(saliency):
    return lambda z, y: saliency.attribute(z.requires_grad_(), target=y)


def attribute(saliency):
    """Attribute without the warning of Saliency for the points of sensitivity_max."""

    def explanation(inputs, **kwargs):
        return saliency.attribute(tuple(t.detach().requires_grad_() for t in inputs), **kwargs)

    return explanation


# --- AttackComparator ----------------------------------------------------------------------------


@pytest.mark.parametrize("perturbations_per_eval", [1, 3])
def test_attack_comparator(explained, perturbations_per_eval):
    saliency, x, y, reference = explained
    comparator = AttackComparator(
        forward_func=explain(saliency),
        metric=lambda attr, reference, **_: precision_at_k(
            attr, reference.repeat(len(attr) // len(reference), 1), k=K
        ),
    )
    attack = ERAttack(saliency, k=K)
    comparator.add_attack(
        attack, "ERAttack", attack_kwargs={"radius": RADIUS}, additional_attack_arg_names=["target"]
    )
    comparator.add_attack(
        UniformNoise(), "Uniform", num_attempts=3, attack_kwargs={"radius": RADIUS}
    )
    comparator.evaluate(
        x, additional_forward_args=(y,), target=y, reference=reference,
        perturbations_per_eval=perturbations_per_eval,
    )  # fmt: skip
    summary = comparator.summary()
    assert summary["Original"]["mean"].item() == 1
    moved = attack.perturb(x, RADIUS, target=y)
    after = precision_at_k(saliency.attribute(moved.requires_grad_(), target=y), reference, k=K)
    assert summary["ERAttack"]["mean"].item() == pytest.approx(after.mean().item())
    assert after.mean() < summary["Uniform Mean Attempt"]["mean"]


# --- MinParamPerturbation ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["binary", "linear"])
def test_min_param_perturbation_finds_the_smallest_radius(explained, mode):
    saliency, x, y, reference = explained
    attack = ERAttack(saliency, k=K)
    minimum = MinParamPerturbation(
        forward_func=explain(saliency), attack=attack, arg_name="radius", arg_min=0.0, arg_max=2.0,
        arg_step=0.1, mode=mode,
        correct_fn=lambda attr, reference, target=None: bool(
            (precision_at_k(attr, reference, k=K) == 1).all()
        ),
    )  # fmt: skip
    found, radius = minimum.evaluate(
        x[:1], additional_forward_args=(y[:1],), target=y[:1], attack_kwargs={"target": y[:1]},
        correct_fn_kwargs={"reference": reference[:1]},
    )  # fmt: skip

    def kept(moved):
        maps = saliency.attribute(moved.detach().requires_grad_(), target=y[:1])
        return precision_at_k(maps, reference[:1], k=K).item()

    assert 0 < radius < 2 and kept(found) < 1
    assert kept(attack.perturb(x[:1], radius - 0.1, target=y[:1])) == 1


# --- sensitivity_max -----------------------------------------------------------------------------


class Pairs(nn.Module):
    """(N, 6) -> (N, 3, 2)."""

    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        out = self.inner(x)
        return torch.stack([out, 2 * out.sin()], dim=2)


FORMS = {
    "int": (mlp, 1),
    "tensor of one": (mlp, torch.tensor(2)),
    "tensor of shape (1,)": (mlp, torch.tensor([2])),
    "tensor": (mlp, torch.tensor([0, 1, 2, 1])),
    "list": (mlp, [0, 1, 2, 1]),
    "tuple": (Pairs, (1, 1)),
    "list of tuples": (Pairs, [(0, 1), (2, 0), (1, 1), (2, 1)]),
}


@pytest.mark.parametrize("network, target", FORMS.values(), ids=FORMS)
def test_sensitivity_max_with_every_form_of_target(network, target):
    saliency, x = Saliency(network()), normal(4, 6).requires_grad_()
    attack = MSEAttack(saliency, preserve_prediction="none")
    worst = as_perturb_func(attack, target=target, step_num=5, seed=0)
    found = sensitivity_max(attribute(saliency), x, worst, RADIUS, 2, target=target)
    moved = attack.perturb(x, RADIUS, target=target, step_num=5, seed=0)
    start, end = (stock_scores(saliency, p, target) for p in (x, moved))
    expected = (end - start).norm(dim=1) / start.norm(dim=1)
    assert torch.allclose(found.double(), expected, rtol=1e-5)
    torch.manual_seed(0)
    noise = sensitivity_max(attribute(saliency), x, perturb_radius=RADIUS, target=target)
    assert found.mean() > noise.mean()


def test_sensitivity_max_without_a_target():
    def forward(x):
        return mlp()(x)[:, 0]

    saliency, x = Saliency(forward), normal(4, 6).requires_grad_()
    worst = as_perturb_func(MSEAttack(saliency, preserve_prediction="none"), step_num=3, seed=0)
    assert (sensitivity_max(attribute(saliency), x, worst, RADIUS, 2) > 0.1).all()


@pytest.mark.parametrize("target", [1, torch.tensor([0, 1, 2, 1])])
@pytest.mark.parametrize("max_examples_per_batch", [None, 4])
def test_repeated_tuples_take_their_additional_arguments_along(target, max_examples_per_batch):
    saliency = Saliency(TwoInputs())
    pair = (normal(4, 3).requires_grad_(), normal(4, 1, 2, seed=1).requires_grad_())
    scales = torch.tensor([0.5, 1.0, 2.0, -1.0]).double()
    attack = MSEAttack(saliency, preserve_prediction="none")
    arguments = {"target": target, "additional_forward_args": scales}
    worst = as_perturb_func(attack, step_num=4, seed=0, **arguments)
    found = sensitivity_max(
        attribute(saliency), pair, worst, RADIUS, 3,
        max_examples_per_batch=max_examples_per_batch, **arguments,
    )  # fmt: skip
    moved = attack.perturb(pair, RADIUS, step_num=4, seed=0, **arguments)
    maps = [
        stock_scores(saliency, p, target, additional_forward_args=scales) for p in (pair, moved)
    ]
    expected = (maps[1] - maps[0]).norm(dim=1) / maps[0].norm(dim=1)
    assert torch.allclose(found.double(), expected, rtol=1e-5)


def test_what_has_no_row_an_example_is_not_repeated():
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])

    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x, edge_index):
            assert torch.equal(edge_index, edges)
            passed = torch.zeros_like(x).index_add(1, edge_index[1], x[:, edge_index[0]])
            return self.inner(torch.cat([x, passed], dim=1))

    x = normal(4, 3).requires_grad_()
    perturb = as_perturb_func(
        ERAttack(Saliency(Graph()), k=1), target=1, additional_forward_args=edges, step_num=3
    )
    (repeated,) = perturb(x.repeat_interleave(5, dim=0), 0.3)
    (single,) = perturb(x, 0.3)
    assert torch.allclose(repeated, single.repeat_interleave(5, dim=0), atol=1e-9)


def test_a_stock_attack_can_be_adapted_as_well():
    model, x = mlp(), normal(4, 6).requires_grad_()
    y = torch.tensor([0, 1, 2, 1])
    fgsm = FGSM(model, loss_func=nn.CrossEntropyLoss(reduction="none"))

    class WithRadius(FGSM):
        def perturb(self, inputs, radius, **kwargs):
            return fgsm.perturb(inputs, epsilon=radius, **kwargs)

    (moved,) = as_perturb_func(WithRadius(model), target=y)(x.repeat_interleave(3, dim=0), 0.1)
    expected = fgsm.perturb(x, 0.1, target=y).repeat_interleave(3, dim=0)
    assert torch.allclose(moved, expected)


# --- our metrics ---------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 3])
def test_precision_at_k_min_takes_an_attack(explained, chunk):
    saliency, x, y, reference = explained
    attack = ERAttack(saliency, k=K)
    found = precision_at_k_min(
        saliency.attribute, x, K, perturb_func=attack, perturb_radius=RADIUS, n_perturb_samples=1,
        max_examples_per_batch=chunk, seed=0, target=y,
    )  # fmt: skip
    moved = attack.perturb(x, RADIUS, target=y)
    maps = saliency.attribute(moved.requires_grad_(), target=y)
    assert torch.equal(found, precision_at_k(maps, reference, k=K))
    noise = precision_at_k_min(
        saliency.attribute, x, K, perturb_radius=RADIUS, n_perturb_samples=1, seed=0, target=y
    )
    assert found.mean() < noise.mean()


def test_ranking_thickness_takes_an_attack(explained):
    saliency, x, y, reference = explained
    attack = MSEAttack(saliency)
    found = ranking_thickness(
        saliency.attribute, x, K, perturb_func=attack, perturb_radius=RADIUS, n_perturb_samples=2,
        n_steps=8, seed=5, target=y,
    )  # fmt: skip
    held = torch.zeros(8).double()
    for draw in range(2):
        moved = attack.perturb(x, RADIUS, target=y, seed=5 + draw)
        for t in (torch.arange(8) + 0.5) / 8:
            point = (x + t * (moved - x)).detach().requires_grad_()
            maps = saliency.attribute(point, target=y)
            for i in range(8):
                top = reference[i].topk(K).indices
                rest = [j for j in range(6) if j not in top.tolist()]
                wins = sum(float(maps[i, a] >= maps[i, b]) for a in top for b in rest)
                held[i] += wins / (K * (6 - K)) / 16
    assert torch.allclose(found, held, atol=1e-9)
    assert (
        found.mean()
        < ranking_thickness(
            saliency.attribute, x, K, GaussianNoise(), RADIUS / 3, seed=0, target=y
        ).mean()
    )


def test_arguments_of_the_attribution_reach_the_attack_through_a_metric():
    ablation, x = FeatureAblation(mlp()), normal(4, 6)
    baselines = normal(4, 6, seed=3)
    attack = ERAttack(ablation, k=K)
    found = precision_at_k_min(
        ablation.attribute, x, K, attack, RADIUS, 1, seed=0, target=1, baselines=baselines
    )
    moved = attack.perturb(x, RADIUS, target=1, baselines=baselines)
    maps = [ablation.attribute(p, target=1, baselines=baselines) for p in (moved, x)]
    assert torch.equal(found, precision_at_k(*maps, k=K))
    assert found.mean() < 1
