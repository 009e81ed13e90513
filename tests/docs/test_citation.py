"""CITATION.cff speaks of this version, and of the paper that the README asks to cite."""

from __future__ import annotations

import re
from pathlib import Path

import captum_robust

ROOT = Path(__file__).parents[2]


def test_citation_names_the_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", text, re.M) == [captum_robust.__version__]


def test_citation_and_readme_name_the_same_authors() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    cited = re.findall(r"family-names: ([^,}]*), given-names: ([^}]*)}", citation)
    authors = " ".join(re.findall(r"author\s*=\s*{([^}]*)}", readme)[0].split()).split(" and ")
    assert [", ".join(names) for names in cited] == authors
