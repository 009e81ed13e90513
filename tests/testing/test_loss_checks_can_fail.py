"""Every check of losses catches a loss that breaks its rule, and passes others."""

import random
import warnings

import pytest
import torch
from torch import nn

from captum_robust._utils.captum import as_tuple
from captum_robust.attr import NotDifferentiableError
from captum_robust.loss import R2ETLoss
from captum_robust.testing import LOSS_RULES, loss_checks, small_models
from tests.testing.subjects import failing, first_of_each

MODELS = [m for m in small_models() if m.name in ("mlp_tanh", "norm_and_dropout")]
CHECKS = first_of_each(loss_checks(models=MODELS))


class Sound(nn.Module):
    """R2ET, spoilt by what a subclass does to the model, the arguments or the value."""

    def __init__(self, model):
        super().__init__()
        self.__dict__["model"] = model  # not a submodule
        self.__dict__["inner"] = R2ETLoss(model, k=2)

    def before(self, inputs, target):
        return inputs, target

    def after(self, loss, inputs):
        return loss

    def forward(self, inputs, target, **arguments):
        given, target = self.before(inputs, target)
        return self.after(self.inner(given, target, **arguments), inputs)


class OneValueAnExample(Sound):
    def after(self, loss, inputs):
        return loss.expand(1)


class RegistersTheModel(Sound):
    def __init__(self, model):
        super().__init__(model)
        self.registered = model


class ForgetsALayer(Sound):
    def before(self, inputs, target):
        return inputs, target

    def forward(self, inputs, target, **arguments):
        first = next(self.model.parameters())
        first.requires_grad_(False)
        try:
            return self.inner(inputs, target, **arguments)
        finally:
            first.requires_grad_()


class ScalesItsGradient(Sound):
    def after(self, loss, inputs):
        return 1.1 * loss - 0.1 * loss.detach()


class ScalesItsGradientInTrainingMode(Sound):
    def after(self, loss, inputs):
        return 1.1 * loss - 0.1 * loss.detach() if self.model.training else loss


class Climbs(Sound):
    def after(self, loss, inputs):
        return 2 * loss.detach() - loss


class AddsNoise(Sound):
    def after(self, loss, inputs):
        return loss + 0.1 * FORGOTTEN.random()


FORGOTTEN = random.Random(0)


class DrawsNumbers(Sound):
    def before(self, inputs, target):
        random.random()
        return inputs, target


class LooksAtTheFirstExample(Sound):
    def after(self, loss, inputs):
        return loss + 0.1 * as_tuple(inputs)[0][0].sum()


class LeavesGradients(Sound):
    def before(self, inputs, target):
        self.model.zero_grad()
        return inputs, target


class UnfreezesAfterSuccess(Sound):
    def forward(self, inputs, target, **arguments):
        found = [p.requires_grad for p in self.model.parameters()]
        self.model.requires_grad_(True)
        loss = self.inner(inputs, target, **arguments)
        for p, was in zip(self.model.parameters(), found, strict=True):
            p.requires_grad_(was)
        return loss


class LooksTwice(Sound):
    def before(self, inputs, target):
        with torch.no_grad():
            self.model(*as_tuple(inputs))
        return inputs, target


class WorksInPlace(Sound):
    def before(self, inputs, target):
        for t in as_tuple(inputs) if isinstance(inputs, torch.Tensor | tuple) else ():
            t.detach().mul_(1)
        return inputs, target


class HidesNaN(Sound):
    def after(self, loss, inputs):
        return loss.nan_to_num(0.0)


class TrainsWithoutItsTerms(Sound):
    def forward(self, inputs, target, **arguments):
        try:
            return self.inner(inputs, target, **arguments)
        except NotDifferentiableError:
            return nn.functional.cross_entropy(self.model(*as_tuple(inputs)), target)


class EndsInTheErrorOfTorch(Sound):
    def forward(self, inputs, target, **arguments):
        try:
            return self.inner(inputs, target, **arguments)
        except NotDifferentiableError as error:
            raise RuntimeError("derivative not implemented") from error


class IsPlainInInferenceMode(Sound):
    def forward(self, inputs, target, **arguments):
        if torch.is_inference_mode_enabled():
            return nn.functional.cross_entropy(self.model(*as_tuple(inputs)), target)
        return self.inner(inputs, target, **arguments)


class DoublesUnderAutocast(Sound):
    def after(self, loss, inputs):
        return 2 * loss if torch.is_autocast_enabled("cpu") else loss


class DoublesInHalfPrecision(Sound):
    def after(self, loss, inputs):
        return 2 * loss if as_tuple(inputs)[0].dtype == torch.bfloat16 else loss


class IsPlainWithoutAGraph(Sound):
    def forward(self, inputs, target, **arguments):
        if not torch.is_grad_enabled():
            return nn.functional.cross_entropy(self.model(*as_tuple(inputs)), target)
        return self.inner(inputs, target, **arguments)


class ReadsMemory(Sound):
    def before(self, inputs, target):
        if isinstance(inputs, torch.Tensor):
            inputs = torch.as_strided(inputs, inputs.shape, torch.empty(inputs.shape).stride())
        return inputs, target


class OverflowsInHalfPrecision(Sound):
    def after(self, loss, inputs):
        half = as_tuple(inputs)[0].dtype == torch.bfloat16
        return loss * (float("inf") if half else 1.0)


class PadsLabels(Sound):
    def before(self, inputs, target):
        n_missing = len(as_tuple(inputs)[0]) - len(target)
        return inputs, torch.cat([target, target.new_zeros(n_missing)])


class RectifiesInItsOwnPackage(Sound):
    def after(self, loss, inputs):
        return loss + torch.relu(torch.zeros_like(loss.detach()))


class DividesByTheGap(Sound):
    def after(self, loss, inputs):
        if self.model.training or as_tuple(inputs)[0].dtype != torch.float64:
            return loss
        with torch.enable_grad():
            leaf = as_tuple(inputs)[0].detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.model(leaf)[:, 0].sum(), leaf)
        ordered = slope.abs().flatten(1).sort(dim=1, descending=True).values
        gap = (ordered[:, 1] - ordered[:, 2]).min()
        return loss + 0 / gap


BROKEN = {
    OneValueAnExample: {"check_returns_a_finite_scalar"},
    RegistersTheModel: {"check_has_no_parameters"},
    ForgetsALayer: {
        "check_gradient_reaches_every_parameter",
        "check_gradient_is_that_of_the_value",
    },
    ScalesItsGradient: {"check_gradient_is_that_of_the_value"},
    ScalesItsGradientInTrainingMode: {"check_gradient_is_that_of_the_value"},
    Climbs: {"check_steps_lower_the_loss", "check_gradient_is_that_of_the_value"},
    AddsNoise: {"check_same_result_again"},
    DrawsNumbers: {"check_same_result_again"},
    LooksAtTheFirstExample: {"check_order_does_not_matter"},
    LeavesGradients: {"check_model_is_left_as_found"},
    UnfreezesAfterSuccess: {"check_model_is_left_as_found_after_an_exception"},
    LooksTwice: {"check_statistics_see_a_batch_once"},
    WorksInPlace: {"check_inputs_are_not_modified"},
    HidesNaN: {"check_broken_rows_are_not_hidden"},
    IsPlainWithoutAGraph: {"check_works_without_a_graph"},
    ReadsMemory: {"check_noncontiguous_inputs"},
    OverflowsInHalfPrecision: {"check_dtypes"},
    PadsLabels: {"check_errors_name_the_argument"},
    RectifiesInItsOwnPackage: {"check_smoothing_changes_no_loss_arithmetic"},
    DividesByTheGap: {"check_ties_give_a_finite_gradient"},
    TrainsWithoutItsTerms: {
        "check_loss_refuses_a_missing_gradient",
        "check_loss_names_a_missing_second_derivative",
    },
    EndsInTheErrorOfTorch: {
        "check_loss_refuses_a_missing_gradient",
        "check_loss_names_a_missing_second_derivative",
    },
    IsPlainInInferenceMode: {"check_loss_in_inference_mode_is_the_same"},
    DoublesUnderAutocast: {"check_autocast_keeps_the_terms"},
    DoublesInHalfPrecision: {"check_half_precision_keeps_the_terms"},
}
# What follows from the fault itself.
FOLLOWS = {
    AddsNoise: {
        "check_gradient_is_that_of_the_value", "check_order_does_not_matter", "check_dtypes",
        "check_works_without_a_graph", "check_noncontiguous_inputs", "check_steps_lower_the_loss",
        "check_smoothing_changes_no_loss_arithmetic",
    },
    LeavesGradients: {"check_model_is_left_as_found_after_an_exception"},
}  # fmt: skip
every_broken_loss = pytest.mark.parametrize("loss", BROKEN, ids=lambda c: c.__name__)


@every_broken_loss
def test_a_broken_loss_is_caught(loss):
    rules = BROKEN[loss]
    assert failing({rule: CHECKS[rule] for rule in rules}, loss) == rules


@pytest.mark.slow
@every_broken_loss
def test_a_broken_loss_is_caught_by_no_other_check(loss):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        others = failing(CHECKS, loss) - BROKEN[loss]
    assert others <= FOLLOWS.get(loss, set())


def test_the_sound_loss_passes():
    assert failing(CHECKS, Sound) == set()


def test_every_rule_is_broken_by_someone():
    assert {rule.name for rule in LOSS_RULES} == set().union(*BROKEN.values())
