"""Brain networks: ADHD-200 by diagnosis and by site, the sets of TUDataset, made-up ones."""

from __future__ import annotations

import hashlib
import itertools
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from captum_robust.datasets import (
    BrainGraphs,
    brain,
    load_adhd200,
    load_adhd200_site,
    load_tu_brain,
    synthetic_connectomes,
)
from tests.datasets.conftest import DATA
from tests.datasets.graph_files import KKI, adhd_folder, kki_folder


def subjects(graphs: BrainGraphs) -> list[int]:
    """The subject of each graph, as encoded in its first edge."""
    return graphs.edges.argmax(dim=1).tolist()


def test_the_diagnosis(tmp_path: Path) -> None:
    graphs = load_adhd200(adhd_folder(tmp_path))
    assert (graphs.name, graphs.n_nodes, len(graphs)) == ("adhd200", 190, 6)
    assert subjects(graphs) == [0, 1, 2, 3, 4, 5]
    assert graphs.targets.tolist() == [0, 1, 0, 0, 1, 0]
    assert (graphs.edges.dtype, graphs.targets.dtype) == (torch.float32, torch.int64)
    assert graphs.edges.sum(dim=1).tolist() == [2] * 6


def test_the_diagnosis_at_a_site(tmp_path: Path) -> None:
    graphs = load_adhd200(adhd_folder(tmp_path), site="Peking_1")
    assert (graphs.name, subjects(graphs)) == ("adhd200-Peking_1", [2, 4])
    assert graphs.targets.tolist() == [0, 1]
    with pytest.raises(ValueError, match="site: got 'Mars', accepted: one of KKI, NYU, Peking_1"):
        load_adhd200(tmp_path, site="Mars")


def test_the_site_of_the_typically_developing(tmp_path: Path) -> None:
    graphs = load_adhd200_site(adhd_folder(tmp_path))
    assert (graphs.name, subjects(graphs)) == ("adhd200-site", [0, 2, 3])
    assert graphs.targets.tolist() == [0, 1, 0]
    other = load_adhd200_site(tmp_path, sites=("KKI", "NYU"))
    assert (subjects(other), other.targets.tolist()) == ([0, 3, 5], [1, 1, 0])
    with pytest.raises(ValueError, match=r"sites: got \('NYU', 'NYU'\), accepted: two different"):
        load_adhd200_site(tmp_path, sites=("NYU", "NYU"))


def test_the_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brain").mkdir()
    adhd_folder(tmp_path / "brain")
    kki_folder(tmp_path / "brain" / "KKI")
    monkeypatch.setenv("CAPTUM_ROBUST_DATA", str(tmp_path))
    assert len(load_adhd200()) == 6
    assert len(load_tu_brain("KKI")) == 2


def test_says_in_one_line_that_it_cannot_be_downloaded(tmp_path: Path) -> None:
    message = r"^adhd200_cc200_fc10\.npz: not published in this form; .*CAPTUM_ROBUST_DATA a folder"
    with pytest.raises(FileNotFoundError, match=message) as caught:
        load_adhd200()
    assert "\n" not in str(caught.value)
    for arguments in ({}, {"root": tmp_path}):
        with pytest.raises(FileNotFoundError, match=r"OHSU\.zip.*TUDataset\(root, 'OHSU'\)") as e:
            load_tu_brain("OHSU", **arguments)
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"triu": np.zeros((6, 9), np.uint8)}, r"\(6, 9\).* accepted: \(N, 17955\)"),
        ({"y": np.zeros(5, np.uint8)}, r"\(5,\), \(6,\)\] .*accepted"),
        ({"n_nodes": np.array(116)}, "for 116 nodes, accepted: .* for 190"),
        ({"n_nodes": np.array([1, 2])}, "damaged file"),
        ({"site": np.array("NYU")}, "accepted"),
        ({"y": np.array([0, 1, 2, 0, 0, 0])}, r"y\[2\]: got 2, accepted: 0 or 1"),
        ({"triu": np.full((6, 17955), 3, np.uint8)}, r"triu\[0, 0\]: got 3, accepted: 0 or 1"),
        ({"site": np.array([None] * 6)}, "damaged file"),  # a pickle
    ],
)
def test_refuses_a_malformed_archive(
    changes: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"adhd200_cc200_fc10\.npz.*{message}"):
        load_adhd200(adhd_folder(tmp_path, **changes))


@pytest.mark.parametrize("size", [0, 100, -100])
def test_refuses_an_archive_that_breaks_off(size: int, tmp_path: Path) -> None:
    file = adhd_folder(tmp_path) / "adhd200_cc200_fc10.npz"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(
        ValueError, match=r"fc10\.npz: got a damaged file .*accepted: one with triu"
    ):
        load_adhd200(tmp_path)


def check_kki(graphs: BrainGraphs) -> None:
    assert (graphs.name, graphs.n_nodes) == ("KKI", 190)
    assert graphs.targets.tolist() == [1, 0]
    expected = torch.zeros(2, 190, 190)
    for graph, one, other in ((0, 189, 3), (0, 3, 7), (1, 0, 1)):
        expected[graph, one, other] = expected[graph, other, one] = 1
    assert torch.equal(graphs.adjacency(), expected)


class TestTU:
    @pytest.mark.parametrize("place", [".", "KKI", "KKI/raw", "brain", "brain/KKI"])
    def test_edges_go_to_their_regions(self, place: str, tmp_path: Path) -> None:
        kki_folder(tmp_path / place)
        check_kki(load_tu_brain("KKI", tmp_path))

    def test_a_zip(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "KKI.zip", "w") as archive:
            for part, text in KKI.items():
                archive.writestr(f"KKI/KKI_{part}.txt", text)
        check_kki(load_tu_brain("KKI", tmp_path))

    def test_regions_counted_from_1(self, tmp_path: Path) -> None:
        kki_folder(tmp_path, node_labels="190\n4\n8\n1\n2\n")
        check_kki(load_tu_brain("KKI", tmp_path))

    def test_an_edge_in_one_direction_will_do(self, tmp_path: Path) -> None:
        kki_folder(tmp_path, A="1,2\n3,2\n4, 5")
        check_kki(load_tu_brain("KKI", tmp_path))

    @pytest.mark.parametrize(
        ("part", "text", "message"),
        [
            ("A", "1, 2\n1, 9\n", r", line 2: got \(1, 9\), accepted: nodes from 1 to 5"),
            ("A", "0, 2\n", r", line 1: got \(0, 2\), accepted: nodes from 1 to 5"),
            ("A", "1, 2\n3, 4\n", ", line 2: got .*accepted: two different nodes of one graph"),
            ("A", "2, 2\n", ", line 1: got .*accepted: two different nodes of one graph"),
            ("A", "1, 2\n\n3, 2\n", ", line 2: got '', accepted: 2 whole numbers"),
            ("A", "1 2\n", ", line 1: got '1 2', accepted: 2 whole numbers"),
            ("A", "1, 2, 3\n", ", line 1: got .*accepted: 2 whole numbers"),
            ("A", "1, 2.0\n", ", line 1: got .*accepted: 2 whole numbers"),
            ("A", "1, \u0662\n", ", line 1: got .*accepted: 2 whole numbers"),
            ("graph_indicator", "1\n1\n1\n2\n3\n", ", line 5: got 3, accepted: 1 to 2"),
            ("graph_indicator", "1\n1\n1\n2\n0\n", ", line 5: got 0, accepted: 1 to 2"),
            ("graph_indicator", "", ": got no lines, accepted: one or more"),
            ("graph_labels", "1\n", ", line 4: got 2, accepted: 1 to 1"),
            ("graph_labels", "1\n1\n", ": got 1 different labels, accepted: 2"),
            ("graph_labels", "1\n2\n3\n", ": got 3 different labels, accepted: 2"),
            ("node_labels", "189\n3\n7\n0\n", ": got 4 lines, accepted: 5"),
            ("node_labels", "189\n3\n191\n0\n1\n", ", line 3: got 191, accepted: 0 to 189"),
            ("node_labels", "190\n3\n7\n0\n1\n", ", line 4: got 0, accepted: 1 to 190"),
            ("node_labels", "189\n3\n3\n0\n1\n", ", line 3: got 3, accepted: each region once in"),
        ],
    )
    def test_refuses(self, part: str, text: str, message: str, tmp_path: Path) -> None:
        kki_folder(tmp_path, **{part: text})
        # Too few labels show in the file that names the graphs.
        where = "graph_indicator" if message.endswith(" 1 to 1") else part
        with pytest.raises(ValueError, match=rf"KKI_{where}\.txt{message}"):
            load_tu_brain("KKI", tmp_path)

    def test_refuses_bytes(self, tmp_path: Path) -> None:
        (kki_folder(tmp_path) / "KKI_A.txt").write_bytes(b"\xff\xfe")
        with pytest.raises(ValueError, match=r"KKI_A\.txt: got a damaged file"):
            load_tu_brain("KKI", tmp_path)

    def test_names_the_text_that_is_missing(self, tmp_path: Path) -> None:
        (kki_folder(tmp_path) / "KKI_node_labels.txt").unlink()
        with pytest.raises(FileNotFoundError, match=r"root: got .* without .*KKI_node_labels\.txt"):
            load_tu_brain("KKI", tmp_path)

    def test_refuses_an_archive(self, tmp_path: Path) -> None:
        archive = tmp_path / "KKI.zip"
        archive.write_bytes(b"PK")
        with pytest.raises(ValueError, match=r"KKI\.zip: got a damaged file"):
            load_tu_brain("KKI", tmp_path)
        with zipfile.ZipFile(archive, "w") as content:
            content.writestr("KKI/KKI_A.txt", "1, 2\n")
        with pytest.raises(ValueError, match=r"KKI\.zip: got .*without KKI/KKI_graph_indicator"):
            load_tu_brain("KKI", tmp_path)
        with zipfile.ZipFile(archive, "w") as content:
            for part, text in KKI.items():
                content.writestr(f"KKI/KKI_{part}.txt", text)
        archive.write_bytes(archive.read_bytes().replace(b"1, 2\n2", b"1, 3\n2"))
        with pytest.raises(ValueError, match=r"KKI\.zip: got .*with a damaged KKI/KKI_A\.txt"):
            load_tu_brain("KKI", tmp_path)

    def test_refuses_a_name(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="name: got 'MUTAG', accepted: KKI, OHSU, Peking_1"):
            load_tu_brain("MUTAG", tmp_path)  # type: ignore[arg-type]

    def test_equals_the_reader_of_pytorch_geometric(self, tmp_path: Path) -> None:
        from torch_geometric.io import read_tu_data

        data, slices, _ = read_tu_data(str(kki_folder(tmp_path)), "KKI")
        graphs = load_tu_brain("KKI", tmp_path)
        ends = [int(end) for end in slices["edge_index"]]
        counts = [(stop - start) // 2 for start, stop in itertools.pairwise(ends)]
        assert graphs.edges.sum(dim=1).tolist() == counts
        assert graphs.targets.tolist() == data.y.tolist()


class TestGraphs:
    def test_refuses_shapes(self) -> None:
        with pytest.raises(ValueError, match=r"edges: got shape \(2, 4\) for 3 nodes, .* \(N, 3\)"):
            BrainGraphs(torch.zeros(2, 4), torch.zeros(2), 3, "bad")
        with pytest.raises(ValueError, match=r"targets: got shape \(3,\), accepted: \(2,\)"):
            BrainGraphs(torch.zeros(2, 3), torch.zeros(3), 3, "bad")
        with pytest.raises(ValueError, match=r"edges: got shape .* and 2 nodes or more"):
            BrainGraphs(torch.zeros(2, 0), torch.zeros(2), 1, "bad")

    def test_subset(self) -> None:
        graphs = synthetic_connectomes(6, 8).subset(torch.tensor([5, 0]))
        assert graphs.targets.tolist() == [1, 0]
        assert len(graphs) == 2


class TestSynthetic:
    @pytest.mark.parametrize(("n_regions", "count"), [(30, 44), (5, 1), (12, 7)])
    def test_a_tenth_of_the_edges(self, n_regions: int, count: int) -> None:
        graphs = synthetic_connectomes(7, n_regions)
        assert graphs.edges.unique().tolist() == [0, 1]
        assert graphs.edges.sum(dim=1).tolist() == [count] * 7
        assert graphs.targets.tolist() == [0, 1, 0, 1, 0, 1, 0]

    def test_the_classes_differ_in_the_block_alone(self) -> None:
        graphs = synthetic_connectomes(2000, 30)
        inside = graphs.adjacency()[:, :6, :6].sum(dim=(1, 2)) / 2
        share = torch.stack([inside[graphs.targets == c].mean() for c in range(2)])
        assert share[1] > 2 * share[0]
        block = torch.zeros(30, 30, dtype=torch.bool)
        block[:6, :6] = True
        row, column = torch.triu_indices(30, 30, offset=1)
        means = torch.stack([graphs.edges[graphs.targets == c].mean(dim=0) for c in range(2)])
        rest = ~block[row, column]
        # Those outside give way to those inside, which are few.
        assert (means[1] - means[0])[rest].abs().max() < 0.15
        assert (means[1] - means[0])[~rest].max() > 0.5

    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_linear_classifier_learns_it(self, seed: int) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_score

        graphs = synthetic_connectomes(seed=seed)
        scores = cross_val_score(
            LogisticRegression(C=0.1), graphs.edges, graphs.targets, cv=5, scoring="roc_auc"
        )
        assert 0.9 < scores.mean() <= 1

    def test_the_seed_decides(self) -> None:
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        one, again, other = (synthetic_connectomes(8, 10, seed).edges for seed in (1, 1, 2))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002

    @pytest.mark.parametrize(
        "wrong",
        [{"n_graphs": 1}, {"n_regions": 4}, {"seed": -1}],
        ids=lambda wrong: next(iter(wrong)),
    )
    def test_refuses(self, wrong: dict[str, int]) -> None:
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"{name}: got {value}, accepted: .* or more"):
            synthetic_connectomes(**wrong)


def digests(graphs: BrainGraphs) -> tuple[str, str]:
    edges, targets = graphs.edges.byte().numpy(), graphs.targets.numpy()
    return tuple(hashlib.sha256(part.tobytes()).hexdigest() for part in (edges, targets))  # type: ignore[return-value]


def original(*names: str) -> str:
    """The folder of the environment; skips where it lacks the originals."""
    if not DATA or not all((Path(DATA) / "brain" / name).is_file() for name in names):
        pytest.skip(f"CAPTUM_ROBUST_DATA names no folder with {' and '.join(names)} in brain")
    return DATA


@pytest.mark.parametrize(
    ("load", "shape", "ones", "edges", "targets"),
    [
        (
            load_adhd200,
            (520, 17955),
            190,
            "a0be67a5a39d6496ec2e46c46ef54eaf8f0183013e41da3db0ff7be9b5b6417f",
            "9620adb706c001acb0376dd04f759f54cf2d51d63974d4987d802dc0be9a723e",
        ),
        (
            load_adhd200_site,
            (157, 17955),
            61,
            "af41390919492f98c59d946c0624b3c0f8e97d5c5a2b3d4755ee3917b8a48f7d",
            "27084ebc852617b17d1c7581bd9d131748a511b0a466be004e20ac6f6a99b73f",
        ),
    ],
    ids=["diagnosis", "site"],
)
def test_the_original_archive(load, shape, ones, edges, targets) -> None:  # type: ignore[no-untyped-def]
    folder = original("adhd200_cc200_fc10.npz")
    file = Path(folder, "brain", "adhd200_cc200_fc10.npz")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == brain.ORIGINALS[0].sha256
    graphs = load(folder)
    assert graphs.edges.shape == shape
    assert graphs.edges.sum(dim=1).unique().tolist() == [1796]
    assert graphs.targets.sum() == ones
    assert digests(graphs) == (edges, targets)


@pytest.mark.parametrize(
    ("name", "count", "ones", "mean", "edges", "targets"),
    [
        (
            "KKI",
            83,
            46,
            48.42,
            "6c917a86996244fe5be30a69cbc341b12a81ae486f60c1be6e50612e6e9f01b5",
            "cb7290205ca4615aa0db73bc7494b69ad3bad1f6dbf3b1769c1847def4d3a771",
        ),
        (
            "OHSU",
            79,
            44,
            199.66,
            "299c401150d1c09f5953f3d1c7cd21f52ba4a9876db37e1621efab65553ec897",
            "71c04ab697bfc34007694b094e399e647b277df9b750506a48a54fb987d57306",
        ),
        (
            "Peking_1",
            85,
            36,
            77.35,
            "348beaf43fc425b6435d31c01d7605e1ad09cb0707c73d00e4606e87937e6779",
            "b82c0a84ab12b10b2a4c49815969979f8a2766374f37003589e571289617fdb2",
        ),
    ],
)
def test_the_original_zips(name, count, ones, mean, edges, targets) -> None:  # type: ignore[no-untyped-def]
    """Mean numbers of edges are those that TUDataset publishes."""
    graphs = load_tu_brain(name, original(f"{name}.zip"))
    assert graphs.edges.shape == (count, 17955)
    assert graphs.targets.sum() == ones
    assert graphs.edges.sum(dim=1).mean().item() == pytest.approx(mean, abs=0.005)
    assert digests(graphs) == (edges, targets)
