"""Products on the path: told by what only they write, and never guessed."""

from __future__ import annotations

import pytest

from natfix.replay.model import Context, Conversation, LogLine, NetworkView, PacketId, Passage, Side, Vantage
from natfix.replay.products import alg, recognise, remedy, shorten
from tests.replay.sip import PHONE, PROVIDER, article, audio, request, sighting
from tests.replay.symptoms.capture import EXT, GATEWAY


def context(formats: tuple[str, ...] = (), log: tuple[str, ...] = ()) -> Context:
    return Context(NetworkView(("192.168.1.0/24",), GATEWAY, Vantage.INSIDE), formats=formats,
                   log=[LogLine(PacketId(number), 0.0, text) for number, text in enumerate(log, 1)])


def conversation(payload: bytes, source: object = PHONE, stage: str = "") -> Conversation:
    copy = sighting(payload, source, PROVIDER, file=stage)     # type: ignore[arg-type]
    return Conversation("1", [Passage([copy])])


@pytest.mark.parametrize(("written", "name"), [
    ("fw monitor", "check-point"), ("fw monitor text", "check-point"),
    ("FortiGate sniffer text", "fortigate"),
])
def test_by_format(written: str, name: str) -> None:
    """Who wrote the capture is known by its format."""
    known = recognise(None, context((written,)))
    assert known is not None
    assert known.alg.name == name
    assert written in known.why


def test_by_stages() -> None:
    """Records at i, I, o and O come from Check Point's kernel only."""
    ctx = context()
    ctx.records.append(Passage(article()[:4]))
    known = recognise(None, ctx)
    assert known is not None
    assert known.why == "the capture has fw monitor's stages i, I, o, O"
    found = recognise(conversation(request(), stage="i"), context())
    assert found is not None
    assert found.alg.name == "check-point"


def test_by_mark() -> None:
    """A line in SDP that FortiOS writes; in any case."""
    marked = conversation(request(sdp=audio(PHONE) + "I=(o=IN IP4 10.1.1.1)\r\n"))
    known = recognise(marked, context())
    assert known is not None
    assert (known.alg.name, known.packets) == ("fortigate", (PacketId(1),))


def test_servers_are_no_gateways() -> None:
    """rtpengine's mark names a server, not the gateway whose ALG would have to be switched off."""
    marked = conversation(request(sdp=audio(PHONE) + "a=rtpengine:1234\r\n"))
    assert recognise(marked, context()) is None
    known = recognise(marked, context(), ("server",))
    assert known is not None
    assert known.alg.name == "rtpengine"


def test_by_log() -> None:
    """The kernel's helper says its name."""
    known = recognise(None, context(log=("boot", "nf_ct_sip: dropping packet: invalid SDP")))
    assert known is not None
    assert (known.alg.name, known.packets) == ("linux", (PacketId(2),))


def test_by_user_agent_of_the_gateway_itself() -> None:
    """A FRITZ!Box that speaks from the outside address is the NAT; one behind it is a phone."""
    named = request(headers=("User-Agent: AVM FRITZ!Box 7590",))
    known = recognise(conversation(named, EXT), context(), ("none",))
    assert known is not None
    assert known.alg.name == "avm"
    assert recognise(conversation(named, PHONE), context(), ("none",)) is None


def test_by_mac_address() -> None:
    """Outside hosts' packets come inside from the gateway's MAC address: who made it is a hint, no more."""
    ctx = context()
    ctx.neighbours |= {PROVIDER.host: "d4:ca:6d:00:00:01", PHONE.host: "00:04:0e:00:00:01"}
    answer = conversation(request(), PROVIDER)
    answer.passages[0].first.side = Side.INSIDE
    known = recognise(answer, ctx)
    assert known is not None
    assert (known.alg.name, known.is_sure) == ("mikrotik", False)
    assert remedy(answer, ctx, "Switch it off") == (
        "Switch it off; the next hop, d4:ca:6d:00:00:01, is made by that manufacturer, so look there first: "
        f"MikroTik RouterOS: {known.alg.switch_off}")
    assert recognise(conversation(request(), PHONE), ctx) is None


@pytest.mark.parametrize("payload", [
    request(), request(sdp=audio(PHONE)), request(sdp=audio(PHONE) + "i=a title\r\n"),
    request(headers=("User-Agent: Cisco-SIPGateway/IOS-12.x", "Subject: FortiGate")),
])
def test_nothing_is_guessed(payload: bytes) -> None:
    """Ordinary messages name no product, whatever their User-Agent says."""
    assert recognise(conversation(payload), context(("pcap", "pcapng"))) is None


def test_remedies() -> None:
    """A recognised product's commands; else what to do in general, and where the commands are."""
    known = remedy(None, context(("FortiGate sniffer text",)), "x")
    assert known.startswith("Fortinet FortiGate (FortiOS): config ")
    general = remedy(None, context(), "Switch it off")
    assert general.startswith("Switch it off; `natfix explain --alg` lists the commands for ")
    assert alg("check-point").kind == "gateway"


def test_untrusted_text_is_shown_on_one_short_line() -> None:
    """Terminal codes and line ends are taken out, length is bounded."""
    assert shorten("a\x1b[31m\r\nb") == '"a?[31m??b"'
    assert len(shorten("x" * 500)) == 82
