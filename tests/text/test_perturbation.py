"""Which tokens move, and how far: padding and special tokens never, the others within a ball."""

from __future__ import annotations

import pytest
import torch
from captum.attr import Saliency
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_robust.metrics import precision_at_k_min, ranking_thickness
from captum_robust.robust import AutoERAttack, ERAttack, MinRadius, RandomSearchAttack
from captum_robust.text import EmbeddedModel, TokenNoise, token_ball, token_mask
from tests.text.models import IDS, MASK, recurrent, transformer

SPECIAL = (0, 1, 2)
RADIUS = 0.5
TOKENS = torch.arange(8)[None, :, None]  # one group per token
MOVABLE = token_mask(IDS, MASK, SPECIAL)


def model():
    net = transformer()
    embedded = EmbeddedModel(net, net.tokens)
    return embedded, embedded.embed(IDS).detach()


def arguments():
    return {"target": 1, "additional_forward_args": (IDS, MASK)}


def test_special_tokens_and_padding_are_fixed():
    expected = [[int(i not in SPECIAL) for i in row] for row in IDS.tolist()]
    assert MOVABLE.shape == (3, 8, 1) and MOVABLE[..., 0].int().tolist() == expected
    assert token_mask(IDS).all()
    assert torch.equal(token_mask(IDS, MASK)[..., 0], MASK.bool())
    with pytest.raises(ValueError, match=r"attention_mask must have the shape of ids, \(3, 8\)"):
        token_mask(IDS, MASK[:1])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(0, 10_000),
    st.floats(0, 3),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_the_ball_of_a_token_is_its_nearest_point(seed, radius, dtype):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(2, 3, 4, generator=generator).to(dtype)
    points = (centre + torch.randn(2, 3, 4, generator=generator)).to(dtype)
    radii = torch.tensor([radius, 0.3], dtype=torch.promote_types(dtype, torch.float32))
    found = token_ball(points, centre, radii)
    for example in range(2):
        for token in range(3):
            c, p = centre[example, token].double(), points[example, token].double()
            length, largest = (p - c).norm(), float(radii[example])
            got = found[example, token].double()
            assert (got - c).norm() <= largest
            expected = p if length <= largest else c + (p - c) * largest / length
            # Rounding of each number, away from the ball's edge, and of the length.
            rounding = 2 * torch.finfo(dtype).eps * (1 + float(expected.abs().max()))
            slack = rounding + 16 * torch.finfo(radii.dtype).eps * largest
            assert torch.allclose(got, expected, atol=slack, rtol=0)


@pytest.mark.parametrize("chunk", [None, 1, 2])
@pytest.mark.parametrize("kind", [ERAttack, RandomSearchAttack])
def test_no_token_leaves_its_ball_and_fixed_ones_do_not_move(kind, chunk):
    embedded, embeddings = model()
    radii = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64)
    attack = kind(Saliency(embedded), 3, feature_mask=TOKENS)
    call = {"mask": MOVABLE, "project": token_ball, "step_num": 8, "seed": 0, **arguments()}
    moved = attack.perturb(embeddings, radii, max_examples_per_batch=chunk, **call)
    lengths = (moved - embeddings).norm(dim=-1)
    assert (lengths <= radii[:, None]).all()
    assert ((lengths > 0).any(dim=1)).all() and (lengths[~MOVABLE[..., 0]] == 0).all()
    whole = attack.perturb(embeddings, radii, **call)
    assert torch.allclose(moved, whole, atol=1e-9)


def test_the_ensemble_stays_in_the_balls_whatever_the_chunks():
    embedded, embeddings = model()
    attack = AutoERAttack(Saliency(embedded), 3, feature_mask=TOKENS)
    call = {"mask": MOVABLE, "project": token_ball, "seed": 0, "budget": 100, **arguments()}
    found = []
    for chunk in (None, 2):
        moved, info = attack.perturb(
            embeddings, RADIUS, max_examples_per_batch=chunk, return_info=True, **call
        )
        assert ((moved - embeddings).norm(dim=-1) <= RADIUS).all()
        assert ((moved - embeddings)[~MOVABLE.expand_as(moved)] == 0).all()
        found.append(info.precision)
    assert torch.equal(*found) and found[0].min() < 1


def test_the_smallest_radius_is_that_of_the_tokens():
    embedded, embeddings = model()
    attack = ERAttack(Saliency(embedded), 3, feature_mask=TOKENS)
    radius, moved = MinRadius(attack, upper=2.0, n_radii=3, n_bisections=3).evaluate(
        embeddings, mask=MOVABLE, project=token_ball, step_num=10, seed=0,
        return_perturbed=True, **arguments(),
    )  # fmt: skip
    lengths = (moved - embeddings).norm(dim=-1).amax(dim=1)
    assert radius.isfinite().any() and (lengths <= radius).all()
    # The radius is used, unlike in a smaller ball that happens to be inside.
    assert (lengths > 0.3 * radius)[radius.isfinite()].all()


# --- noise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_noise_is_uniform_in_the_ball_of_each_token(norm):
    centre = torch.zeros(500, 4, 3, dtype=torch.float64)
    centre += torch.arange(500.0)[:, None, None]  # examples that differ draw different noise
    mask = torch.tensor([1, 1, 0, 1])[None, :, None]
    moved = TokenNoise(mask, norm).perturb(centre, 0.5, seed=0) - centre
    lengths = moved.norm(dim=-1) if norm == "L2" else moved.abs().amax(dim=-1)
    assert (moved[:, 2] == 0).all() and (lengths <= 0.5 + 1e-12).all()
    # A length is 0.5 U^(1/3), with mean 0.375 and standard deviation 0.097; 1,500 draws.
    assert lengths[:, [0, 1, 3]].mean() == pytest.approx(0.375, abs=0.0125)
    assert moved.mean(dim=0).abs().max() < 0.07


def test_noise_depends_on_the_example_and_the_seed_alone():
    _, embeddings = model()
    noise = TokenNoise(MOVABLE)
    whole = noise.perturb(embeddings, 0.1, seed=4)
    part = TokenNoise(MOVABLE[1:]).perturb(embeddings[1:], 0.1, seed=4)
    assert torch.equal(whole[1:], part)
    assert not torch.equal(whole, noise.perturb(embeddings, 0.1, seed=5))
    assert not torch.equal(noise.perturb(embeddings, 0.1), noise.perturb(embeddings, 0.1))
    radii = torch.tensor([0.0, 0.1, 0.2])
    lengths = (noise.perturb(embeddings, radii, seed=0) - embeddings).norm(dim=-1).amax(dim=1)
    assert (lengths <= radii + 1e-12).all() and lengths[0] == 0 < lengths[1]


def test_noise_refuses_what_does_not_fit():
    _, embeddings = model()
    with pytest.raises(ValueError, match="norm must be"):
        TokenNoise(norm="L1")
    with pytest.raises(ValueError, match="mask must have shapes that broadcast"):
        TokenNoise(MOVABLE[:2]).perturb(embeddings, 0.1)
    with pytest.raises(ValueError, match="radius must be finite"):
        TokenNoise().perturb(embeddings, -0.1)


def test_metrics_take_the_noise():
    embedded = EmbeddedModel(recurrent())
    embeddings, noise = embedded.embed(IDS).detach(), TokenNoise(MOVABLE)
    call = {"feature_mask": TOKENS, "seed": 0, "target": 1, "additional_forward_args": (IDS,)}
    explain = Saliency(embedded).attribute
    still = ranking_thickness(explain, embeddings, 3, noise, 0.0, 2, 2, **call)
    assert torch.equal(still, torch.ones(3, dtype=torch.float64))
    moved = precision_at_k_min(
        explain, embeddings, 3, perturb_func=noise, perturb_radius=2.0, **call
    )
    assert moved.min() < 1
