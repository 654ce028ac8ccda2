"""Replay: captures in, a result out, from the lab's own captures and everybody else's."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from natfix.replay import conversations, replay
from natfix.replay.as_json import write_json
from natfix.replay.model import Direction, Passage, Side, Vantage
from natfix.replay.replay import Input, Options, run
from natfix.replay.result import Result
from natfix.replay.sightings import Reader
from natfix.replay.work import Work
from tests import corpus
from tests.replay.load import write as write_load
from tests.replay.sip import OUTSIDE
from tests.replay.small import START, call, result_of
from tests.schema import problems

PCAPS = Path(__file__).parents[2] / "pcaps"
FIXED = sorted(PCAPS.glob("*-natfix.pcapng"))
PLAIN = sorted(PCAPS.glob("*-masquerade.pcapng"))

# What is inside, the outside address, and the vantage, of every capture with SIP in the data folder:
# looked at one by one. "" where no packet shows it.
LAN = "192.168.1.0/24"
NETWORKS = {
    "eim-lab-maryls/sip.pcap": ("192.168.60.0/24", "141.85.225.204", "inside"),
    "goffinet-sip-captures/Forensic_challenge_4.pcap": ("172.25.105.0/24", "", "inside"),
    "goffinet-sip-captures/REGISTER-Request.pcap": ("10.33.6.0/24", "", "inside"),
    "goffinet-sip-captures/private-test-sip.pcapng": ("172.16.98.0/24", "", "inside"),
    "goffinet-sip-captures/sip.pcapng": ("", "", "outside"),
    "goffinet-sip-captures/uac-uas-scenario-sipp.pcapng": ("", "", "outside"),      # 127.0.1.1 is nobody
    "goffinet-sip-captures/voip-extension2downata.pcap": ("192.168.5.0/24", "96.253.133.162", "inside"),
    "goffinet-sip-captures/voip1b.pcapng": ("172.16.98.0/24", "", "inside"),
    "gprshome/sip.pcap": (LAN, "", "inside"),
    "heplify-history/example/pcap/FAX-Call-t38-CA-TDM-SIP-FB-1.pcap": (
        "192.168.100.0/24 10.35.60.0/24 10.35.40.0/24", "", "inside"),
    "heplify-history/example/rtp_rtcp_sip.pcap": ("", "", "outside"),
    "heplify-history/example/sip_ipv6.pcap": ("fe80::/64 fec0::/64", "", "inside"),
    "lundgrel-sipp/sip-rtp-g729a.pcap": ("10.0.2.0/24", "", "inside"),
    "ndpi-history/tests/pcap/gre_sip.pcapng": ("192.168.103.0/24 192.168.10.0/24", "", "inside"),
    "ndpi-tests/tests/cfgs/default/pcap/sip.pcap": (LAN, "80.230.219.70", "inside"),
    "ndpi-tests/tests/cfgs/default/pcap/sip_hello.pcapng": ("10.231.142.0/24", "172.29.38.91", "outside"),
    "sipnab-samples/tests/pcap-samples/DTMFsipinfo.pcap": ("", "", "outside"),
    "sipnab-samples/tests/pcap-samples/SIP_DTMF2.cap": ("192.168.105.0/24", "", "inside"),
    "sipnab-samples/tests/pcap-samples/metasploit-sip-invite-spoof.pcap": ("10.0.1.0/24", "", "inside"),
    "sngrep-tests/tests/aaa.pcap": (LAN, "80.230.219.70", "inside"),
    "suricata-verify/tests/sip-body-frames/public-cloudshark-sip-s0.pcap": ("", "", "outside"),
    "suricata-verify/tests/sip-compact-form/sip_compact_form.pcap": (LAN, "1.1.1.1", "outside"),
    "suricata-verify/tests/sip-pattern-matching/sip.pcap": (LAN, "1.1.1.1", "outside"),
    "suricata-verify/tests/sip-sdp/sdp.pcap": (LAN, "1.1.1.1", "outside"),
    "zeek-traces/testing/btest/Traces/sip/wireshark.pcap": (LAN, "80.230.219.70", "inside"),

    "goffinet-sip-captures/SIP-Call-with-Proxy-Server.pcap": ("10.33.6.0/24", "", "inside"),
    "goffinet-sip-captures/sip-2phones-B2BUA-Asterisk.pcapng": ("172.16.98.0/24", "", "inside"),
    "goffinet-sip-captures/sip-cme-zoiper-register.pcapng": ("192.168.0.0/24", "", "inside"),
    "goffinet-sip-captures/sip-flow-private.pcapng": ("172.16.98.0/24", "", "inside"),
    "goffinet-sip-captures/sip-phone-to-phone.pcapng": (LAN, "", "inside"),
    "goffinet-sip-captures/sip-register-ok-unregister.pcapng": ("172.16.98.0/24", "", "inside"),
    "goffinet-sip-captures/sip-register-to-repo-proxy.pcapng": ("172.16.98.0/24", "", "inside"),
    "goffinet-sip-captures/sip-register-wrong_password-401-403-401-403.pcapng": (
        "172.16.98.0/24", "", "inside"),
    "goffinet-sip-captures/sip-register.pcapng": ("172.16.98.0/24", "", "inside"),
    "heplify-history/example/pcap/sip_ipv4_tcp_retrans.pcap": ("", "", "outside"),
    "heplify-history/example/sip_ipv4_tcp.pcap": ("10.33.6.0/24", "", "inside"),
    "lundgrel-sipp/sipp_uac_Media_DTMF_Speex.pcap": ("10.59.27.0/24", "", "inside"),
    "ndpi-tests/tests/cfgs/default/pcap/FAX-Call-t38-CA-TDM-SIP-FB-1.pcap": (
        "192.168.100.0/24 10.35.60.0/24 10.35.40.0/24", "", "inside"),
    "pcapplusplus/Tests/Packet++Test/PacketExamples/sip_non_default_port.pcap": (
        "192.168.20.0/24 192.168.21.0/24", "", "inside"),
    "pcapplusplus/Tests/Packet++Test/PacketExamples/sip_resp.pcap": (
        "10.129.34.0/24 10.3.160.0/24", "", "inside"),
    "sipnab-samples/tests/pcap-samples/sip-rtp-g711.pcap": ("10.0.2.0/24", "", "inside"),
    "sngrep-tests/tests/ipip.pcap": ("10.15.197.0/24 10.15.193.0/24", "", "inside"),
    "suricata-verify/tests/sip-options-method/input.pcap": (LAN, "", "inside"),
    "zeek-traces/testing/btest/Traces/sip/invalid-content-length.pcap": ("10.0.0.0/24", "", "inside"),
    "zeek-traces/testing/btest/Traces/sip/sip-junk-before-request.pcap": ("", "", "outside"),
}
# Of these no two framings may differ: the same 81 messages.
SAME = ("sngrep-tests/tests/aaa.pcap", "ndpi-tests/tests/cfgs/default/pcap/sip.pcap",
        "zeek-traces/testing/btest/Traces/sip/wireshark.pcap")

needs_data = pytest.mark.skipif(not corpus.is_there(), reason=corpus.MISSING)


def replayed(*paths: Path | str, **options: Any) -> Result:
    labels = [Path(path).name.partition(".")[0] for path in paths]
    inputs = tuple(Input(str(path), label) for path, label in zip(paths, labels, strict=True))
    return run(Options(inputs, **options))


def document_of(result: Result) -> dict[str, Any]:
    return dict(json.loads(text_of(result)))


def text_of(result: Result) -> str:
    file = io.StringIO()
    write_json(result, file)
    return file.getvalue()


def passages_of(result: Result) -> list[Passage]:
    found = [passage for conversation in result.conversations for passage in conversation.passages]
    return sorted(found, key=lambda passage: passage.time)


@pytest.mark.parametrize("path", FIXED, ids=lambda path: path.stem)
def test_it_does_what_the_daemon_did(path: Path) -> None:
    """Of the lab's captures with natfix, what replay makes of one side's copies is the other side's."""
    for passage in passages_of(replayed(path)):
        assert passage.repair is not None
        beyond = passage.at(Side.OUTSIDE if passage.direction is Direction.OUTWARD else Side.INSIDE)
        assert beyond is not None
        assert passage.repair.after == beyond.payload
        assert (passage.repair.source, passage.repair.destination) == (beyond.source, beyond.destination)


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.stem)
def test_plain_nat_is_repaired(path: Path) -> None:
    """Of the captures without natfix, nothing private goes out any more, nothing foreign comes in."""
    result = replayed(path)
    assert result.network.inside == (LAN,)
    assert (result.network.outside, result.network.vantage) == (OUTSIDE.host, Vantage.BOTH)
    for passage in passages_of(result):
        repair, message = passage.repair, passage.message
        assert repair is not None
        assert message is not None
        assert not repair.dropped
        if passage.direction is Direction.OUTWARD and message.is_request:
            assert b"192.168.1." not in repair.after.replace(message.call_id.encode(), b"")
        if passage.direction is Direction.INWARD and not message.is_request:
            assert b"Via: SIP/2.0/UDP 192.168.1." in repair.after


def halves(path: Path, folder: Path, ahead: float = 0.0) -> tuple[Path, Path]:
    """Write a pcap file for each of a capture's interfaces; the outside's clock is *ahead*."""
    reader = Reader(str(path))
    frames: dict[str, list[Any]] = {}
    for frame in reader._records:
        frames.setdefault(frame.interface, []).append(frame)        # type: ignore[union-attr]
    paths = []
    for name, shift in (("inside", 0.0), ("outside", ahead)):
        file = folder / f"{name}.pcap"
        with file.open("wb") as out:
            out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, frames[name][0].link))
            for frame in frames[name]:
                seconds, part = divmod(round((frame.time + shift) * 10**9), 10**9)
                out.write(struct.pack("<IIII", seconds, part, len(frame.data), frame.length) + frame.data)
        paths.append(file)
    return paths[0], paths[1]


def test_two_files_are_stages(tmp_path: Path) -> None:
    """The same packets in two files, whose clocks differ by minutes, make the same passages and repairs."""
    path = PCAPS / "call-masquerade.pcapng"
    whole = replayed(path)
    inside, outside = halves(path, tmp_path, ahead=321.5)
    parted = replayed(inside, outside)
    assert parted.stages == ("inside", "outside")
    assert parted.network.vantage is Vantage.BOTH
    pairs = [*zip(passages_of(whole), passages_of(parted), strict=True)]
    for one, other in pairs:
        assert [each.payload for each in one.sightings] == [each.payload for each in other.sightings]
        assert one.repair is not None
        assert other.repair is not None
        assert one.repair.after == other.repair.after
    assert {packet.file for _, other in pairs for packet in other.packets} == {"inside", "outside"}
    assert abs(passages_of(parted)[-1].last.time - passages_of(whole)[-1].last.time) < 0.01


@pytest.mark.parametrize("which", [0, 1])
def test_one_side_is_enough(tmp_path: Path, which: int) -> None:
    """From either side alone natfix's outward messages are the same as from both."""
    path = PCAPS / "call-masquerade.pcapng"
    half = halves(path, tmp_path)[which]
    results = [replayed(each) for each in (path, half)]
    assert results[1].network.outside == OUTSIDE.host
    assert results[1].network.vantage is (Vantage.INSIDE, Vantage.OUTSIDE)[which]
    outward = [[passage.repair.after for passage in passages_of(result)
                if passage.direction is Direction.OUTWARD and passage.repair] for result in results]
    assert outward[0] == outward[1]


def test_json_is_stable() -> None:
    """The same input gives the same bytes."""
    path = PCAPS / "inside-to-inside-masquerade.pcapng"
    assert text_of(replayed(path)) == text_of(replayed(path))


def test_what_is_retired_early_is_judged_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With little memory the same messages and dialogs come out; only the kept conversations are fewer."""
    sightings = [each for number in range(40)
                 for each in call(str(number), START + 100 * number, 5 * number + 1)]
    rich = result_of(*sightings)
    monkeypatch.setattr(conversations.Conversations.__init__, "__defaults__", (60_000,))
    monkeypatch.setattr(replay, "KEPT_OCTETS", 0)
    poor = result_of(*sightings)
    assert poor.left_out > 0
    assert len(poor.conversations) + poor.left_out == len(rich.conversations) == 40
    documents = [document_of(each) for each in (rich, poor)]
    assert documents[0]["messages"] == documents[1]["messages"]
    rows = [sorted(each["dialogs"], key=lambda row: row["call_id"]) for each in documents]
    assert rows[0] == rows[1]


def test_a_second_interruption_ends_pass_2() -> None:
    """Ctrl-C twice: what was replayed until then is shown, and the result says that it is not all."""
    work = Work()
    work.stops = 2
    result = result_of(*call(), work=work)
    assert result.interrupted
    assert document_of(result)["input"]["interrupted"]
    assert any("interrupted" in warning for warning in result.warnings)


def test_findings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many findings some are left out, which a warning counts."""
    monkeypatch.setattr(replay, "MOST_FINDINGS", 3)
    monkeypatch.setattr(replay.diagnosis, "judge_conversation", lambda *_: iter(range(2)))
    monkeypatch.setattr(replay.diagnosis, "judge_capture", lambda *_: iter(()))
    monkeypatch.setattr(replay.diagnosis, "sort", list)
    monkeypatch.setattr(replay, "dialog_row", lambda *_: {})
    result = result_of(*call("1"), *call("2", number=6))
    assert len(result.findings) == 3
    assert any(warning.startswith("1 findings") for warning in result.warnings)


def test_the_load_generator(tmp_path: Path) -> None:
    """What the reach is measured with is healthy SIP: each call is seen whole, with its media."""
    path = tmp_path / "load.pcap"
    with path.open("wb") as file:
        assert write_load(file, 20, rtp=10) == 20 * 17
    result = replayed(path)
    assert (result.input["sip"], len(result.conversations)) == (140, 20)
    assert all(len(each.streams) == 2 for each in result.conversations)
    assert (result.network.outside, result.findings) == ("203.0.113.1", [])


@needs_data
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    """Inside, outside and vantage are found out as a person would."""
    result = replayed(corpus.DATA / name)
    network = result.network
    assert (" ".join(network.inside), network.outside, str(network.vantage)) == NETWORKS[name]
    assert network.guesses


@needs_data
@pytest.mark.parametrize("path", sorted(corpus.DATA.glob("**/*.*cap*")), ids=lambda path: path.stem)
def test_every_capture_obeys_the_schema(path: Path) -> None:
    """Whatever a capture holds, SIP or not, there is a document, and it obeys the schema."""
    assert problems(document_of(replayed(path)), "replay") == []


@needs_data
def test_framings_agree() -> None:
    """The same messages in three framings make the same edits and dialogs."""
    documents = [document_of(replayed(corpus.DATA / name)) for name in SAME]
    for table, columns in (("messages", ("summary", "edits", "left_alone")),
                           ("dialogs", ("call_id", "status", "messages"))):
        rows = [[tuple(str(row[column]) for column in columns) for row in each[table]] for each in documents]
        assert rows[0] == rows[1] == rows[2]
