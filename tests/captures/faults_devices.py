"""What natfix.repairs is for: devices that take SIP amiss, behind a NAT and an ALG that are healthy.

Reconstructed from NATPass's list of broken devices; never recorded from a device. No finding tells them:
only `rules/quirks.toml` does. The port of the Via is in d29-sends-from-another-port. device-no-tag is as
captures of Nero SIPPS show it, and needs no repair: natfix knows the empty tag.
"""

from __future__ import annotations

import re

from tests.captures.ends import Ua, audio, meddler, register, translate, via_of
from tests.captures.exchanges import BOB, PROVIDER, RELAY, called, ends, hang_up
from tests.captures.faults import fault
from tests.lab.lab import Lab
from tests.lab.topology import PROVIDER_ADDRESS

AGENT = "User-Agent: Faulty Phone/1.0"
OTHER_RELAY = "203.0.113.61"
BOBS = "sip:bob@203.0.113.50:5060"


def _rings(phone: Ua, provider: Ua, *bodies: str, tag: str = "b") -> str:
    """The phone calls and is told 183 with each of *bodies*; return its INVITE, as sent."""
    invite = phone.request("INVITE", BOB, "call", 1, AGENT, sdp=audio(RELAY))
    phone.send(invite, PROVIDER)
    heard = provider.hear()
    for body in bodies:
        provider.send(provider.answer(heard, 183, sdp=body, tag=tag), heard.source)
        phone.hear()
    return invite


@fault("device-second-early-media",
       "a phone that gives up when a second 183 of the same dialog names another place for early media")
def _second_early_media(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        invite = _rings(phone, provider, audio(PROVIDER_ADDRESS), audio(OTHER_RELAY, version=2))
        phone.send(phone.request("CANCEL", BOB, "call", 1, AGENT, via=via_of(invite)), PROVIDER)
        cancel = provider.reply(200)
        phone.hear()
        over = cancel.text.replace("1 CANCEL", "1 INVITE")
        provider.send(provider.answer(cancel._replace(text=over), 487), cancel.source)
        end = phone.hear()
        phone.send(phone.request("ACK", BOB, "call", 1, AGENT, via=via_of(invite), to=end.header("To")),
                   PROVIDER)
        provider.hear()


@fault("device-other-sdp-in-200", "a called phone that names port 4000 in its 183, and 4100 in its 200")
def _other_sdp(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        place = register(phone, provider)
        heard, ok = called(phone, provider, place, sdp=audio(RELAY, 4100))
        phone.send(phone.answer(heard, 183, AGENT, sdp=audio(RELAY, 4000)), heard.source)
        provider.hear()
        phone.send(ok.replace("\r\nContent-Type", f"\r\n{AGENT}\r\nContent-Type"), heard.source)
        to = provider.hear().header("To")
        provider.send(provider.request("ACK", f"sip:alice@{place[0]}:{place[1]}", "called", to=to), place)
        phone.hear()
        provider.send(provider.request("BYE", f"sip:alice@{place[0]}:{place[1]}", "called", 2, to=to), place)
        phone.reply(200)
        provider.hear()


@fault("device-first-tag", "a phone that stays with the tag of the 183, in ACK and BYE: 481")
def _first_tag(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        invite = phone.request("INVITE", BOB, "call", 1, AGENT, sdp=audio(RELAY))
        phone.send(invite, PROVIDER)
        heard = provider.hear()
        provider.send(provider.answer(heard, 183, sdp=audio(PROVIDER_ADDRESS), tag="early"), heard.source)
        early = phone.hear()
        provider.send(provider.answer(heard, 200, sdp=audio(PROVIDER_ADDRESS), tag="final"), heard.source)
        phone.hear()
        phone.send(phone.request("ACK", BOBS, "call", 1, AGENT, to=early.header("To")), PROVIDER)
        provider.hear()
        phone.send(phone.request("BYE", BOBS, "call", 2, AGENT, to=early.header("To")), PROVIDER)
        provider.reply(481)
        phone.hear()


@fault("device-no-reinvite", "a phone that answers a re-INVITE with 501, and the call goes on as it was")
def _no_reinvite(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        phone.send(phone.request("INVITE", BOB, "call", 1, AGENT, sdp=audio(RELAY)), PROVIDER)
        invite = provider.reply(200, sdp=audio(PROVIDER_ADDRESS))
        ok = phone.hear()
        phone.send(phone.request("ACK", BOBS, "call", 1, AGENT, to=ok.header("To")), PROVIDER)
        provider.hear()
        again = provider.request("INVITE", f"sip:alice@{invite.source[0]}:{invite.source[1]}", "call", 1,
                                 sdp=audio(PROVIDER_ADDRESS, version=2), tag="b", to=invite.header("From"))
        provider.send(again, invite.source)
        phone.reply(501, AGENT)
        refused = provider.hear()
        provider.send(provider.request("ACK", f"sip:alice@{invite.source[0]}:{invite.source[1]}", "call", 1,
                                       tag="b", to=refused.header("To"), via=via_of(again)), invite.source)
        phone.hear()
        hang_up(phone, provider, ok)


@fault("device-no-tag", "a called phone that gives its To no tag, as RFC 2543 had it: a call like others")
def _no_tag(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        place = register(phone, provider)
        heard, ok = called(phone, provider, place)
        phone.send(untagged(phone.answer(heard, 180, AGENT)), heard.source)
        provider.hear()
        phone.send(untagged(ok), heard.source)
        to = provider.hear().header("To")
        contact = f"sip:alice@{place[0]}:{place[1]}"
        provider.send(provider.request("ACK", contact, "called", to=to), place)
        phone.hear()
        provider.send(provider.request("BYE", contact, "called", 2, to=to), place)
        phone.reply(200)
        provider.hear()


def untagged(message: str) -> str:
    """Return a response without the tag of its To."""
    return re.sub(r"(?m)^(To: [^;\r]*);tag=[^\r]*", r"\1", message, count=1)
