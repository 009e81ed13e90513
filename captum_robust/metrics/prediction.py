"""Changes of the prediction under a perturbation of the explanation."""

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust._utils.prediction import Decision, check_logits
from captum_robust.metrics._scores import as_scores, nan_where

__all__ = ["prediction_change_rate"]


def prediction_change_rate(
    outputs: Inputs, reference_outputs: Inputs, tolerance: float | Tensor | None = None
) -> Tensor:
    r"""Change of the predicted class: 1 for a change, 0 for none; the mean is the rate.

    .. math:: \max_m \; 1[\, \arg\max_c f^m_c(x') \ne \arg\max_c f^m_c(x) \,]

    The sensitivity (Sen) of the paper. An attack on the explanation should leave the prediction
    unchanged, so lower is better for the attack. A model with several results, such as the
    similarity of a Siamese network and the classes of the two members of the pair, gives a tuple of
    outputs, and a change of any of them counts. Source: arXiv 2212.14106, C.2.

    Args:
        outputs (Tensor or tuple[Tensor, ...]): outputs of the model for the perturbed inputs:
            scores of C classes, (N, C), of which the largest is predicted, the first at ties; or a
            single logit, (N, 1) or (N,), whose sign is (give a probability p as p − 0.5).
        reference_outputs (Tensor or tuple[Tensor, ...]): those for the inputs themselves.
        tolerance (float or Tensor, optional): for regressions: a change is a move of an output by
            more than this, in units of the outputs; one number, or one per output. Default: a
            change of the predicted class.

    Returns:
        - **change** (*Tensor*): 0 or 1, shape (N,). NaN where an output is not finite.

    Raises:
        ValueError: for outputs of other shapes, and a tolerance that is not positive.

    Examples::

        >>> before = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
        >>> after = torch.tensor([[1.5, 1.4], [0.5, 0.1]])
        >>> prediction_change_rate(after, before)
        tensor([0., 1.])
        >>> similarity, similarity_before = torch.tensor([-0.1, 2.0]), torch.tensor([0.3, 2.0])
        >>> prediction_change_rate((similarity, after), (similarity_before, before))
        tensor([1., 1.])
        >>> prediction_change_rate(torch.tensor([310.0, 200.0]), torch.tensor([300.0, 150.0]), 20.0)
        tensor([0., 1.])
    """
    after, before = as_tuple(outputs, "outputs"), as_tuple(reference_outputs, "reference_outputs")
    shapes, expected = ([tuple(o.shape) for o in results] for results in (after, before))
    if shapes != expected:
        raise ValueError(
            f"outputs and reference_outputs must have the same shape, got {shapes} and {expected}"
        )
    n_examples, decision = len(after[0]), Decision(tolerance=tolerance)
    changed = torch.zeros(n_examples, dtype=torch.bool, device=after[0].device)
    for result, reference in zip(after, before, strict=True):
        check_logits(result, n_examples, "outputs")
        changed = changed | ~decision.agree(decision.read(result), decision.read(reference))
    broken = ~as_scores((*after, *before)).isfinite().all(dim=1)
    return nan_where(broken, changed.float())
