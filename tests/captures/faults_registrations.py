"""Phones that cannot be reached, and several at once: D07, D08, D09, D20, D25, D32."""

from __future__ import annotations

import time

from tests.captures.ends import Ua, audio, meddler, random_ports, register, rules, short_memory, translate
from tests.captures.exchanges import PROVIDER, RELAY, again, called, ends, hang_up
from tests.captures.faults import fault
from tests.lab.lab import Lab
from tests.lab.topology import GATEWAY_ADDRESS, PROVIDER_ADDRESS


@fault("d07-called-after-nat-timeout",
       "a registered phone is called when the NAT has forgotten it (timeouts: 1 s)", "D07")
def _called_late(lab: Lab) -> None:
    short_memory(lab)
    phone, provider = ends(lab)
    place = register(phone, provider)
    time.sleep(2.5)
    again(provider, provider.request("INVITE", f"sip:alice@{place[0]}:{place[1]}", "called",
                                     sdp=audio(PROVIDER_ADDRESS)), place)


@fault("d08-new-port-for-each-register",
       "a NAT that gives every REGISTER another outside port (timeouts: 1 s)", "D08")
def _flapping(lab: Lab) -> None:
    short_memory(lab)
    random_ports(lab)
    phone, provider = ends(lab)
    for cseq in range(1, 5):
        register(phone, provider, cseq=cseq)
        time.sleep(2.2)


@fault("d20-one-contact-for-all",
       "an ALG writes port 5060 for every phone, and the NAT gives the second another one", "D20 D11")
def _one_contact(lab: Lab) -> None:
    alice, provider = ends(lab)
    carol = Ua(lab, "phone2", "carol")
    with meddler(lab, translate):
        register(alice, provider, "alice")
        register(carol, provider, "carol")
        register(alice, provider, "alice", 2)


@fault("d20-not-ports-of-their-own",
       "two phones with ports of their own behind the same ALG: nothing is wrong")
def _own_ports(lab: Lab) -> None:
    alice, provider = ends(lab)
    carol = Ua(lab, "phone2", "carol", 5062)
    with meddler(lab, lambda text, is_out, inside: translate(text, is_out, inside)):
        register(alice, provider, "alice")
        register(carol, provider, "carol")
        register(alice, provider, "alice", 2)


@fault("d25-hairpin",
       "phones inside are told each other's outside address, and the gateway turns nothing round", "D25 D25")
def _hairpin(lab: Lab) -> None:
    alice, provider = ends(lab)
    carol = Ua(lab, "phone2", "carol", 5060)
    rules(lab, "chain post { type nat hook postrouting priority srcnat - 1; "
               'ip saddr 192.168.1.11 oifname "outside" udp sport 5060 masquerade to :5070; }')

    def change(text: str, is_out: bool, inside: str) -> str:
        if inside == alice.address:
            return translate(text, is_out, inside)
        if is_out:
            return translate(text.replace("192.168.1.11:5060", "192.168.1.11:5070"), is_out, inside)
        return translate(text, is_out, inside).replace("192.168.1.11:5070", "192.168.1.11:5060")
    with meddler(lab, change):
        place = register(carol, provider)
        alice.send(alice.request("INVITE", "sip:carol@example.com", "call", sdp=audio(alice.address)),
                   PROVIDER)
        invite = provider.hear()
        provider.send(provider.request("INVITE", f"sip:carol@{place[0]}:{place[1]}", "call2",
                                       sdp=invite.text.partition("\r\n\r\n")[2]), place)
        heard = carol.hear()
        carol.send(carol.answer(heard, 200, sdp=audio(carol.address, 4002)), heard.source)
        ok = provider.hear()
        provider.send(provider.request("ACK", f"sip:carol@{place[0]}:{place[1]}", "call2",
                                       to=ok.header("To")), place)
        provider.send(provider.answer(invite, 200, sdp=ok.text.partition("\r\n\r\n")[2]), invite.source)
        answer = alice.hear()
        alice.send(alice.request("ACK", "sip:bob@203.0.113.50:5060", "call", to=answer.header("To")),
                   PROVIDER)
        provider.hear()
        alice.talk(4000, (GATEWAY_ADDRESS, 4002))
        carol.talk(4002, (GATEWAY_ADDRESS, 4000))
        hang_up(alice, provider, answer)


@fault("d07-not-called-in-time", "a registered phone is called while the NAT remembers it: nothing is wrong")
def _called_in_time(lab: Lab) -> None:
    phone, provider = ends(lab)
    place = register(phone, provider)
    time.sleep(2.5)
    provider.send(provider.request("OPTIONS", f"sip:alice@{place[0]}:{place[1]}", "ping"), place)
    phone.reply(200)
    provider.hear()


@fault("d08-not-one-change", "one other outside port in four REGISTERs: nothing is wrong")
def _one_change(lab: Lab) -> None:
    short_memory(lab)
    phone, provider = ends(lab)
    for cseq in range(1, 5):
        if cseq == 3:
            random_ports(lab)
        register(phone, provider, cseq=cseq)
        time.sleep(2.2 if cseq == 2 else 0.3)


@fault("d09-register-untranslated",
       "a flow that began before the NAT's rules were there leaves as it is", "D09")
def _untranslated(lab: Lab) -> None:
    rules(lab, "chain post { type nat hook postrouting priority srcnat - 1; "
               'oifname "outside" ip saddr 192.168.1.10 udp sport 5060 snat to ip saddr; }')
    phone, provider = ends(lab)
    register(Ua(lab, "phone2", "carol"), provider, "another")
    again(phone, phone.request("REGISTER", "sip:example.com", "registration", 1, "Expires: 3600",
                               to="<sip:alice@example.com>"), PROVIDER)


@fault("d09-not-answered-in-the-end", "a registrar that is down for a while: nothing is wrong")
def _registrar_down(lab: Lab) -> None:
    phone, provider = ends(lab)
    message = phone.request("REGISTER", "sip:example.com", "registration", 1, "Expires: 3600",
                            to="<sip:alice@example.com>")
    again(phone, message, PROVIDER)
    heard = provider.hear()
    provider.send(provider.answer(heard, 200, f"Contact: {phone.contact};expires=3600"), heard.source)
    phone.hear()


def _subscribe(phone: Ua, provider: Ua) -> tuple[str, int]:
    phone.send(phone.request("SUBSCRIBE", "sip:alice@example.com", "lamp", 1, "Event: message-summary",
                             "Expires: 3600"), PROVIDER)
    source = provider.reply(200, "Expires: 3600").source
    phone.hear()
    return source


def _notify(provider: Ua, place: tuple[str, int], cseq: int) -> str:
    return provider.request("NOTIFY", f"sip:alice@{place[0]}:{place[1]}", "lamp", cseq,
                            "Event: message-summary", "Subscription-State: active;expires=3600",
                            to="<sip:alice@example.com>;tag=a", tag="b")


@fault("d32-lamp-stays-dark",
       "the NAT has forgotten the subscription when a voice mail comes (timeouts: 1 s)", "D32")
def _lamp(lab: Lab) -> None:
    short_memory(lab)
    phone, provider = ends(lab)
    place = _subscribe(phone, provider)
    provider.send(_notify(provider, place, 1), place)
    phone.reply(200)
    provider.hear()
    time.sleep(2.5)
    again(provider, _notify(provider, place, 2), place)


@fault("d32-not-lamp", "a subscription, and NOTIFYs that arrive: nothing is wrong")
def _lamp_works(lab: Lab) -> None:
    phone, provider = ends(lab)
    place = _subscribe(phone, provider)
    for cseq in (1, 2):
        provider.send(_notify(provider, place, cseq), place)
        phone.reply(200)
        provider.hear()


@fault("d25-not-relayed", "phones inside that talk by a relay of the provider's: nothing is wrong")
def _relayed(lab: Lab) -> None:
    alice, provider = ends(lab)
    carol = Ua(lab, "phone2", "carol", 5062)
    place = register(carol, provider)
    alice.send(alice.request("INVITE", "sip:carol@example.com", "call", sdp=audio(RELAY)), PROVIDER)
    invite = provider.hear()
    heard, ok = called(carol, provider, place, call_id="call2")
    carol.send(ok, heard.source)
    to = provider.hear().header("To")
    provider.send(provider.request("ACK", f"sip:carol@{place[0]}:{place[1]}", "call2", to=to), place)
    carol.hear()
    provider.send(provider.answer(invite, 200, sdp=audio(RELAY, 4002)), invite.source)
    answer = alice.hear()
    alice.send(alice.request("ACK", "sip:bob@203.0.113.50:5060", "call", to=answer.header("To")), PROVIDER)
    provider.hear()
    hang_up(alice, provider, answer)
    provider.send(provider.request("BYE", f"sip:carol@{place[0]}:{place[1]}", "call2", 2, to=to), place)
    carol.reply(200)
    provider.hear()


@fault("d07-not-phone-switched-off", "a call that reaches a phone which has been switched off: not the NAT")
def _switched_off(lab: Lab) -> None:
    phone, provider = ends(lab)
    place = register(phone, provider)
    phone.socket.close()
    again(provider, provider.request("INVITE", f"sip:alice@{place[0]}:{place[1]}", "called",
                                     sdp=audio(PROVIDER_ADDRESS)), place)
