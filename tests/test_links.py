"""Several outside links, as the engine has them: which mapping a packet has, what follows when it moves."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from natfix.address import Endpoint, network_from_text
from natfix.commands import (
    AddMapping,
    AllowRemote,
    CloseFlow,
    DeleteMapping,
    Flow,
    Kind,
    OpenFlow,
    Outcome,
    Verdict,
)
from natfix.config import Inside, Link, Outside, Settings, Static, Trunk
from natfix.engine import Engine, Path
from natfix.kernel.base import KernelMapping
from natfix.reports import AddressesChanged, Restored
from tests.datagram import Datagram, packet_bytes

T = TypeVar("T")
FIRST, SECOND = "203.0.113.1", "198.51.100.1"
PHONE = Endpoint("192.168.1.10", 5060)
SDP = ("v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio {1} RTP/AVP 0\r\n")
SETTINGS = Settings(inside=Inside((network_from_text("192.168.1.0/24"),)),
                    outside=Outside("eth0", mark=0x100), links=(Link("ppp0", mark=0x200),))


def links(first: str = FIRST, second: str = SECOND) -> AddressesChanged:
    """Return what the shell reports of the two links."""
    networks = tuple((network, "eth1") for network in SETTINGS.inside.networks)
    return AddressesChanged({"eth0": first, "ppp0": second}, networks)


def engine_with_links() -> Engine:
    engine = Engine(SETTINGS)
    engine.handle_report(links(), 0.0)
    return engine


def peer_of(call: str) -> Endpoint:
    """Each call has a peer of its own."""
    return Endpoint(f"192.0.2.5{call}", 5060)


def send(engine: Engine, method: str, interface: str, now: float, call: str = "1", cseq: int = 1) -> Outcome:
    """Show the engine a request of the phone's that leaves by *interface*."""
    body = SDP.format(PHONE.host, 4000 + 10 * int(call)) if method == "INVITE" else ""
    tag = ";tag=b" if method == "INVITE" and cseq > 1 else ""
    text = (
        f"{method} sip:bob@example.com SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK{call}-{cseq}\r\n"
        f"From: <sip:alice@example.com>;tag=a\r\nTo: <sip:alice@example.com>{tag}\r\nCall-ID: {call}\r\n"
        f"CSeq: {cseq} {method}\r\nContact: <sip:alice@192.168.1.10:5060>;expires=600\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    raw = packet_bytes(Datagram(PHONE, peer_of(call), text.encode()))
    return engine.receive_packet(raw, Path("forward", "eth1", interface), now)


def answer(engine: Engine, request: Outcome, interface: str, now: float, body: str = "") -> Outcome:
    """Show the engine the peer's 200 to what has gone out, after the kernel's DNAT."""
    lines = request.treated[0].shown_octets.decode().partition("\r\n\r\n")[0].split("\r\n")[1:]
    kept = [line for line in lines if not line.startswith(("Content", "To:"))]
    to = next(line for line in lines if line.startswith("To:")).partition(";tag")[0]
    text = "\r\n".join(["SIP/2.0 200 OK", *kept, f"{to};tag=b", "Content-Type: application/sdp",
                        f"Content-Length: {len(body)}", "", body])
    raw = packet_bytes(Datagram(request.treated[0].destination, PHONE, text.encode()))
    return engine.receive_packet(raw, Path("forward", interface, "eth1"), now)


def commands_of(outcome: Outcome, kind: type[T]) -> list[T]:
    return [command for command in outcome.commands if isinstance(command, kind)]


def place(engine: Engine, interface: str, call: str, now: float) -> Outcome:
    """Have the phone place a call by *interface*, and answer it; return what went out."""
    outcome = send(engine, "INVITE", interface, now, call)
    answer(engine, outcome, interface, now + 0.1, SDP.format("192.0.2.90", 20000))
    return outcome


def test_each_link_has_its_own_mapping() -> None:
    """The same endpoint of a PBX is shown with the address of the link that each message leaves by, and media
    with the mark of the link that its offer went by."""
    engine = engine_with_links()
    for interface, host, mark, call in (("eth0", FIRST, 0x100, "1"), ("ppp0", SECOND, 0x200, "2")):
        outcome = place(engine, interface, call, 1.0)
        assert outcome.packet is not None
        assert f"Via: SIP/2.0/UDP {host}:5060".encode() in outcome.packet
        assert f"Contact: <sip:alice@{host}:5060>".encode() in outcome.packet
        assert f"c=IN IP4 {host}\r\n".encode() in outcome.packet
        media = [each for each in commands_of(outcome, AddMapping) if each.kind is Kind.MEDIA]
        assert {(each.outside.host, each.mark) for each in media} == {(host, mark)}
    signalling = [mapping for mapping in engine.mappings if mapping.kind is Kind.SIGNALLING]
    assert {(mapping.inside.link, mapping.outside) for mapping in signalling} == {
        ("", Endpoint(FIRST, 5060)), ("ppp0", Endpoint(SECOND, 5060))}


def test_a_peer_that_is_reached_by_another_link() -> None:
    """After fail-over the first packet must not go on with the address that conntrack has for it: it is
    dropped, that one entry ends, and the repetition goes out right; likewise back again."""
    engine = engine_with_links()
    assert send(engine, "OPTIONS", "eth0", 1.0).verdict is Verdict.ACCEPT
    peer = peer_of("1")
    for cseq, interface, host, old in ((2, "ppp0", SECOND, FIRST), (3, "eth0", FIRST, SECOND)):
        moved = send(engine, "OPTIONS", interface, 2.0, cseq=cseq)
        assert moved.verdict is Verdict.DROP
        assert commands_of(moved, CloseFlow) == [CloseFlow(Flow(PHONE, peer, peer, Endpoint(old, 5060)))]
        assert [note.rule for note in moved.notes] == ["link"]
        again = send(engine, "OPTIONS", interface, 2.5, cseq=cseq)
        assert again.verdict is Verdict.ACCEPT
        assert again.packet is not None
        assert host.encode() in again.packet
        assert not commands_of(again, CloseFlow)


def test_a_registration_moves_with_its_registrar() -> None:
    """The registrar must not be let in by a link that it is not reached by any more."""
    engine = engine_with_links()
    answer(engine, send(engine, "REGISTER", "eth0", 1.0), "eth0", 1.1)
    assert [row["outside"] for row in engine.registrations(1.2)] == [f"{FIRST}:5060"]
    send(engine, "REGISTER", "ppp0", 2.0, cseq=2)
    answer(engine, send(engine, "REGISTER", "ppp0", 2.5, cseq=2), "ppp0", 2.6)
    assert [row["outside"] for row in engine.registrations(2.7)] == [f"{SECOND}:5060"]
    inward = {mapping.outside.host: mapping.inward for mapping in engine.mappings}
    assert inward == {FIRST: False, SECOND: True}


def test_an_offer_by_another_link_takes_the_media_along() -> None:
    """A re-INVITE after fail-over: SDP names the link that it leaves by, and the old link's mappings end."""
    engine = engine_with_links()
    first = send(engine, "INVITE", "eth0", 1.0)
    answer(engine, first, "eth0", 1.1, SDP.format("192.0.2.90", 20000))
    send(engine, "INVITE", "ppp0", 5.0, cseq=2)
    again = send(engine, "INVITE", "ppp0", 5.5, cseq=2)
    assert again.packet is not None
    assert f"c=IN IP4 {SECOND}\r\n".encode() in again.packet
    assert {each.outside.host for each in commands_of(again, DeleteMapping)} == {FIRST}
    call, = engine.calls(6.0)
    assert {call["outside"], *(stream["outside"] for stream in call["streams"])} >= {f"{SECOND}:5060"}
    assert all(stream["outside"].startswith(SECOND) for stream in call["streams"])


def told_of(engine: Engine) -> dict[str, str]:
    return {event.call.key.call_id: event.kind for event in engine.pop_events() if event.call}


def test_calls_are_told_apart_when_a_link_goes() -> None:
    """The call whose audio goes by the link is cut off, the other one goes on; nothing is taken away, since
    the link may come back as it was."""
    engine = engine_with_links()
    place(engine, "eth0", "1", 1.0)
    place(engine, "ppp0", "2", 1.0)
    engine.pop_events()
    down = engine.handle_report(links(second=""), 3.0)
    assert [note.reason for note in down.notes] == [
        f"the link of {SECOND} is down: calls that lose their audio: 1; calls that go on: 1"]
    assert told_of(engine) == {"1": "goes-on", "2": "cut-off"}
    up = engine.handle_report(links(), 4.0)
    assert [note.reason for note in up.notes] == [f"the link of {SECOND} is back"]
    assert not down.commands
    assert not up.commands


def test_the_status_names_all_links() -> None:
    """Each with its address, or as one that is down; with one link there is nothing more to say."""
    engine = engine_with_links()
    assert engine.status(1.0)["outside_links"] == {"eth0": FIRST, "ppp0": SECOND}
    engine.handle_report(links(first=""), 2.0)
    status = engine.status(3.0)
    assert (status["outside_links"], status["outside_address"]) == ({"eth0": "", "ppp0": SECOND}, SECOND)
    assert "outside_links" not in Engine(Settings()).status(1.0)


def test_another_address_ends_what_the_old_one_had() -> None:
    """A link comes back with another address: its mappings and entries end, with none of the other link's,
    and the calls are told apart."""
    engine = engine_with_links()
    place(engine, "eth0", "1", 1.0)
    place(engine, "ppp0", "2", 1.0)
    engine.handle_report(links(second=""), 2.0)
    engine.pop_events()
    changed = engine.handle_report(links(second="198.51.100.77"), 3.0)
    assert {each.outside.host for each in commands_of(changed, DeleteMapping)} == {SECOND}
    assert {each.flow.reply_destination.host for each in commands_of(changed, CloseFlow)} == {SECOND}
    assert {mapping.outside.host for mapping in engine.mappings} == {FIRST}
    assert told_of(engine) == {"1": "goes-on", "2": "cut-off"}
    again = send(engine, "INVITE", "ppp0", 4.0, "2", cseq=2)
    assert again.packet is not None
    assert b"c=IN IP4 198.51.100.77\r\n" in again.packet


def test_a_trunk_is_open_at_each_link() -> None:
    """The provider of a PBX that does not register may call by either link; which one the PBX itself goes by
    is for its packets to say, so that no entry is made before."""
    engine = Engine(replace(SETTINGS, trunks=(Trunk(str(PHONE), ("192.0.2.51",)),)))
    opened = engine.handle_report(links(), 0.0)
    inward = {each.outside.host: each.inward for each in commands_of(opened, AddMapping)}
    assert inward == {FIRST: True, SECOND: True}
    assert {each.outside.host for each in commands_of(opened, AllowRemote)} == {FIRST, SECOND}
    assert not commands_of(opened, OpenFlow)
    outcome = send(engine, "OPTIONS", "ppp0", 1.0)
    assert outcome.packet is not None
    assert SECOND.encode() in outcome.packet


def test_a_host_with_an_address_of_its_own() -> None:
    """1:1 NAT shows it with the same address whichever link it uses."""
    engine = Engine(replace(SETTINGS, statics=(Static(PHONE.host, "203.0.113.5"),)))
    engine.handle_report(links(), 0.0)
    for cseq, interface in enumerate(("eth0", "ppp0"), 1):
        outcome = send(engine, "INVITE", interface, cseq, str(cseq))
        assert outcome.packet is not None
        assert outcome.packet.count(b"203.0.113.5") >= 3
    assert {mapping.outside.host for mapping in engine.mappings} == {"203.0.113.5"}


def test_a_restart_finds_the_links_again() -> None:
    """Registrations, calls and ports of both links come back from the kernel and the store as they were."""
    engine = engine_with_links()
    answer(engine, send(engine, "REGISTER", "ppp0", 1.0), "ppp0", 1.1)
    place(engine, "eth0", "3", 1.0)
    place(engine, "ppp0", "2", 1.0)
    rows = tuple({(row.table, row.key): row for row in engine.pop_changes()}.values())
    held = tuple(KernelMapping(each.kind, each.inside, each.outside, each.inward, 200.0, "")
                 for each in engine.mappings)
    again = engine_with_links()
    again.handle_report(Restored(held, rows), 2.0)
    assert {(each.inside, each.outside, each.mark) for each in again.mappings} == {
        (each.inside, each.outside, each.mark) for each in engine.mappings}
    assert [row["outside"] for row in again.registrations(2.0)] == [f"{SECOND}:5060"]
    assert {row["outside"] for row in again.calls(2.0)} == {f"{FIRST}:5060", f"{SECOND}:5060"}
