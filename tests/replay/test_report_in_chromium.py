"""The report as a browser shows it: text, clicks, widths, paper; and what hostile captures can do: nothing.

Chromium is looked at through its driver; where either is missing, the tests are skipped and say so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from natfix.replay.report import write_report
from natfix.replay.result import Result
from tests.replay.scenes_of_reports import broken_by_alg, healthy, hostile, one_way

selenium = pytest.importorskip("selenium", reason="not installed: selenium (tools/test installs it)")
TOOLS = ("chromium", "chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)
WIDE, PHONE = (1280, 900), (390, 800)
Show = Callable[[Result], Any]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all tests, with a profile of its own; it reaches no network."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {' '.join(missing)} (tools/test installs them)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Show:
    """Return a function that writes a report and opens it."""

    def opened(result: Result) -> Any:
        path = tmp_path / "report.html"
        write_report(path, result)
        return _open(chromium, path)

    return opened


def _open(driver: Any, path: Path, size: tuple[int, int] = WIDE) -> Any:
    _resize(driver, size)
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get(path.as_uri())
    return driver


def _resize(driver: Any, size: tuple[int, int]) -> None:
    width, height = size
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})


def _find(driver: Any, css: str) -> Any:
    return driver.find_element("css selector", css)


def _all(driver: Any, css: str) -> list[Any]:
    found: list[Any] = driver.find_elements("css selector", css)
    return found


def test_findings_and_ladder_are_read(show: Show) -> None:
    """Title, evidence, remedy, messages and columns are visible without a click."""
    page = show(one_way())
    assert "One finding, which breaks calls." in page.title
    text = _find(page, "body").text
    for part in ("D01", "The SDP asks a public peer", "m=audio 12000", "natfix run", "INVITE · SDP",
                 "192.168.1.10", "203.0.113.1", "ICMP port-unreachable", "again", "RTP begins",
                 "no RTP in this direction was captured", "silent 11.2 s"):
        assert part.casefold() in text.casefold(), part


def test_a_click_on_a_message_shows_its_diff(show: Show) -> None:
    """What natfix replaces stands beside what stands there now, with rule and RFC; another click hides it."""
    page = show(healthy())
    rung = _find(page, "details.rung")
    assert not _find(rung, ".panel").is_displayed()
    _find(rung, "summary .captured").click()
    assert _find(rung, ".panel").is_displayed()
    assert "192.168.1.10" in [each.text for each in _all(rung, "del")]
    assert "203.0.113.1:5060" in [each.text for each in _all(rung, "ins")]
    changed = next(each for each in _all(rung, ".row.changed") if each.text.startswith("Via"))
    assert "RFC 3261" in _find(changed, ".why").text
    before, after = _find(changed, ".before").rect, _find(changed, ".after").rect
    assert before["y"] == after["y"]
    assert before["x"] < after["x"]
    _find(rung, "summary .captured").click()
    assert not _find(rung, ".panel").is_displayed()


def test_the_keyboard_opens_a_message(show: Show) -> None:
    """A message is reached and opened without a mouse."""
    page = show(healthy())
    summary = _find(page, "details.rung summary")
    summary.send_keys("\n")
    assert _find(page, "details.rung .panel").is_displayed()


def test_what_the_path_changed_is_shown_too(show: Show) -> None:
    """Of a message that was seen on both sides, the diff of what the box in between did comes first."""
    page = show(broken_by_alg())
    rung = _find(page, "details.rung")
    _find(rung, "summary .captured").click()
    assert "40625" in " ".join(each.text for each in _all(rung, ".diff:not(.reasoned) ins"))
    assert [each.text for each in _all(rung, "h5")] == ["What was changed on the path", "What natfix changes"]


def test_a_packet_of_a_finding_leads_to_its_message(show: Show) -> None:
    """Findings link to messages, messages to their findings."""
    page = show(one_way())
    link = _all(page, ".card .where a")[1]
    assert link.text == "3"
    link.click()
    target = _find(page, ":target")
    assert "200 Reason" in target.text
    assert 0 <= page.execute_script("return arguments[0].getBoundingClientRect().top", target) < WIDE[1]
    _find(target, "a.code").click()
    assert _find(page, ":target").get_attribute("class") == "card breaks"


def test_a_phone_shows_one_view_at_a_time(show: Show) -> None:
    """In a narrow window nothing sticks out, and a tap leads from the capture to natfix and back."""
    page = show(one_way())
    _resize(page, PHONE)
    assert page.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
    captured, repaired = _find(page, ".rung .captured"), _find(page, ".rung .repaired")
    assert (captured.is_displayed(), repaired.is_displayed()) == (True, False)
    _all(page, "label.tab")[1].click()
    assert (captured.is_displayed(), repaired.is_displayed()) == (False, True)
    _find(page, "details.rung summary .repaired").click()
    assert _find(page, "details.rung .panel").is_displayed()
    assert page.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(show: Show, scheme: str) -> None:
    """By day and by night text has a contrast of at least 4.5 to its background (WCAG 2.2, 1.4.3)."""
    page = show(one_way())
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    try:
        assert page.execute_script(CONTRAST) == []
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


CONTRAST = """
const luminance = color => {
  const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(each => each / 255)
    .map(each => each <= .04045 ? each / 12.92 : ((each + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const background = node => {
  for (; node; node = node.parentElement) {
    const color = getComputedStyle(node).backgroundColor;
    if (!color.endsWith(', 0)')) return color;
  }
};
const low = [];
for (const node of document.querySelectorAll('body *')) {
  const text = [...node.childNodes].some(each => each.nodeType == 3 && each.data.trim());
  if (!text || !node.checkVisibility() || node.closest('title')) continue;
  const style = getComputedStyle(node);
  const pair = [node.closest('svg') ? style.fill : style.color, background(node)].map(luminance);
  const ratio = (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
  if (ratio < 4.5) low.push([node.className.baseVal || node.className || node.tagName, ratio]);
}
return low;
"""


def test_it_prints(show: Show) -> None:
    """On paper both views stand side by side, whatever was chosen on the screen; links and hints are gone."""
    page = show(one_way())
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    _resize(page, (720, 1000))
    try:
        assert _find(page, ".rung .captured").is_displayed()
        assert _find(page, ".rung .repaired").is_displayed()
        assert not _find(page, "nav").is_displayed()
        assert page.execute_script("return document.documentElement.scrollWidth") <= 720
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert page.execute_cdp_cmd("Page.printToPDF", {})["data"].startswith("JVBERi")


def test_hostile_captures_stay_text(show: Show) -> None:
    """HTML in every header runs no script, makes no element, violates no policy and loads nothing."""
    page = show(hostile())
    for summary in _all(page, "details.rung > summary"):
        page.execute_script("arguments[0].parentElement.open = true", summary)
    assert page.execute_script("return window.hit") is None
    assert page.get_log("browser") == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert _all(page, "script, img, iframe, object, [onload], [onerror], a[href^='javascript']") == []
    assert {each.get_attribute("href").partition("#")[0] for each in _all(page, "a")} == {
        page.current_url.partition("#")[0]}
    text = page.execute_script("return document.body.textContent")
    assert "<script>window.hit=1</script>" in text
    assert "\\u202eABC\\u2066\\x00\\x1b[31m\\x9b" in text
    assert not any(each in text for each in "\u202e\u2066\x00\x1b\x9b\ufffd")
    assert page.execute_script("return document.title").startswith("script>")


def test_hostile_captures_do_not_break_the_layout(show: Show) -> None:
    """Nothing that a capture says is wider than the page."""
    page = show(hostile())
    for size in (WIDE, PHONE):
        _resize(page, size)
        assert page.execute_script("return document.documentElement.scrollWidth") <= size[0]


def test_the_policy_is_a_second_wall(chromium: Any, tmp_path: Path) -> None:
    """Should markup ever come through, the browser runs none of it, and the log that we listen to says so."""
    path = tmp_path / "report.html"
    write_report(path, healthy())
    broken = "<script>window.hit=1</script><img src='x.png' onerror='window.hit=1'><p style='color:red'>x</p>"
    path.write_text(path.read_text().replace("<main>", f"<main>{broken}"))
    page = _open(chromium, path)
    assert page.execute_script("return window.hit") is None
    refused = [entry["message"] for entry in page.get_log("browser")]
    assert sum("Content Security Policy" in each for each in refused) >= 3
