"""The flags of attacks as warnings in plain words, with what to do about each."""

from typing import NamedTuple

from captum_robust.robust.flags import FLAGS

__all__ = ["FLAG_TEXTS", "FlagText", "text_of"]


class FlagText(NamedTuple):
    """A flag as a warning.

    Attributes:
        title: the warning in a clause.
        text: its meaning, and what to do about it.
        decisive: whether an attack that finds nothing proves nothing under this flag.
    """

    title: str
    text: str
    decisive: bool = False


FLAG_TEXTS = {
    "zero_gradient": FlagText(
        "The gradient of the attribution is zero",
        "The second derivative is zero, as in networks of the ReLU family, so gradient attacks do "
        "not move. All attacks together also use smoothed networks, finite differences and random "
        "search: trust their numbers and not those of the published attack.",
        decisive=True,
    ),
    "non_finite_gradient": FlagText(
        "Gradients were not finite",
        "Some gradients were NaN or infinite and gave no step, so the attack is weaker on these "
        "rows.",
        decisive=True,
    ),
    "still_falling": FlagText(
        "The attack had not converged",
        "The worst point was found in the last step. More steps may find worse.",
    ),
    "label_flips_rejected": FlagText(
        "Larger changes lie beyond the decision boundary",
        "A larger change was found, but with another prediction, and was not counted. These rows "
        "are close to the decision boundary.",
        decisive=True,
    ),
    "training_mode": FlagText(
        "The model is in training mode",
        "Dropout or batch normalisation makes attributions depend on chance, or on the other rows: "
        "call model.eval().",
        decisive=True,
    ),
    "randomised": FlagText(
        "The attribution is random",
        "The attack was against one draw, fixed by the seed. Another seed gives another "
        "attribution and another result.",
        decisive=True,
    ),
    "float16_underflow": FlagText(
        "Half precision is too coarse",
        "The ranking is decided among values that half precision cannot distinguish: explain in "
        "float32.",
        decisive=True,
    ),
    "tied_reference": FlagText(
        "The top set is not unique",
        "The last feature of the top set ties with the next one, as zeros do; which of them is in "
        "the set is a convention, and any change may swap them. The verdict leaves these rows out.",
    ),
    "black_box_beats_white_box": FlagText(
        "Random search found more than gradients",
        "The gradients do not point to where the attribution changes. What was found is real; what "
        "was not found means less.",
    ),
    "not_attacked": FlagText(
        "No attack was made",
        "The budget of attributions allows no attack on these rows, so their result says nothing.",
        decisive=True,
    ),
    "unconstrained_attack_fails": FlagText(
        "Even a much larger ball changes nothing",
        "Ten times the radius, without regard to bounds and prediction, changes nothing. Either "
        "the attribution is constant, as that of a linear model is, or the attack cannot see how "
        "it changes.",
        decisive=True,
    ),
    "unmoved": FlagText(
        "The attack returned the row itself",
        "No change was found, so the row was returned. Both a stable attribution and an attack "
        "that cannot move look like this.",
    ),
    "outside_ball": FlagText(
        "The attack left the ball",
        "Perturbed rows are further away than the radius; the numbers are about a larger ball.",
        decisive=True,
    ),
}


def text_of(flag: str) -> FlagText:
    """Return the text of a flag; of an unknown one, its name."""
    return FLAG_TEXTS.get(flag, FlagText(flag.replace("_", " "), FLAGS.get(flag, "")))
