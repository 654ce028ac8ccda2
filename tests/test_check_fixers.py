"""Other fixers on the path: what captures show, and what the running natfix tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from natfix.check_fixers import check_fixers, seen_live
from natfix.errors import NatfixError
from natfix.findings import Host, Status
from tests.hosts import bad, gateway

FAULTS = Path(__file__).resolve().parents[1] / "pcaps" / "faults"


def with_capture(root: Path, name: str) -> Host:
    """Return a gateway that is asked to look into one of the captures of faults."""
    host = gateway(root, f'[daemon]\ncontrol_socket = "{root}/none"\n')
    return replace(host, captures=(str(FAULTS / name),))


def test_nobody_was_asked(tmp_path: Path) -> None:
    """Without capture and daemon nothing is claimed: the line says how to ask."""
    (finding,) = check_fixers(gateway(tmp_path, f'[daemon]\ncontrol_socket = "{tmp_path}/none"\n'))
    assert finding.status is Status.OK
    assert "--capture" in finding.text


def test_capture_with_two_fixers(tmp_path: Path) -> None:
    """A capture in which somebody has fixed half of a message is a finding, with natfix-replay's remedy."""
    found = bad(check_fixers, with_capture(tmp_path, "d11-contact-mixed.pcapng"))
    assert [finding.status for finding in found] == [Status.WARNING]
    assert "(D11)" in found[0].text
    assert found[0].cure


def test_capture_without_another_fixer(tmp_path: Path) -> None:
    """A near miss is none: the line says that nobody was seen."""
    *_, last = check_fixers(with_capture(tmp_path, "d11-not-via-restored.pcapng"))
    assert (last.status, last.text) == (Status.OK, "no other fixer was seen")


def test_capture_that_cannot_be_read(tmp_path: Path) -> None:
    """natfix-replay's own sentence is the error."""
    with pytest.raises(NatfixError, match=r"absent\.pcap"):
        list(check_fixers(with_capture(tmp_path, "absent.pcap")))


def test_what_the_daemon_has_seen(tmp_path: Path) -> None:
    """Notes that the engine counts are findings; a PBX on the gateway may name the outside address."""
    status = {"counters": {"already-right": 3, "echo-changed": 1, "packets": 9}}
    found = list(seen_live(gateway(tmp_path), status))
    assert [finding.status for finding in found] == [Status.WARNING, Status.WARNING]
    assert "into 3 messages themselves" in found[0].text
    assert "SIP ALG" in found[1].text
    own = gateway(tmp_path, '[gateway]\npbx = "local"\n')
    assert [finding.text for finding in seen_live(own, status)] == [found[1].text]
    assert list(seen_live(gateway(tmp_path), {})) == []
