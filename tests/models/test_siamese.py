"""The network for pairs and the embedding of digits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from captum_robust.models import (
    MNISTEmbedding,
    SiameseNetwork,
    SparseGCN,
    cosine_similarity,
)


def network(n_classes: int = 3) -> SiameseNetwork:
    torch.manual_seed(0)
    model = SiameseNetwork(nn.Linear(4, 5), 5, n_classes).double()
    nn.init.normal_(model.output.weight)
    return model


def pairs(rows: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, rows, 4, dtype=torch.float64, generator=generator)
    return first, second


def test_the_pair_is_scored_by_the_cosine_of_its_embeddings() -> None:
    model, (first, second) = network(), pairs()
    scale, shift = model.output.weight.item(), model.output.bias.item()
    for row, logit in enumerate(model(first, second)):
        u, v = model.embedding(first[row]).tolist(), model.embedding(second[row]).tolist()
        cosine = math.fsum(a * b for a, b in zip(u, v, strict=True)) / math.dist(
            u, [0] * 5
        ) / math.dist(v, [0] * 5)  # fmt: skip
        assert logit.item() == pytest.approx(scale * cosine + shift, abs=1e-10)


def test_three_results_from_one_embedding_of_each_member() -> None:
    model, (first, second) = network(), pairs()
    calls: list[int] = []
    model.embedding.register_forward_hook(lambda *_: calls.append(1))
    result = model.predictions(first, second)
    assert len(calls) == 2
    assert result._fields == ("pair", "first", "second")
    assert [tuple(part.shape) for part in result] == [(6, 1), (6, 3), (6, 3)]
    torch.testing.assert_close(result.pair, model(first, second))
    for got, member in ((result.first, first), (result.second, second)):
        torch.testing.assert_close(got, model.classify(member))
        expected = model.embedding(member) @ model.classifier.weight.T + model.classifier.bias
        torch.testing.assert_close(got, expected)


def test_a_pair_has_no_order() -> None:
    model, (first, second) = network(), pairs()
    torch.testing.assert_close(model(first, second), model(second, first))


def test_starts_with_more_alike_meaning_the_same() -> None:
    for seed in range(8):
        torch.manual_seed(seed)
        assert SiameseNetwork(nn.Identity(), 4).output.weight.item() == 1


def test_another_similarity() -> None:
    model = SiameseNetwork(nn.Identity(), 4, similarity=lambda u, v: -(u - v).norm(dim=1))
    first, second = pairs()
    expected = -(first - second).float().norm(dim=1, keepdim=True) + model.output.bias
    torch.testing.assert_close(model(first.float(), second.float()), expected)


def test_a_tuple_is_several_arguments_of_the_embedding() -> None:
    torch.manual_seed(0)
    model = SiameseNetwork(SparseGCN(3, 4, 5), 5)
    ends = torch.tensor([[0, 1], [1, 0]])
    graph = (torch.randn(4, 3), ends, torch.tensor([0, 0, 1, 1]))
    other = (torch.randn(4, 3), ends + 2, torch.tensor([0, 0, 1, 1]))
    result = model.predictions(graph, other)
    assert result.pair.shape == (2, 1)
    torch.testing.assert_close(result.second, model.classify(other))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_cosine_of_a_zero_embedding_has_finite_derivatives(dtype: torch.dtype) -> None:
    first = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    second = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], dtype=dtype)
    cosine = cosine_similarity(first, second)
    assert cosine.tolist() == [0, 0]
    (gradient,) = torch.autograd.grad(cosine.sum(), first, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient.sum(), first)
    assert gradient.isfinite().all()
    assert curvature.isfinite().all()


def test_cosine_is_that_of_torch_elsewhere() -> None:
    first, second = pairs()
    expected = nn.functional.cosine_similarity(first, second)
    torch.testing.assert_close(cosine_similarity(first, second), expected, atol=1e-11, rtol=0)
    torch.testing.assert_close(
        cosine_similarity(1e3 * first, 1e-3 * second), expected, atol=1e-4, rtol=0
    )


def test_cosine_passes_gradcheck() -> None:
    first, second = (member.requires_grad_() for member in pairs())
    assert torch.autograd.gradgradcheck(cosine_similarity, (first, second))


@pytest.mark.parametrize("sizes", [{"embedding_size": 0}, {"embedding_size": 2, "n_classes": 0}])
def test_refuses_sizes(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"(embedding_size|n_classes): got 0, accepted: 1 or more"):
        SiameseNetwork(nn.Identity(), **sizes)


def test_refuses_an_unknown_similarity() -> None:
    with pytest.raises(ValueError, match="similarity: got 'dot', accepted: 'cosine' or a func"):
        SiameseNetwork(nn.Identity(), 2, similarity="dot")


def test_the_digits_leave_144_numbers() -> None:
    model = MNISTEmbedding()
    shapes = [tuple(weight.shape) for weight in model.parameters() if weight.dim() > 1]
    assert shapes == [(8, 1, 3, 3), (16, 8, 3, 3), (64, 144), (32, 64), (10, 32)]
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, MNISTEmbedding.size)


def test_digits_layer_by_layer() -> None:
    torch.manual_seed(0)
    model = MNISTEmbedding(nn.Softplus)
    images = torch.randn(2, 1, 28, 28)
    f, softplus = nn.functional, nn.functional.softplus
    c1, b1, c2, b2, w3, b3, w4, b4, w5, b5 = model.parameters()
    left = f.max_pool2d(softplus(f.conv2d(images, c1, b1)), 2)
    left = f.max_pool2d(softplus(f.conv2d(left, c2, b2)), 3).flatten(1)
    for weight, bias in ((w3, b3), (w4, b4)):
        left = softplus(f.linear(left, weight, bias))
    torch.testing.assert_close(model(images), f.linear(left, w5, b5))


def test_digits_make_four_activations() -> None:
    made: list[nn.Module] = []

    def activation() -> nn.Module:
        made.append(nn.PReLU())
        return made[-1]

    model = MNISTEmbedding(activation)
    assert [layer for layer in model if isinstance(layer, nn.PReLU)] == made
    assert len(made) == len(set(made)) == 4
