"""Comparison of attributions × attacks × metrics, in one table."""

from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, cast

from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs, Perturbation, TargetType, log_usage
from captum_robust._utils.checks import check_count, check_norm, check_radius, one_number
from captum_robust._utils.prediction import Decision, predicted_labels
from captum_robust._utils.random import resolve_seed
from captum_robust.noise import Norm, UniformNoise
from captum_robust.robust._search.evaluator import Predictions
from captum_robust.robust.evaluation.calls import forwards
from captum_robust.robust.evaluation.comparison import Batch, Comparison, Metric
from captum_robust.robust.evaluation.robustness_table import (
    NOISE_FLOOR,
    PREDICTION_CHANGED,
    RobustnessTable,
)

__all__ = ["ExplanationComparator"]

#: Name of the baseline that every table contains.
NOISE = "noise"

Attack = Perturbation | Callable[[Attribution], Perturbation]


class ExplanationComparator:
    r"""Measure the effect of every attack on every explanation.

    Each attack perturbs the examples within one ball; each attribution explains them before and
    after; each metric compares the two maps. Every table also contains uniform noise in the same
    ball as a baseline, the rate of changed predictions, the number of examples without a value
    (NaN), and the flags of the attacks, such as a zero gradient or examples that did not move.
    Values are stored per example.

    A random attribution, such as NoiseTunnel, is compared at one seed, so that only the inputs
    differ. Beside it stand the values between two seeds at the unperturbed input, as a row "no
    attack, other seeds", and the means over other seeds for every attack.

    Args:
        attributions (dict[str, Attribution]): attributions by name; ``(attribution, arguments)``
            for one whose ``attribute`` takes further arguments, the same for all examples.
        attacks (dict[str, Perturbation or Callable]): attacks by name. A class, or any function
            from an attribution to an attack, such as ``functools.partial(ERAttack, k=8)``, attacks
            each attribution separately, with the arguments of that attribution. An attack object,
            such as ``ERAttack(Saliency(model), k=8)``, is a transfer attack: its perturbed inputs
            are computed once and used for all attributions, also those without derivatives.
            ``(attack, arguments)`` for further arguments of ``perturb``.
        metrics (dict[str, Callable]): metrics by name: ``metric(attributions,
            reference_attributions)`` of shape (N,), such as ``functools.partial(precision_at_k,
            k=8)``.
        lower_bound (float or Tensor, optional): smallest value of an input with noise; should be
            that of the attacks.
        upper_bound (float or Tensor, optional): largest value of an input with noise.
        decision_func (Callable, optional): predicted labels (N,) from the output of the model.
            Default: argmax over dimension 1, or output > 0 for a single logit: pass ``lambda p: p
            > 0.5`` for a model that ends in a sigmoid, as to the attacks.
        predictions (Callable, optional): all results of the model whose change counts, as in
            :class:`~captum_robust.robust.ExplanationAttack`; should be those of the attacks.
            Default: the output of each attribution's model.
        confidence (float, optional): coverage of the confidence intervals. Those of metrics of this
            library lie in the range of the metric. Default: 0.95.
        tolerance (float or Tensor, optional): change of an output that counts as a change of the
            prediction, for regressions, as to the attacks. Default: labels count.

    Raises:
        ValueError: for arguments outside their ranges.

    Examples::

        >>> import torch
        >>> from functools import partial
        >>> from captum.attr import IntegratedGradients, Saliency
        >>> from captum_robust.metrics import precision_at_k
        >>> from captum_robust.robust import ERAttack
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 2))
        >>> saliency, ig = Saliency(model), IntegratedGradients(model)
        >>> comparator = ExplanationComparator(
        ...     {"Saliency": saliency, "IG": (ig, {"n_steps": 20})},
        ...     {"own": partial(ERAttack, k=2), "of Saliency": ERAttack(saliency, k=2)},
        ...     {"P@2": partial(precision_at_k, k=2)},
        ... )
        >>> x, y = torch.randn(8, 6), torch.arange(8) % 2
        >>> table = comparator.evaluate(x, radius=0.5, target=y, seed=0)
        >>> [(m.attribution, m.attack) for m in table.measurements][:4]
        [('Saliency', 'noise'), ('Saliency', 'own'), ('Saliency', 'of Saliency'), ('IG', 'noise')]
        >>> table.estimate("IG", "own", "P@2").mean < table.estimate("IG", "noise", "P@2").mean
        True
        >>> table["IG", "own"].values["P@2"].shape
        torch.Size([8])
    """

    def __init__(
        self,
        attributions: Mapping[str, Attribution | tuple[Attribution, dict[str, Any]]],
        attacks: Mapping[str, Attack | tuple[Attack, dict[str, Any]]],
        metrics: Mapping[str, Metric],
        lower_bound: float | Tensor = float("-inf"),
        upper_bound: float | Tensor = float("inf"),
        decision_func: Callable[[Tensor], Tensor] = predicted_labels,
        confidence: float = 0.95,
        predictions: Predictions | None = None,
        tolerance: float | Tensor | None = None,
    ) -> None:
        if not attributions:
            raise ValueError("attributions must hold at least one attribution, got none")
        if NOISE in attacks:
            raise ValueError(f"attacks must not be named {NOISE!r}, which is the baseline's name")
        if NOISE_FLOOR in attacks:
            raise ValueError(f"attacks must not be named {NOISE_FLOOR!r}, which is the noise floor")
        if PREDICTION_CHANGED in metrics:
            raise ValueError(
                f"metrics must not be named {PREDICTION_CHANGED!r}, which every table has"
            )
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
        self.attributions = {name: _with_arguments(a) for name, a in attributions.items()}
        self.attacks = {name: _with_arguments(a) for name, a in attacks.items()}
        for name, (_, arguments) in self.attacks.items():
            common = {"radius", "norm", "seed", "return_info"} & set(arguments)
            if common:
                raise ValueError(
                    f"attacks[{name!r}] must leave {sorted(common)} to evaluate: all attacks of a "
                    "table share them"
                )
        self.metrics = dict(metrics)
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound
        self.decision = Decision(decision_func, tolerance)
        self.confidence = confidence
        self.predictions = predictions

    @log_usage(part_of_slo=False)  # type: ignore[untyped-decorator]
    def evaluate(
        self,
        inputs: Inputs,
        radius: float,
        target: TargetType = None,
        additional_forward_args: Any = None,
        weights: Tensor | None = None,
        norm: Norm = "Linf",
        seed: int | None = None,
        max_examples_per_batch: int | None = None,
        return_perturbed: bool = False,
        show_progress: bool = False,
    ) -> RobustnessTable:
        """Compare attributions under attack on one batch of examples.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0.
            radius (float): radius of the ball, in units of the inputs.
            target: output that is explained, in any of Captum's forms.
            additional_forward_args: further arguments of the model, as in Captum.
            weights (Tensor, optional): weights of the examples in the means, not negative, shape
                (N,). Default: all equal.
            norm (str, optional): ``"Linf"`` or ``"L2"``, of the ball. Default: ``"Linf"``.
            seed (int, optional): seed of noise, attacks and the attributions' own randomness. None:
                fresh entropy.
            max_examples_per_batch (int, optional): examples attacked and explained at once. Never
                changes the result. Default: all.
            return_perturbed (bool, optional): keep the perturbed inputs. Default: False.
            show_progress (bool, optional): show a progress bar over attributions and attacks.
                Default: False.

        Returns:
            - **table** (*RobustnessTable*): all values, and the tables made of them.

        Raises:
            ValueError: for arguments outside their ranges, and metrics of another shape.
        """
        comparison = self._comparison(radius, norm, seed, max_examples_per_batch, return_perturbed)
        batch = Batch(inputs, target, additional_forward_args, weights)
        with comparison.progress_bar(1, show_progress) as bar:
            comparison.add(batch, bar.update)
        return comparison.table()

    @log_usage(part_of_slo=False)  # type: ignore[untyped-decorator]
    def evaluate_loader(
        self,
        loader: Iterable[Any],
        radius: float,
        batch_func: Callable[[Any], Mapping[str, Any]] | None = None,
        norm: Norm = "Linf",
        seed: int | None = None,
        max_examples_per_batch: int | None = None,
        return_perturbed: bool = False,
        show_progress: bool = False,
    ) -> RobustnessTable:
        """Compare attributions under attack on the batches of a DataLoader, in one table.

        Args:
            loader (Iterable): batches, read once.
            radius (float): radius of the ball, in units of the inputs.
            batch_func (Callable, optional): from a batch to a dict with ``"inputs"`` and any of
                ``"target"``, ``"additional_forward_args"`` and ``"weights"``, as in
                :meth:`evaluate`. Default: batches are inputs, or inputs and targets.
            norm (str, optional): as in :meth:`evaluate`.
            seed (int, optional): as in :meth:`evaluate`.
            max_examples_per_batch (int, optional): as in :meth:`evaluate`.
            return_perturbed (bool, optional): as in :meth:`evaluate`.
            show_progress (bool, optional): as in :meth:`evaluate`.

        Returns:
            - **table** (*RobustnessTable*): examples in the order of the loader.

        Raises:
            ValueError: as :meth:`evaluate`, and for batches of another form.
        """
        comparison = self._comparison(radius, norm, seed, max_examples_per_batch, return_perturbed)
        n_batches = len(loader) if isinstance(loader, Sized) else None
        with comparison.progress_bar(n_batches, show_progress) as bar:
            for item in loader:
                given = _inputs_and_target(item) if batch_func is None else batch_func(item)
                comparison.add(Batch.of(given), bar.update)
        return comparison.table()

    def _comparison(
        self,
        radius: float,
        norm: Norm,
        seed: int | None,
        max_examples_per_batch: int | None,
        return_perturbed: bool,
    ) -> Comparison:
        """Return an empty comparison, with the attacks bound to the attributions."""
        check_radius(radius)
        radius = one_number("radius", radius)
        check_norm(norm)
        if max_examples_per_batch is not None:
            check_count("max_examples_per_batch", max_examples_per_batch, 1)
        baseline: tuple[Attack, dict[str, Any]] = (
            UniformNoise(norm, self.lower_bound, self.upper_bound),
            {},
        )
        attacks = {NOISE: baseline, **self.attacks}
        return Comparison(
            attributions=self.attributions,
            attacks={
                name: {
                    attack_name: _bound(attack, options, *attribution)
                    for attack_name, (attack, options) in attacks.items()
                }
                for name, attribution in self.attributions.items()
            },
            metrics=self.metrics,
            decision=self.decision,
            predictions=self.predictions,
            confidence=self.confidence,
            radius=radius,
            norm=norm,
            seed=resolve_seed(seed),
            max_examples_per_batch=max_examples_per_batch,
            keep_perturbed=return_perturbed,
        )


def _with_arguments(given: Any) -> tuple[Any, dict[str, Any]]:
    return given if isinstance(given, tuple) else (given, {})


def _bound(
    attack: Attack,
    options: dict[str, Any],
    attribution: Attribution,
    arguments: dict[str, Any],
) -> tuple[Perturbation, dict[str, Any]]:
    """Return the attack and its arguments; a function is called with the attribution first."""
    if hasattr(attack, "perturb") and not isinstance(attack, type):
        return cast(Perturbation, attack), options
    made = attack(attribution)
    return made, {**(arguments if forwards(made) else {}), **options}


def _inputs_and_target(item: Any) -> dict[str, Any]:
    """Return the arguments in the usual item of a loader: inputs, or inputs and targets."""
    if isinstance(item, Tensor):
        return {"inputs": item}
    if not isinstance(item, tuple | list) or len(item) not in (1, 2):
        got = f"{len(item)} items" if isinstance(item, tuple | list) else type(item).__name__
        raise ValueError(
            f"batch_func must be given for batches that are not inputs, or inputs and targets; got "
            f"{got}"
        )
    return dict(zip(("inputs", "target"), item, strict=False))
