"""The Check Point case, end to end: from the article's eight records, an fw monitor file, and two pcaps."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natfix.address import Endpoint
from natfix.errors import FINDINGS
from natfix.replay.gateway import datagram_bytes
from natfix.replay.main import main
from tests.conftest import DATA
from tests.replay.sip import request, response

ARTICLE = DATA.parent / "seeds" / "004_ec9078a51bcab1f0.txt"

PHONE = Endpoint("10.20.0.5", 5060)
HANDLER = Endpoint("10.20.0.5", 17973)
HIDDEN = Endpoint("203.0.113.9", 40625)
PROVIDER = Endpoint("198.51.100.7", 5060)

ASKED = request("REGISTER", via=PHONE, contact=PHONE)
SHOWN = request("REGISTER", via=HIDDEN, contact=HIDDEN)
ANSWER = response(401, "REGISTER", via=HIDDEN, seen_as=HIDDEN)
TOLD = response(401, "REGISTER", via=PHONE)

# Stage, interface, ends, payload: as in the article, with the SIP that it leaves out.
WAY = (
    ("i", "eth1.10", PHONE, PROVIDER, ASKED), ("I", "eth1.10", HANDLER, PROVIDER, ASKED),
    ("o", "eth0", HANDLER, PROVIDER, ASKED), ("O", "eth0", HIDDEN, PROVIDER, SHOWN),
    ("i", "eth0", PROVIDER, HIDDEN, ANSWER), ("I", "eth0", PROVIDER, HANDLER, TOLD),
    ("o", "eth1.10", PROVIDER, HANDLER, TOLD), ("O", "eth1.10", PROVIDER, HANDLER, TOLD),
)

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return a function that runs natfix-replay and returns its only finding."""
    def ask(*arguments: str) -> dict[str, Any]:
        assert main([*arguments, "--format", "json"]) == FINDINGS
        findings = json.loads(capsys.readouterr().out)["findings"]
        assert [finding["code"] for finding in findings] == ["D12"], findings
        found: dict[str, Any] = findings[0]
        return found
    return ask


def fw_monitor_file(path: Path) -> str:
    """Write what `fw monitor -o` writes: snoop (RFC 1761), with stage and interface in place of addresses."""
    records = [b"snoop\0\0\0" + struct.pack(">II", 2, 4)]
    for number, (stage, interface, source, destination, payload) in enumerate(WAY):
        header = stage.encode() + b"\x04" + interface.encode().ljust(10, b"\0") + b"\x08\0"
        data = header + datagram_bytes(source, destination, payload)
        padded = data + bytes(-len(data) % 4)
        records.append(struct.pack(">IIIIII", len(data), len(data), 24 + len(padded), 0, 1_700_000_000,
                                   number * 1000) + padded)
    path.write_bytes(b"".join(records))
    return str(path)


def pcap(path: Path, late: float, *places: int) -> str:
    """Write the packets of some places of the way, by a clock that is *late*."""
    content = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)]
    for place in places:
        _, _, source, destination, payload = WAY[place]
        data = datagram_bytes(source, destination, payload)
        at = 1_700_000_000.0 + place / 1000 + late
        content.append(struct.pack("<IIII", int(at), round(at % 1 * 1e6), len(data), len(data)) + data)
    path.write_bytes(b"".join(content))
    return str(path)


@pytest.mark.skipif(not ARTICLE.exists(), reason="no seeds beside the data folder")
def test_the_article(ask: Ask) -> None:
    """Straight from the article, prose and all, with no vendor told: what it says in its own words."""
    found = ask(str(ARTICLE))
    assert found["packets"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found["where"] == "the firewall itself, between eth1.10:i and eth1.10:I"
    assert "from 5060 to 17973 already between eth1.10:i and eth1.10:I, before routing" in found["cause"]
    assert "a protocol handler (SIP ALG), since hide NAT works behind routing" in found["cause"]
    assert "Between eth0:o and eth0:O hide NAT then took 40625" in found["cause"]
    assert "goes to a.b.c.d:17973, where nobody listens" in found["cause"]
    assert "502 to 510 octets" in found["evidence"]
    assert "404 to 398 octets" in found["evidence"]
    assert found["remedy"].startswith("Check Point (")
    assert "set Protocol Type from SIP_UDP to None" in found["remedy"]
    assert "capture again" in found["remedy"]
    assert found["fixed_by_natfix"] is False


def test_an_fw_monitor_file(ask: Ask, tmp_path: Path) -> None:
    """The same from the file that `fw monitor -o` writes, with the SIP in it."""
    found = ask(fw_monitor_file(tmp_path / "fwmon.out"))
    assert found["call_id"] == "1"
    assert found["packets"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found["title"] == \
        "401 to REGISTER is delivered to 10.20.0.5:17973, the request came from port 5060"
    assert "from 5060 to 17973 already between eth1.10:i and eth1.10:I, before routing" in found["cause"]
    assert "Between eth0:o and eth0:O hide NAT then took 40625" in found["cause"]
    assert f"{len(ASKED)} to {len(SHOWN)} octets between eth0:o and eth0:O" in found["evidence"]
    assert f"{len(ANSWER)} to {len(TOLD)} octets between eth0:i and eth0:I" in found["evidence"]
    assert found["remedy"].startswith("Check Point (")


def test_two_pcaps(ask: Ask, tmp_path: Path) -> None:
    """Inside and outside, by clocks that are two minutes apart: what the gateway did, and the remedy."""
    inside = pcap(tmp_path / "inside.pcap", 0.0, 0, 7)
    outside = pcap(tmp_path / "outside.pcap", 120.0, 3, 4)
    found = ask(inside, outside)
    assert found["packets"] == ["inside:1", "outside:1", "outside:2", "inside:2"]
    assert "Between inside and outside its source became 203.0.113.9:40625" in found["evidence"]
    assert "Plain NAT puts back exactly what it took away: a protocol handler (SIP ALG)" in found["cause"]
    assert "took port 17973 in between" in found["cause"]
    assert "Protocol Type from SIP_UDP to None" in found["remedy"]


def test_the_inside_alone(ask: Ask, tmp_path: Path) -> None:
    """One pcap, at the phone: the reply comes to a port that the phone never sent from."""
    found = ask(pcap(tmp_path / "phone.pcap", 0.0, 0, 7))
    assert found["packets"] == [1, 2]
    assert "delivers the reply to port 17973, which neither the packet nor the Via" in found["cause"]


def test_the_same_gateway_without_the_handler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the protocol type None hide NAT puts back what it took: no D12."""
    way = [(stage, interface, PHONE if source == HANDLER else source,
            PHONE if destination == HANDLER else destination, payload)
           for stage, interface, source, destination, payload in WAY]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.replay.test_check_point.WAY", way)
        path = fw_monitor_file(tmp_path / "fwmon.out")
    main([path, "--format", "json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert "D12" not in [finding["code"] for finding in findings]
