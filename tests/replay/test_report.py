"""The report as a file: what is in it, what is never in it, and how large it may become."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from natfix.commands import Note
from natfix.replay import report as reports
from natfix.replay.model import Finding, Fixed, PacketId, Severity
from natfix.replay.report import Report, write_report
from natfix.replay.result import Result
from tests.replay.scenes_of_reports import broken_by_alg, healthy, hostile, one_way, result_of
from tests.replay.sip import PHONE, PROVIDER, article, request, sighting
from tests.replay.small import START, call

VOID = frozenset({"meta", "input", "br", "line", "path", "rect"})


@pytest.fixture
def html(tmp_path: Path) -> str:
    """The report of a call with audio one way."""
    return written(one_way(), tmp_path)


def written(result: Result, folder: Path) -> str:
    path = folder / "report.html"
    write_report(path, result)
    return path.read_text(encoding="utf-8")


def many_calls(count: int) -> Result:
    return result_of(each for number in range(count) for each in call(
        f"call-{number}", START + number, 5 * number + 1))


def finding(call_id: str, severity: Severity = Severity.HURTS, *packets: int) -> Finding:
    return Finding("D05", severity, "it rings on", call_id, tuple(map(PacketId, packets)), "seen", "cause",
                   "where", "remedy", Fixed.PARTLY, START)


class Page(HTMLParser):
    """Notes elements, attributes and ids; complains of what is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str]] = {}
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


@pytest.mark.parametrize("scene", [healthy, one_way, broken_by_alg, hostile])
def test_it_is_one_well_formed_page(scene: object, tmp_path: Path) -> None:
    """Elements are closed in order, ids are unique, links stay in the page, nothing is loaded."""
    page = Page(written(scene(), tmp_path))        # type: ignore[operator]
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.attributes["href"]} <= set(page.ids)
    assert not page.tags & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    assert not {"src", "style", "srcset", "action"} & page.attributes.keys()
    assert not any(name.startswith("on") for name in page.attributes)
    assert all(re.fullmatch(r"[a-z0-9-]+", each) for each in page.ids)


def test_the_policy_knows_the_style(html: str) -> None:
    """The Content-Security-Policy allows this one style sheet, by its digest, and nothing else."""
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src &#39;none&#39;; style-src &#39;sha256-{digest}&#39;;" in html
    assert "url(" not in style
    assert "@import" not in style


def test_everything_of_a_finding(html: str) -> None:
    """Code, severity, title, packets with links, evidence, cause, place, remedy, and what natfix does."""
    for part in ("D01", "Broken", "the SDP asks a public peer", "c=IN IP4 192.168.1.10", "Nobody tr",
                 "from inside to outside", "<code>natfix run</code>", "natfix on the gateway cures it."):
        assert part in html
    card, = re.findall(r'<article.*?</article>', html, re.DOTALL)
    assert re.findall(r'<a href="#(m1-\d)">', card) == ["m1-1", "m1-3", "m1-5"]


def test_what_was_read_and_guessed(tmp_path: Path) -> None:
    """The file by its name without its folder, its format and size, the guesses, the warnings."""
    result = one_way()
    result.input["files"] = [{**result.input["files"][0], "name": "/home/somebody/call.pcap"}]
    result.warnings = ["12 frames of link type 147 were left out"]
    html = written(result, tmp_path)
    assert "call.pcap" in html
    assert "somebody" not in html
    for part in ("pcap, 12 packets", "was told received=203.0.113.1", "link type 147", "192.168.1.10:12000"):
        assert part in html


@pytest.mark.parametrize(("severities", "verdict"), [
    ((), "Nothing wrong was found."),
    ((Severity.BREAKS,), "One finding, which breaks calls."),
    ((Severity.WARNS,), "One finding, which breaks nothing."),
    ((Severity.BREAKS, Severity.WARNS), "2 findings, 1 of which breaks calls."),
    ((Severity.BREAKS, Severity.BREAKS), "2 findings, all of which break calls."),
    ((Severity.HURTS, Severity.WARNS), "2 findings, none of which breaks anything."),
])
def test_the_verdict(severities: tuple[Severity, ...], verdict: str) -> None:
    """The headline says how bad it is."""
    result = healthy()
    result.findings = [finding("healthy", severity) for severity in severities]
    assert Report(result).verdict == verdict


def test_what_is_broken_has_its_name() -> None:
    """A finding about no call in particular breaks service; the conversations of its packets come first."""
    result = many_calls(5)
    result.findings = [finding("", Severity.BREAKS, 16)]
    report = Report(result)
    assert report.verdict == "One finding, which breaks service."
    assert report.calls[0].dialog["call_id"] == "call-3"
    assert report.calls[0].is_open


def test_the_cure() -> None:
    """Below it stands what natfix does about it."""
    result = healthy()
    cures = (Fixed.YES, Fixed.NO, Fixed.PARTLY)
    result.findings = [replace(finding(""), fixed_by_natfix=each) for each in cures]
    assert Report(result).cure == "natfix on the gateway cures 1 of them and helps with 1."
    result.findings = result.findings[:1] * 2
    assert Report(result).cure == "natfix on the gateway cures them all."


def test_calls_with_findings_come_first_and_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many calls those with findings are shown in full and unfolded; the rest is listed."""
    monkeypatch.setattr(reports, "MOST_CALLS", 4)
    result = many_calls(9)
    result.findings = [finding("call-7", Severity.HURTS, 36), finding("call-3"), finding("")]
    report = Report(result)
    assert [each.dialog["call_id"] for each in report.calls] == ["call-7", "call-3", "call-0", "call-1"]
    assert [each.is_open for each in report.calls] == [True, True, False, False]
    assert [each["call_id"] for each in report.listed] == ["call-2", "call-4", "call-5", "call-6", "call-8"]
    assert report.cards[0].packets == [("36", "m1-1")]


def test_large_captures_stay_small(tmp_path: Path) -> None:
    """A thousand calls make a file that can still be mailed, in short time, and it says what is left out."""
    result = many_calls(1000)
    result.findings = [finding(f"call-{number}") for number in range(1000)]
    result.mappings = result.mappings * 300
    result.warnings = ["left out"] * 999
    begun = time.process_time()
    html = written(result, tmp_path)
    assert time.process_time() - begun < 6
    assert len(html) < 4_000_000
    for part in ("800 more findings left out", "770 more dialogs left out", "more mappings left out"):
        assert part in html


def test_long_texts_are_left_out_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beyond a bound messages are shown without their text, and say how to get it."""
    monkeypatch.setattr(reports, "MOST_OCTETS", 2000)
    html = written(one_way(), tmp_path)
    assert "The text is left out" in html
    assert html.count('class="diff') < 3


def test_very_long_messages(tmp_path: Path) -> None:
    """Of a message that fills a datagram only the beginning is shown."""
    long = request(headers=("X: " + "x" * 40_000,))
    html = written(result_of([sighting(long, PHONE, PROVIDER)]), tmp_path)
    assert "Only the beginning is shown" in html
    assert len(html) < 100_000


def test_very_long_names(tmp_path: Path) -> None:
    """A Call-ID or a User-Agent that fills a datagram is cut wherever it is named."""
    calls = (request(call_id=f"{number}{'c' * 9_000}", branch=f"z9hG4bK{number}", headers=(
        "User-Agent: " + "u" * 9_000,)) for number in range(200))
    result = result_of(sighting(each, PHONE, PROVIDER, START + place, place)
                       for place, each in enumerate(calls, 1))
    assert len(written(result, tmp_path)) < 30 * 2 * 18_000 + 500_000


def test_retransmissions_lead_to_the_first(html: str) -> None:
    """A retransmission does not repeat the text."""
    assert 'its text is that of <a href="#m1-1">the first one</a>' in html


def test_left_alone_is_explained(tmp_path: Path) -> None:
    """Why natfix left something as it was stands below the message."""
    result = healthy()
    repair = result.conversations[0].passages[0].repair
    assert repair is not None
    repair.left_alone = (Note("foreign", "Record-Route", reason="it is another's", rfc="RFC 3261"),)
    repair.dropped = "the policy says so"
    html = written(result, tmp_path)
    assert "<b>Record-Route</b> it is another&#39;s <i>RFC 3261</i>" in html
    assert "natfix would not let it through: the policy says so" in html


def test_headers_only(tmp_path: Path) -> None:
    """Where a capture has headers only, they make a ladder, to which the finding leads."""
    html = written(result_of(article()), tmp_path)
    assert "Packets of which only headers are known" in html
    assert "5060, then 17973 → 5060" in html
    assert '<a href="#m0-1">1</a>' in html


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Packets that begin like SIP and are none are named, as many as there is room for."""
    result = healthy()
    assert result.context is not None
    odd = replace(sighting(request(), PHONE, PROVIDER, number=77), message=None, problem="no <CSeq>")
    result.context.unreadable = [odd] * 25
    html = written(result, tmp_path)
    assert "packet 77, 192.168.1.10:5060 → 198.51.100.20:5060: no &lt;CSeq&gt;" in html
    assert "5 more packets of this kind" in html


def test_nothing_at_all(tmp_path: Path) -> None:
    """A capture without SIP makes a report that says so little."""
    html = written(result_of([]), tmp_path)
    assert "Nothing wrong was found." in html
    assert 'id="calls"' not in html


def test_several_inputs(tmp_path: Path) -> None:
    """With several inputs packets are named by stage and number, and lead to their messages all the same."""
    result = result_of([sighting(request(), PHONE, PROVIDER, number=7, file="in")])
    result.findings = [replace(finding("1"), packets=(PacketId(7, "in"), PacketId(7, "out")))]
    html = written(result, tmp_path)
    assert '<a href="#m1-1">in:7</a>, out:7' in html


def test_names_of_files_are_any_octets(tmp_path: Path) -> None:
    """A file name that is no UTF-8 is no reason to fail."""
    result = healthy()
    result.input["files"] = [{**result.input["files"][0], "name": "a\udcff.pcap"}]
    assert "a\\udcff.pcap" in written(result, tmp_path)
