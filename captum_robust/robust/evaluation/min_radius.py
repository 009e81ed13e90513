"""Search for the smallest radius at which an attack breaks an explanation."""

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from captum.attr import Attribution
from torch import Tensor
from tqdm.auto import tqdm

from captum_robust._utils.captum import (
    Inputs,
    Perturbation,
    TargetType,
    as_tuple,
    format_like,
    log_usage,
)
from captum_robust._utils.checks import check_count
from captum_robust._utils.movement import UnmovedWarning, check_moved
from captum_robust._utils.random import resolve_seed
from captum_robust.metrics import precision_at_k
from captum_robust.ranking import invalid_rows, non_finite_rows, padded_scores
from captum_robust.robust.evaluation.bisection import Bisection
from captum_robust.robust.evaluation.calls import call_attack, options_of
from captum_robust.robust.evaluation.displacement import pinned_by
from captum_robust.robust.evaluation.scoring import Scorer

__all__ = ["MinRadius", "Success"]

#: From attributions and reference attributions to a bool per example, true if broken; (N,).
Success = Callable[[Inputs, Inputs], Tensor]


class MinRadius:
    r"""Find the smallest radius at which an attack breaks the explanation of each example.

    .. math:: r(x) = \min \{\, r : success(I(A(x, r)), I(x)) \,\}

    with A the attack. The whole batch is searched at once, every example at its own radius:
    up to ``n_radii`` increasing radii, evenly spaced up to ``upper``, until the explanation breaks;
    then ``n_bisections`` halvings of the last step. The precision of the result is (upper − lower)
    / (n_radii · 2^n_bisections), with at most n_radii + n_bisections attacks.

    The result is an upper bound of the true smallest radius, since a stronger attack may find a
    smaller one; a certificate (:func:`~captum_robust.metrics.certified_top_k_radius`) gives a lower
    bound. The search treats success as monotone: an explanation that breaks at a radius counts as
    broken at all larger radii, and an attack that takes ``start`` begins with its result at a
    smaller radius. An attack that is not monotone, such as noise, may break an explanation below
    the radius that is returned, and fail between the ``n_radii`` that were tried.

    Args:
        attack (Perturbation): an attack whose ``perturb(inputs, radius=…)`` takes one radius per
            example, shape (N,), as all attacks of this package do. The attack decides whether the
            prediction must stay.
        success (Callable, optional): ``success(attributions, reference_attributions)``, true where
            the explanation of an example is broken, shape (N,) bool; for example ``lambda maps,
            reference: precision_at_k(maps, reference, k=8) <= 0.5``. Default: any of the top k
            features was lost, for the k of the attack.
        lower (float, optional): lower end of the search; every result exceeds it. Default: 0.
        upper (float, optional): the largest radius, above ``lower``. Default: 1.
        n_radii (int, optional): number of increasing radii. Default: 4.
        n_bisections (int, optional): halvings of the step in which an explanation breaks.
            Default: 8.
        attribution (Attribution, optional): attribution that is evaluated. Default: that of the
            attack; with another one, the attack is a transfer attack.

    Raises:
        ValueError: for arguments outside their ranges, and where the attack has no attribution or
            no k and none is given.

    Examples::

        >>> from captum.attr import Saliency
        >>> from captum_robust.robust import ERAttack
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 2))
        >>> x, attack = torch.randn(3, 6), ERAttack(Saliency(model), k=2)
        >>> radius, moved = MinRadius(attack, upper=2.0).evaluate(x, 1, return_perturbed=True)
        >>> bool(((moved - x).abs().amax(dim=1) <= radius).all()), radius.shape
        (True, torch.Size([3]))
        >>> half = lambda maps, reference: precision_at_k(maps, reference, k=2) <= 0.5
        >>> bool((MinRadius(attack, half, upper=2.0).evaluate(x, 1) >= radius).all())
        True
    """

    def __init__(
        self,
        attack: Perturbation,
        success: Success | None = None,
        lower: float = 0.0,
        upper: float = 1.0,
        n_radii: int = 4,
        n_bisections: int = 8,
        attribution: Attribution | None = None,
    ) -> None:
        if not 0 <= lower < upper < math.inf:
            raise ValueError(
                f"lower and upper must be 0 <= lower < upper, both finite, got {lower} and {upper}"
            )
        check_count("n_radii", n_radii, 1)
        check_count("n_bisections", n_bisections, 0)
        scored = getattr(attack, "attribution", None) if attribution is None else attribution
        if scored is None:
            raise ValueError(f"attribution must be given: {type(attack).__name__} has none")
        self.attack = attack
        self.success = _top_changed(attack) if success is None else success
        self.lower = lower
        self.upper = upper
        self.n_radii = n_radii
        self.n_bisections = n_bisections
        self.attribution = scored

    @overload
    def evaluate(
        self, inputs: Inputs, *args: Any, return_perturbed: Literal[False] = ..., **kwargs: Any
    ) -> Tensor: ...

    @overload
    def evaluate(
        self, inputs: Inputs, *args: Any, return_perturbed: Literal[True], **kwargs: Any
    ) -> tuple[Tensor, Any]: ...

    @log_usage(part_of_slo=False)  # type: ignore[untyped-decorator]
    def evaluate(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: Any = None,
        seed: int | None = None,
        max_examples_per_batch: int | None = None,
        show_progress: bool = False,
        return_perturbed: bool = False,
        **kwargs: Any,
    ) -> Any:
        r"""Find the smallest radius of every example.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0.
            target: output that is explained, in any of Captum's forms.
            additional_forward_args: further arguments of the model, as in Captum.
            seed (int, optional): seed of the attack and of the attribution's own randomness, the
                same at every radius. None: fresh entropy.
            max_examples_per_batch (int, optional): examples attacked and explained at once. Never
                changes the result. Default: all.
            show_progress (bool, optional): show a progress bar over the radii. Default: False.
            return_perturbed (bool, optional): also return the perturbed inputs. Default: False.
            **kwargs: those that ``attack.perturb`` names (``norm``, ``step_num``, ``mask``, …) go
                to the attack; all others to ``attribution.attribute``, and to the attack where it
                explains the same attribution.

        Returns:
            - **radius** (*Tensor*): in (lower, upper], shape (N,). inf where no radius breaks the
              explanation. NaN where the example or its map is not finite, the map is constant, or
              ``upper``, bounds and mask leave no other point;
              also where this holds for a perturbed input and no radius breaks the explanation.
            - **perturbed** (*Tensor* or *tuple[Tensor, ...]*): if ``return_perturbed``: inputs
              within the radius whose explanation is broken; the example itself where the radius is
              inf or NaN.

        Raises:
            ValueError: for arguments outside their ranges, and where no example can move.

        Warns:
            UnmovedWarning: if some of the examples cannot move.
        """
        centre = tuple(t.detach().clone() for t in as_tuple(inputs))
        if len(centre[0]) == 0:
            raise ValueError("inputs must hold at least one example, got none")
        if max_examples_per_batch is not None:
            check_count("max_examples_per_batch", max_examples_per_batch, 1)
        seed = resolve_seed(seed)
        model_arguments = {"target": target, "additional_forward_args": additional_forward_args}
        named = options_of(self.attack)
        own = {n: v for n, v in kwargs.items() if n not in named}
        explained = {**own, **{n: v for n, v in model_arguments.items() if v is not None}}
        scorer = Scorer(self.attribution, explained, seed, max_examples_per_batch)
        of_attack = {n: v for n, v in kwargs.items() if n in named}
        if getattr(self.attack, "attribution", None) is self.attribution:
            of_attack |= own
        offered = {
            **model_arguments, "seed": seed, "max_examples_per_batch": max_examples_per_batch,
        }  # fmt: skip
        start = {"start"} & named

        pinned = self._pinned(inputs, self.upper, of_attack)
        check_moved(pinned, "upper")
        reference = scorer.maps(format_like(inputs, centre))
        unranked = self._unranked(reference) | non_finite_rows(centre) | pinned
        search = Bisection(
            centre, unranked, self.lower, self.upper, self.n_radii, self.n_bisections
        )
        with tqdm(
            total=self.n_radii + self.n_bisections, disable=not show_progress, unit="radius"
        ) as bar:
            while bool(search.active.any()):
                if search.start is not None:
                    offered |= {name: format_like(inputs, search.start) for name in start}
                points = self._perturbed(format_like(inputs, centre), search, of_attack, offered)
                maps = scorer.maps(points)
                search.note(as_tuple(points), self._broken(maps, reference), self._unranked(maps))
                bar.update()
        if return_perturbed:
            return search.result(), format_like(inputs, search.best)
        return search.result()

    def _perturbed(
        self, inputs: Inputs, search: Bisection, of_attack: dict[str, Any], offered: dict[str, Any]
    ) -> Inputs:
        """Return the result of the attack at the radii under search.

        At a small radius there may be no other point of the dtype, and nothing to attack.
        """
        if bool(self._pinned(inputs, search.radius, of_attack).all()):
            return inputs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnmovedWarning)
            return call_attack(self.attack, inputs, search.radius, of_attack, offered)[0]

    def _pinned(self, inputs: Inputs, radius: float | Tensor, of_attack: dict[str, Any]) -> Tensor:
        """Return examples without another point within a radius; (N,) bool."""
        tensors = as_tuple(inputs)
        if not all(t.is_floating_point() for t in tensors):
            return torch.zeros(len(tensors[0]), dtype=torch.bool, device=tensors[0].device)
        norm = of_attack.get("norm", "Linf")
        return pinned_by(self.attack, of_attack, inputs, radius, norm)

    def _broken(self, maps: Inputs, reference: Inputs) -> Tensor:
        broken = self.success(maps, reference)
        n_examples = len(as_tuple(maps, "attributions")[0])
        if not isinstance(broken, Tensor) or (broken.dtype, tuple(broken.shape)) != (
            torch.bool,
            (n_examples,),
        ):
            got = (
                f"{broken.dtype} of shape {tuple(broken.shape)}"
                if isinstance(broken, Tensor)
                else type(broken).__name__
            )
            raise ValueError(
                f"success must return a bool Tensor of shape ({n_examples},), got {got}"
            )
        return broken

    def _unranked(self, maps: Inputs) -> Tensor:
        """Return which maps are not finite or constant, as the attack ranks them; (N,) bool."""
        return invalid_rows(padded_scores(maps, *_ranking_of(self.attack))[0])


def _top_changed(attack: Perturbation) -> Success:
    k = getattr(attack, "k", None) or getattr(getattr(attack, "objective", None), "k", None)
    if k is None:
        raise ValueError(f"success must be given: {type(attack).__name__} has no k")
    if not (hasattr(attack, "absolute") and hasattr(attack, "feature_mask")):
        raise ValueError(
            f"success must be given: {type(attack).__name__} does not say what it ranks, by "
            "attributes absolute and feature_mask"
        )
    feature_mask, absolute = _ranking_of(attack)
    return lambda maps, reference: precision_at_k(maps, reference, k, absolute, feature_mask) < 1


def _ranking_of(attack: Perturbation) -> tuple[Inputs | None, bool]:
    """Return the feature mask of an attack, and whether the attack ranks magnitudes."""
    return getattr(attack, "feature_mask", None), getattr(attack, "absolute", False)
