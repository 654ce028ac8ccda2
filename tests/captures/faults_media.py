"""Faults of media and its descriptions: D02, D03, D04, D10, D17 to D19, D21, D22."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from tests.captures.ends import (
    Change,
    audio,
    counted,
    meddler,
    random_ports,
    register,
    rules,
    short_memory,
    translate,
)
from tests.captures.exchanges import PROVIDER, call, converse, ends, hang_up
from tests.captures.faults import fault
from tests.lab.lab import Lab
from tests.lab.topology import GATEWAY_ADDRESS, PROVIDER_ADDRESS


@fault("alg-that-works", "an ALG that translates everything, and a NAT that keeps ports: nothing is wrong")
def _alg_that_works(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        register(phone, provider)
        _, ok = call(phone, provider, audio(phone.address))
        converse(phone, provider)
        hang_up(phone, provider, ok)


@fault("d01-private-address", "a phone behind a NAT alone names its inside address in SDP", "D01")
def _private_address(lab: Lab) -> None:
    phone, provider = ends(lab)
    _, ok = call(phone, provider, audio(phone.address))
    with provider.listening(4000):
        phone.talk(4000, (PROVIDER_ADDRESS, 4000))
    hang_up(phone, provider, ok)


@fault("d02-private-address-from-outside", "the provider's SDP names an address of its own network", "D02")
def _private_from_outside(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        _, ok = call(phone, provider, audio(phone.address), audio("10.20.0.5"))
        phone.talk(4000, ("10.20.0.5", 4000))
        hang_up(phone, provider, ok)


@fault("d03-random-source-port", "an ALG announces port 4000, the NAT sends audio from a random one", "D03")
def _random_source_port(lab: Lab) -> None:
    random_ports(lab, "udp sport 4000")
    phone, provider = ends(lab)
    with meddler(lab, translate):
        _, ok = call(phone, provider, audio(phone.address))
        converse(phone, provider)
        hang_up(phone, provider, ok)


@fault("d10-audio-by-another-address", "SIP leaves by one outside address, the audio by another one", "D10")
def _another_address(lab: Lab) -> None:
    lab.gateway.run(["ip", "address", "add", "203.0.113.2/24", "dev", "outside"])
    rules(lab, "chain post { type nat hook postrouting priority srcnat - 1; "
               'oifname "outside" udp sport 4000 snat to 203.0.113.2; }')
    phone, provider = ends(lab)
    with meddler(lab, translate):
        _, ok = call(phone, provider, audio(phone.address))
        converse(phone, provider)
        hang_up(phone, provider, ok)


def _but(*kept: str) -> Callable[[str, bool, str], str]:
    """Return an ALG that forgets the lines of an SDP that begin so."""
    def change(text: str, is_out: bool, inside: str) -> str:
        head, blank, body = translate(text, is_out, inside).partition("\r\n\r\n")
        old = text.partition("\r\n\r\n")[2].splitlines()
        new = [was if was.startswith(kept) else became
               for was, became in zip(old, body.splitlines(), strict=True)]
        return counted(head + blank + "".join(f"{line}\r\n" for line in new))
    return change


@fault("d21-rtcp-attribute-forgotten", "an ALG translates c= and leaves `a=rtcp`", "D21")
def _rtcp_forgotten(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, _but("a=rtcp")):
        offer = audio(phone.address, 4000, f"a=rtcp:4001 IN IP4 {phone.address}")
        _, ok = call(phone, provider, offer)
        converse(phone, provider)
        hang_up(phone, provider, ok)


@fault("d22-candidates-forgotten", "an ALG translates c= and leaves the candidates of ICE", "D22")
def _candidates_forgotten(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, _but("a=candidate")):
        offer = audio(phone.address, 4000, "a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901",
                      f"a=candidate:1 1 UDP 2130706431 {phone.address} 4000 typ host")
        _, ok = call(phone, provider, offer, audio(PROVIDER_ADDRESS, 4000, "a=ice-mismatch"))
        converse(phone, provider)
        hang_up(phone, provider, ok)


@fault("d04-other-port-after-silence",
       "after 21 s of silence the NAT (timeouts: 1 s) sends the same stream from another port", "D04")
def _silence(lab: Lab) -> None:
    phone, provider = ends(lab)
    short_memory(lab)
    with meddler(lab, translate):
        register(phone, provider)
        _, ok = call(phone, provider, audio(phone.address))
        converse(phone, provider)
        random_ports(lab, "udp sport 4000")     # as a NAT chooses whose old port has been taken meanwhile
        time.sleep(21)
        phone.talk(4000, (PROVIDER_ADDRESS, 4000))
        hang_up(phone, provider, ok)


@fault("d04-not-silence-in-between", "21 s of silence, and the NAT remembers the stream: nothing is wrong")
def _short_silence(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        register(phone, provider)
        _, ok = call(phone, provider, audio(phone.address))
        for _ in range(2):
            phone.talk(4000, (PROVIDER_ADDRESS, 4000))
            provider.talk(4000, (GATEWAY_ADDRESS, 4000))
            time.sleep(21 if not _ else 0)
        hang_up(phone, provider, ok)


def _first_only(text: str, is_out: bool, inside: str) -> str:
    """What an ALG does that knows no re-INVITE."""
    is_later = text.startswith("INVITE") and "\r\nTo: <sip:bob@example.com>;tag=" in text
    return text if is_later else translate(text, is_out, inside)


def _hold_and_resume(lab: Lab, change: Change) -> None:
    phone, provider = ends(lab)
    with meddler(lab, change):
        _, ok = call(phone, provider, audio(phone.address))
        converse(phone, provider)
        for cseq, (port, direction, reply) in enumerate(
                ((4000, "sendonly", "recvonly"), (4002, "sendrecv", "sendrecv")), 2):
            offer = audio(phone.address, port, f"a={direction}", version=cseq)
            phone.send(phone.request("INVITE", "sip:bob@203.0.113.50:5060", "call", cseq, sdp=offer,
                                     to=ok.header("To")), PROVIDER)
            heard = provider.reply(200, sdp=audio(PROVIDER_ADDRESS, 4000, f"a={reply}", version=cseq))
            phone.hear()
            phone.send(phone.request("ACK", "sip:bob@203.0.113.50:5060", "call", cseq, to=ok.header("To")),
                       PROVIDER)
            provider.hear()
            time.sleep(1)
        wanted = re.search(r"c=IN IP4 (\S+)", heard.text)
        assert wanted
        phone.talk(4002, (PROVIDER_ADDRESS, 4000), 160)
        provider.talk(4000, (wanted[1], 4002), 160)
        hang_up(phone, provider, ok, cseq=4)


@fault("d17-resume-untranslated",
       "an ALG that knows no re-INVITE: after hold and resume nobody is heard", "D17")
def _hold(lab: Lab) -> None:
    _hold_and_resume(lab, _first_only)


@fault("d17-not-resumed", "hold, and resume at another port, behind an ALG that works: nothing is wrong")
def _resumed(lab: Lab) -> None:
    _hold_and_resume(lab, translate)


FAX = ("m=image 4000 udptl t38", "a=T38FaxVersion:0")


def _fax(lab: Lab, change: Change, status: int) -> None:
    phone, provider = ends(lab)
    with meddler(lab, change):
        _, ok = call(phone, provider, audio(phone.address))
        converse(phone, provider)
        offer = audio(phone.address, 4000, version=2).replace("m=audio 4000 RTP/AVP 0\r\n", "")
        lines = "".join(f"{line}\r\n" for line in FAX)
        phone.send(phone.request("INVITE", "sip:bob@203.0.113.50:5060", "call", 2, sdp=offer + lines,
                                 to=ok.header("To")), PROVIDER)
        answer = audio(PROVIDER_ADDRESS, version=2).replace("m=audio 4000 RTP/AVP 0\r\n", lines)
        provider.reply(status, sdp=answer if status == 200 else "")
        phone.hear()
        phone.send(phone.request("ACK", "sip:bob@203.0.113.50:5060", "call", 2, to=ok.header("To")), PROVIDER)
        provider.hear()
        hang_up(phone, provider, ok, cseq=3)


@fault("d18-udptl-made-audio", "an ALG makes `RTP/AVP 0` of the fax's `udptl t38`: refused", "D18")
def _fax_changed(lab: Lab) -> None:
    def change(text: str, is_out: bool, inside: str) -> str:
        return counted(translate(text, is_out, inside).replace("udptl t38", "RTP/AVP 0"))
    _fax(lab, change, 488)


@fault("d18-not-fax", "the switch to fax, accepted: nothing is wrong")
def _fax_works(lab: Lab) -> None:
    _fax(lab, translate, 200)


def _early(lab: Lab, change: Change) -> None:
    phone, provider = ends(lab)
    place = register(phone, provider)
    with meddler(lab, change):
        invite = provider.request("INVITE", f"sip:alice@{place[0]}:{place[1]}", "called",
                                  sdp=audio(PROVIDER_ADDRESS))
        provider.send(invite, place)
        heard = phone.hear()
        phone.send(phone.answer(heard, 183, sdp=audio(phone.address)), heard.source)
        provider.hear()
        time.sleep(0.5)
        phone.send(phone.answer(heard, 200, sdp=audio(phone.address)), heard.source)
        to = provider.hear().header("To")
        target = f"sip:alice@{place[0]}:{place[1]}"
        provider.send(provider.request("ACK", target, "called", to=to), place)
        phone.hear()
        converse(phone, provider)
        provider.send(provider.request("BYE", target, "called", 2, to=to), place)
        phone.reply(200)
        provider.hear()


@fault("d19-early-media-untranslated", "an ALG translates INVITE and 200, and leaves the 183 alone",
       "D19 D11")
def _early_forgotten(lab: Lab) -> None:
    def change(text: str, is_out: bool, inside: str) -> str:
        return text if text.startswith("SIP/2.0 183") else translate(text, is_out, inside)
    _early(lab, change)


@fault("d19-not-early-media", "early media, translated like the rest: nothing is wrong")
def _early_works(lab: Lab) -> None:
    _early(lab, translate)


# -- what nearly is a fault


@fault("d01-not-sent-to-the-source",
       "a private address in SDP, and a provider that sends to where audio comes from: nothing is wrong")
def _latched(lab: Lab) -> None:
    phone, provider = ends(lab)
    _, ok = call(phone, provider, audio(phone.address))
    converse(phone, provider, latched=True)
    hang_up(phone, provider, ok)


@fault("d02-not-hold-by-zero", "hold by c=0.0.0.0, and resume: nothing is wrong")
def _zero(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        _, ok = call(phone, provider, audio(phone.address))
        converse(phone, provider)
        for cseq, address in enumerate(("0.0.0.0", phone.address), 2):
            offer = audio(address, version=cseq)
            phone.send(phone.request("INVITE", "sip:bob@203.0.113.50:5060", "call", cseq, sdp=offer,
                                     to=ok.header("To")), PROVIDER)
            provider.reply(200, sdp=audio(PROVIDER_ADDRESS, version=cseq))
            phone.hear()
            phone.send(phone.request("ACK", "sip:bob@203.0.113.50:5060", "call", cseq, to=ok.header("To")),
                       PROVIDER)
            provider.hear()
            time.sleep(1)
        converse(phone, provider)
        hang_up(phone, provider, ok, cseq=4)


@fault("d03-not-sent-to-the-source",
       "audio leaves from a random port, and a provider that answers to that port: nothing is wrong")
def _random_port_latched(lab: Lab) -> None:
    random_ports(lab, "udp sport 4000")
    phone, provider = ends(lab)
    with meddler(lab, translate):
        _, ok = call(phone, provider, audio(phone.address))
        converse(phone, provider, latched=True)
        hang_up(phone, provider, ok)


@fault("d10-not-two-addresses",
       "audio leaves by another outside address than SIP, and SDP names that one: nothing is wrong")
def _announced_address(lab: Lab) -> None:
    def change(text: str, is_out: bool, inside: str) -> str:
        head, blank, body = translate(text, is_out, inside).partition("\r\n\r\n")
        return counted(head + blank + body.replace(GATEWAY_ADDRESS, "203.0.113.2"))
    lab.gateway.run(["ip", "address", "add", "203.0.113.2/24", "dev", "outside"])
    rules(lab, "chain post { type nat hook postrouting priority srcnat - 1; "
               'oifname "outside" udp sport 4000 snat to 203.0.113.2; }')
    phone, provider = ends(lab)
    with meddler(lab, change):
        _, ok = call(phone, provider, audio(phone.address))
        phone.talk(4000, (PROVIDER_ADDRESS, 4000))
        provider.talk(4000, ("203.0.113.2", 4000))
        hang_up(phone, provider, ok)


@fault("d21-not-rtcp", "`a=rtcp` is translated, and RTCP flows both ways: nothing is wrong")
def _rtcp_works(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        offer = audio(phone.address, 4000, f"a=rtcp:4001 IN IP4 {phone.address}")
        _, ok = call(phone, provider, offer)
        converse(phone, provider)
        phone.talk(4001, (PROVIDER_ADDRESS, 4001), 4, 200)
        provider.talk(4001, (GATEWAY_ADDRESS, 4001), 4, 200)
        hang_up(phone, provider, ok)


@fault("d22-not-candidates", "candidates of ICE, translated with c=: nothing is wrong")
def _candidates(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        offer = audio(phone.address, 4000, "a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901",
                      f"a=candidate:1 1 UDP 2130706431 {phone.address} 4000 typ host")
        _, ok = call(phone, provider, offer)
        converse(phone, provider)
        hang_up(phone, provider, ok)


@fault("d17-not-hung-up-on-hold", "a call that is held, and ends so: nothing is wrong")
def _ends_on_hold(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        _, ok = call(phone, provider, audio(phone.address))
        converse(phone, provider)
        phone.send(phone.request("INVITE", "sip:bob@203.0.113.50:5060", "call", 2, to=ok.header("To"),
                                 sdp=audio(phone.address, 4000, "a=sendonly", version=2)), PROVIDER)
        provider.reply(200, sdp=audio(PROVIDER_ADDRESS, 4000, "a=recvonly", version=2))
        phone.hear()
        phone.send(phone.request("ACK", "sip:bob@203.0.113.50:5060", "call", 2, to=ok.header("To")), PROVIDER)
        provider.hear()
        time.sleep(4)
        hang_up(phone, provider, ok, cseq=3)


@fault("d19-not-late-offer", "an INVITE without SDP: offer in the 200, answer in the ACK: nothing is wrong")
def _late_offer(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        phone.send(phone.request("INVITE", "sip:bob@example.com", "call"), PROVIDER)
        provider.reply(200, sdp=audio(PROVIDER_ADDRESS))
        ok = phone.hear()
        phone.send(phone.request("ACK", "sip:bob@203.0.113.50:5060", "call", to=ok.header("To"),
                                 sdp=audio(phone.address)), PROVIDER)
        provider.hear()
        converse(phone, provider)
        hang_up(phone, provider, ok)
