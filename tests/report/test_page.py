"""The page as text: nothing from outside is markup, nothing is asked of the network."""

import base64
import hashlib
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from captum_robust._html.page import render
from captum_robust.auditing.page import audit_page
from tests.report import made_up


class Reader(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, str] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        self.text[inside] = self.text.get(inside, "") + data


def page() -> str:
    one = made_up.explanation(
        1, 0.5, 0.5, 0, top_before=((0, 1), (0, 1), (0, 1), (2, 3)),
        top_after=((0, 1), (0, 2), (0, 2), (0, 1)),
    )  # fmt: skip
    return render(audit_page(made_up.audit(one)))


def test_elements_are_closed_in_order() -> None:
    assert Reader(page()).open == []
    assert Reader(render(audit_page(made_up.hostile()))).open == []


def test_what_comes_from_outside_is_text() -> None:
    html = render(audit_page(made_up.hostile()))
    plain = Reader(page())
    found = Reader(html)
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in plain.elements} | {"ul", "li"}
    attributes = {name for _, own in found.elements for name in own}
    assert attributes <= {name for _, own in plain.elements for name in own}
    assert "<script>alert" not in html and "49" not in found.text.get("h1", "")
    assert found.text["h1"] == made_up.HOSTILE
    assert found.text["title"].startswith(made_up.HOSTILE)
    assert made_up.HOSTILE in found.text["code"]


def test_the_policy_allows_the_page_its_own_and_nothing_else() -> None:
    html = page()
    (policy,) = (
        own["content"] for tag, own in Reader(html).elements
        if tag == "meta" and own.get("http-equiv") == "Content-Security-Policy"
    )  # fmt: skip
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_no_address_is_loaded_and_no_style_is_inline() -> None:
    html = page()
    for tag, own in Reader(html).elements:
        assert own.get("style") is None and not any(name.startswith("on") for name in own)
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            assert own.get(name) in (None, "data:,"), f"<{tag} {name}>"
    assert "url(" not in html and "@import" not in html and "http" not in html.replace(
        "http-equiv", ""
    )  # fmt: skip


def test_the_same_audit_is_the_same_bytes(tmp_path: Path) -> None:
    found = made_up.audit(made_up.explanation(1, 0.5))
    for name in ("a.html", "b.html"):
        found.to_html(tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    other = replace(found, date="")
    assert "2026-01-02" in render(audit_page(found))
    assert render(audit_page(other)) == render(audit_page(found)).replace(", 2026-01-02", "")


def test_a_failed_write_leaves_the_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    path.write_text("old", encoding="utf-8")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        made_up.audit(made_up.explanation(1)).to_html(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_jinja2_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from captum_robust._html import page as module

    monkeypatch.setitem(sys.modules, "jinja2", None)
    module._environment.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'captum-robust\[benchmark\]'"):
        page()


def test_the_verdict_comes_first_then_numbers_then_warnings() -> None:
    text = page()
    order = [text.index(word) for word in ("Not stable:", "All attacks<", "<svg", "<h2>Warnings")]
    assert order == sorted(order)


def test_the_numbers_of_the_page_are_those_of_the_audit() -> None:
    text = page()
    assert "3 of 4 rows (75 %) lose" in text and ">0.500<" in text  # P@2 of (1, 0.5, 0.5, 0)
    lines = [re.findall("<span>(.*?)</span>", row) for row in re.findall("<tr.*?</tr>", text, re.S)]
    assert ["age", "3", "3", "1.00", "1"] in lines  # in the top of three rows, and new in another
    assert ["hours", "3", "1", "0.33", "1"] in lines
    assert ["height", "1", "0", "0.00", "2"] in lines
    assert ["3", "0.000", "height, sex", "age, hours", "0.500"] in lines  # the row that lost most
