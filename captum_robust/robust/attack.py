"""The attack on an explanation that all others are made of."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, overload

import torch
from captum.attr import Attribution, Saliency
from torch import Tensor
from tqdm.auto import tqdm

from captum_robust._batch import kwargs_of_examples, of_examples
from captum_robust._captum import Inputs, Perturbation, TargetType, as_tuple, like, log_usage
from captum_robust._random import resolve_seed, seeded
from captum_robust._state import left_as_found
from captum_robust.attr.check import require_differentiable
from captum_robust.noise import Norm, check_norm, check_radius
from captum_robust.robust.explain import Explanation, predicted_labels
from captum_robust.robust.objectives import Objective
from captum_robust.robust.search import Gradient, Preserve, Region, Search

__all__ = ["AttackInfo", "ExplanationAttack", "ZeroGradientWarning"]


class ZeroGradientWarning(UserWarning):
    """The attack found no gradient at all, so that its result says nothing about robustness."""


@dataclass(frozen=True)
class AttackInfo:
    """What an attack found, one value an example.

    Attributes:
        objective (Tensor): the objective at the returned inputs, on the real model; (N,). NaN
            where the map of the unperturbed example is not finite or constant.
        prediction_kept (Tensor): whether the returned input is predicted as the example is; (N,)
            bool.
        first_change_step (Tensor, optional): first step at which a top-k feature was lost while
            the prediction was allowed, over all restarts (the paper's manipulation step); −1 for
            never; (N,) int64. None where the objective has no k.
        gradient_found (Tensor): whether any gradient was not zero; (N,) bool.
        trace (Tensor): objective of every iterate, shape (n_restarts, step_num + 1, N); NaN after
            all examples were stopped early.
        n_queries (int): attributions computed for each example.
    """

    objective: Tensor
    prediction_kept: Tensor
    first_change_step: Tensor | None
    gradient_found: Tensor
    trace: Tensor
    n_queries: int


class ExplanationAttack(Perturbation):
    r"""Search a ball for the input whose explanation minimises an objective.

    Projected descent over the whole batch at once: each example takes steps along its own
    gradient, keeps the best iterate that satisfies the constraint on the prediction, and never
    leaves the ball, the bounds or the mask. The unperturbed input is the first candidate, so the
    result is never worse than no attack. All candidates are scored on the real model, whatever
    supplied the gradient.

    A network of the ReLU family hides its second derivative: the gradient of its saliency is
    zero, and an attack that uses it reports robustness that is not there. Take the gradient on a
    smoothed stand-in (``smooth_relu``) or by finite differences; an attack whose gradient is zero
    for every example warns.

    Cost of s steps with Saliency: s + 1 forwards, one saliency and one Hessian-vector product a
    step. A ``smooth_relu`` or ``surrogate`` adds one saliency a step.

    Args:
        attribution (Attribution): any Captum attribution; its model makes the prediction.
        objective (Callable): ``objective(scores, reference)`` of shape (N,), minimised; both
            arguments are (N, n): the flattened, joined and grouped attributions at the iterate and
            at the unperturbed input. Must be differentiable for ``gradient="autograd"``.
        lower_bound (float or Tensor, optional): smallest value of a perturbed input.
        upper_bound (float or Tensor, optional): largest value of a perturbed input.
        gradient (str, optional): ``"autograd"``, exact. ``"finite_difference"``: two saliencies a
            step, probing half the radius away; sees the kinks of ReLU and max-pooling, needs
            Saliency. ``"spsa"``: 2 × n_directions attributions a step, no derivative at all; for
            DeepLift, LRP, Lime and the like.
        smooth_relu (float, optional): :math:`\beta` of the softplus that stands in for the ReLU
            family while the gradient is taken (:class:`~captum_robust.attr.smooth_relu`); 5 to 10
            is a good start.
        surrogate (Attribution, optional): attribution whose gradient is followed in place of that
            of ``attribution``; its maps must have the same shape.
        preserve_prediction (str, optional): ``"reject"``: iterates with another prediction are
            passed through but never returned. ``"early_stop"``: the search of an example ends at
            the first one. ``"none"``: they count like others.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed before the objective sees them, as in Captum.
        path_points (int, optional): number of points on the segment from the example over which
            the objective is averaged; 1 is the end point alone.
        n_directions (int, optional): random directions of ``"spsa"``. Default: 16.
        decision_func (Callable, optional): predicted labels (N,) from the output of the model.
            Default: argmax over dimension 1, or output > 0 for a single logit: pass ``lambda p: p
            > 0.5`` for a model that ends in a sigmoid.

    Raises:
        NotDifferentiableError: for ``gradient="autograd"`` on an attribution that has none.
        ValueError: for arguments outside their ranges.

    Examples::

        >>> from captum.attr import Saliency
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Softplus(), torch.nn.Linear(8, 2))
        >>> x = torch.ones(3, 6)
        >>> attack = ExplanationAttack(Saliency(model), lambda scores, reference: scores[:, 0])
        >>> moved, info = attack.perturb(x, radius=0.5, target=1, return_info=True)
        >>> bool((info.objective < info.trace[0, 0]).all()), bool(((moved - x).abs() <= 0.5).all())
        (True, True)
    """

    #: Whether the search starts from a random point of the ball unless told otherwise.
    random_start = False

    def __init__(
        self,
        attribution: Attribution,
        objective: Objective,
        lower_bound: float | Tensor = float("-inf"),
        upper_bound: float | Tensor = float("inf"),
        gradient: Gradient = "autograd",
        smooth_relu: float | None = None,
        surrogate: Attribution | None = None,
        preserve_prediction: Preserve = "reject",
        absolute: bool = False,
        feature_mask: Inputs | None = None,
        path_points: int = 1,
        n_directions: int = 16,
        decision_func: Callable[[Tensor], Tensor] = predicted_labels,
    ) -> None:
        _check_choice("gradient", gradient, get_args(Gradient))
        _check_choice("preserve_prediction", preserve_prediction, get_args(Preserve))
        guide = attribution if surrogate is None else surrogate
        if gradient == "autograd":
            require_differentiable(guide)
        if gradient == "finite_difference" and type(guide) is not Saliency:
            raise ValueError(
                "gradient='finite_difference' needs Saliency, whose map is the gradient itself, "
                f"got {type(guide).__name__}; use gradient='autograd' or 'spsa'"
            )
        if gradient == "finite_difference" and path_points > 1:
            raise ValueError("path_points > 1 needs gradient='autograd' or 'spsa'")
        if smooth_relu is not None and not smooth_relu > 0:
            raise ValueError(f"smooth_relu must be a positive beta or None, got {smooth_relu}")
        for name, count in (("path_points", path_points), ("n_directions", n_directions)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        self.attribution = attribution
        self.objective = objective
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound
        self.gradient = gradient
        self.smooth_relu = smooth_relu
        self.surrogate = surrogate
        self.preserve_prediction = preserve_prediction
        self.absolute = absolute
        self.feature_mask = feature_mask
        self.path_points = path_points
        self.n_directions = n_directions
        self.decision_func = decision_func

    @overload
    def perturb(
        self, inputs: Inputs, radius: float | Tensor, *args: Any,
        return_info: Literal[False] = ..., **kwargs: Any,
    ) -> Any: ...  # fmt: skip

    @overload
    def perturb(
        self, inputs: Inputs, radius: float | Tensor, *args: Any,
        return_info: Literal[True], **kwargs: Any,
    ) -> tuple[Any, AttackInfo]: ...  # fmt: skip

    @log_usage(part_of_slo=False)
    def perturb(
        self,
        inputs: Inputs,
        radius: float | Tensor,
        step_size: float | Tensor | None = None,
        step_num: int = 40,
        target: TargetType = None,
        additional_forward_args: Any = None,
        random_start: bool | None = None,
        norm: Norm = "Linf",
        mask: Inputs | None = None,
        project: Callable[[Any], Any] | None = None,
        n_restarts: int = 1,
        seed: int | None = None,
        max_examples_per_batch: int | None = None,
        show_progress: bool = False,
        return_info: bool = False,
        start: Inputs | None = None,
        **kwargs: Any,
    ) -> Any:
        r"""Perturb every example towards the smallest objective.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0.
            radius (float or Tensor): radius of the ball around each input tensor, in units of the
                inputs; one for all or one an example, shape (N,).
            step_size (float or Tensor, optional): length of a step in the norm of the ball: every
                feature moves by it (Linf), or the whole tensor does (L2). Default: 2.5 × radius /
                step_num.
            step_num (int, optional): number of steps. Default: 40.
            target: output that is explained, in any of Captum's forms.
            additional_forward_args: further arguments of the model, as in Captum.
            random_start (bool, optional): start at a random point of the ball. Default: at the
                example, except for MSEAttack, whose gradient is zero there.
            norm (str, optional): ``"Linf"`` or ``"L2"``, the norm of the ball and of the steps.
            mask (Tensor or tuple[Tensor, ...], optional): 0 where the input must not change, 1
                elsewhere; broadcastable to the inputs.
            project (Callable, optional): maps perturbed inputs, given as the inputs were, to valid
                ones, a symmetric adjacency matrix, say. Applied before ball and bounds.
            n_restarts (int, optional): number of searches; all but the first start at random
                points. The best is chosen for each example.
            seed (int, optional): seed of starts, directions and the attribution's own randomness.
                None: fresh entropy. Random starts depend on the example and the seed only.
            max_examples_per_batch (int, optional): examples attacked at once. Never changes the
                result of a deterministic attribution. Default: all.
            show_progress (bool, optional): show a progress bar over the steps. Default: False.
            return_info (bool, optional): also return an :class:`AttackInfo`. Default: False.
            start (Tensor or tuple[Tensor, ...], optional): perturbed inputs to start from, such as
                the result of a smaller radius; moved into the ball, and never made worse.
            **kwargs: passed to ``attribution.attribute``.

        Returns:
            - **perturbed** (*Tensor* or *tuple[Tensor, ...]*): as ``inputs``, detached.
            - **info** (*AttackInfo*): if ``return_info``.

        Raises:
            ValueError: for arguments outside their ranges, or inputs outside the bounds.

        Warns:
            ZeroGradientWarning: if the gradient is exactly zero for every example at every step.
        """
        centre = tuple(t.detach().clone() for t in as_tuple(inputs))
        n_examples = len(centre[0])
        _check_numbers(radius, step_size, step_num, n_restarts, max_examples_per_batch)
        check_norm(norm)
        self._check_inputs(centre)
        radii = _one_each("radius", radius, n_examples, centre[0])
        sizes = 2.5 * radii / max(step_num, 1)
        if step_size is not None:
            sizes = _one_each("step_size", step_size, n_examples, centre[0])
        masks = None if mask is None else _matching("mask", mask, centre, broadcast=True)
        begin = None if start is None else _matching("start", start, centre, broadcast=False)
        if random_start is None:
            random_start = self.random_start
        seed = resolve_seed(seed)
        arguments = dict(kwargs)
        if target is not None:
            arguments["target"] = target
        if additional_forward_args is not None:
            arguments["additional_forward_args"] = additional_forward_args

        searches: list[Search] = []
        chunks = torch.arange(n_examples).split(max_examples_per_batch or max(n_examples, 1))
        n_steps = len(chunks) * n_restarts * step_num
        with (
            tqdm(total=n_steps, disable=not show_progress, unit="step") as bar,
            left_as_found(self.attribution, self.surrogate),
            seeded(seed),
            torch.enable_grad(),  # Captum's metrics perturb under no_grad
        ):
            for rows in chunks if n_examples else ():
                part = rows.to(centre[0].device)
                region = Region(
                    inputs,
                    tuple(t[part] for t in centre),
                    radii[part],
                    norm,
                    of_examples(self.lower_bound, part, n_examples),
                    of_examples(self.upper_bound, part, n_examples),
                    None if masks is None else of_examples(masks, part, n_examples),
                    project,
                )
                search = self._search(
                    region, rows, n_examples, arguments, sizes[part], step_num, seed, return_info
                )
                first = None if begin is None else region.nearest(tuple(t[part] for t in begin))
                search.run(
                    [
                        region.random_point(seed, n) if n or (random_start and first is None) else first
                        for n in range(n_restarts)
                    ],
                    bar.update,
                )
                searches.append(search)
        return self._result(inputs, centre, searches, step_num, n_restarts, return_info)

    def _search(
        self,
        region: Region,
        rows: Tensor,
        n_examples: int,
        arguments: dict[str, Any],
        step_size: Tensor,
        step_num: int,
        seed: int,
        with_info: bool,
    ) -> Search:
        feature_mask = self.feature_mask
        if feature_mask is not None and len(rows) < n_examples:
            feature_mask = of_examples(feature_mask, rows, n_examples)

        def explain(attribution: Attribution, beta: float | None) -> Explanation:
            own = kwargs_of_examples(arguments, rows, n_examples, attribution)
            return Explanation(
                attribution, region.given, own, self.absolute, feature_mask, seed, beta
            )

        scored = explain(self.attribution, None)
        guide = scored
        if self.smooth_relu is not None or self.surrogate is not None:
            guide = explain(self.surrogate or self.attribution, self.smooth_relu)
        return Search(
            region, self.objective, scored, guide, self.gradient, self.preserve_prediction,
            self.decision_func, self.path_points, self.n_directions, step_size, step_num, seed,
            with_info,
        )  # fmt: skip

    def _result(
        self,
        inputs: Inputs,
        centre: tuple[Tensor, ...],
        searches: list[Search],
        step_num: int,
        n_restarts: int,
        return_info: bool,
    ) -> Any:
        best = tuple(torch.cat(parts).detach() for parts in zip(*(s.best for s in searches), strict=True))
        perturbed = like(inputs, best if searches else centre)
        found = torch.cat([s.gradient_found for s in searches]) if searches else torch.ones(0)
        if len(found) and step_num > 0 and not bool(found.any()):
            warnings.warn(
                "The gradient of the objective is exactly zero for every example, so this attack "
                "says nothing about robustness. Networks of the ReLU family hide their second "
                "derivative: pass smooth_relu=10.0 or gradient='finite_difference'. An objective "
                "that is stationary at the example needs random_start=True.",
                ZeroGradientWarning,
                stacklevel=4,
            )
        if not return_info:
            return perturbed
        shape = (n_restarts, step_num + 1)
        info = AttackInfo(
            objective=torch.cat([s.best_loss for s in searches]),
            prediction_kept=torch.cat([s.best_kept for s in searches]),
            first_change_step=_joined([s.first_change_step for s in searches]),
            gradient_found=found,
            trace=torch.cat([s.full_trace(*shape) for s in searches], dim=2),
            n_queries=max(s.n_queries for s in searches),
        )
        return perturbed, info

    def _check_inputs(self, centre: tuple[Tensor, ...]) -> None:
        for tensor in centre:
            if not tensor.is_floating_point():
                raise ValueError(f"inputs must be floating point tensors, got {tensor.dtype}")
            lower = torch.as_tensor(self.lower_bound).to(tensor)
            upper = torch.as_tensor(self.upper_bound).to(tensor)
            slack = 1e-5 * tensor.abs().clamp_min(1)
            if bool(((tensor < lower - slack) | (tensor > upper + slack)).any()):
                raise ValueError(
                    f"inputs must lie between lower_bound and upper_bound, got values in "
                    f"[{float(tensor.min())}, {float(tensor.max())}]"
                )


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    given = [p for p in parts if p is not None]
    return torch.cat(given) if given else None


def _check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {accepted}, got {value!r}")


def _check_numbers(
    radius: float | Tensor,
    step_size: float | Tensor | None,
    step_num: int,
    n_restarts: int,
    max_examples_per_batch: int | None,
) -> None:
    check_radius(radius)
    if step_size is not None:
        check_radius(step_size, "step_size")
    for name, value, least in (
        ("step_num", step_num, 0),
        ("n_restarts", n_restarts, 1),
        ("max_examples_per_batch", max_examples_per_batch, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _one_each(name: str, value: float | Tensor, n_examples: int, like: Tensor) -> Tensor:
    """One value an example, in at least single precision."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    values = torch.as_tensor(value, dtype=dtype, device=like.device)
    if values.dim() > 1 or values.numel() not in (1, n_examples):
        raise ValueError(f"{name} must be a number or a tensor of shape ({n_examples},)")
    return values.reshape(-1).expand(n_examples)


def _matching(
    name: str, given: Inputs, inputs: tuple[Tensor, ...], broadcast: bool
) -> tuple[Tensor, ...]:
    """A tensor for every input tensor; a mask may be broadcast."""
    tensors = (given,) if isinstance(given, Tensor) else tuple(given)
    shapes, expected = [tuple(t.shape) for t in tensors], [tuple(t.shape) for t in inputs]
    fits = len(shapes) == len(expected) and all(
        s == e or (broadcast and _broadcasts(s, e)) for s, e in zip(shapes, expected, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} must have the shapes of the inputs {expected}, got {shapes}")
    return tuple(t.detach().to(i) for t, i in zip(tensors, inputs, strict=True))


def _broadcasts(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    try:
        return tuple(torch.broadcast_shapes(shape, expected)) == expected
    except RuntimeError:
        return False
