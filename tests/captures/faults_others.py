"""Other transports, the kernel's helper, families, strangers: D23, D24, D27, D28, D33, D34."""

from __future__ import annotations

import contextlib
import ssl
import time

from tests.captures.ends import Heard, Ua, audio, register, rules, stream
from tests.captures.exchanges import BOB, PROVIDER, RELAY, WAITS, again, call, ends, hang_up
from tests.captures.faults import FAULTS, Fault, fault
from tests.compare.worlds import HELPER
from tests.lab.lab import Lab
from tests.lab.topology import GATEWAY_ADDRESS, PROVIDER_ADDRESS


@fault("d23-connection-refused", "a phone on TCP is called at the port of its Contact: refused", "D23")
def _refused(lab: Lab) -> None:
    rules(lab, "chain input { type filter hook input priority -5; "
               'iifname "outside" tcp dport 5060 reject with tcp reset; }')
    phone, provider = ends(lab)
    with stream(lab, "provider") as server, stream(lab, "phone1") as client, stream(lab, "provider") as back:
        server.bind(PROVIDER)
        server.listen()
        client.connect(PROVIDER)
        peer, source = server.accept()
        message = phone.request("REGISTER", "sip:example.com", "registration", 1, "Expires: 3600",
                                contact="<sip:alice@192.168.1.10:5060;transport=tcp>",
                                to="<sip:alice@example.com>").replace("/UDP", "/TCP")
        client.sendall(message.encode())
        heard = Heard(peer.recv(9999).decode(), source)
        contact = f"<sip:alice@{GATEWAY_ADDRESS}:5060;transport=tcp>"
        peer.sendall(provider.answer(heard, 200, f"Contact: {contact};expires=3600").encode())
        client.recv(9999)
        with contextlib.suppress(ConnectionError):
            back.connect((GATEWAY_ADDRESS, 5060))
        peer.close()


@fault("d24-tls", "SIP in TLS, of which nothing is seen", "D24")
def _tls(lab: Lab) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="example.com")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    with stream(lab, "provider") as server, stream(lab, "phone1") as client:
        server.bind((PROVIDER_ADDRESS, 5061))
        server.listen()
        client.connect((PROVIDER_ADDRESS, 5061))
        peer, _ = server.accept()
        client.sendall(outgoing.read())
        peer.recv(9999)
        peer.close()


@fault("d28-helper-drops-a-name", "the kernel's SIP helper drops an INVITE whose c= is a name", "D28")
def _helper(lab: Lab) -> None:
    lab.gateway.run(["nft", "-f", "-"], input=HELPER)
    phone, provider = ends(lab)
    register(phone, provider)
    again(phone, phone.request("INVITE", BOB, "call", sdp=audio("pbx.example.com")), PROVIDER, WAITS[:3])


@fault("d28-not-helper-translates", "the kernel's SIP helper translates a call: nothing is wrong")
def _helper_translates(lab: Lab) -> None:
    lab.gateway.run(["nft", "-f", "-"], input=HELPER)
    phone, provider = ends(lab)
    register(phone, provider)
    _, ok = call(phone, provider, audio(phone.address))
    phone.talk(4000, (PROVIDER_ADDRESS, 4000))
    provider.talk(4000, (GATEWAY_ADDRESS, 4000))
    hang_up(phone, provider, ok)


@fault("d33-ipv6-media", "a phone offers media in IPv6 over IPv4, and is refused", "D33")
def _ipv6(lab: Lab) -> None:
    phone, provider = ends(lab)
    phone.send(phone.request("INVITE", BOB, "call", sdp=audio("2001:db8::10", family="IP6")), PROVIDER)
    provider.reply(488)
    refusal = phone.hear()
    phone.send(phone.request("ACK", BOB, "call", to=refusal.header("To")), PROVIDER)


@fault("d34-scanner", "a stranger asks for many users", "D34")
def _scanner(lab: Lab) -> None:
    phone, provider = ends(lab)
    place = register(phone, provider)
    stranger = Ua(lab, "stranger", "100")
    for user in range(100, 112):
        stranger.send(stranger.request("OPTIONS", f"sip:{user}@{place[0]}", f"scan{user}", 1,
                                       "User-Agent: friendly-scanner"), place)
        time.sleep(0.02)


@fault("d34-not-provider-asks", "the provider sends OPTIONS again and again: nothing is wrong")
def _asks(lab: Lab) -> None:
    phone, provider = ends(lab)
    place = register(phone, provider)
    for number in range(12):
        provider.send(provider.request("OPTIONS", f"sip:alice@{place[0]}:{place[1]}", f"ping{number}"), place)
        phone.reply(200)
        provider.hear()


@fault("d23-not-same-connection", "a phone on TCP is called by the connection it made: nothing is wrong")
def _same_connection(lab: Lab) -> None:
    phone, provider = ends(lab)
    with stream(lab, "provider") as server, stream(lab, "phone1") as client:
        server.bind(PROVIDER)
        server.listen()
        client.connect(PROVIDER)
        peer, source = server.accept()
        contact = "<sip:alice@192.168.1.10:5060;transport=tcp>"
        client.sendall(phone.request("REGISTER", "sip:example.com", "registration", 1, "Expires: 3600",
                                     contact=contact, to="<sip:alice@example.com>"
                                     ).replace("/UDP", "/TCP").encode())
        heard = Heard(peer.recv(9999).decode(), source)
        peer.sendall(provider.answer(heard, 200, f"Contact: {contact};expires=3600").encode())
        client.recv(9999)
        peer.sendall(provider.request("OPTIONS", "sip:alice@192.168.1.10:5060;transport=tcp", "ping"
                                      ).replace("/UDP", "/TCP").encode())
        client.sendall(phone.answer(Heard(client.recv(9999).decode(), PROVIDER), 200).encode())
        peer.recv(9999)
        client.close()
        peer.close()


@fault("d24-not-clear-at-5061", "SIP in the clear at port 5061: nothing is wrong")
def _clear(lab: Lab) -> None:
    phone, provider = Ua(lab, "phone1", "alice", 5061), Ua(lab, "provider", "bob", 5061)
    register(phone, provider)


@fault("d33-not-origin-in-ipv6", "media in IPv4, and an IPv6 address in o= alone: nothing is wrong")
def _origin(lab: Lab) -> None:
    phone, provider = ends(lab)
    offer = audio(RELAY).replace(f"1 1 IN IP4 {RELAY}", "1 1 IN IP6 2001:db8::10")
    _, ok = call(phone, provider, offer)
    hang_up(phone, provider, ok)


LOG = """\
[48812.014210] {0} IN= OUT= SRC=192.168.1.5 DST=203.0.113.50 LEN=870 TOS=0x00 TTL=64 ID=0 DF PROTO=UDP
[48812.517733] {0} IN= OUT= SRC=192.168.1.5 DST=203.0.113.50 LEN=870 TOS=0x00 TTL=64 ID=0 DF PROTO=UDP
"""
FAULTS["d27-helper-out-of-ports"] = Fault(
    LOG.format("nf_ct_sip: dropping packet: all ports in use for SDP media"), ("D27",),
    "a kernel's log: its SIP helper has run out of ports (written by hand, in the kernel's words)")
FAULTS["d27-not-out-of-ports"] = Fault(
    LOG.format("nf_ct_sip: dropping packet: invalid SDP"), (),
    "a kernel's log: its SIP helper drops what is no SDP, which is no exhaustion (written by hand)")


@fault("d28-not-name-passes", "an INVITE with a name in c=, and no helper in its way: nothing is wrong")
def _name_passes(lab: Lab) -> None:
    phone, provider = ends(lab)
    register(phone, provider)
    _, ok = call(phone, provider, audio("pbx.example.com"))
    hang_up(phone, provider, ok)


@fault("d34-not-many-users", "the provider asks for many users of a PBX that is registered: nothing is wrong")
def _many_users(lab: Lab) -> None:
    phone, provider = ends(lab)
    place = register(phone, provider)
    for user in range(100, 112):
        provider.send(provider.request("OPTIONS", f"sip:{user}@{place[0]}:{place[1]}", f"ask{user}"), place)
        phone.reply(200)
        provider.hear()
