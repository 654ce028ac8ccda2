"""Runs in the guest: a registration, a call through a crash of natfix, a call in, `natfix down`.

Prints what was observed as one JSON document; judging it is left to the test.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.lab.audio import talk, what_was_heard
from tests.lab.gateway import Natfix
from tests.lab.host import LabError
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Capture, Kamailio
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.rtp_gaps import received_stream

RTP = "udp portrange 10000-10099"
PHONES = ("phone1", "remote1")
SPEECH = 6.0        # seconds; emulated phones may take one to begin
ACCOUNTING = "/proc/sys/net/netfilter/nf_conntrack_acct"
# An operator who uses iptables beside nft: both have to find their rules again.
IPTABLES = ("-A", "FORWARD", "-p", "tcp", "--dport", "25", "-j", "REJECT")


def observe() -> dict[str, Any]:
    """Do all of it, and return what there was to see at each stage."""
    with Lab(accounting=False) as lab:
        try:
            return observe_in(lab)
        except (LabError, AssertionError):
            print(lab.report(), file=sys.stderr)
            raise


def observe_in(lab: Lab) -> dict[str, Any]:
    """The same, in *lab*."""
    lab.gateway.run(["iptables", *IPTABLES])
    seen: dict[str, Any] = {"before": rules(lab)}
    natfix = lab.start_natfix()
    seen["check"] = natfix.run("check", "--json", check=False)
    seen["started"] = stage(lab)
    provider = lab.start(Kamailio(users={"alice": "secret", "bob": "hidden"}))
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, password="secret", tone=440))
    bob = lab.start(Baresip("remote1", "bob", registrar=provider.address, password="hidden", tone=880))
    alice.register()
    seen["registered"] = stage(lab)
    bob.register()
    seen["crash"] = call_through_a_crash(lab, natfix, alice, bob)
    seen["called"] = stage(lab)
    seen["incoming"] = call_in(alice, bob)
    assert_nothing_left(lab, natfix)
    seen["ended"] = stage(lab)
    natfix.down()
    seen["removed"] = {**stage(lab), "exit": natfix.process and natfix.process.wait(60.0)}
    seen["after"] = rules(lab)
    seen["modules"] = [line.split()[0] for line in Path("/proc/modules").read_text().splitlines()]
    return seen


def call_through_a_crash(lab: Lab, natfix: Natfix, alice: Baresip, bob: Baresip) -> dict[str, Any]:
    """Let *alice* call *bob*; kill natfix while they talk, start it again; hang up."""
    captures = {host: lab.start(Capture(host, "", RTP)) for host in PHONES}
    alice.dial(bob.uri)
    talk(SPEECH / 2)
    up = {**stage(lab), "calls": natfix.request("calls")["calls"]}
    natfix.kill()
    talk(SPEECH / 2)
    dead = stage(lab)
    natfix.start()
    talk(SPEECH / 2)
    restarted = {**stage(lab), "calls": natfix.request("calls")["calls"]}
    alice.hang_up()
    bob.wait_closed()
    streams = {host: received_stream(capture.stop(), lab[host].address)._asdict()
               for host, capture in captures.items()}
    return {"up": up, "dead": dead, "restarted": restarted, "streams": streams, "heard": heard(alice, bob)}


def call_in(alice: Baresip, bob: Baresip) -> dict[str, Any]:
    """Let *bob* call *alice*, whose registration a natfix has seen that is no more."""
    ended = len(alice.events)
    bob.dial(alice.uri)
    talk(SPEECH)
    bob.hang_up()
    alice.wait_closed(since=ended)
    return {"heard": heard(alice, bob)}


def heard(alice: Baresip, bob: Baresip) -> list[dict[str, Any]]:
    """Return what each has heard of the other in the latest call."""
    return [{"text": str(each), "recognised": each.recognised} for each in what_was_heard(alice, bob)]


def stage(lab: Lab) -> dict[str, Any]:
    """Return what the kernel shows now: the rule set as nft lists it, entries, the switch for counters."""
    # In one go: it is starting programs that takes an emulated machine its time.
    commands = f"cat {ACCOUNTING}; echo %%; nft list ruleset; echo %%; conntrack -L -p udp"
    accounting, ruleset, entries = lab.gateway.run(["sh", "-c", commands]).stdout.split("%%\n")
    return {"ruleset": ruleset, "entries": entries.splitlines(), "accounting": accounting.strip()}


def rules(lab: Lab) -> dict[str, str]:
    """Return the whole rule set as both tools save it, without counters and times."""
    saved = lab.gateway.run(["iptables-save"]).stdout
    return {
        "nft": lab.gateway.run(["nft", "-s", "list", "ruleset"]).stdout,
        "iptables": re.sub(r"^#.*\n|\[\d+:\d+\]", "", saved, flags=re.MULTILINE),
    }


if __name__ == "__main__":
    json.dump(observe(), sys.stdout)
