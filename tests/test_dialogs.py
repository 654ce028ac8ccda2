"""Calls, dialogs, offers and answers."""

import pytest

from natfix.address import Endpoint
from natfix.dialogs import (
    MAX_DIALOGS,
    MAX_EXCHANGES,
    MAX_WRITTEN,
    Call,
    CallKey,
    Calls,
    Dialog,
    ExchangeKey,
    Line,
    Role,
    Side,
    State,
)
from natfix.errors import LimitReached

PHONE, PROVIDER = Endpoint("192.168.1.10", 5060), Endpoint("198.51.100.7", 5060)
OFFER = (Line(0, "audio", Endpoint("192.168.1.10", 4000), Endpoint("192.168.1.10", 4001)),)
ANSWER = (Line(0, "audio", Endpoint("198.51.100.7", 7000), None),)
INVITE = ExchangeKey(True, 1)


def a_call(role: Role = Role.CALLER, call_id: str = "c1", host: str = PHONE.host) -> Call:
    return Call(CallKey(host, call_id, "from", role), "INVITE", PHONE, PROVIDER, 0.0, invite_cseq=1)


def test_a_call_is_found_from_either_end() -> None:
    """Requests and responses of both ends lead to the same call; a stranger's tag does not."""
    calls = Calls(10, 10)
    as_caller, as_callee = a_call(), a_call(Role.CALLEE, "c2")
    calls.add(as_caller)
    calls.add(as_callee)
    assert calls.find(PHONE.host, "c1", "from", "") is as_caller
    assert calls.find(PHONE.host, "c1", "from", "to") is as_caller
    assert calls.find(PHONE.host, "c2", "to", "from") is as_callee
    assert calls.find(PHONE.host, "c1", "other", "to") is None


def test_both_ends_on_one_host_are_two_calls() -> None:
    """A PBX that calls itself through its provider has a call for each end."""
    calls = Calls(10, 10)
    as_caller, as_callee = a_call(), a_call(Role.CALLEE)
    calls.add(as_caller)
    calls.add(as_callee)
    assert calls.find(PHONE.host, "c1", "from", "to") is as_caller
    assert calls.find(PHONE.host, "c1", "to", "from") is as_callee


def test_each_fork_inherits_the_offer() -> None:
    """A forked INVITE has one early dialog per To-tag, each answering the same offer (RFC 3261, 12.1)."""
    call = a_call()
    call.offer = {Side.INSIDE: OFFER}
    for tag in ("t1", "t2"):
        dialog = call.dialog_for(tag)
        assert dialog is not None
        assert dialog.latest(Side.INSIDE) == OFFER
    assert len(call.dialogs) == 2


def test_what_the_answer_refuses_is_not_in_use() -> None:
    """Port 0 in the answer (RFC 3264, section 6): the offered port is in use no more, till offered again."""
    dialog, refusal = Dialog("t"), (Line(0, "audio", None, None, pairs=0),)
    dialog.propose(INVITE, Side.INSIDE, OFFER)
    dialog.propose(INVITE, Side.OUTSIDE, refusal)
    ports = [(0, endpoint) for endpoint in OFFER[0].endpoints()]
    assert dialog.inside_endpoints(with_refused=False) == ports
    dialog.agree(INVITE)
    assert dialog.inside_endpoints(with_refused=False) == []
    assert dialog.inside_endpoints(with_refused=True) == ports
    dialog.propose(ExchangeKey(True, 2), Side.INSIDE, OFFER)
    assert dialog.inside_endpoints(with_refused=False) == ports


def test_a_late_offer_ends_a_refusal() -> None:
    """The 2xx offers, the ACK answers: in between nothing of the offer is refused (RFC 3264, section 4)."""
    dialog = Dialog("t", agreed={Side.INSIDE: OFFER}, refused=frozenset({0}))
    key = ExchangeKey(False, 2)
    dialog.propose(key, Side.INSIDE, OFFER)
    assert dialog.agree(key)
    assert not dialog.refused


def test_other_forks_may_answer_for_a_while() -> None:
    """64*T1 after the first 2xx no other is to come (RFC 3261, section 13.2.2.4)."""
    call = a_call()
    assert call.may_be_answered(1000.0)
    call.answered_at = 100.0
    assert call.may_be_answered(131.9)
    assert not call.may_be_answered(132.0)


def test_an_answer_stands_when_its_transaction_succeeds() -> None:
    """Until the 2xx both old and new descriptions count; after it the new one only."""
    dialog = Dialog("t", agreed={Side.INSIDE: OFFER, Side.OUTSIDE: ANSWER})
    moved = (OFFER[0]._replace(rtp=Endpoint("192.168.1.10", 5000)),)
    dialog.propose(ExchangeKey(True, 2), Side.INSIDE, moved)
    assert list(dialog.said_by(Side.INSIDE)) == [OFFER, moved]
    assert dialog.agree(ExchangeKey(True, 2))
    assert list(dialog.said_by(Side.INSIDE)) == [moved]
    assert dialog.latest(Side.OUTSIDE) == ANSWER


def test_an_update_outlives_the_invite_it_came_after() -> None:
    """A port that moved by UPDATE before the INVITE's 2xx (RFC 3311) is not moved back by that 2xx."""
    dialog = Dialog("t", proposed={INVITE: {Side.INSIDE: OFFER, Side.OUTSIDE: ANSWER}})
    moved = (OFFER[0]._replace(rtp=Endpoint("192.168.1.10", 5000)),)
    dialog.propose(ExchangeKey(True, 2), Side.INSIDE, moved)
    assert dialog.agree(ExchangeKey(True, 2))
    assert not dialog.agree(INVITE)
    assert list(dialog.said_by(Side.INSIDE)) == [moved]
    assert dialog.latest(Side.OUTSIDE) == ANSWER


def test_a_refused_offer_changes_nothing() -> None:
    """A re-INVITE that fails leaves the session as it was (RFC 3261, section 14.1)."""
    dialog = Dialog("t", agreed={Side.INSIDE: OFFER})
    dialog.propose(ExchangeKey(False, 7), Side.OUTSIDE, ANSWER)
    assert dialog.reject(ExchangeKey(False, 7))
    assert dialog.latest(Side.OUTSIDE) == ()
    assert not dialog.reject(ExchangeKey(False, 7))


def test_unanswered_offers_and_forks_are_bounded() -> None:
    """Neither offers nor forks without end can fill the memory."""
    dialog, call = Dialog("t"), a_call()
    for cseq in range(MAX_EXCHANGES + 3):
        dialog.propose(ExchangeKey(True, cseq), Side.INSIDE, OFFER)
    assert len(dialog.proposed) == MAX_EXCHANGES
    made = [call.dialog_for(f"t{number}") for number in range(MAX_DIALOGS + 1)]
    assert made[-1] is None
    assert call.dialog_for("t0") is made[0]


def test_state_follows_the_dialogs() -> None:
    """A call is confirmed as soon as one dialog is, and ended only when it is said to be."""
    call = a_call()
    dialog = call.dialog_for("t")
    assert dialog is not None
    assert call.state is State.EARLY
    dialog.state = State.CONFIRMED
    assert call.state is State.CONFIRMED
    call.ended_at = 1.0
    assert call.state is State.ENDED


def test_limits_hold_per_host_and_in_all() -> None:
    """One inside host cannot take every dialog."""
    calls = Calls(3, 2)
    for number in range(2):
        calls.add(a_call(call_id=f"c{number}"))
    with pytest.raises(LimitReached, match="per_host"):
        calls.add(a_call(call_id="c2"))
    calls.add(a_call(host="192.168.1.11"))
    with pytest.raises(LimitReached, match="dialogs is"):
        calls.add(a_call(host="192.168.1.12"))


def test_the_oldest_unanswered_call_is_in_the_way() -> None:
    """Where its host, or all together, have too many; what was answered is in nobody's way."""
    calls, answered, oldest = Calls(4, 3), a_call(call_id="c0"), a_call(call_id="c1")
    for call in (answered, oldest, a_call(call_id="c2")):
        calls.add(call)
    answered.dialogs["to"] = Dialog("to", State.CONFIRMED)
    assert calls.in_the_way(PHONE.host) is oldest
    assert calls.in_the_way("192.168.1.11") is None
    calls.add(a_call(host="192.168.1.11"))
    assert calls.in_the_way("192.168.1.12") is oldest
    for call_id in ("c1", "c2"):
        calls.remove(next(call for call in calls if call.key.call_id == call_id))
    calls.add(a_call(call_id="c3"))
    calls.add(a_call(call_id="c4"))
    for call in calls:
        call.dialogs["to"] = Dialog("to", State.CONFIRMED)
    assert calls.in_the_way(PHONE.host) is None


def test_spellings_of_a_call_are_bounded() -> None:
    """Of too many the oldest is forgotten; writing one again takes no place."""
    call = a_call()
    for number in range(MAX_WRITTEN + 1):
        call.remember_written("contact", f"shown{number}", "written")
    call.remember_written("contact", f"shown{MAX_WRITTEN}", "again")
    assert len(call.written) == MAX_WRITTEN
    assert ("contact", "shown0") not in call.written
    assert call.written["contact", f"shown{MAX_WRITTEN}"] == "again"


def test_a_removed_call_frees_its_place_and_is_reported() -> None:
    """What is gone counts no more, and the store hears of it."""
    calls, call = Calls(1, 1), a_call()
    calls.add(call)
    calls.changed.clear()
    calls.remove(call)
    assert calls.changed == {call.key}
    calls.add(call)


def test_a_line_lists_every_endpoint_of_its_pairs() -> None:
    """"port/count" means that many pairs in a row (RFC 8866, section 5.14)."""
    line = OFFER[0]._replace(pairs=2)
    assert [endpoint.port for endpoint in line.endpoints()] == [4000, 4001, 4002, 4003]
