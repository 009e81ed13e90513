"""The training of binary classifiers."""

import copy
import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_robust.benchmark.study.task import Examples
from captum_robust.datasets import Split

__all__ = ["area_under_curve", "fit", "train"]


def area_under_curve(model: nn.Module, data: Examples) -> float:
    """Return the area under the ROC curve of a model with one logit; NaN for non-finite logits."""
    from sklearn.metrics import roc_auc_score

    with torch.no_grad():
        logits = model(data.inputs).squeeze(1)
    if not logits.isfinite().all():
        return float("nan")
    return float(roc_auc_score(data.targets.cpu(), logits.cpu()))


def train(
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    data: Split,
    n_epochs: int,
    batch_size: int,
    seed: int,
    label: str,
) -> None:
    """Train ``model`` in place with Adam (1e-3), and keep the epoch with the best validation AUC.

    Shows a progress bar over the epochs. The order of the rows depends on ``seed`` alone.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    best_auc, best_state = -1.0, copy.deepcopy(model.state_dict())
    with tqdm(range(n_epochs), desc=f"train {label}", unit="epoch") as epochs:
        for _ in epochs:
            for rows in _batches(data.train, batch_size, generator):
                _step(criterion, optimizer, data.train, rows)
            auc = area_under_curve(model, data.validation)
            epochs.set_postfix(AUC=f"{auc:.3f}")
            if auc > best_auc:
                best_auc, best_state = auc, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)


def fit(
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    data: Examples,
    n_epochs: int,
    batch_size: int,
    seed: int,
    weight_decay: float = 0.0,
    learning_rate: float = 3e-3,
) -> float:
    """Train ``model`` in place with Adam, whose learning rate falls linearly to 0.

    The last epoch is kept. The epoch with the best AUC would be an early one, before a regulariser
    has an effect, or the initial weights of a model that was trained before. The order of the rows
    depends on ``seed`` alone.

    Returns:
        Processor time per epoch, in seconds.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    n_steps = n_epochs * math.ceil(len(data) / batch_size)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / n_steps)
    started = time.process_time()
    for _ in range(n_epochs):
        for rows in _batches(data, batch_size, generator):
            _step(criterion, optimizer, data, rows)
            rate.step()
    return (time.process_time() - started) / n_epochs


def _batches(data: Examples, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """Return the indices of the rows of each step of an epoch."""
    batches: Sequence[Tensor] = torch.randperm(len(data), generator=generator).split(batch_size)
    return batches


def _step(
    criterion: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    data: Examples,
    rows: Tensor,
) -> None:
    optimizer.zero_grad()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # Without `inputs`, a loss that explains would compute gradients of the examples as well.
    criterion(data.inputs[rows], data.targets[rows]).backward(inputs=parameters)
    optimizer.step()
