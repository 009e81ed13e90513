"""The gradient of an output: at the inputs, and enclosed over balls around them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from captum_robust._utils.inference import outside_inference_mode, with_gradients
from captum_robust.certify.activations import Activation
from captum_robust.certify.affine import Affine, Symbols
from captum_robust.certify.network import Dense, Network
from captum_robust.noise import Norm

__all__ = ["gradient_at", "gradient_over_ball"]


def gradient_at(network: Network, inputs: Tensor, output: Tensor) -> Tensor:
    """The gradient of the output of each example (N,) at the inputs, by autograd; (N, n)."""
    with outside_inference_mode(), torch.enable_grad():
        inputs, output = with_gradients(inputs).detach().requires_grad_(), with_gradients(output)
        values = inputs
        for layer in network.layers:
            if isinstance(layer, Dense):
                weight, bias = with_gradients((layer.weight, layer.bias))
                values = linear(values, weight, bias)
            else:
                values = layer.module(values)
        (gradient,) = torch.autograd.grad(values.gather(1, output[:, None]).sum(), inputs)
    return gradient


def gradient_over_ball(
    network: Network, inputs: Tensor, output: Tensor, radius: Tensor, norm: Norm
) -> Affine:
    r"""Forms of :math:`\nabla f_{output}` over the balls around ``inputs``; (N, n).

    Forward, every pre-activation :math:`z` becomes a form, and with it the derivative
    :math:`\sigma'(z)`; backward, the chain rule multiplies these. At a small radius the forms are
    exact to first order: what they lose grows with its square.

    Args:
        network: what is differentiated.
        inputs: centres of the balls, shape (N, n), float64.
        output: index of the output of each example, shape (N,).
        radius: radius of each ball, shape (N,), float64.
        norm: ``"Linf"`` or ``"L2"``.
    """
    symbols = Symbols(inputs.shape[1], norm)
    derivatives = _derivatives(network, inputs, radius, symbols)
    one_hot = inputs.new_zeros(len(inputs), network.widths[-1])
    form = Affine.constant(one_hot.scatter(1, output[:, None], 1.0), symbols)
    for layer in reversed(network.layers):
        form = form.linear(layer.weight.T) if isinstance(layer, Dense) else derivatives.pop() * form
    return form


def _derivatives(
    network: Network, inputs: Tensor, radius: Tensor, symbols: Symbols
) -> list[Affine]:
    """The derivative of every activation, in order."""
    first = network.first
    form = Affine.of_ball(first.weight, first.bias, inputs, radius, symbols)
    places = [at for at, layer in enumerate(network.rest) if isinstance(layer, Activation)]
    derivatives: list[Affine] = []
    for at, layer in enumerate(network.rest[: max(places, default=-1) + 1]):
        if isinstance(layer, Dense):
            form = form.linear(layer.weight, layer.bias)
            continue
        low, high = form.centre - form.radius, form.centre + form.radius
        derivatives.append(form.within(layer.derivative(low, high)))
        if at < places[-1]:
            form = form.within(layer.value(low, high))
    return derivatives
