"""Drive: what natfix makes of each passage, from whatever side it was captured."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.commands import Note
from natfix.config import Settings
from natfix.edits import apply_edits
from natfix.replay.drive import Drive, composed
from natfix.replay.echoes import Echo
from natfix.replay.gateway import Carried, Gateway
from natfix.replay.model import NetworkView, Passage, Repair, Sighting
from natfix.replay.passages import Passages
from tests.replay.sip import (
    MAPPED,
    OTHER_PHONE,
    OUTSIDE,
    PHONE,
    PROVIDER,
    TO,
    audio,
    record,
    request,
    response,
    sighting,
)

VIEW = NetworkView(("192.168.1.0/24",), OUTSIDE.host)
URI = f"sip:alice@{MAPPED}"


class Player:
    """A drive that is shown sightings, passage by passage."""

    def __init__(self, view: NetworkView = VIEW, gateway: bool = True) -> None:
        self.view = view
        self.drive = Drive(view, Gateway(Settings(), view.inside, OUTSIDE.host) if gateway else None)
        self.time = 1000.0

    def show(self, *copies: Sighting) -> Passage:
        """Show one passage of these copies, a second after the last one."""
        self.time += 1
        passages = Passages(self.view)
        for number, copy in enumerate(copies):
            copy.time, copy.interface = self.time + number / 100, f"eth{number}" if len(copies) > 1 else ""
            assert not [*passages.add(copy)]
        (passage,) = passages.finish()
        self.drive.show(passage)
        return passage

    def out(self, payload: bytes, source: Endpoint = PHONE, peer: Endpoint = PROVIDER) -> Repair:
        """Show what was captured on its way out, at one point."""
        return repair_of(self.show(sighting(payload, source, peer)))

    def back(self, payload: bytes, target: Endpoint = PHONE, peer: Endpoint = PROVIDER) -> Repair:
        """Show what was captured on its way in, at one point."""
        return repair_of(self.show(sighting(payload, peer, target)))


@pytest.fixture
def player() -> Player:
    return Player()


def repair_of(passage: Passage) -> Repair:
    assert passage.repair is not None
    check(passage.repair)
    return passage.repair


def check(repair: Repair) -> None:
    """The edits, at their places, lead from what was captured to what natfix lets go."""
    assert len(repair.edits) == len(repair.spans)
    for note, (start, end) in zip(repair.edits, repair.spans, strict=True):
        assert repair.before[start:end].decode("latin-1") == note.old != note.new
        assert note.reason
    edits = tuple((start, end, note.new.encode("latin-1"))
                  for note, (start, end) in zip(repair.edits, repair.spans, strict=True))
    assert apply_edits(repair.before, edits) == repair.after


def rules(repair: Repair) -> list[str]:
    return [note.rule for note in repair.edits]


def reasons(repair: Repair) -> str:
    return " ".join(note.reason for note in repair.left_alone)


def test_outward_from_inside(player: Player) -> None:
    """The inside copy is what natfix sees; each edit has its rule and RFC, each place is right."""
    repair = player.out(request(sdp=audio(Endpoint(PHONE.host, 12000))))
    assert repair.before == request(sdp=audio(Endpoint(PHONE.host, 12000)))
    assert {"via", "contact", "sdp-connection", "sdp-media"} <= set(rules(repair))
    assert all(note.rfc for note in repair.edits)
    assert (repair.source, repair.destination) == (OUTSIDE, PROVIDER)


def test_the_inside_copy_counts(player: Player) -> None:
    """Where a fixer has rewritten the outside copy, natfix is shown what the phone wrote."""
    foreign = sighting(request(via=MAPPED, contact=MAPPED), MAPPED, PROVIDER)
    repair = repair_of(player.show(sighting(request(), PHONE, PROVIDER), foreign))
    assert (repair.before, repair.after) == (request(), request(via=OUTSIDE, contact=OUTSIDE))


def test_outward_from_outside(player: Player) -> None:
    """Only the copy behind the NAT: its Via says who sent it, and a note says that this was inferred."""
    repair = player.out(request(), MAPPED)
    assert repair.after == request(via=OUTSIDE, contact=OUTSIDE)
    assert "192.168.1.10:5060" in reasons(repair)


def test_a_response_from_outside(player: Player) -> None:
    """A response behind the NAT is the endpoint's whose requests came from there, or its Contact's."""
    answer = response(via=PROVIDER, contact="sip:alice@192.168.1.10:5060")
    assert player.out(answer, MAPPED).source == OUTSIDE
    assert player.out(response(via=PROVIDER, cseq=2), MAPPED).source == OUTSIDE


def test_nothing_names_the_inside(player: Player) -> None:
    """A message that a fixer has made public throughout cannot be traced back: it is left alone."""
    repair = player.out(request(via=MAPPED, contact=MAPPED), MAPPED)
    assert repair.after == repair.before
    assert "does not name the inside endpoint" in reasons(repair)


def test_an_answer_to_the_unfixed_request(player: Player) -> None:
    """The peer echoed the private Via and saw another port: natfix's peer would have seen natfix's."""
    player.out(request())
    repair = player.back(response(seen_as=MAPPED))
    assert repair.before == response(seen_as=MAPPED)
    assert repair.after == response(via=PHONE, seen_as=PHONE)
    assert repair.destination == PHONE


def test_an_answer_that_a_fixer_did_not_restore(player: Player) -> None:
    """D11: the phone was shown the fixer's Via; with natfix it gets its own back."""
    player.out(request())
    assert player.back(response(via=MAPPED)).after == response(via=PHONE)


def test_an_answer_to_the_wrong_port(player: Player) -> None:
    """D12: the answer was delivered to a port where nobody listens; with natfix it goes to the asker."""
    player.out(request())
    repair = player.back(response(), Endpoint(PHONE.host, 17973))
    assert repair.destination == PHONE


def test_registration_and_call_from_outside(player: Player) -> None:
    """The registrar stored the address it saw; with natfix it stores natfix's, and the INVITE comes there."""
    player.out(request("REGISTER", headers=("Expires: 600",)))
    stored = response(method="REGISTER", contact=URI, expires=600, seen_as=MAPPED)
    assert b"sip:alice@192.168.1.10:5060" in player.back(stored).after
    assert player.drive._registered == {PHONE}
    invite = request(via=PROVIDER, contact=PROVIDER, uri=URI, call_id="2", branch="z9hG4bK2")
    repair = player.back(invite)
    assert repair.after.startswith(b"INVITE sip:alice@192.168.1.10:5060 SIP/2.0")
    assert repair.left_alone == ()
    assert repair.destination == PHONE


def test_after_a_registration_strangers_are_dropped(player: Player) -> None:
    """Who is not the registrar, and whom nothing else has let in, would not get past natfix."""
    player.out(request("REGISTER", headers=("Expires: 600",)))
    bound = "sip:alice@192.168.1.10:5060"
    player.back(response(method="REGISTER", contact=bound, expires=600, seen_as=OUTSIDE))
    scanner = Endpoint("198.51.100.66", 5060)
    scan = request(via=scanner, contact=scanner, branch="z9hG4bK2", call_id="2")
    repair = player.back(scan, PHONE, scanner)
    assert repair.dropped


def test_a_call_from_before_the_capture(player: Player) -> None:
    """What came in while its registration was not captured is taken for granted, and a note says so."""
    repair = player.back(request("BYE", via=PROVIDER, contact="", uri="sip:alice@192.168.1.10:5060"))
    assert (repair.destination, repair.dropped) == (PHONE, "")
    assert "was not captured" in reasons(repair)


def test_inward_from_outside(player: Player) -> None:
    """Only the copy in front of the NAT: earlier messages say who is behind that port, or nobody does."""
    player.out(request(), MAPPED)
    bye = request("BYE", via=PROVIDER, contact="", uri=URI, to=TO + ";tag=b", branch="z9hG4bK2")
    assert player.back(bye, MAPPED).destination == PHONE
    unknown = player.back(request("OPTIONS", via=PROVIDER, contact="", branch="z9hG4bK3"), OUTSIDE)
    assert "nothing says which inside endpoint" in reasons(unknown)


def test_retransmissions_give_equal_bytes(player: Player) -> None:
    """A retransmission leaves as the same bytes, with the edits of the first transmission."""
    first, again = player.out(request()), player.out(request())
    assert (first.after, first.edits, first.spans) == (again.after, again.edits, again.spans)
    assert [note.rule for note in again.left_alone] == ["repeated"]


@pytest.mark.parametrize(("copy", "reason"), [
    (sighting(request(), PHONE, PROVIDER, transport="tcp"), "TCP"),
    (sighting(request(), Endpoint("fd00::1", 5060), Endpoint("2001:db8::1", 5060)), "IPv4 only"),
    (sighting(request(), PHONE, PROVIDER, cut=True), "cut"),
    (sighting(request(), PHONE, PROVIDER, incomplete=True), "fragments"),
    (sighting(request(), PHONE, OTHER_PHONE), "both ends are inside"),
    (sighting(request(), PROVIDER, Endpoint("198.51.100.21", 5060)), "both ends are outside"),
    (sighting(request(), Endpoint("a.b.c.d", 5060), PROVIDER), "IPv4 only"),
])
def test_left_alone(player: Player, copy: Sighting, reason: str) -> None:
    """What natfix cannot or need not repair keeps its bytes, and a note says why."""
    repair = repair_of(player.show(copy))
    assert (repair.after, repair.edits) == (repair.before, ())
    assert reason in reasons(repair)


def test_unreadable_and_headers_only(player: Player) -> None:
    """What is no readable SIP is left alone; of records without a payload there is nothing to say."""
    broken = sighting(request(), PHONE, PROVIDER)
    broken.message, broken.problem = None, "two CSeqs"
    assert "not readable" in reasons(repair_of(player.show(broken)))
    assert player.show(record(PHONE, PROVIDER)).repair is None


def test_nobody_is_inside() -> None:
    """Without a NAT natfix is shown nothing."""
    repair = Player(NetworkView(), gateway=False).out(request())
    assert "does not cross the NAT" in reasons(repair)


def test_each_change_has_its_own_reason() -> None:
    """Where o= and c= name the same host, each has the rule for its own line."""
    repair = Player().out(request(sdp=audio(Endpoint(PHONE.host, 12000))))
    lines = [repair.before[:start].rpartition(b"\n")[2].decode() for start, _ in repair.spans]
    assert len(lines) > 4
    assert all(line.startswith(note.header) for line, note in zip(lines, repair.edits, strict=True))


def carried(payload: bytes, *edits: tuple[int, int, bytes]) -> Carried:
    return Carried(apply_edits(payload, edits), [], edits, PHONE, PROVIDER, "", True)


@pytest.mark.parametrize(("echoes", "edits"), [
    ([], []),
    ([], [(1, 3, b"xyz")]),
    ([(1, 3, b"XYZ")], []),
    ([(1, 3, b"XYZ")], [(1, 4, b"bc")]),                        # put back
    ([(1, 3, b"XYZ")], [(0, 5, b"?")]),                         # inside of an edit
    ([(1, 3, b"XYZ"), (5, 6, b"")], [(2, 3, b"-"), (7, 8, b"h!")]),
    ([(0, 2, b"A"), (3, 4, b"DDD")], [(0, 1, b"ab"), (1, 3, b"?"), (4, 5, b"")]),
    ([(2, 2, b"++")], [(1, 3, b"."), (6, 9, b"")]),             # an edit that begins before an echo
])
def test_composed(echoes: list[tuple[int, int, bytes]], edits: list[tuple[int, int, bytes]]) -> None:
    """Echo and edit together are told as one change of the captured bytes, or as none."""
    captured = b"abcdefghij"
    places = tuple(Echo(*each, "Via") for each in echoes)
    shown = apply_edits(captured, tuple(echoes))
    done = carried(shown, *edits)
    notes, spans = composed(captured, shown, places, done, [Note("rule", "Via", "bc", "xyz", "why")])
    check(Repair(captured, done.payload, tuple(notes), spans=tuple(spans)))
