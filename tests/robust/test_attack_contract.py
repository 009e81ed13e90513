"""The calling convention of Captum's attacks: arguments and results."""

import inspect

import pytest
import torch
from captum.attr import Saliency
from captum.robust import PGD, Perturbation
from torch import nn

from captum_robust.robust import AttackInfo, ERAttack, ExplanationAttack, MSEAttack
from tests.robust.targets import TARGETS, TwoInputs, as_tuple, linear, mlp, normal, stock_scores

every_target = pytest.mark.parametrize("target", TARGETS, ids=str)


@every_target
def test_every_attack_is_a_perturbation_that_can_be_called(target):
    attack = target.attack(target.network.build())
    assert isinstance(attack, Perturbation) and isinstance(attack, ExplanationAttack)
    arguments = {"radius": 0.3, "step_num": 2, "norm": target.norm, "seed": 0}
    arguments["target"] = target.network.target
    called = as_tuple(attack(target.network.inputs, **arguments))
    perturbed = as_tuple(attack.perturb(target.network.inputs, **arguments))
    assert all(torch.equal(a, b) for a, b in zip(called, perturbed, strict=True))


@every_target
def test_what_comes_out_has_the_form_of_what_went_in(target):
    inputs = target.network.inputs
    moved, info = target.perturb(return_info=True)
    assert type(moved) is type(inputs) and isinstance(info, AttackInfo)
    for x, y in zip(as_tuple(inputs), as_tuple(moved), strict=True):
        assert (x.shape, x.dtype, x.device) == (y.shape, y.dtype, y.device)
        assert not y.requires_grad and y.grad_fn is None and not torch.equal(x, y)
    assert type(target.perturb()) is type(inputs)


def test_the_first_arguments_are_those_of_pgd_in_its_order():
    ours = list(inspect.signature(ERAttack(Saliency(mlp()), k=2).perturb).parameters)
    captums = list(inspect.signature(PGD(mlp()).perturb).parameters)
    shared = captums[: captums.index("targeted")]  # an attack on an explanation has no target class
    assert ours[: len(shared)] == shared
    later = captums[captums.index("random_start") :]
    assert [name for name in ours if name in later] == later


def test_positional_arguments_in_the_order_of_pgd():
    model, (a, b) = TwoInputs(), TARGETS_OF_TWO
    attack, y = ERAttack(Saliency(model), k=2), torch.tensor([0, 1, 2, 0, 1])
    by_place = attack.perturb((a, b), 0.3, 0.1, 4, y, 2.0, True, "L2", None, None, 2, 5)
    by_name = attack.perturb(
        (a, b), radius=0.3, step_size=0.1, step_num=4, target=y, additional_forward_args=2.0,
        random_start=True, norm="L2", mask=None, project=None, n_restarts=2, seed=5,
    )  # fmt: skip
    assert all(torch.equal(p, q) for p, q in zip(by_place, by_name, strict=True))


TARGETS_OF_TWO = (normal(5, 3), normal(5, 1, 2, seed=1))


# --- targets in every form of Captum -------------------------------------------------------------


class Grid(nn.Module):
    """(N, 6) -> (N, 3, 2)."""

    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        out = self.inner(x)
        return torch.stack([out, (2 * out).sin()], dim=2)


class Single(nn.Module):
    """(N, 6) -> (N,)."""

    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        return self.inner(x)[:, 0]


FORMS = {
    "int": (mlp, 1, [1] * 4),
    "tensor of one": (mlp, torch.tensor(1), [1] * 4),
    "tensor of shape (1,)": (mlp, torch.tensor([1]), [1] * 4),
    "tensor": (mlp, torch.tensor([0, 1, 2, 0]), [0, 1, 2, 0]),
    "list": (mlp, [0, 1, 2, 0], [0, 1, 2, 0]),
    "tuple": (Grid, (2, 1), [(2, 1)] * 4),
    "list of tuples": (Grid, [(0, 1), (2, 0), (1, 1), (2, 1)], [(0, 1), (2, 0), (1, 1), (2, 1)]),
    "none": (Single, None, [None] * 4),
}


@pytest.mark.parametrize("network, target, each", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("chunk", [None, 3, 1])
def test_every_form_of_target(network, target, each, chunk):
    model, x = network(), normal(4, 6)
    attack = ERAttack(Saliency(model), k=2, preserve_prediction="none")
    arguments = {"radius": 0.4, "step_size": 0.1, "step_num": 4}
    moved, info = attack.perturb(
        x, target=target, max_examples_per_batch=chunk, return_info=True, **arguments
    )
    for i, own in enumerate(each):
        alone = attack.perturb(x[i : i + 1], target=own, **arguments)
        assert torch.allclose(moved[i : i + 1], alone, rtol=0, atol=1e-9)
        start, end = (
            stock_scores(Saliency(model), p, own) for p in (x[i : i + 1], moved[i : i + 1])
        )
        assert torch.allclose(info.objective[i : i + 1], linear(2)(end, start), atol=1e-9)
        assert not torch.equal(moved[i], x[i])


# --- additional arguments of the model -----------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 2, 1])
def test_additional_arguments_with_a_row_an_example_follow_the_examples(chunk):
    model, pair = TwoInputs(), TARGETS_OF_TWO
    scales = torch.tensor([0.5, 1.0, 2.0, -1.0, 3.0]).double()
    attack = ERAttack(Saliency(model), k=2)
    moved = attack.perturb(
        pair, 0.4, 0.1, 4, target=1, additional_forward_args=scales, max_examples_per_batch=chunk
    )
    for i in range(5):
        alone = attack.perturb(
            tuple(t[i : i + 1] for t in pair), 0.4, 0.1, 4, target=1,
            additional_forward_args=scales[i : i + 1],
        )  # fmt: skip
        for together, own in zip(moved, alone, strict=True):
            assert torch.allclose(together[i : i + 1], own, rtol=0, atol=1e-9)


class Graph(nn.Module):
    """Features of 3 nodes per example, and an edge index shared by all: (N, 3) -> (N, 2)."""

    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x, edge_index, name="unused"):
        assert edge_index.shape == (2, 4)
        source, sink = edge_index
        passed = torch.zeros_like(x).index_add(1, sink, x[:, source])
        return self.inner(torch.cat([x, passed], dim=1))


@pytest.mark.parametrize("chunk", [None, 3, 1])
def test_arguments_without_a_row_an_example_are_passed_on_whole(chunk):
    model, x = Graph(), normal(5, 3)
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    moved, info = ERAttack(Saliency(model), k=1).perturb(
        x, 0.4, target=1, additional_forward_args=(edges, "graph"), max_examples_per_batch=chunk,
        return_info=True,
    )  # fmt: skip
    start, end = (
        stock_scores(Saliency(model), p, 1, additional_forward_args=(edges, "graph"))
        for p in (x, moved)
    )
    assert torch.allclose(info.objective, linear(1)(end, start), atol=1e-12)
    assert (info.objective < linear(1)(start, start)).any()


# --- odd inputs ----------------------------------------------------------------------------------


def test_an_empty_batch_gives_an_empty_result():
    moved, info = MSEAttack(Saliency(mlp()), k=2).perturb(
        normal(0, 6), 0.5, target=0, return_info=True, n_restarts=2, max_examples_per_batch=4
    )
    assert moved.shape == (0, 6)
    assert (
        info.objective.shape == info.prediction_kept.shape == info.first_change_step.shape == (0,)
    )
    assert info.trace.shape == (2, 41, 0) and info.n_queries.shape == (0,)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_memory_layout_does_not_matter(norm):
    # Captum's PGD cannot take channels_last (captum 0.9.0).
    target = next(t for t in TARGETS if t.name == f"er-conv-{norm}")
    image = normal(5, 2, 4, 4)[:, :1]
    assert not image.is_contiguous()
    layouts = [image, image.contiguous(), image.contiguous(memory_format=torch.channels_last)]
    moved = [target.perturb(inputs=x, random_start=True) for x in layouts]
    assert all(torch.allclose(m, moved[0], rtol=0, atol=1e-12) for m in moved)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_floating_point_type(dtype):
    model, x = mlp().to(dtype), normal(5, 6).to(dtype)
    moved, info = ERAttack(Saliency(model), k=2).perturb(x, 0.5, target=1, return_info=True)
    assert moved.dtype == dtype and (info.objective < info.trace[0, 0]).all()
    assert info.objective.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_a_perturbation_under_no_grad_is_the_same():
    attack, x = ERAttack(Saliency(mlp()), k=2), normal(5, 6)
    expected = attack.perturb(x, 0.5, target=1)
    with torch.no_grad():
        assert torch.equal(attack.perturb(x, 0.5, target=1), expected)


def test_progress_is_shown_when_asked_for(capsys):
    attack, x = ERAttack(Saliency(mlp()), k=2), normal(4, 6)
    attack.perturb(x, 0.5, step_num=3, target=1)
    assert capsys.readouterr().err == ""
    attack.perturb(
        x, 0.5, step_num=3, target=1, n_restarts=2, max_examples_per_batch=2, show_progress=True
    )
    assert "12/12" in capsys.readouterr().err
