"""Repairs: each fault is there without its repair and gone with it; nobody else is touched."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.config import Inside, Outside, Settings, Signalling
from natfix.engine import Engine
from natfix.quirks import Quirk, Quirks, Repair
from tests.agent import Leg, Sip
from tests.playbook import PHONE, PROVIDER, World

DEVICE = "Playbook/1.0"
OLD, NEW = Endpoint(PHONE.host, 12000), Endpoint(PHONE.host, 12500)


def world_with(*repairs: Repair, agent_name: str = "", all_called: str = "") -> World:
    """A gateway that repairs what the phone called alice needs; carol and bob call themselves otherwise."""
    networks = tuple(World().kernel.networks.values())
    settings = Settings(inside=Inside(networks), outside=Outside("outside"),
                        signalling=Signalling(agent_name=all_called))
    quirks = [Quirk("test", DEVICE, frozenset(repairs), agent_name=agent_name)]
    world = World(settings, Engine(settings, Quirks(quirks if repairs or agent_name else ())))
    world.provider.user_agent = world.other_phone.user_agent = "Other/1.0"
    return world


def counted(world: World, repair: Repair) -> int:
    counters: dict[str, int] = world.engine.status(world.now)["counters"]
    return counters.get("quirk " + repair.value, 0)


def rings(world: World, *bodies: str, headers: tuple[tuple[str, str], ...] = (), tag: str = "") -> Leg:
    """The phone calls, and the provider answers 183 with each of *bodies*; return the provider's leg."""
    world.register(world.phone)
    world.phone.invites(world.provider.address)
    callee = world.provider.accepts(world.provider.last, 183, bodies[0], headers, tag)
    for body in bodies[1:]:
        callee.replies(183, body, headers)
    return callee


# -- E

EARLY, LATER = Endpoint(PROVIDER.host, 41000), Endpoint(PROVIDER.host, 42000)


@pytest.mark.parametrize("is_repaired", [True, False])
def test_second_early_media(is_repaired: bool) -> None:
    """Of two 183 of one dialog the second arrives without SDP and Content-Type, its length right."""
    world = world_with(*[Repair.DROP_SECOND_EARLY_MEDIA] * is_repaired)
    provider = world.provider
    callee = rings(world, provider.sdp(rtp=EARLY), provider.sdp(rtp=LATER))
    first, second = world.phone.received(183)
    assert "41000" in first.body.decode()
    assert (second.body == b"") is is_repaired
    assert (second["content-type"] == "") is is_repaired
    assert counted(world, Repair.DROP_SECOND_EARLY_MEDIA) == is_repaired
    callee.answers(200)
    assert world.told_media(world.phone) == provider.rtp


def test_the_same_early_media_again() -> None:
    """A 183 that says again what the first one said is no second early media."""
    world = world_with(Repair.DROP_SECOND_EARLY_MEDIA)
    body = world.provider.sdp(rtp=EARLY)
    callee = rings(world, body)
    callee.replies(183, body, [("Reason", "SIP;cause=183")])
    assert all(b"41000" in message.body for message in world.phone.received(183))


def test_reliable_early_media_stays() -> None:
    """What PRACK is to go on from is left as it is, and a note says why."""
    world = world_with(Repair.DROP_SECOND_EARLY_MEDIA)
    provider = world.provider
    callee = rings(world, provider.sdp(rtp=EARLY))
    callee.replies(183, provider.sdp(rtp=LATER), [("Require", "100rel"), ("RSeq", "2")])
    assert b"42000" in world.phone.received(183)[-1].body
    assert "quirk-drop-second-early-media" in world.log[-1].rules()      # type: ignore[union-attr]
    assert counted(world, Repair.DROP_SECOND_EARLY_MEDIA) == 0


def test_another_fork_has_its_own_early_media() -> None:
    """Another early dialog's first SDP is not the second of the first one's."""
    world = world_with(Repair.DROP_SECOND_EARLY_MEDIA)
    provider = world.provider
    rings(world, provider.sdp(rtp=EARLY), tag="one")
    provider.accepts(provider.received("INVITE")[-1], 183, provider.sdp(rtp=LATER), tag="two")
    assert all(message.body for message in world.phone.received(183))


# -- S

def called(world: World, early: str, late: str, headers: tuple[tuple[str, str], ...] = ()) -> Sip:
    """The phone is called, says *early* in its 183 and *late* in its 200; return the 200 seen outside."""
    world.register(world.phone)
    uri = world.registered_uri(world.phone)
    world.provider.invites(uri, world.resolve_uri(uri))
    leg = world.phone.accepts(world.phone.last, 183, early, headers)
    leg.replies(200, late)
    return world.provider.received(200)[-1]


@pytest.mark.parametrize("late", [{"rtp": NEW}, {"rtp": Endpoint("0.0.0.0", 12000)}, None])
@pytest.mark.parametrize("is_repaired", [True, False])
def test_wrong_sdp_in_the_200(late: dict[str, Endpoint] | None, is_repaired: bool) -> None:
    """Another port, none, or no SDP at all in the 200: outside sees what the 183 said, and audio arrives."""
    world = world_with(*[Repair.KEEPS_EARLY_SDP] * is_repaired)
    phone = world.phone
    answer = called(world, phone.sdp(rtp=OLD), phone.sdp(**late) if late else "")
    assert (answer.body == world.provider.received(183)[-1].body) is is_repaired
    assert counted(world, Repair.KEEPS_EARLY_SDP) == is_repaired
    if is_repaired:
        assert answer["content-type"] == "application/sdp"
        world.provider.legs.clear()
        world.assert_hears(world.phone, world.provider)


def test_right_sdp_in_the_200_is_no_case_for_repair() -> None:
    """A device that says the same both times is left alone."""
    world = world_with(Repair.KEEPS_EARLY_SDP)
    called(world, world.phone.sdp(rtp=OLD), world.phone.sdp(rtp=OLD))
    assert counted(world, Repair.KEEPS_EARLY_SDP) == 0


def test_reliable_and_unusable_early_sdp_is_not_pinned() -> None:
    """Neither a reliable 183 nor one without a port counts."""
    for early, headers in (({"rtp": OLD}, (("Require", "100rel"), ("RSeq", "1"))),
                           ({"rtp": Endpoint("0.0.0.0", 12000)}, ())):
        world = world_with(Repair.KEEPS_EARLY_SDP)
        called(world, world.phone.sdp(**early), world.phone.sdp(rtp=NEW), headers)
        assert counted(world, Repair.KEEPS_EARLY_SDP) == 0
        assert NEW in world.media_mappings()


# -- T

def tagged_call(world: World) -> tuple[Leg, Leg, list[Sip]]:
    """The phone calls; 183 has the tag "early", 200 has "final"; return both legs, and what bob receives."""
    rings(world, world.provider.sdp(rtp=EARLY), tag="early")
    callee = world.provider.accepts(world.provider.received("INVITE")[-1], 200, world.provider.sdp(),
                                    tag="final")
    caller = next(leg for leg in world.phone.legs.values() if leg.call_id == callee.call_id)
    caller.sends("ACK")
    return caller, callee, [item.message for item in world.provider.inbox]


def test_without_the_repair_the_tag_is_wrong() -> None:
    """The fault: a device that stays with the first tag acknowledges a dialog that nobody has."""
    caller, _, _ = tagged_call(world := world_with())
    assert world.phone.received(200)[-1]["to"].endswith("tag=final")
    assert caller.remote_tag == "early"
    assert "tag=early" in world.provider.received("ACK")[-1]["to"]


def test_the_first_tag_is_kept() -> None:
    """The device sees one tag only; the other side sees its own in every request and response, both ways."""
    world = world_with(Repair.KEEPS_FIRST_TAG)
    caller, callee, _ = tagged_call(world)
    assert world.phone.received(200)[-1]["to"].endswith("tag=early")
    assert "tag=final" in world.provider.received("ACK")[-1]["to"]
    world.advance(1)
    callee.sends("INFO")
    assert world.phone.received("INFO")[-1]["from"].endswith("tag=early")
    world.phone.replies(world.phone.last, 200)
    assert world.provider.received(200)[-1]["from"].endswith("tag=final")
    caller.sends("INVITE", world.phone.sdp(version=2))
    assert "tag=final" in world.provider.received("INVITE")[-1]["to"]
    world.provider.replies(world.provider.last, 200, world.provider.sdp())
    caller.sends("ACK")
    caller.sends("BYE")
    assert "tag=final" in world.provider.received("BYE")[-1]["to"]
    world.provider.replies(world.provider.last, 200, contact="")
    world.advance(120)
    assert world.is_quiet()


def test_one_tag_needs_no_repair() -> None:
    """An ordinary call of such a device is not touched."""
    world = world_with(Repair.KEEPS_FIRST_TAG)
    world.register(world.phone)
    world.call(world.phone, world.provider).hang_up()
    assert counted(world, Repair.KEEPS_FIRST_TAG) == 0


def test_a_stranger_sets_no_tag() -> None:
    """A 183 from somebody who has no part in the call does not count as the first one."""
    world = world_with(Repair.KEEPS_FIRST_TAG)
    world.register(world.phone)
    world.phone.is_strict = False
    world.phone.invites(world.provider.address)
    stranger = world.agent("mallory", Endpoint("198.51.100.66", 5060))
    stranger.inbox = world.provider.inbox[-1:]
    stranger.replies(stranger.last, 183, tag="evil")
    world.provider.accepts(world.provider.received("INVITE")[-1], 200, world.provider.sdp(), tag="final")
    assert world.phone.received(200)[-1]["to"].endswith("tag=final")


def test_tags_survive_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart later requests still get the right tag."""
    world = world_with(Repair.KEEPS_FIRST_TAG)
    caller, _, _ = tagged_call(world)
    quirks = Quirks([Quirk("test", DEVICE, frozenset({Repair.KEEPS_FIRST_TAG}))])
    kept = [row.row["kept"] for (table, _), row in world.rows.items() if table == "calls" and row.row]
    assert kept == [{"first-tag": "early", "final-tag": "final"}]
    monkeypatch.setattr("tests.playbook.Engine", lambda settings: Engine(settings, quirks))
    world.restart()
    caller.sends("BYE")
    assert "tag=final" in world.provider.received("BYE")[-1]["to"]


# -- R

@pytest.mark.parametrize("is_repaired", [True, False])
def test_reinvite_is_told(is_repaired: bool) -> None:
    """A re-INVITE to such a device passes as it came, and is noted and counted; the first INVITE is not."""
    world = world_with(*[Repair.NO_REINVITE] * is_repaired)
    world.register(world.phone)
    call = world.call(world.phone, world.provider)
    assert counted(world, Repair.NO_REINVITE) == 0
    delivery = call.callee.sends("INVITE", world.provider.sdp(version=2))
    assert delivery.arrived is not None
    assert ("quirk-no-reinvite" in delivery.rules()) is is_repaired
    assert counted(world, Repair.NO_REINVITE) == is_repaired


# -- replies to the Via port

@pytest.mark.parametrize("asks_rport", [False, True])
@pytest.mark.parametrize("is_repaired", [True, False])
def test_replies_to_via_port(is_repaired: bool, asks_rport: bool) -> None:
    """A phone that sends from 5062 and listens at 5060 gets its answers; without the repair it gets none."""
    world = world_with(*[Repair.REPLIES_TO_VIA_PORT] * is_repaired)
    mouth = world.agent("dora", Endpoint(PHONE.host, 5062), proxy=PROVIDER)
    mouth.sent_by, mouth.contact = str(PHONE), f"<sip:dora@{PHONE}>"
    mouth.via_parameters = ";rport" if asks_rport else ""
    world.phone.is_strict = False
    mouth.registers()
    world.provider.replies(world.provider.last, 200)
    assert (200 in [item.message.status for item in world.phone.inbox]) is is_repaired
    assert counted(world, Repair.REPLIES_TO_VIA_PORT) == is_repaired


@pytest.mark.parametrize("is_repaired", [True, False])
def test_answers_to_the_source_reach_the_via_port(is_repaired: bool) -> None:
    """What a server sends to where a request came from is delivered at the Via's port, the same bytes again
    included; a phone that sends from where it listens from then on gets it there."""
    world = world_with(*[Repair.REPLIES_TO_VIA_PORT] * is_repaired)
    mouth = world.agent("dora", Endpoint(PHONE.host, 5062), proxy=PROVIDER)
    mouth.sent_by, mouth.via_parameters, mouth.is_strict = str(PHONE), "", False
    world.phone.is_strict = False
    mouth.registers()
    world.provider.replies(world.provider.last, 200)
    answer = world.log[-1].payload      # type: ignore[union-attr]
    for inbox in (world.phone.inbox, mouth.inbox):
        inbox.clear()
    for _ in range(2):
        world.provider.sends(answer, Endpoint("203.0.113.1", 5062))
    assert (len(world.phone.inbox), len(mouth.inbox)) == ((2, 0) if is_repaired else (0, 2))
    mouth.sent_by = str(mouth.endpoint)
    mouth.registers()
    world.provider.sends(answer, Endpoint("203.0.113.1", 5062))
    assert len(mouth.inbox) == (1 if is_repaired else 3)


# -- names

def shown_names(world: World) -> set[str]:
    return {item.message["user-agent"] or item.message["server"] for item in world.provider.inbox}


def test_agent_name_of_a_quirk() -> None:
    """A device is called as its quirk says, in requests and responses; another keeps its name."""
    world = world_with(agent_name="Phone/1")
    world.register(world.phone)
    assert shown_names(world) == {"Phone/1"}
    call = world.call(world.provider, world.phone)
    call.hang_up()
    assert shown_names(world) == {"Phone/1"}
    world.provider.inbox.clear()
    world.other_phone.registers()
    assert shown_names(world) == {"Other/1.0"}


def test_agent_name_for_all() -> None:
    """[signalling] agent_name goes for every phone; inside nobody's name is changed."""
    world = world_with(all_called="Site/2")
    world.register(world.phone)
    assert shown_names(world) == {"Site/2"}
    world.call(world.phone, world.provider)
    assert {item.message["server"] for item in world.phone.inbox} == {"Other/1.0"}


def test_without_quirks_nothing_is_asked() -> None:
    """Where no quirk and no name is set, the packet path does not enter the repairs."""
    assert not World().engine._repairs.is_needed


def test_healthy_devices_with_all_repairs() -> None:
    """Calls of a device that has no fault go on as ever with every repair switched on: nothing is counted."""
    world = world_with(*set(Repair) - {Repair.IGNORES_RPORT})
    world.register(world.phone)
    for caller, callee in ((world.phone, world.provider), (world.provider, world.phone)):
        call = world.call(caller, callee)
        world.assert_two_way_audio(call)
        call.hang_up(call.callee)
        world.advance(120)
    assert world.is_quiet()
    assert not [name for name in world.engine.status(world.now)["counters"] if name.startswith("quirk")]


def test_update_is_newer_than_the_18x() -> None:
    """What UPDATE has agreed before the 200 is not undone by pinning the 183."""
    world = world_with(Repair.KEEPS_EARLY_SDP)
    world.register(world.phone)
    uri = world.registered_uri(world.phone)
    caller = world.provider.invites(uri, world.resolve_uri(uri))
    leg = world.phone.accepts(world.phone.last, 183, world.phone.sdp(rtp=OLD))
    caller.sends("UPDATE", world.provider.sdp(version=2))
    world.phone.replies(world.phone.last, 200, world.phone.sdp(rtp=NEW, version=2))
    leg.replies(200, world.phone.sdp(rtp=NEW, version=2))
    assert counted(world, Repair.KEEPS_EARLY_SDP) == 0
