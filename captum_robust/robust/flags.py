"""Reasons for caution about the result of an attack, with the number of examples concerned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["FLAGS", "Flag", "count_flags", "flag_called"]


class Flag(NamedTuple):
    """One reason for caution.

    Attributes:
        meaning: the observation, in one sentence.
        title: the same in a few words, for a report.
        text: what it means for the reader of a report, and what to do.
        decisive: whether an attack that finds nothing proves nothing under this flag, so that the
            verdict of an audit is undecided.
    """

    meaning: str
    title: str
    text: str
    decisive: bool = False

    def __str__(self) -> str:
        return self.meaning


#: Every flag by its name. The value of a flag in the info of an attack is the number of examples
#: that it concerns.
FLAGS: Mapping[str, Flag] = {
    "zero_gradient": Flag(
        "the gradient of the objective is exactly zero: gradient steps do not move, which proves "
        "nothing (the second derivative of networks of the ReLU family is zero)",
        "The gradient of the attribution is zero",
        "The second derivative is zero, as in networks of the ReLU family, so gradient attacks do "
        "not move. All attacks together also use smoothed networks, finite differences and random "
        "search: trust their numbers and not those of the published attack.",
        decisive=True,
    ),
    "non_finite_gradient": Flag(
        "a gradient was NaN or infinite, and no step was taken along it",
        "Gradients were not finite",
        "Some gradients were NaN or infinite, and no step was taken along them, so the attack is "
        "weaker on these rows.",
        decisive=True,
    ),
    "no_second_derivative": Flag(
        "an operation of the network has no second derivative in torch: attacks along the gradient "
        "of the map were left out",
        "The network has no second derivative",
        "An operation of the network, such as a distance or a fused attention kernel, has no "
        "second derivative, so only attacks by finite differences, random probes and random search "
        "were made: they are weaker.",
        decisive=True,
    ),
    "still_falling": Flag(
        "the best point is that of the last step: more steps may find more",
        "The attack had not converged",
        "The worst point was found in the last step. More steps may find worse.",
    ),
    "label_flips_rejected": Flag(
        "a worse explanation was found, but with another prediction, and was not returned",
        "Larger changes lie beyond the decision boundary",
        "A larger change was found, but with another prediction, and was not counted. These rows "
        "are close to the decision boundary.",
        decisive=True,
    ),
    "training_mode": Flag(
        "the output of the model depends on chance or on the other examples, as with dropout or "
        "batch normalisation in training mode; call model.eval()",
        "The model is in training mode",
        "Dropout or batch normalisation makes attributions depend on chance, or on the other "
        "rows: call model.eval().",
        decisive=True,
    ),
    "randomised": Flag(
        "the map draws random numbers: the attack is against the map of one seed, the same for the "
        "example and for every point; compare its precision with noise_floor",
        "The attribution is random",
        "The attack was against the attribution of one seed, and that of another seed differs "
        "without any perturbation. Compare the result with the noise floor, the P@k of two seeds "
        "on the same row, and with the mean over other seeds.",
        decisive=True,
    ),
    "float16_underflow": Flag(
        "the ranking is decided among values too small for half precision",
        "Half precision is too coarse",
        "The ranking is decided among values that half precision cannot distinguish: explain in "
        "float32.",
        decisive=True,
    ),
    "tied_reference": Flag(
        "the k-th feature of the unperturbed map ties with the next: which of them is in the top "
        "k is a convention, and any change may swap them",
        "The top set is not unique",
        "The last feature of the top set ties with the next one, as zeros do; which of them is in "
        "the set is a convention, and any change may swap them. The verdict leaves these rows "
        "out.",
    ),
    "black_box_beats_white_box": Flag(
        "random search found less precision than every gradient: the gradients are masked",
        "Random search found more than gradients",
        "The gradients do not point to where the attribution changes. The changes found are real, "
        "but rows without a change may still be unstable.",
    ),
    "not_attacked": Flag(
        "the budget allows fewer than five steps along a gradient, so the stability of the map was "
        "not tested",
        "No attack was made",
        "The budget allows only random draws and less than five steps along a gradient on these "
        "rows, so their stability was not tested.",
        decisive=True,
    ),
    "time_over": Flag(
        "the time ended before all attacks were made: a faster machine may find more",
        "The time ended before all attacks",
        "The time that was given ended before all attacks were made on these rows. More time, or a "
        "faster machine, may find more.",
    ),
    "unconstrained_attack_fails": Flag(
        "even ten times the radius, without bounds and for any prediction, does not change the top "
        "features: the map is constant (a linear model), or the attack cannot find its changes",
        "Even a much larger ball changes nothing",
        "Ten times the radius, without bounds and for any prediction, changes nothing. Either the "
        "attribution is constant, as that of a linear model is, or the attack cannot find its "
        "changes.",
        decisive=True,
    ),
    "unmoved": Flag(
        "the attack returned the example itself",
        "The attack returned the row itself",
        "No change was found, so the row was returned. Either the attribution is stable, or the "
        "attack failed.",
    ),
    "unmovable": Flag(
        "no feature can move: the radius is below the spacing of the floating point numbers, or "
        "bounds and mask leave no other point; the precision is NaN",
        "Rows that cannot move",
        "The radius is below the spacing of the floating point numbers, or bounds and mask leave "
        "no other point. These rows were not tested.",
        decisive=True,
    ),
    "outside_ball": Flag(
        "the attack returned a point that is further from the example than the radius",
        "The attack left the ball",
        "Perturbed rows are further away than the radius; the numbers are about a larger ball.",
        decisive=True,
    ),
}


def flag_called(name: str) -> Flag:
    """Return the flag of this name; for an unknown name, a flag without texts."""
    return FLAGS.get(name, Flag("", name.replace("_", " "), ""))


def count_flags(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the flags that concern at least one example, in the order of :data:`FLAGS`.

    Raises:
        KeyError: for a flag that the table does not explain.
    """
    raised = sorted((name for name in counts if counts[name] > 0), key=_PLACES.__getitem__)
    return {name: counts[name] for name in raised}


_PLACES = {name: place for place, name in enumerate(FLAGS)}
