"""Every picture against a stored one.

`python -m tests.visualization.test_images` writes the stored ones anew: look at them before you
commit them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib
import pytest
from matplotlib.testing.compare import compare_images

from tests.visualization.pictures import PICTURES

REFERENCE = Path(__file__).parent / "reference"
#: Other releases draw text and ticks a little differently.
VERSION = "3.11.2"
#: Root mean square over the pixels, of 255. The same release draws the same pixels, up to rounding.
TOLERANCE = 0.3

pytestmark = pytest.mark.skipif(
    matplotlib.__version__ != VERSION,
    reason=f"the stored pictures were drawn by matplotlib {VERSION}, not {matplotlib.__version__}",
)


def difference(name: str, folder: Path, wrong: bool = False) -> str | None:
    """What compare_images says of a fresh picture and the stored one."""
    expected, actual = folder / "expected.png", folder / "actual.png"
    shutil.copy(REFERENCE / f"{name}.png", expected)
    figure, _ = PICTURES[name](wrong)
    figure.savefig(actual, dpi=60)
    return compare_images(str(expected), str(actual), TOLERANCE)


@pytest.mark.parametrize("name", PICTURES)
def test_it_looks_as_it_did(name: str, tmp_path: Path) -> None:
    assert difference(name, tmp_path) is None


@pytest.mark.parametrize("name", PICTURES)
def test_a_wrong_picture_is_noticed(name: str, tmp_path: Path) -> None:
    said = difference(name, tmp_path, wrong=True)
    assert said is not None and "RMS" in said


def test_every_stored_picture_is_compared() -> None:
    assert {path.stem for path in REFERENCE.glob("*.png")} == set(PICTURES)


if __name__ == "__main__":
    matplotlib.style.use("default")
    for name, draw in PICTURES.items():
        draw()[0].savefig(REFERENCE / f"{name}.png", dpi=60)
