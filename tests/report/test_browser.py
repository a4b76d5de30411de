"""A report in a real browser, without a window: it is whole, readable, and needs no network."""

from __future__ import annotations

import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api")

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason=f"there is no browser: none of {', '.join(BROWSERS)}"
)
# a telephone and a desk
WIDTHS = (400, 1280)
# texts of figures that are outside their figure, or over each other; and elements that are wider
# than their place
CUT = r"""() => {
  const cut = [];
  for (const svg of document.querySelectorAll("figure svg")) {
    const room = svg.getBoundingClientRect();
    const level = [...svg.querySelectorAll("text")].filter(
      text => !/rotate\(-?[1-9]/.test(text.getAttribute("transform")));
    const boxes = level.map(text => text.getBoundingClientRect());
    boxes.forEach((a, i) => boxes.slice(0, i).forEach((b, j) => {
      // boxes are a little larger than their letters
      const over = Math.min(a.right - b.left, b.right - a.left, a.bottom - b.top, b.bottom - a.top);
      if (over > 4)
        cut.push(level[i].textContent + " over " + level[j].textContent);
    }));
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      const inside = box.left >= room.left - 1 && box.right <= room.right + 1
        && box.top >= room.top - 1 && box.bottom <= room.bottom + 1;
      if (!inside) cut.push(text.textContent);
    }
  }
  for (const each of document.querySelectorAll("body *:not(svg):not(svg *):not(.wide)")) {
    if (each.clientWidth && each.scrollWidth > each.clientWidth + 1)
      cut.push(each.outerHTML.slice(0, 200));
  }
  if (document.documentElement.scrollWidth > innerWidth) cut.push("the page");
  return cut;
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # a GPU is not needed, and looking for one may take minutes
        program = playwright.chromium.launch(executable_path=PROGRAM, args=["--disable-gpu"])
        yield program
        program.close()


@pytest.fixture(params=WIDTHS)
def page(request, browser):
    """Return an empty page, what its console says, and the addresses that it asks for."""
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda made: page.asked.append(made.url))
    yield page
    page.close()


@pytest.mark.parametrize("name", ["longley", "hostile"])
def test_a_report_is_whole_and_readable(page, name, written):
    path = written[name]
    page.goto(path.as_uri())
    page.eval_on_selector_all("details", "all => all.forEach(each => each.open = true)")
    assert page.said == []
    assert page.asked == [path.as_uri()]
    assert page.title() == {"longley": "Longley", "hostile": "<b>t</b>"}[name]
    boxes = [figure.bounding_box() for figure in page.query_selector_all("figure svg")]
    assert len(boxes) == (5 if name == "longley" else 2)
    assert all(box["width"] > 200 and box["height"] > 50 for box in boxes)
    assert page.evaluate(CUT) == []


def test_the_table_that_is_seen_has_the_coefficients_of_the_model(page, longley, written):
    page.goto(written["longley"].as_uri())
    rows = page.locator("#coefficients ~ * tbody tr")
    names, values = rows.locator("th").all_inner_texts(), {}
    for number, name in enumerate(names):
        cell = rows.nth(number).locator("td data").first
        assert cell.is_visible()
        values[name] = float(cell.get_attribute("value"))
        assert float(cell.inner_text()) == pytest.approx(values[name], rel=1e-5)
    model = longley.model
    assert values.pop("intercept") == model.intercept[0]
    assert tuple(values) == model.feature_names
    assert list(values.values()) == model.coefficients[0].tolist()


def test_headings_and_figures_have_names_for_readers_that_do_not_see(page, written):
    page.goto(written["longley"].as_uri())
    for heading in ("Fit", "Coefficients", "Loss by epoch", "Memory", "Residuals"):
        assert page.get_by_role("region", name=heading, exact=True).count() == 1
    assert page.get_by_role("img").count() == 5
    assert page.get_by_role("columnheader").first.inner_text() == "term"
    assert page.get_by_role("rowheader", name="GNP", exact=True).count() == 1
