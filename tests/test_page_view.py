"""What the status page shows, and that strangers cannot steer it; looked at in Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from natfix.page_view import LONGEST, MOST_ROWS, SAMPLES, Rates, Snapshot, no_snapshot, page, plot, policy
from tests.replay.test_report_in_chromium import FLAGS, TOOLS

HOSTILE = (
    "<script>document.title='owned'</script>", '"><img src=x onerror=alert(1)>', "</style><b>bold</b>",
    "{{ 7 * 7 }}", "\x1b[31mred\x1b[0m", "\u202egnp.exe", "javascript:alert(1)", "'; DROP TABLE calls; --",
    "a" * 10000, "&lt;b&gt;", "\x00\r\n", "\udc80")


def snapshot(text: str = "") -> Snapshot:
    """Return answers with one of everything; *text* stands in every field that strangers can fill."""
    stream = {"media": text or "audio", "inside": "192.168.1.10:4000", "outside": "203.0.113.1:30000",
              "remotes": ["198.51.100.7"], "flows": [], "refused": 3, "packets_out": 100, "packets_in": 90}
    call = {"call_id": text or "call-1", "from": text or "sip:alice@example.com", "to": text or "sip:bob@b",
            "state": "confirmed", "age": 61.0, "inside": "192.168.1.10:5060", "outside": "203.0.113.1:5060",
            "peer": "198.51.100.20:5060", "streams": [stream],
            "audio": {"state": "one-way",
                      "alarms": [{"direction": "in", "cause": text or "nothing arrives"}]}}
    binding = {"aor": text or "alice@example.com", "inside": "192.168.1.10:5060",
               "outside": "203.0.113.1:5060", "registrar": "198.51.100.20:5060",
               "registered_for": 5, "expires_in": 600, "user_agent": text or "Phone/1"}
    agent = {"address": "192.168.1.10:5060", "last_seen": 2.0, "messages": 7, "errors": 1,
             "retransmissions": 2, "last": text or "200", "user_agent": text or "Phone/1"}
    note = {"rule": "via", "header": text or "Via", "old": text or "10.0.0.1", "new": text + "x",
            "reason": text or "responses are sent here", "rfc": "RFC 3261"}
    decision = {"at": "2026-11-21T13:00:00.000Z", "where": "forward lan0 wan0", "verdict": "drop",
                "summary": text or "INVITE sip:bob@b", "call_id": text or "call-1", "notes": [note]}
    status = {"version": "1.0", "uptime": 100.0, "calls": 1, "registrations": 1, "media_pairs": 5000,
              "media_pairs_free": 4999, "outside_address": "203.0.113.1", "refused_packets": 3,
              "queue": {"queue_full": 1, "socket_full": 0}, "shell": {"errors": 0}}
    return Snapshot(status, [call], [binding], [agent], [decision])


def test_everything_is_there() -> None:
    """Calls with their streams and alarms, registrations, UAs and the last decisions with their reasons."""
    html = page(snapshot(), Rates())
    for text in ("sip:alice@example.com", "one-way: in nothing arrives", "alice@example.com", "Phone/1",
                 "responses are sent here", "RFC 3261", "dropped", "1m01s", "4999"):
        assert text in html


def test_what_runs_short_stands_above_all() -> None:
    """An alarm is shown by itself, before the calls; without one there is no such line."""
    calm = snapshot()
    why = "900 of 1000 connections <b>that</b> the kernel can follow"
    short = {"resource": "media_ports", "since": "2026-11-21T13:00:00.000Z", "why": why}
    html = page(calm._replace(status=calm.status | {"shortages": [short]}), Rates())
    assert "media ports runs short: 900 of 1000 connections &lt;b&gt;that" in html
    assert html.index("runs short") < html.index('id="calls"')
    assert "runs short" not in page(calm, Rates())


def _tags(html: str) -> set[str]:
    return set(re.findall(r"<([a-z0-9]+)", html.partition("</head>")[2]))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_text(text: str) -> None:
    """In every field: no tag, no attribute, no control character comes of it, and no field is endless."""
    html = page(snapshot(text), Rates(), query=text[:100])
    body = html.partition("</head>")[2]
    assert _tags(html) == _tags(page(snapshot(), Rates()))
    assert all(each.isprintable() or each == "\n" for each in body)
    assert not re.search(r"\son[a-z]+=", re.sub(r">[^<]*<|\"[^\"]*\"", "", body))
    assert "a" * (LONGEST + 1) not in body
    assert ("{{ 7 * 7 }}" in body) == (text == "{{ 7 * 7 }}")


def test_of_too_many_rows_the_first_are_shown() -> None:
    """A thousand calls make a page that can be read, and the number of all."""
    many = snapshot()._replace(calls=snapshot().calls * 1000)
    html = page(many, Rates())
    assert html.count("sip:alice@example.com") == MOST_ROWS
    assert ">1000<" in html


def test_rates_are_drawn_from_counters() -> None:
    """Fifty packets a second each way are a flat line; counters that began anew are no negative rate."""
    rates, calls = Rates(), snapshot().calls
    for second in range(70):
        stream = {**calls[0]["streams"][0], "packets_out": 50 * second, "packets_in": 25 * second}
        rates.take([{"streams": [stream]}], float(second))
    points = rates.of("203.0.113.1:30000")
    assert points == [(50.0, 25.0)] * (SAMPLES - 1)
    assert {point.split(",")[1] for point in plot(points, 0).split()} == {"1.0"}
    rates.take([{"streams": [{**calls[0]["streams"][0], "packets_out": 5, "packets_in": 5}]}], 71.0)
    assert rates.of("203.0.113.1:30000")[-1] == (0, 0)
    rates.take([], 72.0)
    assert rates.of("203.0.113.1:30000") == []


def test_without_a_daemon_it_says_why() -> None:
    """The reason stands there, in place of all tables."""
    html = page(no_snapshot("natfix is not running"), Rates())
    assert "natfix is not running" in html
    assert "<table" not in html


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser that reaches no network."""
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


def test_a_browser_runs_nothing_of_it(chromium: Any, tmp_path: Path) -> None:
    """With hostile text in every field the title is natfix's, the styles hold, rates are drawn, and the
    browser's log is empty: nothing was refused, since nothing was tried."""
    rates = Rates()
    for second in range(5):
        rates.take(snapshot().calls, float(second))
    for text in HOSTILE[:6]:
        file = tmp_path / "page.html"
        meta = f'<meta http-equiv="Content-Security-Policy" content="{policy().partition("; form")[0]}">'
        html = page(snapshot(text), rates).replace("<head>", f"<head>{meta}", 1)
        file.write_text(html, errors="backslashreplace")
        chromium.get(file.as_uri())
        assert chromium.title == "natfix"
        assert chromium.get_log("browser") == []
        assert chromium.find_elements("css selector", "script, img, a, b:not(.facts b)") == []
        assert chromium.find_element("css selector", "polyline.out").rect["width"] > 0
        table = chromium.find_element("css selector", "table")
        assert table.value_of_css_property("border-collapse") == "collapse"
