"""ERAttack in the style of the papers' code: one example at a time, three forwards a step."""

import torch
from torch import Tensor, nn

from tests.benchmark.peers.ranking import anchor_pairs

__all__ = ["attack_one_by_one"]


def attack_one_by_one(
    model: nn.Module, inputs: Tensor, target: Tensor, k: int, step_size: float, step_num: int
) -> Tensor:
    """Best inputs found with the prediction kept; L2 steps within the box that they can reach."""
    pairs = zip(inputs, target, strict=True)
    return torch.cat([_attack(model, x[None], int(c), k, step_size, step_num) for x, c in pairs])


def _attack(
    model: nn.Module, example: Tensor, target: int, k: int, step_size: float, step_num: int
) -> Tensor:
    example = example.detach()
    reference = _saliency(model, example, target).flatten()
    order = reference.argsort(descending=True)
    top = set(order[:k].tolist())
    label = int(model(example).argmax())
    best, best_loss = example, float(_anchor_gaps(reference, order, k))
    precisions = []
    point = example
    for _ in range(step_num):
        point = point.clone().requires_grad_()
        loss = _anchor_gaps(_saliency(model, point, target, graph=True).flatten(), order, k)
        slope = torch.autograd.grad(loss, point, create_graph=True)[0].detach()
        moved = point.detach() - step_size * slope / (slope.norm() + 1e-10)
        reach = step_size * step_num
        point = example + (moved - example).clamp(-reach, reach)

        scores = _saliency(model, point, target).flatten()
        found = set(scores.argsort(descending=True)[:k].tolist())
        precisions.append(len(found & top) / k)
        found_loss = float(_anchor_gaps(scores, order, k))
        if int(model(point).argmax()) == label and found_loss < best_loss:
            best, best_loss = point, found_loss
    return best


def _saliency(model: nn.Module, point: Tensor, target: int, graph: bool = False) -> Tensor:
    point = point if graph else point.detach().requires_grad_()
    score = model(point)[0, target]
    return torch.autograd.grad(score, point, create_graph=graph)[0].abs()


def _anchor_gaps(scores: Tensor, order: Tensor, k: int) -> Tensor:
    """Sum of the gaps of the k-th feature with the others around it, pair by pair."""
    return torch.stack([scores[order[i]] - scores[order[j]] for i, j in anchor_pairs(k)]).sum()
