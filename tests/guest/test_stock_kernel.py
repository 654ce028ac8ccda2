"""natfix on a stock Debian kernel: its own queue statement, its maps, a crash, and nothing left of it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.guest.machine import Guest
from tests.guest.marks import needs_guest

pytestmark = needs_guest

PATIENCE = 420.0        # seconds; 60 to 110 are usual
DIVERT = re.compile(
    r"^\t\tct mark & 0x04000000 == 0x04000000 meta l4proto \{ tcp, udp \} jump through$", re.MULTILINE)
THROUGH = re.compile(r'^\t\tcounter name "diverted" jump paced$', re.MULTILINE)
QUEUE = re.compile(r"^\t\tqueue (?:to|num) 5060$", re.MULTILINE)
COUNTER = re.compile(r"counter diverted \{\s*packets (\d+)")
FIRST_PORT = "203.0.113.1 . 30000"

Observed = dict[str, Any]


@pytest.fixture(scope="module")
def observed(guest: Guest) -> Observed:
    """What :mod:`tests.guest.calls` saw in the guest."""
    done = guest.run([sys.executable, "-m", "tests.guest.calls"], timeout=PATIENCE)
    result: Observed = json.loads(done.stdout)
    return result


def test_the_kernel_is_debians(guest: Guest) -> None:
    """What answers is the kernel of Debian's package, and not the one of this machine."""
    assert guest.release == guest.kernel.release
    assert guest.script("cat /proc/version") != Path("/proc/version").read_text()
    assert "Debian" in guest.script("cat /proc/version")


def test_the_queue_statement_is_native(observed: Observed) -> None:
    """`nft list ruleset` shows nft's own queue statement, where the divert chain leads and nowhere else."""
    ruleset = observed["started"]["ruleset"]
    assert DIVERT.search(object_from("chain divert", ruleset)), ruleset
    assert THROUGH.search(object_from("chain through", ruleset)), ruleset
    assert QUEUE.search(object_from("chain to_natfix", ruleset)), ruleset
    assert len(re.findall(r"\bqueue\b|NFQUEUE|xt target", observed["started"]["ruleset"])) == 1
    assert "nft_queue" in observed["modules"]


def test_check_says_so(observed: Observed) -> None:
    """`natfix check` names the kernel and the statement."""
    texts = {row["name"]: row["text"] for row in json.loads(observed["check"])["checks"]}
    assert re.fullmatch(r"kernel \S+-amd64: .*packets by nft's queue statement", texts["kernel"])


def test_the_counter_rises(observed: Observed) -> None:
    """A registration with digest is 4 packets, each call at least INVITE, 200, ACK, BYE and 200 on top."""
    started, registered, called, ended = (
        diverted(observed[stage]["ruleset"]) for stage in ("started", "registered", "called", "ended"))
    assert started == 0
    assert registered == 4
    assert called >= registered + 5
    assert ended >= called + 5


def test_the_maps_hold_the_registration_and_the_call(observed: Observed) -> None:
    """During the call both maps have its RTP and RTCP, afterwards only the phone's SIP endpoint is left."""
    up, ended = observed["crash"]["up"]["ruleset"], observed["ended"]["ruleset"]
    phone = "192.168.1.10 . "
    for text in (up, ended):
        assert f"{phone}5060" in object_from("map signalling_out", text)
        assert "203.0.113.1 . 5060" in object_from("map signalling_in", text)
    assert re.search(rf"{phone}\d+ .*: {FIRST_PORT}\b", object_from("map media_out", up))
    assert re.search(rf"{FIRST_PORT} .*: {phone}\d+", object_from("map media_in", up))
    assert "elements" not in object_from("map media_out", ended) + object_from("map media_in", ended)


def test_both_hear_each_other(observed: Observed) -> None:
    """The call out, with a crash of natfix in it, and the call in have audio both ways."""
    for direction in observed["crash"]["heard"] + observed["incoming"]["heard"]:
        assert direction["recognised"], direction["text"]


def test_a_crash_costs_no_packet_and_a_restart_none(observed: Observed) -> None:
    """kill -9 and a new start in mid-call: table and audio stay, the call is known again, its BYE works."""
    crash = observed["crash"]
    for host, stream in crash["streams"].items():
        assert stream["packets"] > 300, f"{host}: {stream}"
        assert stream["lost"] == 0, f"{host}: {stream}"
    assert FIRST_PORT in object_from("map media_in", crash["dead"]["ruleset"])
    before, = crash["up"]["calls"]
    after, = crash["restarted"]["calls"]
    assert (after["call_id"], after["state"]) == (before["call_id"], "confirmed")
    assert audio(after)["outside"] == audio(before)["outside"] == "203.0.113.1:30000"
    assert audio(after)["packets_in"] > audio(before)["packets_in"] > 100
    assert diverted(crash["restarted"]["ruleset"]) >= diverted(crash["up"]["ruleset"])


def test_down_leaves_nothing(observed: Observed) -> None:
    """`natfix down`: rule sets as nft and iptables save them are the same as before; no entry, no sysctl."""
    assert observed["after"] == observed["before"]
    assert "reject" in observed["before"]["nft"]
    assert "REJECT" in observed["before"]["iptables"]
    removed = observed["removed"]
    assert removed["exit"] == 0
    assert (observed["started"]["accounting"], removed["accounting"]) == ("1", "0")
    assert not [entry for entry in removed["entries"] if "mark=0 " not in entry]


def object_from(head: str, ruleset: str) -> str:
    """Return the lines of the chain, map, set or counter *head* of natfix's table."""
    table = ruleset.partition("table ip natfix {\n")[2]
    found = re.search(rf"^\t{head} \{{\n.*?^\t\}}$", table, re.MULTILINE | re.DOTALL)
    assert found, f"no {head} in:\n{ruleset}"
    return found[0]


def diverted(ruleset: str) -> int:
    """Return how many packets were led to natfix."""
    found = COUNTER.search(ruleset)
    assert found, ruleset
    return int(found[1])


def audio(call: dict[str, Any]) -> dict[str, Any]:
    """Return the audio stream of one row of `natfix calls`."""
    stream, = (stream for stream in call["streams"] if stream["media"] == "audio")
    return dict(stream)
