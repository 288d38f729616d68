"""Holds what the example's page of counters shows, over HTTP and in a real browser.

The example runs in a process of its own. The browser is the machine's Chromium, with scripts
disabled; where there is none, or no Playwright to drive it, the tests that need it are skipped.
"""

import re
import runpy
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_momento_http.testing import Fault, RunningServer, running_server
from tests.system.test_example_project import (
    EXAMPLE,
    Site,
    calls,
    manage,
    starting,
    without_account,
)

HELD = "/counters/?hold"  # the page that does not reload itself while it is looked at
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
LONGEST_WAIT = 30_000  # milliseconds for what should take a moment
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}

# The contrast by WCAG 2 of each text, and of each mark, with the ground that it stands on.
CONTRASTS = """() => {
  const channels = color => {
    const parts = color.match(/[\\d.]+/g).map(Number)
    return parts.length === 3 ? [...parts, 1] : parts
  }
  const mixed = ([r, g, b, a], under) =>
    [r, g, b].map((value, i) => value * a + under[i] * (1 - a))
  const ground = element => {
    if (!element) return [255, 255, 255]
    const own = channels(getComputedStyle(element).backgroundColor)
    return own[3] === 1 ? own.slice(0, 3) : mixed(own, ground(element.parentElement))
  }
  const light = color => {
    const [r, g, b] = color.map(value => {
      const share = value / 255
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
    })
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const contrast = (color, element) => {
    const under = ground(element)
    const pair = [light(mixed(channels(color), under)), light(under)]
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)
  }
  const hasText = element => [...element.childNodes].some(
    node => node.nodeType === Node.TEXT_NODE && node.data.trim())
  const texts = [...document.querySelectorAll("body *")].filter(
    element => hasText(element) && element.checkVisibility() &&
      !["title", "desc"].includes(element.localName))
  const shapes = [...document.querySelectorAll(".shapes g")]
  return {
    texts: texts.map(element => {
      const style = getComputedStyle(element)
      const color = element.namespaceURI.endsWith("svg") ? style.fill : style.color
      return [element.textContent.trim(), contrast(color, element)]
    }),
    marks: shapes.map(shape => {
      const style = getComputedStyle(shape)
      const color = style.fill === "none" ? style.stroke : style.fill
      return [shape.id, contrast(color, document.querySelector(".latency"))]
    }),
  }
}"""

# What the eye sees of each area in the legend: its colour, and that of the card behind it.
COLOURS = """() => [...document.querySelectorAll(".savings .legend rect")].map(rect => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number).slice(0, 3)
  const style = getComputedStyle(rect)
  const card = numbers(getComputedStyle(rect.closest("figure")).backgroundColor)
  const share = Number(style.fillOpacity)
  const seen = numbers(style.fill).map((value, i) => value * share + card[i] * (1 - share))
  return [rect.getAttribute("class"), seen, card]
})"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """A function that starts the example; what it started ends with the test."""
    with starting(without_account(tmp_path)) as start_site:
        yield start_site


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """The service, at hand."""
    with running_server(token="key") as running:
        yield running


@pytest.fixture
def site(start: Callable[..., Site], server: RunningServer) -> Site:
    """The example with its pages kept in that service."""
    return start(MOMENTO_API_KEY="key", MOMENTO_ENDPOINT=server.endpoint)


@pytest.fixture
def latency() -> SimpleNamespace:
    """The module that works the plot out; it imports nothing of the example."""
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE / "lighthouses" / "latency.py")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    reason = "the tests in a browser need Playwright"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("the tests in a browser need Chromium, under one of its usual names")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=program, args=list(FLAGS), timeout=LONGEST_WAIT
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_tab(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """A function that opens a page of the site, without scripts, in a browser of its own."""
    contexts = []

    def open_page(path: str = HELD, **options: Any) -> Any:
        options = {"viewport": WIDE, "java_script_enabled": False, **options}
        contexts.append(browser.new_context(base_url=site.address, **options))
        contexts[-1].set_default_timeout(LONGEST_WAIT)
        tab = contexts[-1].new_page()
        tab.goto(path)
        return tab

    yield open_page
    for context in contexts:
        context.close()


def counts(page: str) -> dict[str, str]:
    """Read the table of counters."""
    row = r'<th scope="row"><b>([^<]+)</b>.*?</th><td class="number">([^<]+)</td>'
    return dict(re.findall(row, page))


def times(page: str) -> dict[str, tuple[str, ...]]:
    """Read the table of latencies: calls, p50, p95 and longest by the name of the call."""
    row = r'<th scope="row"><code>(\w+)</code></th>' + 4 * r'<td class="number">([^<]+)</td>'
    return {name: tuple(cells) for name, *cells in re.findall(row, page)}


def is_inside(box: dict[str, float], frame: dict[str, float]) -> bool:
    """Say whether a box stands within a frame, edges included."""
    return (
        frame["x"] <= box["x"]
        and frame["y"] <= box["y"]
        and box["x"] + box["width"] <= frame["x"] + frame["width"]
        and box["y"] + box["height"] <= frame["y"] + frame["height"]
    )


def outcomes(page: str) -> list[str]:
    """Read the marks of the plot, oldest first."""
    return re.findall(r'<use class="mark" href="#(\w+)"', page)


def open_the_breaker(site: Site, server: RunningServer) -> None:
    """Let every request fail, and visit until the breaker has had enough."""
    server.inject(Fault(status=500, times=None))
    for _ in range(20):
        site.get("/pole-to-pole/")
        if "Breaker open" in site.get(HELD):
            return
    raise AssertionError(site.get(HELD))


def test_the_counters_are_those_of_the_service(site: Site, server: RunningServer) -> None:
    """Two visits of a list stand in the table, and the requests are as many as arrived."""
    site.get("/pole-to-pole/")
    site.get("/pole-to-pole/")

    shown = counts(site.get(HELD))

    assert (shown["hits"], shown["misses"], shown["hit ratio"]) == ("12", "12", "50.0%")
    assert (shown["sets"], shown["errors"], shown["breaker"]) == ("12", "0", "closed")
    assert int(shown["requests"]) == len(server.requests)
    assert int(shown["bytes_out"].replace(",", "")) == sum(map(len, server.items.values()))


def test_the_plot_has_a_mark_for_every_call(site: Site) -> None:
    """The calls of three visits stand in their order, and in the table under their names."""
    seen = [site.get(path) for path in ("/pole-to-pole/", "/lights/guia/", "/lights/guia/")]

    page = site.get(HELD)

    first, second = ["miss", "miss", "write", "write"], ["hit", "hit", "write"]
    assert outcomes(page) == ["miss", "write", *first, *second]
    assert {name: int(row[0]) for name, row in times(page).items()} == Counter(
        name for shown in seen for name, _ in calls(shown)
    )
    assert "9 calls, oldest at the left" in page


def test_only_the_last_calls_are_remembered(tmp_path: Path, server: RunningServer) -> None:
    """However many calls there were, the page does not grow."""
    looked_at = """
from django.core.cache import cache
from django.test import Client
cache.get("a")
for _ in range(200):
    cache.set("a", 1)
print(Client().get("/counters/", SERVER_NAME="localhost").content.decode())
"""
    account = {"MOMENTO_API_KEY": "key", "MOMENTO_ENDPOINT": server.endpoint}

    page = manage(without_account(tmp_path) | account, "shell", "-v", "0", "-c", looked_at)

    assert outcomes(page) == ["write"] * 200
    assert sum(int(row[0]) for row in times(page).values()) == 200


def test_looking_at_the_counters_sends_nothing(site: Site, server: RunningServer) -> None:
    """Neither the first look nor a later one asks the service, or counts as a call."""
    first = site.get("/counters/")
    site.get("/pole-to-pole/")
    sent = len(server.requests)
    second, third = site.get("/counters/"), site.get("/counters/")

    assert set(counts(first).values()) == {"0", "closed", "none yet"}
    assert "<span></span>" not in first  # every counter has its meaning beside it
    assert counts(second) == counts(third)
    assert outcomes(second) == outcomes(third)
    assert len(server.requests) == sent


def test_the_page_comes_while_the_service_is_in_trouble(site: Site, server: RunningServer) -> None:
    """The open breaker and the kinds of errors are shown, at no request."""
    open_the_breaker(site, server)
    sent = len(server.requests)

    page = site.get(HELD)

    shown = counts(page)
    assert shown["breaker"] == "open"
    assert int(shown["breaker_openings"]) >= 1
    assert int(shown["errors: service_failed"]) >= 1
    assert len(server.requests) == sent
    assert {"miss", "write"} == set(outcomes(page))


def test_the_time_in_which_the_site_computes_is_left_out(site: Site) -> None:
    """A get_or_set that missed is shown with the cache's time, not with the work's."""
    report = site.get("/lights/fastnet/")
    in_all = re.search(r"<td>get_or_set</td><td>miss</td><td class=\"number\">([\d.]+)<", report)

    _, _, _, longest = times(site.get(HELD))["get_or_set"]

    number, unit = longest.split()
    in_milliseconds = float(number) * {"µs": 0.001, "ms": 1, "s": 1000}[unit]
    assert in_milliseconds < float(in_all.group(1))


def test_every_alias_that_counts_has_its_own_part(tmp_path: Path, server: RunningServer) -> None:
    """Several aliases stand one below the other; one whose backend does not count is left out."""
    looked_at = f"""
from django.test import Client, override_settings
def entry(name, backend="lighthouses.recording.RecordedMomentoCache"):
    options = {{"ENDPOINT": {server.endpoint!r}, "TOKEN": "key", "ON_ERROR": name}}
    return {{"BACKEND": backend, "LOCATION": "default-cache", "KEY_PREFIX": name,
             "OPTIONS": options}}
aliases = {{
    "default": entry("miss"),
    "other": entry("raise"),
    "silent": {{"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    "plain": entry("raise", "django_momento_http.cache.MomentoCache"),
}}
with override_settings(CACHES=aliases):
    from django.core.cache import caches
    caches["other"].set("a", 1)
    caches["other"].get("a")
    print(Client().get("/counters/", SERVER_NAME="localhost").content.decode())
"""

    page = manage(without_account(tmp_path), "shell", "-v", "0", "-c", looked_at)

    default, other, plain = page.split('<section class="panel"')[1:]
    assert all(
        f"<code>{name}</code></h2>" in part
        for name, part in (("default", default), ("other", other), ("plain", plain))
    )
    assert "silent" not in page
    assert [counts(part)["hits"] for part in (default, other)] == ["0", "1"]
    assert [outcomes(part) for part in (default, other, plain)] == [[], ["write", "hit"], []]
    identities = re.findall(r' id="([^"]+)"', page)
    assert len(identities) == len(set(identities))


def test_without_a_backend_that_counts_the_page_says_so(tmp_path: Path) -> None:
    """Where the site keeps its pages in its own memory, there is nothing to show but that."""
    looked_at = """
from django.test import Client
print(Client().get("/counters/", SERVER_NAME="localhost").content.decode())
"""

    page = manage(without_account(tmp_path), "shell", "-v", "0", "-c", looked_at)

    assert "has a backend that counts" in page
    assert "own memory" in page


@pytest.mark.parametrize(
    ("milliseconds", "written"),
    [
        (0, "0 µs"),
        (0.0421, "42.1 µs"),
        (0.0999, "99.9 µs"),
        (0.1, "0.1 ms"),
        (0.34, "0.34 ms"),
        (12.345, "12.3 ms"),
        (999.4, "999 ms"),
        (999.6, "1 s"),
        (1234, "1.23 s"),
    ],
)
def test_times_are_written_in_the_unit_that_fits(
    latency: SimpleNamespace, milliseconds: float, written: str
) -> None:
    """A time has three digits and a unit."""
    assert latency.duration(milliseconds) == written


@pytest.mark.parametrize(
    ("values", "p50", "p95"),
    [([7], 7, 7), ([1, 2], 1, 2), ([1, 2, 3], 2, 3), (range(1, 101), 50, 95)],
)
def test_quantiles_are_values_that_occurred(
    latency: SimpleNamespace, values: list[float], p50: float, p95: float
) -> None:
    """The share of values up to the quantile is the one asked for, or just above."""
    ordered = list(values)

    assert (latency.quantile(ordered, 0.5), latency.quantile(ordered, 0.95)) == (p50, p95)


@pytest.mark.parametrize(
    "milliseconds", [[], [0], [1], [10], [0.001, 1e7], [0.3, 3, 30] * 100], ids=len
)
def test_everything_drawn_is_inside_the_box(
    latency: SimpleNamespace, milliseconds: list[float]
) -> None:
    """Whatever the times, marks, lines and bars stand between 0 and 100 per cent."""
    plot = latency.plot([latency.Call("get", "hit", time) for time in milliseconds])

    assert all(0 < mark.x < 80 for mark in plot.marks)
    heights = [item.y for item in (*plot.marks, *plot.ticks, *plot.quantiles, *plot.bars)]
    heights += [bar.y + bar.height for bar in plot.bars]
    assert all(0 < height < 100 for height in heights)
    assert all(0 < bar.width <= 16 for bar in plot.bars)
    assert sum(bar.count for bar in plot.bars) == len(plot.marks) == len(milliseconds)


def test_longer_times_stand_higher(latency: SimpleNamespace) -> None:
    """Equal factors are equal distances, the longest at the top and the newest at the right."""
    calls = [latency.Call("get", "hit", time) for time in (1, 10, 100)]

    first, second, third = latency.plot(calls).marks

    assert first.x < second.x < third.x
    assert first.y > second.y > third.y
    assert first.y - second.y == pytest.approx(second.y - third.y, abs=0.02)


@pytest.mark.browser
def test_the_page_is_whole_without_scripts(site: Site, open_tab: Callable[..., Any]) -> None:
    """With scripts disabled, style, figures, plot and tables are all there, and nothing failed."""
    tab = open_tab("/pole-to-pole/")
    failed: list[str] = []
    tab.on("requestfailed", lambda request: failed.append(request.url))
    tab.on("response", lambda response: response.status < 400 or failed.append(response.url))
    tab.on("console", lambda message: failed.append(message.text))
    tab.get_by_role("link", name="Counters").click()

    assert tab.get_by_role("heading", level=1).inner_text() == "What the cache has done so far"
    assert tab.get_by_role("img", name="How long the last cache calls took").is_visible()
    assert all(tab.locator(f"table.{name}").is_visible() for name in ("counts", "times"))
    assert tab.locator("svg.plot .tick").count() >= 3
    assert tab.locator("script").count() == 0
    header = tab.locator("body > header")
    assert header.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(22, 36, 61)"
    assert failed == []


@pytest.mark.browser
def test_the_counters_grow_with_visits(open_tab: Callable[..., Any]) -> None:
    """What visits did since the last look stands there after a reload, in numbers and marks."""
    tab = open_tab()
    before = counts(tab.content())["hits"], tab.locator("use.mark").count()

    visitor = open_tab("/")
    visitor.reload()
    tab.reload()

    assert before == ("0", 0)
    assert (counts(tab.content())["hits"], tab.locator("use.mark").count()) == ("61", 6)


@pytest.mark.browser
def test_the_page_reloads_itself_until_it_is_held(site: Site, open_tab: Callable[..., Any]) -> None:
    """New counts come without a script and without a hand; a held page has no such tag."""
    tab = open_tab("/counters/")
    site.get("/pole-to-pole/")
    row = tab.locator("table.counts tr").filter(has=tab.locator("b", has_text="sets"))

    row.get_by_text("12", exact=True).wait_for()

    assert 'http-equiv="refresh"' in site.get("/counters/")
    assert 'http-equiv="refresh"' not in site.get(HELD)


@pytest.mark.browser
def test_marks_have_a_body_inside_the_plot(site: Site, open_tab: Callable[..., Any]) -> None:
    """Every mark and bar that the browser draws has a size and stands within the plot's frame."""
    for path in ("/lights/guia/", "/pole-to-pole/", "/pole-to-pole/", "/lights/guia/"):
        site.get(path)

    for viewport in (WIDE, NARROW):
        tab = open_tab(viewport=viewport)
        frame = tab.locator("svg.plot").bounding_box()
        boxes = [shape.bounding_box() for shape in tab.locator("use.mark, rect.bar").all()]

        assert tab.locator("use.mark").count() >= 5
        assert tab.locator("rect.bar").count() >= 1
        for box in boxes:
            assert min(box["width"], box["height"]) > 0
            assert is_inside(box, frame)


@pytest.mark.browser
def test_hits_and_misses_differ_in_shape(site: Site, open_tab: Callable[..., Any]) -> None:
    """Hit, miss and write are told apart without colour, and the legend shows all three."""
    site.get("/pole-to-pole/")
    site.get("/pole-to-pole/")
    tab = open_tab()

    shapes = {name: tab.locator(f".shapes #{name} > *") for name in ("hit", "miss", "write")}
    kinds = {name: shape.evaluate("e => e.localName") for name, shape in shapes.items()}

    assert kinds == {"hit": "circle", "miss": "path", "write": "rect"}
    assert {f"#{name}" for name in kinds} == {
        use.get_attribute("href") for use in tab.locator("use.mark").all()
    }
    legend = [use.get_attribute("href") for use in tab.locator(".legend use").all()]
    assert legend == ["#hit", "#miss", "#write"]


@pytest.mark.parametrize("is_empty", [True, False], ids=["empty", "in trouble"])
@pytest.mark.browser
def test_nothing_overflows_a_narrow_screen(
    site: Site, server: RunningServer, open_tab: Callable[..., Any], is_empty: bool
) -> None:
    """At 360 pixels there is nothing to scroll sideways to, and no word of the plot is cut off."""
    if not is_empty:
        site.get("/lights/guia/")
        open_the_breaker(site, server)
    tab = open_tab(viewport=NARROW)
    card = tab.locator("figure.latency").bounding_box()

    words = [text.bounding_box() for text in tab.locator("svg.plot text").all()]

    assert tab.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    assert len(words) >= 4
    assert all(is_inside(box, card) for box in words)


@pytest.mark.parametrize("is_well", [True, False], ids=["well", "in trouble"])
@pytest.mark.browser
def test_text_and_marks_stand_out(
    site: Site, server: RunningServer, open_tab: Callable[..., Any], is_well: bool
) -> None:
    """Text has WCAG's contrast of 4.5 and marks have 3, in the light and in the dark."""
    site.get("/lights/guia/")
    if not is_well:
        open_the_breaker(site, server)

    for scheme in ("light", "dark"):
        contrasts = open_tab(color_scheme=scheme).evaluate(CONTRASTS)

        assert len(contrasts["texts"]) > 40
        assert len(contrasts["marks"]) == 3
        assert [text for text in contrasts["texts"] if text[1] < 4.5] == []
        assert [mark for mark in contrasts["marks"] if mark[1] < 3] == []


@pytest.mark.browser
def test_before_the_first_call_the_plot_is_empty(open_tab: Callable[..., Any]) -> None:
    """A fresh process has no marks, and says so in the plot and in its description."""
    tab = open_tab()

    assert tab.locator("use.mark, rect.bar, line.quantile").count() == 0
    assert tab.get_by_text("No calls yet", exact=True).is_visible()
    assert tab.locator("svg.plot desc").text_content() == "No call was made yet."


def test_copies_answer_the_second_visit(site: Site, server: RunningServer) -> None:
    """What was read or written a moment ago is not asked for again, and counted as saved."""
    site.get("/pole-to-pole/")
    sent = counts(site.get(HELD))["requests"]
    server.forget_requests()
    site.get("/pole-to-pole/")

    page = site.get(HELD)

    assert server.requests == []
    assert (counts(page)["near_hits"], counts(page)["near_entries"]) == ("12", "12")
    assert "saved: 12 reads answered by copies" in page
    assert f"sent: {sent} requests" in page
    assert f"In the last 3 calls {sent} requests were sent" in page


def test_without_copies_there_is_no_such_plot(tmp_path: Any, server: RunningServer) -> None:
    """An alias whose copies are off shows its counters alone."""
    looked_at = f"""
from django.test import Client, override_settings
options = {{"ENDPOINT": {server.endpoint!r}, "TOKEN": "key"}}
entry = {{"BACKEND": "lighthouses.recording.RecordedMomentoCache",
         "LOCATION": "default-cache", "OPTIONS": options}}
with override_settings(CACHES={{"default": entry}}):
    print(Client().get("/counters/", SERVER_NAME="localhost").content.decode())
"""

    page = manage(without_account(tmp_path), "shell", "-v", "0", "-c", looked_at)

    assert "near_hits" in page
    assert "<figure" in page
    assert 'class="savings"' not in page


def visited(site: Site) -> None:
    """Visit a page until copies answer."""
    for _ in range(3):
        site.get("/pole-to-pole/")


@pytest.mark.browser
def test_areas_have_a_body_inside_the_plot(site: Site, open_tab: Callable[..., Any]) -> None:
    """Both areas are drawn within the frame, what was saved above what was sent."""
    visited(site)

    for viewport in (WIDE, NARROW):
        tab = open_tab(viewport=viewport)
        frame = tab.locator("svg.area").first.bounding_box()
        saved, sent = (
            tab.locator(f"svg.area .{name}").bounding_box() for name in ("saved", "sent")
        )

        for box in (saved, sent):
            assert min(box["width"], box["height"]) > 0
            assert is_inside(box, frame)
        assert saved["y"] < sent["y"]
        legend = [each.get_attribute("class") for each in tab.locator(".savings rect").all()]
        assert legend == ["saved", "sent"]


@pytest.mark.parametrize("is_empty", [True, False], ids=["empty", "visited"])
@pytest.mark.browser
def test_no_word_of_it_is_cut_off(site: Site, open_tab: Callable[..., Any], is_empty: bool) -> None:
    """At 360 pixels the plot and its words stand within its card."""
    if not is_empty:
        visited(site)
    tab = open_tab(viewport=NARROW)

    card = tab.locator("figure.savings").bounding_box()
    words = [text.bounding_box() for text in tab.locator("svg.area text").all()]

    assert tab.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    assert len(words) >= 4
    assert all(is_inside(box, card) for box in words)


@pytest.mark.browser
def test_areas_stand_out(site: Site, open_tab: Callable[..., Any]) -> None:
    """Both have WCAG's contrast of 3 with the card, in the light and in the dark."""
    visited(site)

    for scheme in ("light", "dark"):
        areas = open_tab(color_scheme=scheme).evaluate(COLOURS)

        assert [name for name, _, _ in areas] == ["saved", "sent"]
        for _, seen, card in areas:
            assert contrast(seen, card) >= 3


def contrast(*colours: list[float]) -> float:
    """Return the contrast of two colours by WCAG 2."""
    darker, lighter = sorted(map(luminance, colours))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: list[float]) -> float:
    """Return how light a colour is, from 0 to 1."""
    shares = [value / 255 for value in colour]
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
