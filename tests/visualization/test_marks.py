"""The marked features are the top-k sets, counted out by brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from captum_robust.graph import upper_triangle
from captum_robust.metrics import precision_at_k
from captum_robust.visualization import (
    visualize_adjacency_rankings,
    visualize_graph_rankings,
    visualize_image_rankings,
    visualize_table_rankings,
)
from tests.visualization.drawn import cells, points, segments, top


def tied(*shape: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps of few different values, of both signs."""
    generator = torch.Generator().manual_seed(seed)
    after, before = torch.randint(-4, 5, (2, *shape), generator=generator).double()
    return after, before


def expected(after: Any, before: Any, k: int) -> dict[str, set[int]]:
    old, new = top(before, k), top(after, k)
    return {"kept": old & new, "lost": old - new, "gained": new - old}


def check_key_and_title(axes: list[Any], sets: dict[str, set[int]], k: int) -> None:
    assert axes[-2].get_title() == "before"
    assert axes[-1].get_title() == f"after: P@{k} = {len(sets['kept']) / k:.3g}"
    for axis, names in ((axes[-2], ("kept", "lost")), (axes[-1], ("kept", "gained"))):
        said = [text.get_text() for text in axis.get_legend().get_texts()]
        assert said == [f"{len(sets[name])} {name}" for name in names]


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_pixels(seed: int, absolute: bool) -> None:
    after, before = tied(5, 7, seed=seed)
    _, axes = visualize_image_rankings(after, before, 9, absolute=absolute, use_pyplot=False)
    maps = [(m.abs() if absolute else m).flatten() for m in (after, before)]
    sets = expected(*maps, 9)
    for axis, names in ((axes[0], ("kept", "lost")), (axes[1], ("kept", "gained"))):
        for name in names:
            assert cells(axis, name) == {divmod(i, 7) for i in sets[name]}
            for line in segments(axis, f"{name} outline"):  # inside the cell that it belongs to
                row, column = (round(c) for c in line.mean(axis=0)[::-1])
                assert (row, column) in cells(axis, name)
            assert len(segments(axis, f"{name} outline")) == 2 * 4 * len(sets[name])
    assert not points(axes[0], "gained") and not points(axes[1], "lost")
    check_key_and_title(axes, sets, 9)
    assert np.array_equal(axes[0].images[0].get_array(), maps[1].view(5, 7))
    assert np.array_equal(axes[1].images[0].get_array(), maps[0].view(5, 7))


def test_channels_are_summed_as_precision_at_k_does_with_a_mask() -> None:
    after, before = tied(4, 4, 3, seed=0)
    for absolute in (False, True):
        _, axes = visualize_image_rankings(after, before, 5, absolute=absolute, use_pyplot=False)
        summed = [(m.abs() if absolute else m).sum(dim=2).flatten() for m in (after, before)]
        sets = expected(*summed, 5)
        assert cells(axes[1], "gained") == {divmod(i, 4) for i in sets["gained"]}
        first = [m.permute(2, 0, 1)[None] for m in (after, before)]
        mask = torch.arange(16).view(1, 4, 4)
        p = precision_at_k(*first, 5, absolute, feature_mask=mask)
        assert axes[1].get_title() == f"after: P@5 = {float(p):.3g}"


def test_super_pixels_are_outlined_along_their_border() -> None:
    # An L, the corner it leaves, and the right half: ids out of order and with a hole.
    mask = torch.tensor([[7, 7, 2, 2], [7, 3, 2, 2], [7, 3, 2, 2]])
    before, after = torch.zeros(3, 4), torch.zeros(3, 4)
    before[mask == 7], before[mask == 3] = 1.0, 0.5
    after[mask == 7], after[mask == 2] = 1.0, 0.5
    _, axes = visualize_image_rankings(after, before, 1, feature_mask=mask, use_pyplot=False)
    assert [len(points(axis, "kept")) for axis in axes] == [1, 1]
    _, axes = visualize_image_rankings(after, before, 2, feature_mask=mask, use_pyplot=False)
    for axis, name, region in (
        (axes[0], "kept", 7), (axes[0], "lost", 3), (axes[1], "gained", 2),
    ):  # fmt: skip
        ((row, column),) = cells(axis, name)
        assert mask[row, column] == region
        inside = {(r, c) for r, c in (mask == region).nonzero().tolist()}
        sides = sum(
            (r + down, c + right) not in inside
            for r, c in inside
            for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0))
        )
        lines = segments(axis, f"{name} outline")
        assert len(lines) == 2 * sides
        # The line is closed: every end is where another begins.
        ends, times = np.unique(
            np.round(np.concatenate(lines[: len(lines) // 2]), 6), axis=0, return_counts=True
        )
        assert len(ends) == sides and (times == 2).all()


@pytest.mark.parametrize("seed", range(4))
def test_bars(seed: int) -> None:
    after, before = tied(12, seed=seed)
    names = [f"feature {i}" for i in range(12)]
    _, axes = visualize_table_rankings(after, before, 4, names, use_pyplot=False)
    sets = expected(after, before, 4)
    check_key_and_title(axes, sets, 4)
    order = [int(label.get_text().split()[1]) for label in axes[0].get_yticklabels()]
    assert order == sorted(range(12), key=lambda i: (-before[i], i))
    for axis, scores, marked in ((axes[0], before, "lost"), (axes[1], after, "gained")):
        assert [bar.get_width() for bar in axis.patches] == [float(scores[i]) for i in order]
        for name in ("kept", marked):
            assert {order[round(y)] for _, y in points(axis, name)} == sets[name]
        coloured = {
            order[i] for i, bar in enumerate(axis.patches) if bar.get_facecolor()[0] != 0.75
        }
        assert coloured == sets["kept"] | sets[marked]
        hatched = {order[i] for i, bar in enumerate(axis.patches) if bar.get_hatch()}
        assert hatched == sets[marked]


def test_of_a_wide_table_both_top_sets_are_shown_and_the_next() -> None:
    generator = torch.Generator().manual_seed(0)
    after, before = torch.rand(2, 100, generator=generator)
    for k in (5, 20):
        _, axes = visualize_table_rankings(after, before, k, use_pyplot=False)
        shown = [int(label.get_text()) for label in axes[0].get_yticklabels()]
        either = top(before, k) | top(after, k)
        assert len(shown) == max(30, len(either)) and either <= set(shown)
        assert shown == sorted(shown, key=lambda i: -before[i])
        rest = [i for i in shown if i not in either]
        assert set(rest) <= top(before, len(rest) + len(either))
        assert axes[0].get_xlabel() == f"{100 - len(shown)} features below are not shown"


def test_groups_of_a_table_are_bars() -> None:
    after, before = tied(6, seed=1)
    mask = torch.tensor([5, 5, 1, 1, 9, 9])
    _, axes = visualize_table_rankings(
        after, before, 1, ["one", "five", "nine"], absolute=True, feature_mask=mask,
        use_pyplot=False,
    )  # fmt: skip
    widths = {
        label.get_text(): bar.get_width()
        for label, bar in zip(axes[0].get_yticklabels(), axes[0].patches, strict=True)
    }
    b = before.abs()
    assert widths == {"five": b[0] + b[1], "one": b[2] + b[3], "nine": b[4] + b[5]}


@pytest.mark.parametrize("seed", range(3))
def test_cells_of_an_adjacency_matrix(seed: int) -> None:
    after, before = tied(15, seed=seed)
    _, axes = visualize_adjacency_rankings(after, before, 4, use_pyplot=False)
    sets = expected(after, before, 4)
    pairs = torch.triu_indices(6, 6, offset=1).T.tolist()
    for axis, names in ((axes[0], ("kept", "lost")), (axes[1], ("kept", "gained"))):
        for name in names:
            assert cells(axis, name) == {tuple(pairs[i]) for i in sets[name]}
    check_key_and_title(axes, sets, 4)
    drawn = torch.tensor(np.ma.filled(axes[0].images[0].get_array(), 0.0))
    assert torch.equal(upper_triangle(drawn[None] + drawn.T[None])[0], before)


def test_a_whole_matrix_is_ranked_as_it_is() -> None:
    after, before = tied(4, 4, seed=0)
    _, axes = visualize_adjacency_rankings(after, before, 5, use_pyplot=False)
    sets = expected(after.flatten(), before.flatten(), 5)
    assert cells(axes[0], "lost") == {divmod(i, 4) for i in sets["lost"]}
    assert cells(axes[1], "gained") == {divmod(i, 4) for i in sets["gained"]}


@pytest.mark.parametrize("sparse", [False, True])
def test_edges_of_a_graph(sparse: bool) -> None:
    generator = np.random.default_rng(0)
    places = generator.random((6, 2))
    ends = np.stack(np.triu_indices(6, 1))
    ends = ends[:, generator.permutation(15)[:9]] if sparse else ends
    after, before = tied(ends.shape[1], seed=3)
    _, axes = visualize_graph_rankings(
        after, before, 3, edge_index=ends if sparse else None, positions=places, use_pyplot=False
    )
    sets = expected(after, before, 3)
    check_key_and_title(axes, sets, 3)
    for axis, names in ((axes[0], ("kept", "lost")), (axes[1], ("kept", "gained"))):
        for name in names:
            lines = {tuple(s.ravel()) for s in segments(axis, f"{name} edges")}
            assert lines == {tuple(places[ends[:, i]].ravel()) for i in sets[name]}
            middles = {tuple(np.round(places[ends[:, i]].mean(axis=0), 9)) for i in sets[name]}
            assert {tuple(np.round(p, 9)) for p in points(axis, name)} == middles


@pytest.mark.parametrize("one_way", [False, True])
def test_an_undirected_edge_is_drawn_and_ranked_once(one_way: bool) -> None:
    """Both directions have the same scores; or one of them has none."""
    ends = np.stack(np.triu_indices(6, 1))
    after, before = 1 + np.random.default_rng(0).random((2, 15))
    both = np.concatenate([ends, ends[::-1]], axis=1)
    order = np.random.default_rng(1).permutation(30)
    twice = [np.concatenate([s, np.where(one_way, 0, s)])[order] for s in (after, before)]
    drawn = [
        visualize_graph_rankings(*maps, 3, edge_index=index, use_pyplot=False)[1]
        for maps, index in (((after, before), ends), (twice, both[:, order]))
    ]
    headings = [[axis.get_title() for axis in axes] for axes in drawn]
    assert headings[0] == headings[1]
    directed = [np.concatenate([s, s - 1e-9])[order] for s in (after, before)]
    drawn.append(
        visualize_graph_rankings(*directed, 3, edge_index=both[:, order], use_pyplot=False)[1]
    )

    def n_edges(axes):
        lines = [line for name in ("kept", "lost") for line in segments(axes[0], f"{name} edges")]
        return len({frozenset(map(tuple, line.round(6).tolist())) for line in lines})

    assert [n_edges(axes) for axes in drawn] == [3, 3, 2]  # three columns of two edges


def test_nodes_stand_on_a_circle_region_by_region() -> None:
    after, before = tied(21, seed=0)
    regions = ["left", "right", "left", "right", "left", "middle", "right"]
    _, axes = visualize_graph_rankings(after, before, 3, node_regions=regions, use_pyplot=False)
    places = axes[0].get_lines()[0].get_xydata()
    assert np.hypot(*places.T) == pytest.approx(1)
    clockwise = (np.arctan2(places[:, 0], places[:, 1]) + 1e-6) % (2 * np.pi)
    assert list(np.argsort(clockwise)) == [0, 2, 4, 1, 3, 6, 5]
    gaps = np.diff(np.sort(clockwise))
    assert gaps[[2, 5]] == pytest.approx(3 * gaps[0])  # two places between regions stay empty
    written = [text.get_text() for text in axes[0].texts]
    assert written == ["left", "right", "middle"]


def test_isolated_nodes_are_drawn() -> None:
    after, before = tied(3, seed=0)
    ends = torch.tensor([[0, 1, 2], [1, 2, 0]])
    _, axes = visualize_graph_rankings(
        after, before, 1, edge_index=ends, node_names=list("abcde"), use_pyplot=False
    )
    assert len(axes[0].get_lines()[0].get_xdata()) == 5
    assert [text.get_text() for text in axes[0].texts] == list("abcde")
