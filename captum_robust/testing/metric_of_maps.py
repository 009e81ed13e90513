"""The rules of a metric that compares two maps."""

from functools import partial

import torch
from torch import Tensor

from captum_robust.testing.fault_injection import refusal
from captum_robust.testing.metric_case import MapsCase
from captum_robust.testing.report import require, require_close
from captum_robust.testing.snapshot import changes, random_state, state_of_tensors

__all__ = [
    "check_broken_rows_give_nan",
    "check_dtypes",
    "check_errors_name_the_argument",
    "check_identical_maps_are_perfect",
    "check_inputs_are_not_modified",
    "check_maps_are_symmetric",
    "check_noncontiguous_inputs",
    "check_one_value_an_example",
    "check_order_does_not_matter",
    "check_tuple_of_maps",
    "check_values_in_range",
]

NAN, INF = float("nan"), float("inf")


def check_one_value_an_example(case: MapsCase) -> None:
    """One floating point value an example, shape (N,), without a graph; none for no examples."""
    value = case.value(case.maps.requires_grad_())
    require(isinstance(value, Tensor), f"returned a {type(value).__name__}")
    require(value.shape == (5,), f"returned shape {tuple(value.shape)} for 5 examples")
    require(value.is_floating_point(), f"returned {value.dtype}")
    require(not value.requires_grad, "the value requires a gradient")


def check_values_in_range(case: MapsCase) -> None:
    """Every value lies in the declared range, also for ties, zeros and opposite maps."""
    maps = case.maps
    tied = (maps * 2).round()
    for other in (case.reference, -maps, tied, maps.where(maps > 0, 0)):
        value = case.value(maps, other)
        found = value[value.isfinite()]
        require(
            ((found >= case.traits.lowest) & (found <= case.traits.highest)).all(),
            f"values {value.tolist()} outside [{case.traits.lowest}, {case.traits.highest}]",
        )


def check_identical_maps_are_perfect(case: MapsCase) -> None:
    """A map compared with itself has the declared perfect value."""
    value = case.value(case.maps, case.maps)
    expected = torch.full_like(value, case.traits.perfect or 0.0)
    require_close(value, expected, f"a map and itself give {value.tolist()}", 1e-6)


def check_maps_are_symmetric(case: MapsCase) -> None:
    """The map and its reference may be exchanged."""
    require_close(
        case.value(), case.value(case.reference, case.maps), "exchanged maps give another value"
    )


def check_broken_rows_give_nan(case: MapsCase) -> None:
    """A row with NaN or infinity, and a constant one where a ranking is needed, gives NaN alone.

    Broken input never scores as stable: not in the map, not in the reference, not in both.
    """
    whole = case.value()
    broken = {"NaN": [0.5, NAN, 1.0, 2.0, 3.0, 4.0], "infinity": [0.5, INF, 1.0, 2.0, 3.0, 4.0]}
    if case.traits.ranks:
        broken |= {"a constant map": [0.3] * 6, "zeros": [0.0] * 6}
    rest = [0, 2, 3, 4]
    for name, row in broken.items():
        maps, reference = case.maps, case.reference
        maps[1] = reference[1] = torch.tensor(row, dtype=maps.dtype)
        for found in (case.value(maps), case.value(None, reference), case.value(maps, reference)):
            require(found[1].isnan(), f"{name} in a map gives {float(found[1])}")
        require_close(case.value(maps)[rest], whole[rest], f"{name} in a map changed other rows")


def check_order_does_not_matter(case: MapsCase) -> None:
    """Every example is scored alike at any place of the batch, and alone."""
    whole = case.value()
    for order in ([3, 1, 4, 0, 2], [2]):
        value = case.value(case.maps[order], case.reference[order])
        require_close(value, whole[order], f"rows {order} have other values")


def check_inputs_are_not_modified(case: MapsCase) -> None:
    """Maps and the global random state are left as found."""
    maps, reference = case.maps, case.reference
    maps[1, 1] = NAN
    tensors = {"attributions": maps, "reference_attributions": reference}
    before = {**state_of_tensors(tensors), **random_state()}
    case.value(maps, reference)
    changed = changes(before, {**state_of_tensors(tensors), **random_state()})
    require(not changed, f"modified: {', '.join(changed)}")


def check_tuple_of_maps(case: MapsCase) -> None:
    """A tuple of maps is scored jointly, (N,) as for one; a tuple of one as that one."""
    whole = case.value()
    value = case.value((case.maps,), (case.reference,))
    require_close(value, whole, "a tuple of one map has another value")
    maps, other = case.maps, case.reference
    split = case.value((maps[:, :2], maps[:, 2:]), (other[:, :2], other[:, 2:]))
    require(split.shape == whole.shape, f"a tuple of two maps gives shape {tuple(split.shape)}")


def check_dtypes(case: MapsCase) -> None:
    """Half precision is computed as float32; float32 and float64 agree."""
    maps, reference = case.maps.bfloat16(), case.reference.bfloat16()
    exact = case.value(maps.double(), reference.double()).double()
    for dtype in (torch.float32, torch.bfloat16):
        value = case.value(maps.to(dtype), reference.to(dtype))
        require_close(value.double(), exact, f"in {dtype} {value.tolist()}", 1e-4)


def check_noncontiguous_inputs(case: MapsCase) -> None:
    """Memory layout does not matter."""
    maps = case.maps.t().contiguous().t()
    reference = torch.stack([case.reference, case.maps], dim=-1)[..., 0]
    require_close(case.value(maps, reference), case.value(), "strided maps have other values")


def check_errors_name_the_argument(case: MapsCase) -> None:
    """Maps of different shapes raise a ValueError that names them, so do k out of range."""
    message = refusal(partial(case.value, case.maps, case.reference[:, :4]))
    require(
        message is not None and ("attributions" in message or "outputs" in message),
        f"maps of shapes (5, 6) and (5, 4) must raise a ValueError that names them, got {message}",
    )
    name = case.traits.k
    for k in (0, 6) if name is not None else ():
        message = refusal(partial(case.value, **{str(name): k}))
        require(
            message is not None and name in message.split(),
            f"{name}={k} must raise a ValueError that names it, got {message}",
        )
