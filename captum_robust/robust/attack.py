"""The base class of attacks on explanations."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args, overload

import torch
from captum.attr import Attribution
from torch import Tensor
from tqdm.auto import tqdm

from captum_robust._utils.captum import (
    Inputs,
    Perturbation,
    TargetType,
    accepted_arguments,
    as_tuple,
    format_like,
    log_usage,
)
from captum_robust._utils.checks import (
    check_choice,
    check_count,
    check_radius,
    check_smoothness,
    one_each,
)
from captum_robust._utils.compile_warning import CompileWarning
from captum_robust._utils.prediction import Decision, predicted_labels
from captum_robust._utils.random import seeded
from captum_robust._utils.state import left_as_found
from captum_robust._utils.tensors import Points
from captum_robust.noise import Norm
from captum_robust.robust._search.descent import Descent
from captum_robust.robust._search.evaluator import Draws, Evaluator, Predictions
from captum_robust.robust._search.gradients import Gradient, GradientMethod, gradient_method
from captum_robust.robust._search.lagrangian import PREDICTION_MODES, Preserve
from captum_robust.robust._search.limit import NO_LIMIT, Limit
from captum_robust.robust._search.problem import Problem
from captum_robust.robust._search.region import Region
from captum_robust.robust._search.search import Search
from captum_robust.robust._search.seeds import OverSeeds, precision_over_seeds
from captum_robust.robust._search.settings import Keep, SearchSettings
from captum_robust.robust._search.steps import STEP_RULES, StepRuleName
from captum_robust.robust.constraints import Constraint, check_constraint
from captum_robust.robust.info import AttackInfo, ZeroGradientWarning
from captum_robust.robust.objectives import Objective

__all__ = ["ExplanationAttack"]


_BLIND = (
    "The gradient of the objective is zero for every example, so the attack had no direction to "
    "follow and its result is no evidence of robustness. The second derivative of networks of the "
    "ReLU family is zero: pass smooth_relu=10.0 or gradient='finite_difference'. If the objective "
    "is stationary at the example, pass random_start=True."
)


class ExplanationAttack(Perturbation):
    r"""Search a ball for the input whose explanation minimises an objective.

    Projected descent over the whole batch at once: each example takes steps along its own
    gradient, keeps the best iterate that satisfies the constraint on the prediction, and never
    leaves the ball, the bounds or the mask. The unperturbed input is the first candidate, so the
    result is never worse than no attack. All candidates are scored on the real model, also where
    the gradient is that of a smoothed network or of a surrogate.

    The second derivative of a network of the ReLU family is zero, and so is the gradient of its
    saliency: an attack that follows this gradient does not move, and the explanation looks robust.
    Take the gradient on a smoothed network (``smooth_relu``) or by finite differences. An attack
    whose gradient is zero for every example issues a :class:`ZeroGradientWarning`.

    Cost of s steps with Saliency: s + 1 forward passes, and one saliency and one Hessian-vector
    product per step; two more forward passes show whether the output depends on chance or on the
    other examples. A ``smooth_relu`` or ``surrogate`` adds one saliency per step.

    Args:
        attribution (Attribution): any Captum attribution; its model makes the prediction.
        objective (Callable): ``objective(scores, reference)`` of shape (N,), which is minimised.
            Both arguments have shape (N, n): the flattened, joined and grouped attributions at the
            iterate and at the unperturbed input. Must be differentiable for
            ``gradient="autograd"``.
        lower_bound (float or Tensor, optional): smallest value of a perturbed input.
        upper_bound (float or Tensor, optional): largest value of a perturbed input.
        gradient (str, optional): ``"autograd"``: the exact gradient. ``"finite_difference"``: two
            saliencies per step, the second ``probe`` radii away; crosses the kinks of ReLU and
            max-pooling, needs Saliency. ``"spsa"``: 2 × n_directions attributions per step, at a
            distance of one radius, without derivatives; for DeepLift, LRP, Lime and other
            attributions that are not differentiable. The points at which gradients are estimated
            may lie outside the ball and the bounds; returned points never do.
        smooth_relu (float or tuple[float, float], optional): :math:`\beta` of the softplus that
            replaces the ReLU family while the gradient is taken
            (:class:`~captum_robust.attr.smooth_relu`); values of 5 to 10 are a good start. A pair
            gives the first and the last step, with geometric growth in between.
        surrogate (Attribution, optional): attribution whose gradient is followed in place of that
            of ``attribution``; its maps must have the same shape. Of the arguments of
            ``attribution.attribute`` it gets those that it takes.
        preserve_prediction (str, optional): treatment of iterates with another prediction.
            ``"reject"``: the search may pass through them, but they are never returned.
            ``"early_stop"``: the search of an example ends at the first of them. ``"none"``: the
            prediction is ignored. ``"fixed"``, ``"gda"``, ``"hedge"`` and ``"qp"``: as
            ``"reject"``, and the steps descend a Lagrangian of the objective and of the change of
            the prediction (``constraint``), with weights that are fixed, updated by gradient
            ascent, updated by Hedge, or those of the steepest common descent (arXiv 2212.14106,
            appendix C.5.4). These four cost one more backward pass per step, and one more forward
            pass unless the gradient is that of Saliency or InputXGradient itself.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed before the objective is computed, as in Captum.
        path_points (int, optional): number of points on the segment from the example to the
            iterate over which the objective is averaged. Default: 1, the iterate alone.
        n_directions (int, optional): random directions of ``"spsa"``. Default: 16.
        decision_func (Callable, optional): predicted labels (N,) from the output of the model, or
            from each of several ``predictions``.
            Default: argmax over dimension 1, or output > 0 for a single logit: pass ``lambda p: p
            > 0.5`` for a model that ends in a sigmoid. Of dense outputs (segmentation, tokens) the
            prediction at the explained position counts: classes are along dimension 1 of (N, C, H,
            W, …), and last in (N, L, C). A function of the caller gets all outputs.
        probe (float, optional): length of a finite difference in radii of the ball, positive.
            Default: 2.0.
        step_rule (str, optional): ``"constant"``: steps of constant length. ``"halving"``: steps
            with momentum that are halved where progress ends (Auto-PGD; Croce and Hein 2020,
            arXiv 2003.01690).
        keep (str, optional): which of the iterates is returned. ``"objective"``: the one with the
            smallest objective. ``"precision"``: the one that keeps the fewest of the top k
            features and, among equals, has the smallest objective; examples that cannot lose
            another feature, and examples that no longer move, cost no further queries. Needs an
            objective with a ``k``.
        constraint (str or Callable, optional): measure of the change of the prediction, for the
            soft constraints. ``"kl"``: the divergence of the predicted probabilities from those of
            the example; the outputs are logits. ``"label"``: the fraction of the label's margin
            that is lost. ``"boundary"``: the part of this fraction beyond 95 %, which is zero
            except near the decision boundary. Or a function of the outputs and of those of the
            example, differentiable unless ``gradient="spsa"``, that returns (N,) or, for K
            predictions, (N, K) values, 0 without a change and growing with it. Called for each of
            several ``predictions``.
        constraint_rate (float, optional): learning rate of ``"gda"`` and ``"hedge"``. Default: 1.
        predictions (Callable, optional): all results whose prediction must stay the same, in every
            mode of ``preserve_prediction``: a function of inputs and additional arguments that
            returns a tuple of logits, (N, C), (N, 1) or (N,) each. For a Siamese network, for
            example, the similarity of a pair of inputs and the class of each. Each result is a
            separate soft constraint. Costs one more forward pass per step, and a second one with
            soft constraints. Default: the output of the attribution's model alone.
        compile (bool, optional): compile the evaluation of a point with its gradient by
            ``torch.compile``'s inductor; the result is the same within rounding. The first attack
            on a network takes some seconds longer; later attacks on small networks are several
            times as fast. Finished examples stay in the batch. Only for ``gradient="autograd"``
            with a fixed ``smooth_relu``; otherwise a :class:`CompileWarning` gives the reason.
            Default: False.
        tolerance (float or Tensor, optional): for regressions, in place of ``decision_func``: the
            prediction is kept while no output has moved by more than this, in units of the outputs;
            one number, or one per output. ``"kl"`` and ``"label"`` then measure the fraction of the
            tolerance that is used, and ``"boundary"`` the part of it beyond 95 %. Default: labels.

    Raises:
        NotDifferentiableError: for ``gradient="autograd"`` on an attribution without a gradient.
        ValueError: for arguments outside their ranges.

    Examples::

        >>> from captum.attr import Saliency
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 2))
        >>> x = torch.ones(3, 6)
        >>> attack = ExplanationAttack(Saliency(model), lambda scores, reference: scores[:, 0])
        >>> moved, info = attack.perturb(x, radius=0.5, target=1, return_info=True)
        >>> bool((info.objective < info.trace[0, 0]).all()), bool(((moved - x).abs() <= 0.5).all())
        (True, True)
    """

    #: True if the search starts from a random point of the ball by default.
    random_start = False
    #: Class of the search.
    searcher: type[Search] = Descent
    #: Class of the info.
    reports: type[AttackInfo] = AttackInfo

    def __init__(
        self,
        attribution: Attribution,
        objective: Objective,
        lower_bound: float | Tensor = float("-inf"),
        upper_bound: float | Tensor = float("inf"),
        gradient: Gradient = "autograd",
        smooth_relu: float | tuple[float, float] | None = None,
        surrogate: Attribution | None = None,
        preserve_prediction: Preserve = "reject",
        absolute: bool = False,
        feature_mask: Inputs | None = None,
        path_points: int = 1,
        n_directions: int = 16,
        decision_func: Callable[[Tensor], Tensor] = predicted_labels,
        probe: float = 2.0,
        step_rule: StepRuleName = "constant",
        keep: Keep = "objective",
        constraint: Constraint = "kl",
        constraint_rate: float = 1.0,
        predictions: Predictions | None = None,
        compile: bool = False,
        tolerance: float | Tensor | None = None,
    ) -> None:
        check_choice("preserve_prediction", preserve_prediction, tuple(PREDICTION_MODES))
        check_choice("step_rule", step_rule, tuple(STEP_RULES))
        check_choice("keep", keep, get_args(Keep))
        if keep == "precision" and getattr(objective, "k", None) is None:
            raise ValueError("keep='precision' needs an objective with an attribute k")
        guide = attribution if surrogate is None else surrogate
        method = gradient_method(gradient, probe, n_directions)
        method.check(guide)
        if method.keeps == "maps" and path_points > 1:
            raise ValueError("path_points > 1 needs gradient='autograd' or 'spsa'")
        check_smoothness(smooth_relu)
        check_count("path_points", path_points, 1)
        check_constraint(constraint)
        check_radius(constraint_rate, "constraint_rate")
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
        self.decision = Decision(decision_func, tolerance)
        self.probe = probe
        self.step_rule = step_rule
        self.keep = keep
        self.constraint = constraint
        self.constraint_rate = constraint_rate
        self.predictions = predictions
        self.compile = compile

    @property
    def follows_own_gradient(self) -> bool:
        """Return whether the attack follows the gradient of the attribution itself, by autograd."""
        guided = self.smooth_relu is not None or self.surrogate is not None
        return self._method.keeps == "graph" and not guided

    @property
    def step_cost(self) -> int:
        """Number of attributions per step, including that of the point itself."""
        guided = self.smooth_relu is not None or self.surrogate is not None
        return 1 + guided + self._method.cost

    @property
    def _method(self) -> GradientMethod:
        return gradient_method(self.gradient, self.probe, self.n_directions)

    def default_step_num(self, inputs: tuple[Tensor, ...]) -> int:
        """Return the default number of steps of :meth:`perturb`."""
        return 40

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

    @log_usage(part_of_slo=False)  # type: ignore[untyped-decorator]
    def perturb(
        self,
        inputs: Inputs,
        radius: float | Tensor,
        step_size: float | Tensor | None = None,
        step_num: int | None = None,
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
        r"""Perturb every example so that the objective is as small as possible.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0.
            radius (float or Tensor): radius of the ball around each input tensor, in units of the
                inputs; one for all examples or one per example, shape (N,).
            step_size (float or Tensor, optional): length of a step in the norm of the ball: every
                feature moves by it (Linf), or the whole tensor does (L2). Default: 2.5 × radius /
                step_num, or 2 × radius to be halved.
            step_num (int, optional): number of steps. Default: 40, more for RandomSearchAttack.
            target: output that is explained, in any of Captum's forms.
            additional_forward_args: further arguments of the model, as in Captum.
            random_start (bool, optional): start at a random point of the ball. Default: at the
                example, except for MSEAttack, whose gradient is zero there.
            norm (str, optional): ``"Linf"`` or ``"L2"``, the norm of the ball and of the steps.
            mask (Tensor or tuple[Tensor, ...], optional): 0 where the input must not change, 1
                elsewhere; broadcastable to the inputs.
            project (Callable, optional): maps perturbed inputs, given as the inputs were, to valid
                ones, for example symmetric adjacency matrices. Applied before ball and bounds. It
                may get a part of the batch: further parameters without a default that are named
                ``rows``, ``centre`` or ``radius`` get the indices of these n examples in
                ``inputs``, (n,) on the CPU, their unperturbed inputs, and their radii, (n,).
            n_restarts (int, optional): number of searches; all but the first start at random
                points. The best is chosen for each example.
            seed (int, optional): seed of starts, directions and the attribution's own randomness.
                None: fresh entropy. Random starts depend on the example and the seed only.
            max_examples_per_batch (int, optional): examples attacked at once. Never changes the
                result. Default: all.
            show_progress (bool, optional): show a progress bar over the steps. Default: False.
            return_info (bool, optional): also return an :class:`AttackInfo`. Default: False.
            start (Tensor or tuple[Tensor, ...], optional): perturbed inputs to start from, such as
                the result of a smaller radius; moved into the ball, and never made worse.
            **kwargs: passed to ``attribution.attribute``.

        Returns:
            - **perturbed** (*Tensor* or *tuple[Tensor, ...]*): as ``inputs``, detached.
            - **info** (*AttackInfo*): if ``return_info``.

        Raises:
            ValueError: for arguments outside their ranges, inputs outside the bounds, and a
                radius, bounds or mask that leave no example another point.

        Warns:
            UnmovedWarning: if some examples cannot move; their objective and precision are NaN.
            ZeroGradientWarning: if the gradient is exactly zero for every example at every step.
        """
        if step_num is None:
            step_num = self.default_step_num(as_tuple(inputs))
        check_count("step_num", step_num, 0)
        check_count("n_restarts", n_restarts, 1)
        problem = Problem.of(
            inputs, radius, (self.lower_bound, self.upper_bound), norm, mask, project, start, seed,
            target, additional_forward_args, kwargs,
        )  # fmt: skip
        sizes = None
        if step_size is not None:
            centre = problem.region.centre[0]
            sizes = one_each("step_size", step_size, problem.n_examples, centre)
        everything = torch.arange(problem.n_examples)
        chunks = problem.chunks(everything, max_examples_per_batch, self.feature_mask)
        n_steps = len(chunks) * n_restarts * step_num
        with (
            tqdm(total=n_steps, disable=not show_progress, unit="step") as bar,
            left_as_found(self.attribution, self.surrogate, self.predictions),
            seeded(problem.seed),
            torch.enable_grad(),  # Captum's metrics call perturb under no_grad
        ):
            searches = [
                self._search(
                    problem, rows, step_num, n_restarts, return_info, return_info, None, sizes,
                    random_start, bar.update,
                )
                for rows in chunks
            ]  # fmt: skip
            if return_info:
                for rows, search in zip(chunks, searches, strict=True):
                    search.over_seeds = self._over_seeds(problem, rows, search)
        blind = any(s.blind for s in searches)
        if blind and not any(bool(s.gradient_found.any()) for s in searches):
            warnings.warn(_BLIND, ZeroGradientWarning, stacklevel=3)
        if self.compile:
            for reason in sorted({s.not_compiled for s in searches if s.not_compiled is not None}):
                message = f"compile=True: not compiled, the result is the same: {reason}"
                warnings.warn(message, CompileWarning, stacklevel=3)
        best = zip(*(s.best.points for s in searches), strict=True) if searches else None
        found = problem.region.centre if best is None else tuple(torch.cat(p) for p in best)
        # Chunks of equal numbers of groups are not in the order of the examples.
        order = torch.cat(chunks).argsort() if chunks else everything
        in_order = torch.equal(order, everything)
        if not in_order:
            found = tuple(f[order.to(f.device)] for f in found)
        perturbed = format_like(inputs, found)
        if not return_info:
            return perturbed
        info = self.reports.of(searches, n_restarts, step_num)
        return perturbed, info if in_order else info.of_examples(order)

    def _search(
        self,
        problem: Problem,
        rows: Tensor,
        step_num: int,
        n_restarts: int = 1,
        with_info: bool = False,
        with_trace: bool = False,
        start: Points | None = None,
        step_size: Tensor | None = None,
        random_start: bool | None = None,
        progress: Callable[[], Any] = lambda: None,
        limit: Limit = NO_LIMIT,
    ) -> Search:
        """Search for the examples ``rows`` of a problem, all at once; ``rows`` may repeat."""
        region = problem.region.of(rows)
        sizes = None if step_size is None else step_size[rows]
        settings = self._settings()
        if sizes is None:
            sizes = settings.step_rule.default_size(region.radius, step_num)
        search = self.searcher(
            settings, region, self._evaluators(problem, rows), sizes, step_num, problem.seed,
            with_info, with_trace, **self._search_options(region),
        )  # fmt: skip
        search.limit = limit
        if start is None and problem.start is not None:
            start = tuple(t[rows] for t in problem.start)
        at_random = self.random_start if random_start is None else random_start
        search.run(start, at_random, n_restarts, progress)
        return search

    def _over_seeds(self, problem: Problem, rows: Tensor, search: Search) -> OverSeeds | None:
        """Return the precision with other seeds, of a random map and an objective with a k."""
        k = search.settings.k
        if k is None or not search.scored.is_random:
            return None
        return precision_over_seeds(
            problem, self.attribution, rows, self.absolute, self.feature_mask, search.best.points, k
        )

    def _settings(self) -> SearchSettings:
        """Return the settings of a search."""
        return SearchSettings(
            objective=self.objective,
            gradient=self._method,
            step_rule=STEP_RULES[self.step_rule],
            preserve_prediction=self.preserve_prediction,
            keep=self.keep,
            smooth_relu=self.smooth_relu,
            path_points=self.path_points,
            constraint=self.constraint,
            constraint_rate=self.constraint_rate,
            decision=self.decision,
            predictions=self.predictions,
            compile=self.compile,
        )

    def _search_options(self, region: Region) -> dict[str, Any]:
        """Return further arguments of the :attr:`searcher` of a subclass, for a chunk's region."""
        return {}

    def _evaluators(
        self, problem: Problem, chunk: Tensor
    ) -> Callable[[Tensor], tuple[Evaluator, Evaluator]]:
        """Make the evaluators of any rows of a chunk: the one that scores points, and the guide."""
        draws = Draws(problem.seed), Draws(problem.seed)

        guided = problem
        if self.surrogate is not None:  # which may not know the arguments of the attribution
            taken = accepted_arguments(self.surrogate, problem.arguments)
            guided = replace(problem, arguments=taken)

        def make(attribution: Attribution, rows: Tensor, beta: float | None) -> Evaluator:
            own = problem if attribution is self.attribution else guided
            return own.evaluator(
                attribution, chunk[rows], self.absolute, self.feature_mask, beta,
                draws[attribution is not self.attribution],
            )  # fmt: skip

        def both(rows: Tensor) -> tuple[Evaluator, Evaluator]:
            scored = make(self.attribution, rows, None)
            if self.smooth_relu is None and self.surrogate is None:
                return scored, scored
            beta = self.smooth_relu[0] if isinstance(self.smooth_relu, tuple) else self.smooth_relu
            return scored, make(self.surrogate or self.attribution, rows, beta)

        return both
