"""What natfix's table and entries do to packets: real ones, through a gateway of namespaces."""

from __future__ import annotations

from dataclasses import replace

from natfix.address import Endpoint
from natfix.commands import (
    AddMapping,
    AdmitPeer,
    AllowRemote,
    CloseFlow,
    DeleteMapping,
    DismissPeer,
    Flow,
    ForbidRemote,
    OpenFlow,
)
from natfix.kernel.probe import probe
from tests.kernel.wires import (
    BIT,
    FLOW,
    GATEWAY,
    MEDIA,
    PHONE,
    PHONE_2,
    REMOTE,
    RTP,
    RTP_2,
    RTP_OUT,
    RTP_OUT_2,
    RTP_REMOTE,
    SIGNALLING,
    SIP,
    SIP_OUT,
    SIP_REMOTE,
    SKELETON,
    STRANGER,
    Queue,
    Wires,
    flow_out,
    is_lost,
    media,
    ports,
    sent,
)
from tests.namespace import kernel_test

pytestmark = kernel_test




def test_element_decides_the_outside_port(gateway: Wires) -> None:
    """A flow whose source is mapped leaves from its outside endpoint: the masquerade comes too late."""
    phone, remote = gateway.bind(*RTP[:2]), gateway.bind(*RTP_REMOTE[:2])
    gateway.kernel.apply([media()])
    assert sent(phone, RTP_REMOTE, remote) == RTP_OUT
    assert sent(remote, RTP_OUT, phone) == RTP_REMOTE


def test_flows_that_are_not_mapped_stay_with_the_operator(gateway: Wires) -> None:
    """An unmapped source is masqueraded as before: port kept, address changed."""
    phone, remote = gateway.bind(PHONE, 12002), gateway.bind(*RTP_REMOTE[:2])
    gateway.kernel.apply([media()])
    assert sent(phone, RTP_REMOTE, remote) == Endpoint(GATEWAY, 12002)


def test_mapped_source_is_not_shown_outside_to_insiders(gateway: Wires) -> None:
    """What a mapped endpoint sends to the gateway itself keeps its inside source."""
    phone, program = gateway.bind(*RTP[:2]), gateway.bind(GATEWAY, 7000)
    gateway.kernel.apply([media()])
    assert sent(phone, Endpoint(GATEWAY, 7000), program) == RTP


def test_entry_passes_the_firewall_from_inside(gateway: Wires) -> None:
    """An opened flow needs no map element, and no rule of the operator's for what comes back."""
    phone, remote = gateway.bind(*RTP[:2]), gateway.bind(*RTP_REMOTE[:2])
    gateway.kernel.apply([OpenFlow(MEDIA, FLOW, 60)])
    assert sent(phone, RTP_REMOTE, remote) == RTP_OUT
    assert sent(remote, RTP_OUT, phone) == RTP_REMOTE


def test_entry_passes_the_firewall_from_outside(gateway: Wires) -> None:
    """The same flow where the remote sends first: the default-drop forward chain sees it as established."""
    phone, remote = gateway.bind(*RTP[:2]), gateway.bind(*RTP_REMOTE[:2])
    gateway.kernel.apply([OpenFlow(MEDIA, FLOW, 60)])
    assert sent(remote, RTP_OUT, phone) == RTP_REMOTE
    assert sent(phone, RTP_REMOTE, remote) == RTP_OUT


def test_element_alone_does_not_pass_a_firewall_without_the_line(gateway: Wires) -> None:
    """What a map lets in is new to the operator's forward chain, whose word stands."""
    phone, remote = gateway.bind(*RTP[:2]), gateway.bind(*RTP_REMOTE[:2])
    gateway.kernel.apply([media(), AllowRemote(MEDIA, RTP_OUT, REMOTE, 60)])
    assert is_lost(remote, RTP_OUT, phone)


def test_allowed_remote_comes_in_from_any_port(open_gateway: Wires) -> None:
    """With the line, a flow from an allowed address reaches the phone from whatever port, and is answered."""
    phone, remote = open_gateway.bind(*RTP[:2]), open_gateway.bind(REMOTE, 55555)
    open_gateway.kernel.apply([media(), AllowRemote(MEDIA, RTP_OUT, REMOTE, 60)])
    assert sent(remote, RTP_OUT, phone) == Endpoint(REMOTE, 55555)
    assert sent(phone, Endpoint(REMOTE, 55555), remote) == RTP_OUT


def test_stranger_is_refused_and_counted(open_gateway: Wires) -> None:
    """Who is not allowed does not reach a mapped port, is counted, and leaves no conntrack entry."""
    phone, stranger = open_gateway.bind(*RTP[:2]), open_gateway.bind(STRANGER, 40000)
    open_gateway.kernel.apply([media(), AllowRemote(MEDIA, RTP_OUT, REMOTE, 60)])
    assert is_lost(stranger, RTP_OUT, phone)
    assert is_lost(stranger, RTP_OUT, phone)
    assert open_gateway.kernel.refused() == {RTP_OUT: 2}
    assert open_gateway.entries(STRANGER) == []


def test_forbidden_remote_comes_in_no_more(open_gateway: Wires) -> None:
    """ForbidRemote takes AllowRemote back for flows to come."""
    phone, remote = open_gateway.bind(*RTP[:2]), open_gateway.bind(*RTP_REMOTE[:2])
    open_gateway.kernel.apply([media(), AllowRemote(MEDIA, RTP_OUT, REMOTE, 60)])
    open_gateway.kernel.apply([ForbidRemote(MEDIA, RTP_OUT, REMOTE)])
    assert is_lost(remote, RTP_OUT, phone)


def test_any_remote_may_come_in_where_policy_says_so(open_gateway: Wires) -> None:
    """AllowRemote for 0.0.0.0 opens a media mapping to whoever sends; forbidding it closes it again."""
    phone, stranger = open_gateway.bind(*RTP[:2]), open_gateway.bind(STRANGER, 40000)
    open_gateway.kernel.apply([media(), AllowRemote(MEDIA, RTP_OUT, "0.0.0.0", 60)])
    assert sent(stranger, RTP_OUT, phone) == Endpoint(STRANGER, 40000)
    open_gateway.kernel.apply([
        ForbidRemote(MEDIA, RTP_OUT, "0.0.0.0"),
        CloseFlow(Flow(Endpoint(STRANGER, 40000), RTP_OUT, RTP, Endpoint(STRANGER, 40000)))])
    assert is_lost(stranger, RTP_OUT, phone)


def test_outgoing_half_lets_nobody_in(open_gateway: Wires) -> None:
    """A mapping without its inward half shows its owner outside; an allowed remote finds nothing."""
    phone, remote = open_gateway.bind(*RTP[:2]), open_gateway.bind(*RTP_REMOTE[:2])
    stranger = open_gateway.bind(STRANGER, 40000)
    open_gateway.kernel.apply([media(inward=True), AllowRemote(MEDIA, RTP_OUT, STRANGER, 60)])
    open_gateway.kernel.apply([media(inward=False)])
    assert sent(phone, RTP_REMOTE, remote) == RTP_OUT
    assert is_lost(stranger, RTP_OUT, phone)


def test_hairpin_by_elements(open_gateway: Wires) -> None:
    """Two phones that talk by outside endpoints see each other's outside ones (RFC 4787, section 6)."""
    first, second = open_gateway.bind(*RTP[:2]), open_gateway.bind(*RTP_2[:2])
    open_gateway.kernel.apply([
        media(), media(RTP_2, RTP_OUT_2),
        AllowRemote(MEDIA, RTP_OUT, PHONE_2, 60), AllowRemote(MEDIA, RTP_OUT_2, PHONE, 60)])
    assert sent(first, RTP_OUT_2, second) == RTP_OUT
    assert sent(second, RTP_OUT, first) == RTP_OUT_2


def test_hairpin_by_entry(gateway: Wires) -> None:
    """One entry with both NATs carries a hairpin in both directions, with no element at all."""
    first, second = gateway.bind(*RTP[:2]), gateway.bind(*RTP_2[:2])
    gateway.kernel.apply([OpenFlow(MEDIA, Flow(RTP, RTP_OUT_2, RTP_2, RTP_OUT), 60)])
    assert sent(second, RTP_OUT, first) == RTP_OUT_2
    assert sent(first, RTP_OUT_2, second) == RTP_OUT


def test_guard_keeps_early_media_from_pinning_a_wrong_entry(gateway: Wires) -> None:
    """RTP that comes before its mapping is dropped without an entry, so the flow works once it is opened."""
    phone, remote = gateway.bind(*RTP[:2]), gateway.bind(*RTP_REMOTE[:2])
    assert is_lost(remote, RTP_OUT, phone)
    assert gateway.entries(REMOTE) == []
    gateway.kernel.apply([media(), OpenFlow(MEDIA, FLOW, 60)])
    assert sent(remote, RTP_OUT, phone) == RTP_REMOTE
    assert gateway.kernel.refused() == {RTP_OUT: 1}


def test_guard_lets_answers_to_the_gateway_pass(gateway: Wires) -> None:
    """The gateway's own programs may use ports of the pool as clients."""
    program, remote = gateway.bind(GATEWAY, 30010), gateway.bind(*RTP_REMOTE[:2])
    assert sent(program, RTP_REMOTE, remote) == Endpoint(GATEWAY, 30010)
    assert sent(remote, Endpoint(GATEWAY, 30010), program) == RTP_REMOTE


def test_stale_masqueraded_entry_is_replaced(gateway: Wires) -> None:
    """A stream that began before its mapping moves to the advertised port as soon as the flow is opened."""
    phone, remote = gateway.bind(*RTP[:2]), gateway.bind(*RTP_REMOTE[:2])
    assert sent(phone, RTP_REMOTE, remote) == Endpoint(GATEWAY, 12000)
    gateway.kernel.apply([media(), OpenFlow(MEDIA, FLOW, 60)])
    assert sent(phone, RTP_REMOTE, remote) == RTP_OUT
    assert sent(remote, RTP_OUT, phone) == RTP_REMOTE


def test_entry_that_holds_the_reply_tuple_is_replaced(open_gateway: Wires) -> None:
    """Where another flow owns the tuple that the remote will send, opening the flow takes it over."""
    phone, remote = open_gateway.bind(*RTP[:2]), open_gateway.bind(*RTP_REMOTE[:2])
    wrong = flow_out(RTP_2, RTP_REMOTE, RTP_OUT)
    open_gateway.kernel.apply([OpenFlow(MEDIA, wrong, 60)])
    open_gateway.kernel.apply([OpenFlow(MEDIA, FLOW, 60)])
    assert sent(remote, RTP_OUT, phone) == RTP_REMOTE
    assert open_gateway.kernel.counters([wrong]) == {}


def test_flow_ends_when_it_is_closed(gateway: Wires) -> None:
    """CloseFlow cuts a running flow; closing it again is no error."""
    phone, remote = gateway.bind(*RTP[:2]), gateway.bind(*RTP_REMOTE[:2])
    gateway.kernel.apply([OpenFlow(MEDIA, FLOW, 60)])
    assert sent(remote, RTP_OUT, phone) == RTP_REMOTE
    gateway.kernel.apply([CloseFlow(FLOW)])
    assert is_lost(remote, RTP_OUT, phone)
    gateway.kernel.apply([CloseFlow(FLOW)])


def test_deleted_mapping_frees_its_port(open_gateway: Wires) -> None:
    """After DeleteMapping neither half is there; deleting it again is no error."""
    phone, remote = open_gateway.bind(*RTP[:2]), open_gateway.bind(*RTP_REMOTE[:2])
    open_gateway.kernel.apply([media(), AllowRemote(MEDIA, RTP_OUT, REMOTE, 60)])
    for _ in range(2):
        open_gateway.kernel.apply([DeleteMapping(MEDIA, RTP, RTP_OUT)])
    assert open_gateway.kernel.mappings() == []
    assert is_lost(remote, RTP_OUT, phone)
    assert sent(phone, RTP_REMOTE, remote) == Endpoint(GATEWAY, 12000)


# Signalling and the queue


def test_sip_waits_in_the_queue_with_inside_addresses(gateway: Wires, queue: Queue) -> None:
    """Both directions of a SIP flow are diverted: after DNAT on the way in, before SNAT on the way out."""
    phone, remote = gateway.bind(*SIP[:2]), gateway.bind(*SIP_REMOTE[:2])
    phone.sendto(b"REGISTER", SIP_REMOTE[:2])
    mapping = AddMapping(SIGNALLING, SIP, SIP_OUT, 60, inward=False)
    assert queue.accept(1, lambda: gateway.kernel.apply([mapping])) == [ports(5060, 5060) + b"REGISTER"]
    assert remote.recvfrom(100) == (b"REGISTER", SIP_OUT[:2])
    remote.sendto(b"200", SIP_OUT[:2])
    assert queue.accept(1) == [ports(5060, 5060) + b"200"]
    assert phone.recvfrom(100) == (b"200", SIP_REMOTE[:2])


def test_diverted_packets_are_counted(gateway: Wires, queue: Queue) -> None:
    """The counter tells of each SIP packet in either direction, not of media, and lives through a restart."""
    phone, registrar = gateway.bind(PHONE, 5060), gateway.bind(REMOTE, 5060)
    other, sink = gateway.bind(PHONE, 12000), gateway.bind(REMOTE, 40000)
    assert sent(other, RTP_REMOTE, sink)
    phone.sendto(b"REGISTER", SIP_REMOTE[:2])
    queue.accept(1, lambda: gateway.kernel.apply([
        AddMapping(SIGNALLING, SIP, SIP_OUT, 60, inward=False, owner="register")]))
    registrar.recv(100)
    registrar.sendto(b"200", SIP_OUT[:2])
    queue.accept(1)
    gateway.install()
    assert "packets 2 " in gateway.gateway.run("nft list counter ip natfix diverted")
    assert gateway.kernel.is_intact()


def test_flow_may_be_opened_while_its_first_packets_wait(gateway: Wires, queue: Queue) -> None:
    """An entry made beside queued packets of its flow takes them over: none is lost or leaves elsewhere."""
    phone, remote = gateway.bind(*SIP[:2]), gateway.bind(*SIP_REMOTE[:2])
    for number in range(3):
        phone.sendto(b"%d" % number, SIP_REMOTE[:2])
    commands = [AddMapping(SIGNALLING, SIP, SIP_OUT, 60),
                OpenFlow(SIGNALLING, flow_out(SIP, SIP_REMOTE, SIP_OUT), 60)]
    queue.accept(3, lambda: gateway.kernel.apply(commands))
    assert [remote.recvfrom(100) for _ in range(3)] == [(b"%d" % number, SIP_OUT[:2]) for number in range(3)]
    assert len(gateway.entries(REMOTE)) == 1


def test_flow_may_be_renewed_while_its_answer_waits(gateway: Wires, queue: Queue) -> None:
    """A registrar's entry is made anew while the 200 that says how long is in the queue; the 200 arrives."""
    phone, remote = gateway.bind(*SIP[:2]), gateway.bind(*SIP_REMOTE[:2])
    registration = OpenFlow(SIGNALLING, flow_out(SIP, SIP_REMOTE, SIP_OUT), 600, fixed=True)
    gateway.kernel.apply([AddMapping(SIGNALLING, SIP, SIP_OUT, 60), registration])
    remote.sendto(b"200", SIP_OUT[:2])
    queue.accept(1, lambda: gateway.kernel.apply([registration]))
    assert phone.recvfrom(100) == (b"200", SIP_REMOTE[:2])
    remote.sendto(b"INVITE", SIP_OUT[:2])
    queue.accept(1)
    assert phone.recvfrom(100) == (b"INVITE", SIP_REMOTE[:2])


def test_packets_wait_through_a_new_installation(gateway: Wires, queue: Queue) -> None:
    """Neither asking the kernel what it can, nor putting the table in once more, costs a queued packet."""
    phone, remote = gateway.bind(*SIP[:2]), gateway.bind(*SIP_REMOTE[:2])
    phone.sendto(b"REGISTER", SIP_REMOTE[:2])
    mapping = AddMapping(SIGNALLING, SIP, SIP_OUT, 60, inward=False)
    gateway.kernel.apply([mapping])
    queue.accept(1, lambda: [gateway.gateway.call(probe), gateway.install()])
    assert remote.recvfrom(100) == (b"REGISTER", SIP_OUT[:2])


def test_media_does_not_wait_in_the_queue(gateway: Wires, queue: Queue) -> None:
    """RTP passes by the queue, by entry and by element."""
    phone, remote = gateway.bind(*RTP[:2]), gateway.bind(*RTP_REMOTE[:2])
    gateway.kernel.apply([media(), OpenFlow(MEDIA, FLOW, 60)])
    assert sent(remote, RTP_OUT, phone) == RTP_REMOTE
    assert sent(phone, Endpoint(REMOTE, 40002), gateway.bind(REMOTE, 40002)) == RTP_OUT
    assert queue.accept(0) == []
    assert sent(phone, RTP_REMOTE, remote) == RTP_OUT


def test_call_comes_in_long_after_the_last_packet(bare: Wires) -> None:
    """An allowed remote reaches a registered phone through its mapping when no conntrack entry is left."""
    bare.firewall(dnat_line=True)
    bare.install()
    queue = Queue(bare)
    phone, remote, stranger = bare.bind(*SIP[:2]), bare.bind(REMOTE, 5062), bare.bind(STRANGER, 5060)
    bare.kernel.apply([AddMapping(SIGNALLING, SIP, SIP_OUT, 60),
                       AllowRemote(SIGNALLING, SIP_OUT, REMOTE, 60)])
    stranger.sendto(b"scan", SIP_OUT[:2])
    remote.sendto(b"INVITE", SIP_OUT[:2])
    assert queue.accept(1) == [ports(5062, 5060) + b"INVITE"]
    assert phone.recvfrom(100) == (b"INVITE", (REMOTE, 5062))
    queue.close()


def test_a_listed_peer_reaches_what_is_open_inward(bare: Wires) -> None:
    """One element for the peer, none for each mapping; without an inward half, or once dismissed, no way."""
    bare.firewall(dnat_line=True)
    bare.install()
    queue = Queue(bare)
    phone, peer = bare.bind(*SIP[:2]), bare.bind(REMOTE, 5062)
    closed = Endpoint(SIP_OUT.host, 6061)
    bare.kernel.apply([AddMapping(SIGNALLING, SIP, SIP_OUT, 60), AdmitPeer(REMOTE),
                       AddMapping(SIGNALLING, Endpoint(PHONE_2, 5060), closed, 60, inward=False)])
    peer.sendto(b"INVITE", closed[:2])
    peer.sendto(b"INVITE", SIP_OUT[:2])
    assert queue.accept(1) == [ports(5062, 5060) + b"INVITE"]
    assert phone.recvfrom(100) == (b"INVITE", (REMOTE, 5062))
    bare.kernel.apply([DismissPeer(REMOTE)])
    bare.bind(REMOTE, 5063).sendto(b"INVITE", SIP_OUT[:2])
    assert queue.accept(0) == []
    queue.close()


def test_unusual_signalling_port_is_diverted_once_it_is_mapped(gateway: Wires, queue: Queue) -> None:
    """What a phone that registered from port 6060 sends from there to another port than SIP's is diverted."""
    inside = Endpoint(PHONE, 6060)
    phone, remote = gateway.bind(*inside[:2]), gateway.bind(REMOTE, 7777)
    gateway.kernel.apply([AddMapping(SIGNALLING, inside, SIP_OUT, 60, inward=False)])
    phone.sendto(b"OPTIONS", (REMOTE, 7777))
    assert queue.accept(1) == [ports(6060, 7777) + b"OPTIONS"]
    assert remote.recvfrom(100) == (b"OPTIONS", SIP_OUT[:2])


def test_phones_call_each_other_by_outside_endpoint(gateway: Wires, queue: Queue) -> None:
    """A mapped phone can be called from inside by its outside endpoint, whatever addresses are allowed."""
    first, second = gateway.bind(PHONE_2, 6062), gateway.bind(*SIP[:2])
    gateway.kernel.apply([AddMapping(SIGNALLING, SIP, SIP_OUT, 60),
                          AddMapping(SIGNALLING, Endpoint(PHONE_2, 6062), Endpoint(GATEWAY, 20002), 60)])
    first.sendto(b"INVITE", SIP_OUT[:2])
    assert queue.accept(1) == [ports(6062, 5060) + b"INVITE"]
    assert second.recvfrom(100) == (b"INVITE", (GATEWAY, 20002))


def test_sip_passes_a_dead_natfix_only_where_told_so(bare: Wires) -> None:
    """With nobody at the queue SIP is dropped, or passes unfixed with the flag bypass."""
    phone, remote = bare.bind(*SIP[:2]), bare.bind(*SIP_REMOTE[:2])
    bare.install(replace(SKELETON, bypass=False))
    assert is_lost(phone, SIP_REMOTE, remote)
    bare.install(replace(SKELETON, bypass=True))
    assert sent(phone, SIP_REMOTE, remote) == SIP


def test_marks_of_others_survive(gateway: Wires) -> None:
    """Only natfix's bit of a mark is ever changed: by its rules, by its entries, and when it goes."""
    gateway.gateway.run("nft -f -", """table ip others {
        chain marks {
            type filter hook prerouting priority mangle
            ct mark set ct mark | 0x11
        }
    }""")
    phone, remote = gateway.bind(PHONE, 7000), gateway.bind(REMOTE, 7000)
    assert sent(phone, Endpoint(REMOTE, 7000), remote) == Endpoint(GATEWAY, 7000)
    adopted = flow_out(Endpoint(PHONE, 7000), Endpoint(REMOTE, 7000), Endpoint(GATEWAY, 7000))
    gateway.kernel.apply([OpenFlow(SIGNALLING, adopted, 60)])
    assert gateway.kernel.counters([adopted])[adopted].mark == BIT | 0x11
    sent(gateway.bind(*SIP[:2]), Endpoint(REMOTE, 7000), remote)
    gateway.remove()
    assert [state.mark for state in gateway.kernel.flows()] == [0x11]


def test_a_host_that_sends_too_fast_is_dropped_by_itself(bare: Wires) -> None:
    """Beyond its rate a host's packets never come to the queue, and are counted; another host's pass, and so
    do its own a moment later. The rules count as untouched."""
    bare.install(replace(SKELETON, bypass=True, pace=10))
    phone, other = bare.bind(*SIP[:2]), bare.bind(PHONE_2, 5060)
    remote = bare.bind(*SIP_REMOTE[:2])
    remote.settimeout(0.2)
    assert sum(not is_lost(phone, SIP_REMOTE, remote) for _ in range(10)) == 10
    for _ in range(50):
        phone.sendto(b"more", SIP_REMOTE[:2])
    while True:
        try:
            remote.recv(100)
        except TimeoutError:
            break
    dropped = bare.kernel.flooding()
    assert set(dropped) == {PHONE}
    assert dropped[PHONE] > 25
    assert not is_lost(other, SIP_REMOTE, remote)
    assert not is_lost(phone, SIP_REMOTE, remote)
    assert bare.gateway.call(bare.kernel.is_intact)
