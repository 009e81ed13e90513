"""Flags in plain words: what each means for the reader, and what to do about it."""

from captum_robust._html.blocks import Note
from captum_robust.robust.flags import FLAGS

__all__ = ["PLAIN", "flag_note"]

#: Title and text of each flag.
PLAIN = {
    "zero_gradient": (
        "The map's own gradient is zero",
        "An attack that follows it stands still, and what it reports as stable is not. Networks of "
        "the ReLU family do this. The ensemble goes on with smoothed stand-ins, finite differences "
        "and random search, so trust its numbers and not those of the own gradient.",
    ),
    "non_finite_gradient": (
        "Gradients were not finite",
        "Some gradients were NaN or infinite and gave no step; the attack is weaker there than it "
        "could be.",
    ),
    "still_falling": (
        "The attack had not come to an end",
        "The worst point was found in the last step. More steps may find worse.",
    ),
    "label_flips_rejected": (
        "Worse maps lie beyond the decision boundary",
        "A worse explanation was found, but with another prediction, and was not counted. These "
        "rows are close to the boundary.",
    ),
    "training_mode": (
        "The model is in training mode",
        "Dropout or batch normalisation makes maps depend on chance, or on the other rows: call "
        "model.eval().",
    ),
    "randomised": (
        "The map depends on chance",
        "The attack was against one draw of it, fixed by the seed. With another seed the map, and "
        "the result, is another.",
    ),
    "float16_underflow": (
        "Half precision is too coarse",
        "The ranking is decided among values that half precision cannot tell apart: explain in "
        "float32.",
    ),
    "tied_reference": (
        "The top set is not defined",
        "The last feature of the top set ties with the next one, as with zeros; which of them is "
        "in it is a convention, and any change may swap them. These rows are left out of the "
        "verdict.",
    ),
    "black_box_beats_white_box": (
        "Random search found more than gradients",
        "The gradients are masked: they do not point to where the map changes. What was found is "
        "real; what was not found means less.",
    ),
    "not_attacked": (
        "Nothing was tried",
        "The budget of attributions allows no attack on these rows: that they held says nothing.",
    ),
    "unconstrained_attack_fails": (
        "Not even a much larger ball breaks it",
        "Ten times the radius, without regard to bounds and prediction, changes nothing. Either "
        "the map is constant, as that of a linear model is, or the attack does not see it.",
    ),
    "unmoved": (
        "The attack returned the row itself",
        "Nothing worse was found, so the row was left as it is. That is how stability looks, and "
        "how a blind attack looks.",
    ),
    "outside_ball": (
        "The attack left the ball",
        "Perturbed rows lie further away than the radius; the numbers are about a larger ball.",
    ),
}


def flag_note(flag: str, where: str) -> Note:
    """The note on a flag; ``where`` says which rows of which attack it concerns."""
    title, text = PLAIN.get(flag, (flag.replace("_", " "), FLAGS.get(flag, "")))
    return Note(f"{title} ({where})", text)
