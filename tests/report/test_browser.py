"""The pages in headless Chromium."""

import base64
from pathlib import Path

import pytest

from captum_robust._html.page import write_page
from captum_robust.benchmark.tables.page import run_page
from tests.benchmark_runner.made_up import fill
from tests.report import made_up
from tests.report.conftest import Browser

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An audit of two explanations, one of hostile texts, and a run."""
    folder = tmp_path_factory.mktemp("pages")
    one = made_up.explanation(1, 1, 0.5, 0.5, 0.5, 0, flags={"tied_reference": 2})
    other = made_up.explanation(
        1, 1, 1, 1, 1, 1, name="integrated_gradients", certified=(0.1,) * 6, not_certified=""
    )
    made_up.audit(one, other).to_html(folder / "audit.html")
    made_up.hostile().to_html(folder / "hostile.html")
    write_page(run_page(fill(folder / "run").folder), folder / "run.html")
    return {path.stem: path for path in folder.glob("*.html")}


NAMES = ("audit", "hostile", "run")


@pytest.mark.parametrize("name", NAMES)
def test_it_renders_quietly_and_asks_for_nothing(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    browser.open(pages[name])
    assert browser.run("return document.querySelector('main').innerText.length") > 500
    assert browser.run("return Array.from(document.querySelectorAll('.line'), "
                       "(e) => e.getTotalLength()).every((l) => l > 0)")  # fmt: skip
    assert browser.run("return getComputedStyle(document.body).margin") == "0px"  # the style is on
    for button in browser.run("return Array.from(document.querySelectorAll('button'))"):
        browser.run("arguments[0].click()", button)
    assert browser.complaints() == []
    assert {url for url in browser.requests() if not url.startswith("data:")} == {
        pages[name].resolve().as_uri()
    }


@pytest.mark.parametrize("script", ["fetch('http://127.0.0.1:9/')", "new Function('1')()"])
def test_the_policy_is_enforced(browser: Browser, pages: dict[str, Path], script: str) -> None:
    browser.open(pages["audit"])
    tag = f"const s = document.createElement('script'); s.textContent = {script!r}; "
    browser.run(f"{tag} document.body.append(s)")
    assert any("Content Security Policy" in said for said in browser.complaints())
    assert not [url for url in browser.requests() if url.startswith("http")]


def _order(browser: Browser, table: int, column: int) -> list[str]:
    return browser.run(
        "return Array.from(document.querySelectorAll('table')[arguments[0]].tBodies[0].rows, "
        "(row) => row.cells[arguments[1]].textContent.trim())", table, column,
    )  # fmt: skip


def _sorted(browser: Browser, table: int) -> list[str]:
    return browser.run(
        "return Array.from(document.querySelectorAll('table')[arguments[0]].tHead.rows[0].cells, "
        "(h) => h.getAttribute('aria-sort'))", table,
    )  # fmt: skip


def test_a_click_on_a_header_sorts_and_another_turns_it_round(
    browser: Browser, pages: dict[str, Path]
) -> None:
    from selenium.webdriver.common.by import By

    browser.open(pages["audit"])
    assert set(_sorted(browser, 0)) == {"none"}
    lost = browser.driver.find_elements(By.CSS_SELECTOR, "table")[0].find_elements(
        By.CSS_SELECTOR, "thead button"
    )[2]
    assert lost.text == "Rows that lost features"
    before = _order(browser, 0, 2)
    lost.click()
    rising = _order(browser, 0, 2)
    assert rising == sorted(before, key=lambda text: int(text.split()[0]))
    assert _sorted(browser, 0) == ["none", "none", "ascending", "none", "none", "none", "none"]
    lost.click()
    assert _order(browser, 0, 2) == sorted(before, key=lambda text: -int(text.split()[0]))
    assert _sorted(browser, 0)[2] == "descending"
    assert set(_sorted(browser, 1)) == {"none"}  # another table is left alone


@pytest.mark.parametrize("key", ["ENTER", "SPACE"])
def test_a_header_is_reached_and_pressed_by_keys(
    browser: Browser, pages: dict[str, Path], key: str
) -> None:
    from selenium.webdriver import ActionChains, Keys

    browser.open(pages["audit"])
    stops = []
    focused = "return document.activeElement.textContent"
    while (stops or [""])[-1] != "Attack" and len(stops) < 4:
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        stops.append(browser.run(focused))
    assert stops[-2:] == ["Explanation", "Attack"]  # in the order in which they stand
    outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    ActionChains(browser.driver).send_keys(getattr(Keys, key)).perform()
    assert _order(browser, 0, 1) == sorted(_order(browser, 0, 1))
    assert _sorted(browser, 0)[1] == "ascending"
    assert browser.run(focused) == "Attack"  # the focus stays


def test_numbers_are_sorted_as_numbers_and_what_has_none_comes_last(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["audit"])
    browser.run(
        "const rows = document.querySelector('table').tBodies[0].rows;"
        "['10', '9', 'nan', '-1', '2e1', 'nan'].forEach((key, i) => {"
        "  rows[i].cells[3].dataset.key = key; rows[i].cells[3].textContent = key; });"
    )
    press = "document.querySelectorAll('table')[0].querySelectorAll('thead button')[3].click()"
    browser.run(press)
    assert _order(browser, 0, 3) == ["-1", "9", "10", "2e1", "nan", "nan"]
    browser.run(press)
    assert _order(browser, 0, 3) == ["2e1", "10", "9", "-1", "nan", "nan"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NAMES)
def test_contrast_passes_wcag_aa(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str
) -> None:
    browser.open(pages[name], scheme=scheme)
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    browser.run("document.querySelectorAll('thead button').forEach((b) => b.click())")
    dark = browser.run("return getComputedStyle(document.body).backgroundColor") != (
        "rgb(255, 255, 255)"
    )
    assert dark == (scheme == "dark")
    n_looked_at, short = browser.run(CONTRAST)
    assert short == [] and n_looked_at > 100


@pytest.mark.parametrize("width", [320, 360, 700, 1200])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wider_than_the_window(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    browser.open(pages[name], width=width)
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    if width < 500:
        wide = "return Array.from(document.querySelectorAll('.scroll'), (b) => b.scrollWidth)"
        assert max(browser.run(wide)) <= width
        sizes = "return Array.from(document.querySelectorAll('svg text'), (t) => t.getScreenCTM().a"
        assert min(browser.run(f"{sizes} * 12.5)")) > 9  # in points of the screen


def test_a_table_that_is_wider_than_the_page_is_scrolled_by_keys(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["run"], width=700)
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    reached = browser.run(
        "dispatchEvent(new Event('resize'));"
        "return Array.from(document.querySelectorAll('.scroll'), "
        "(b) => [b.scrollWidth > b.clientWidth, b.tabIndex === 0])"
    )
    assert any(wide for wide, _ in reached)
    assert all(wide == can for wide, can in reached)


def test_on_paper_it_is_black_on_white_without_buttons(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["audit"], scheme="dark", media="print")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert browser.run("return getComputedStyle(document.querySelector('.copy')).display") == "none"
    assert browser.run("return getComputedStyle(document.querySelector('thead')).display") == (
        "table-header-group"
    )
    _, short = browser.run(CONTRAST)
    assert short == []
    pdf = base64.b64decode(browser.command("Page.printToPDF", printBackground=False)["data"])
    assert pdf.startswith(b"%PDF") and 1 < pdf.count(b"/Type /Page\n") <= 8


@pytest.mark.parametrize("allowed", [True, False])
def test_the_command_is_copied_or_selected(
    browser: Browser, pages: dict[str, Path], allowed: bool
) -> None:
    browser.open(pages["audit"])
    said, text = browser.driver.execute_async_script(
        """
        const [allowed, done] = arguments;
        let copied = "";
        const writeText = (text) => {
          copied = text;
          return allowed ? Promise.resolve() : Promise.reject(new Error("not allowed"));
        };
        Object.defineProperty(navigator, "clipboard", { value: { writeText } });
        const button = document.querySelector(".copy");
        button.click();
        setTimeout(() => done([button.textContent, allowed ? copied : String(getSelection())]), 50);
        """,
        allowed,
    )
    assert said == ("Copied" if allowed else "Selected")
    assert text == "captum_robust.audit(model, inputs)"


def test_tables_are_tables_to_those_who_do_not_see_them(
    browser: Browser, pages: dict[str, Path]
) -> None:
    for width in (360, 1200):
        browser.open(pages["audit"], width=width)
        nodes = browser.command("Accessibility.getFullAXTree")["nodes"]
        roles = [n["role"]["value"] for n in nodes if not n.get("ignored")]
        n_tables = browser.run("return document.querySelectorAll('table').length")
        assert roles.count("table") == n_tables
        assert roles.count("columnheader") == browser.run(
            "return document.querySelectorAll('thead th').length"
        )
        pictures = [n for n in nodes if n["role"]["value"] in ("img", "image")]
        names = [n["name"]["value"] for n in pictures if not n.get("ignored")]
        assert len(names) == 2 and all("P@2 of" in name for name in names)
