"""Train a binary classifier and keep its best epoch."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_robust.datasets import Split, TabularDataset

__all__ = ["area_under_curve", "train"]


def area_under_curve(model: nn.Module, data: TabularDataset) -> float:
    """Area under the ROC curve of a single-logit model."""
    from sklearn.metrics import roc_auc_score

    with torch.no_grad():
        return float(roc_auc_score(data.targets, model(data.inputs).squeeze(1)))


def train(
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    data: Split,
    n_epochs: int,
    batch_size: int,
    seed: int,
    label: str,
) -> None:
    """Train ``model`` in place with Adam (1e-3), and keep the epoch of the best validation AUC.

    Shows a progress bar over the epochs. The order of the rows depends on ``seed`` alone.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    best_auc, best_state = -1.0, copy.deepcopy(model.state_dict())
    with tqdm(range(n_epochs), desc=f"train {label}", unit="epoch") as epochs:
        for _ in epochs:
            order = torch.randperm(len(data.train), generator=generator)
            for rows in order.split(batch_size):
                optimizer.zero_grad()
                criterion(data.train.inputs[rows], data.train.targets[rows]).backward()
                optimizer.step()
            auc = area_under_curve(model, data.validation)
            epochs.set_postfix(AUC=f"{auc:.3f}")
            if auc > best_auc:
                best_auc, best_state = auc, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
