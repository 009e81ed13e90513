"""The audit of the explanations of a model, in one call."""

import datetime
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from captum.attr import Attribution
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_robust._utils.captum import Inputs, TargetType, as_tuple, log_usage
from captum_robust._utils.checks import check_count, check_norm
from captum_robust._utils.exclusive import EXCLUSIVE
from captum_robust._utils.state import in_training_mode
from captum_robust.auditing.caveats import caveats_of
from captum_robust.auditing.configuration import AuditConfig, default_k, default_names, radii_of
from captum_robust.auditing.explanations import Chosen, resolve
from captum_robust.auditing.measure import audit_explanation, scores_of
from captum_robust.auditing.output import check_steady, explained_output, outputs_of
from captum_robust.auditing.provenance import call_of, settings_of, versions
from captum_robust.auditing.result import Audit
from captum_robust.noise import Norm

__all__ = ["audit"]


@log_usage(part_of_slo=False)  # type: ignore[untyped-decorator]
def audit(
    model: nn.Module,
    inputs: Inputs,
    target: TargetType = None,
    attributions: Chosen = "saliency",
    k: int | None = None,
    radius: float | Sequence[float] | None = None,
    additional_forward_args: Any = None,
    labels: Tensor | None = None,
    norm: Norm = "Linf",
    absolute: bool = True,
    feature_mask: Inputs | None = None,
    lower_bound: float | Tensor = float("-inf"),
    upper_bound: float | Tensor = float("inf"),
    decision_func: Callable[[Tensor], Tensor] | None = None,
    feature_names: Sequence[str] | None = None,
    name: str | None = None,
    seed: int = 0,
    max_examples_per_batch: int | None = None,
    show_progress: bool = True,
    date: str | None = None,
    command: str | None = None,
    tolerance: float | Tensor | None = None,
) -> Audit:
    r"""Audit the explanations of a model on examples of your own.

    Each attribution is attacked within balls of several radii, with the prediction kept: by one
    draw of random noise; by the published attack (:class:`~captum_robust.robust.ERAttack`), which
    does not move where the second derivative is zero, as in ReLU networks; and by all attacks
    together (:class:`~captum_robust.robust.AutoERAttack`). The thickness is measured; and where
    the gradient of the network can be bounded, the radius within which the top k provably stays is
    computed (:func:`~captum_robust.metrics.certified_top_k_radius`). The verdict counts the rows
    that lost any of their top k features. Rows whose attribution is not finite, constant, or tied
    at the boundary of the top k have no value, and are counted separately.

    With Saliency, all attacks together take 500 to 1,500 saliencies for each row and radius, half
    of them with a second derivative.

    Args:
        model (nn.Module): a classifier in evaluation mode, which is left as it was found.
        inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0; 50 to 100
            are enough for a verdict.
        target (optional): output that is explained, in any of Captum's forms; classes as a rule. Of
            a model with a single output, that output is explained, and the classes are 0 and 1.
            Default: the predicted class.
        attributions (optional): a name of ``captum_robust.auditing.ATTRIBUTIONS``, such as
            ``"saliency"`` or ``"ig"``, a Captum attribution of the model, several of these, or a
            dict of attributions by name; ``(attribution, arguments)`` for one whose ``attribute``
            takes further arguments. Default: ``"saliency"``.
        k (int, optional): size of the top set, 1 <= k < n. Default: 8, at most n / 3.
        radius (float or list of float, optional): radius of the ball, in units of the inputs, or
            several; a quarter and half of a single one are tried as well. The verdict is about the
            largest. Default: a tenth of the typical standard deviation of a feature.
        additional_forward_args (optional): further arguments of the model, as in Captum.
        labels (Tensor, optional): true classes, shape (N,), for the accuracy; or true values of a
            regression.
        norm (str, optional): ``"Linf"`` or ``"L2"``, of the ball. Default: ``"Linf"``.
        absolute (bool, optional): rank :math:`|I|`. Default: True.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose attributions
            are summed, as in Captum; groups are ranked.
        lower_bound (float or Tensor, optional): smallest value of a perturbed input.
        upper_bound (float or Tensor, optional): largest value of a perturbed input.
        decision_func (Callable, optional): predicted labels (N,) from the output of the model.
            Default: argmax over dimension 1; of a single output, its sign, or whether it exceeds
            0.5 where all outputs lie in [0, 1], about which the report warns. Of dense outputs,
            that at the explained position.
        feature_names (sequence of str, optional): one for each of the n features that are ranked.
        name (str, optional): name of the model in the report. Default: its class.
        seed (int, optional): seed of everything random. Default: 0.
        max_examples_per_batch (int, optional): rows attacked and explained at once; lower it when
            memory runs out. Never changes the result. Default: all.
        show_progress (bool, optional): show a progress bar. Default: True.
        date (str, optional): day of the audit in the report. Default: today.
        command (str, optional): command in the report that repeats the audit. Default: this call.
        tolerance (float or Tensor, optional): for regressions, in place of ``decision_func``: how
            far an output may move, in its units; one number, or one per output. Default: where
            ``labels`` or ``target`` are no classes, or all values of a single output are far from
            0, a tenth of the standard deviation of each output, about which the report warns.

    Returns:
        - **audit** (*Audit*): print it for the verdicts; ``to_html(path)`` writes the report,
          ``save(folder)`` the report and the numbers.

    Raises:
        ValueError: for arguments outside their ranges, and a model whose output for a row depends
            on chance or on the other rows, as in training mode.

    Examples::

        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> x, y = torch.randn(8, 6), torch.arange(8) % 2
        >>> found = audit(model, x, y, k=2, radius=[0.1, 0.5], show_progress=False)
        >>> print(found)                                              # doctest: +ELLIPSIS
        saliency: Not stable: within an L∞ radius of 0.5, ... of 8 rows (... %) lose ...
        >>> found.explanations[0].trial("own gradient", 0.5).flags    # the published attack
        {'zero_gradient': 8, 'unmoved': 8}
    """
    given = as_tuple(inputs)
    _check(model, given, norm, labels, max_examples_per_batch)
    check_steady(model, inputs, additional_forward_args, int(seed))
    outputs = outputs_of(model, inputs, additional_forward_args, seed)
    output = explained_output(outputs, target, decision_func, tolerance, labels)
    predicted = output.read(outputs)
    is_class = output.decision.tolerance is None
    attributions_by_name = resolve(attributions, model, inputs)
    config = AuditConfig(
        model, inputs, output.target, additional_forward_args, 1, radii_of(radius, inputs), norm,
        absolute, feature_mask, lower_bound, upper_bound, output.decision, int(seed),
        max_examples_per_batch,
    )  # fmt: skip
    with EXCLUSIVE, warnings.catch_warnings():
        # Captum warns of its hooks in every call.
        warnings.filterwarnings("ignore", "Setting (forward, )?backward hooks")
        n_features = _n_features(config, attributions_by_name)
        config = replace(config, k=default_k(k, n_features))
        names = default_names(feature_names, n_features, given, feature_mask)
        total = len(attributions_by_name) * config.n_steps
        with tqdm(total=total, disable=not show_progress, unit="step") as bar:
            explanations = tuple(
                audit_explanation(title, *pair, config, bar)
                for title, pair in attributions_by_name.items()
            )
    has_target = target is not None
    return Audit(
        model=type(model).__name__ if name is None else str(name),
        n_rows=config.n_rows,
        n_features=n_features,
        k=config.k,
        radii=config.radii,
        norm=norm,
        explanations=explanations,
        feature_names=names,
        agreement=_fraction_equal(predicted, output.classes),
        accuracy=_fraction_equal(predicted, labels if is_class else None),
        caveats=caveats_of(inputs, output, predicted),
        settings=settings_of(config, output),
        versions=versions(),
        command=call_of(config, list(attributions_by_name), has_target, tolerance)
        if command is None
        else command,
        date=datetime.date.today().isoformat() if date is None else date,
    )


def _check(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    norm: Norm,
    labels: Tensor | None,
    max_examples_per_batch: int | None,
) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be an nn.Module, got {type(model).__name__}")
    if in_training_mode(model):
        raise ValueError(
            "model must be in evaluation mode, got one whose dropout or batch normalisation is in "
            "training mode: call model.eval()"
        )
    n_rows = len(inputs[0])
    if n_rows == 0:
        raise ValueError("inputs must hold at least one example, got none")
    if not all(tensor.is_floating_point() for tensor in inputs):
        raise ValueError(
            f"inputs must be floating point, got {', '.join(str(t.dtype) for t in inputs)}"
        )
    check_norm(norm)
    if labels is not None and tuple(labels.shape) != (n_rows,):
        raise ValueError(f"labels must have shape ({n_rows},), got {tuple(labels.shape)}")
    if max_examples_per_batch is not None:
        check_count("max_examples_per_batch", max_examples_per_batch, 1)


def _n_features(
    config: AuditConfig, attributions: dict[str, tuple[Attribution, dict[str, Any]]]
) -> int:
    """Return the number of features, or groups, that all attributions rank."""
    found = {
        name: scores_of(*pair, config, config.inputs).shape[1]
        for name, pair in attributions.items()
    }
    if len(set(found.values())) > 1:
        raise ValueError(f"attributions must rank the same features, got {found} of them")
    return next(iter(found.values()))


def _fraction_equal(predicted: Tensor, classes: Tensor | None) -> float | None:
    """Return the fraction of rows whose prediction is the class; None without one class per row."""
    if classes is None or predicted.shape[1] != 1:
        return None
    return float((predicted[:, 0].long() == classes.cpu().long()).double().mean())
