"""Refreshes that natfix answers itself: the registrar is troubled seldom, and never cheated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.config import FarEnd
from natfix.reports import PortsInUse
from tests.agent import Leg, Sip
from tests.far_agent import PBX, PBX_OUTSIDE
from tests.playbook import told
from tests.test_engine_far_end import FAR, far_phone, far_world, pbx_of

EVERY = 25
SETTINGS = FarEnd(keep_open="refresh", keep_open_longest=EVERY)
EXTRA = {"Service-Route": "<sip:192.168.1.5;lr>", "P-Associated-URI": "<sip:dora@example.net>",
         "Date": "Mon, 01 Jan 2024 00:00:00 GMT", "Expires": "3600"}


class Registered:
    """A far phone whose first REGISTER the PBX has accepted for an hour."""

    def __init__(self, settings: FarEnd = SETTINGS, asks: dict[str, str] | None = None,
                 others: str = "", headers: dict[str, str] | None = None) -> None:
        self.world = far_world(far_end=settings)
        self.pbx, self.phone = pbx_of(self.world), far_phone(self.world)
        self.phone.answers_options = False
        self.headers = {"Expires": "3600"} if asks is None else asks
        self.others, self.said = others, EXTRA if headers is None else headers
        self.leg: Leg = self.phone.begins("REGISTER", "sip:203.0.113.1", None, "", self.headers,
                                          target=self.phone.address)
        self.accept()

    def accept(self, seconds: int = 3600) -> None:
        """The PBX's 200 to what it has got last."""
        shown = self.pbx.last["contact"].partition(";expires")[0]
        self.pbx.replies(self.pbx.last, 200, headers=self.said, tag="pbx",
                         contact=f"{shown};expires={seconds}{self.others}")

    def refresh(self, **headers: str) -> bool:
        """Send a REGISTER; True where natfix answers it, False where the PBX gets it."""
        seen, answers = len(self.pbx.received("REGISTER")), len(self.phone.received(200))
        self.leg.sends("REGISTER", headers=headers or self.headers)
        arrived = len(self.pbx.received("REGISTER")) - seen
        answered = len(self.phone.received(200)) - answers
        assert arrived + answered == 1
        return answered == 1

    @property
    def answer(self) -> Sip:
        return self.phone.last


@pytest.fixture
def site() -> Iterator[Registered]:
    """The same, told when a test fails."""
    made = Registered()
    for _ in told(made.world):
        yield made


def test_the_phone_is_told_a_short_time(site: Registered) -> None:
    """In Contact and in Expires; the listing keeps the registrar's own word."""
    assert site.answer["contact"] == f"{site.phone.contact};expires={EVERY}"
    assert site.answer["expires"] == str(EVERY)
    assert [row["expires_in"] for row in site.world.engine.registrations(site.world.now)] == [3600]


def test_a_refresh_is_answered(site: Registered) -> None:
    """As the registrar has: Contact, To tag, other headers; its own CSeq and Via. The PBX sees nothing."""
    first = site.answer
    site.world.advance(20)
    assert site.refresh()
    second = site.answer
    assert second["cseq"] == "2 REGISTER"
    assert second.branch != first.branch
    for name in ("to", "from", "call-id", "contact", "expires", "service-route", "p-associated-uri"):
        assert second[name] == first[name]
    assert second["date"] == ""
    assert {packet.source for packet in site.world.kernel.sent} == {PBX_OUTSIDE}
    assert "refresh" in site.leg.delivery.rules()


def test_the_registrar_hears_of_it_in_time(site: Registered) -> None:
    """Over two hours one REGISTER in an hour comes through, before the registrar's word ends."""
    through, last = [], site.world.now
    for _ in range(360):
        site.world.advance(20)
        if not site.refresh():
            through.append(site.world.now - last)
            last = site.world.now
            site.accept()
    assert len(through) == 2
    assert all(3500 < gap < 3600 for gap in through)


def test_the_rest_is_never_longer_than_the_registrar_said(site: Registered) -> None:
    """Whenever the phone comes, what it is told ends before the registrar's word does."""
    for gap in (5, 100, 1000, 1000, 1000, 390, 20, 20, 20, 20):
        site.world.advance(gap)
        until = 3600 - (site.world.now - 1000.0)
        if not site.refresh():
            break
        assert int(site.answer["expires"]) < until - 25
    else:
        pytest.fail("the registrar was never asked")


@pytest.mark.parametrize("change", [
    {"Expires": "0"}, {"Expires": "60"}, {"Contact": "*", "Expires": "0"},
    {"Contact": "<sip:dora@192.168.1.10:5099>", "Expires": "3600"},
    {"Contact": "<sip:dora@192.168.1.10:5062>, <sip:2@192.168.1.10:5062>", "Expires": "3600"},
    {"Contact": "<sip:dora@192.168.1.10:5062>;q=0.5", "Expires": "3600"},
    {"Require": "outbound", "Expires": "3600"}, {"Route": "<sip:203.0.113.1;lr>", "Expires": ""},
], ids=lambda change: next(iter(change)) + "-" + next(iter(change.values()))[:8])
def test_what_asks_for_something_else_goes_through(site: Registered, change: dict[str, str]) -> None:
    """An end, another time, another Contact, an extension: the registrar's business."""
    site.world.advance(20)
    assert not site.refresh(**change)
    site.pbx.replies(site.pbx.last, 200, contact="")
    assert not site.refresh()


def test_another_source_goes_through(site: Registered) -> None:
    """The NAT has given it another port: the registrar must be told."""
    site.world.advance(20)
    site.phone.endpoint = Endpoint(FAR.host, 41999)
    assert not site.refresh()


def test_another_call_id_goes_through(site: Registered) -> None:
    """A phone that was restarted begins anew."""
    site.phone.registers()
    assert len(site.pbx.received("REGISTER")) == 2


def test_an_old_cseq_goes_through(site: Registered) -> None:
    """What comes late, or twice from somebody else, is no refresh (RFC 3261, section 10.3)."""
    assert site.refresh()
    site.leg.cseq = 0
    assert not site.refresh()


def test_a_retransmission_is_answered_again(site: Registered) -> None:
    """The same bytes are answered by the same bytes, but for the time."""
    assert site.refresh()
    first = site.phone.inbox[-1].payload
    assert site.leg.delivery is not None
    site.phone.sends(site.leg.delivery.payload)
    assert site.phone.inbox[-1].payload == first
    assert len(site.pbx.received("REGISTER")) == 1


def test_other_credentials_do_not_matter(site: Registered) -> None:
    """They change with every nonce count; the binding was accepted before, from the same endpoint."""
    assert site.refresh(Expires="3600", Authorization='Digest username="dora", nc=00000002')


def test_a_restart_lets_it_through(site: Registered) -> None:
    """What natfix does not know any more the registrar answers; then it begins anew."""
    site.world.restart()
    site.world.report(PortsInUse(frozenset(), {5060: PBX}))
    assert not site.refresh()
    site.accept()
    assert site.refresh()


def test_a_refusal_ends_it(site: Registered) -> None:
    """A registrar that says no is asked again each time."""
    site.world.advance(3570)
    assert not site.refresh()
    site.pbx.replies(site.pbx.last, 503)
    assert not site.refresh()


def test_a_registrar_that_is_silent(site: Registered) -> None:
    """Where the PBX does not answer natfix does not either: the phone shall know."""
    site.world.advance(3570)
    assert not site.refresh()
    site.world.advance(60)
    assert not site.refresh()


@pytest.mark.parametrize("challenged", [False, True])
def test_who_asks_for_what_he_was_told(challenged: bool) -> None:
    """Some phones ask for the short time next: it is natfix's word, so the registrar is asked for its own."""
    site = Registered()
    site.world.advance(20)
    assert site.refresh(Expires=str(EVERY))
    site.world.advance(3550)
    assert not site.refresh(Expires=str(EVERY))
    if challenged:
        site.pbx.replies(site.pbx.last, 401)
        assert not site.refresh(Expires=str(EVERY), Authorization="Digest username=dora")
    assert site.pbx.last["expires"] == "3600"
    site.accept()
    assert site.answer["expires"] == str(EVERY)
    assert site.refresh(Expires=str(EVERY))


def test_who_asks_for_what_he_was_told_after_a_restart(site: Registered) -> None:
    """Else such a phone would have the PBX do the work from then on."""
    site.world.restart()
    site.world.report(PortsInUse(frozenset(), {5060: PBX}))
    assert not site.refresh(Expires=str(EVERY))
    assert site.pbx.last["expires"] == "3600"
    site.accept()
    assert site.refresh(Expires=str(EVERY))


def test_other_bindings_stay_as_they_are() -> None:
    """Another phone of the same address-of-record is listed with its own time, which goes on."""
    site = Registered(others=", <sip:dora@192.168.1.77:5060>;expires=1000", headers={})
    assert site.answer["contact"].split(", ")[1] == "<sip:dora@192.168.1.77:5060>;expires=1000"
    site.world.advance(100)
    assert site.refresh()
    assert [contact for contact in site.answer.all("contact") if "77" in contact] == [
        "<sip:dora@192.168.1.77:5060>;expires=900"]


def test_a_time_in_the_contact() -> None:
    """RFC 3261, section 10.2.1.1: in the Contact's own parameter, on either side."""
    contact = "<sip:dora@192.168.1.10:5062>;expires=1800;q=0.7"
    site = Registered(asks={"Contact": contact}, headers={})
    assert f";expires={EVERY}" in site.answer["contact"]
    assert site.answer["expires"] == ""
    assert site.refresh()
    assert site.refresh(Contact=contact.replace("1800", str(EVERY)))
    assert not site.refresh(Contact=contact.replace("1800", "900"))


@pytest.mark.parametrize("settings", [FarEnd(), FarEnd(keep_open="never")], ids=["options", "never"])
def test_only_where_it_is_wanted(settings: FarEnd) -> None:
    """By default the phone hears the registrar's own word."""
    site = Registered(settings)
    assert site.answer["contact"].endswith("expires=3600")
    assert not site.refresh()


def test_a_short_registration_is_left_alone() -> None:
    """What the registrar itself grants for a minute it wants to be asked for."""
    world = far_world(far_end=SETTINGS)
    pbx, phone = pbx_of(world), far_phone(world)
    phone.registers(50)
    pbx.replies(pbx.last, 200, contact=f"{pbx.last['contact']};expires=50")
    assert phone.last["contact"].endswith("expires=50")


@pytest.mark.parametrize("headers", [{"X-Long": "x" * 1300}, {"X-Folded": "a\n b"}], ids=["long", "folded"])
def test_what_cannot_be_said_again_is_not_shortened(headers: dict[str, str]) -> None:
    """A phone is not told to come often where only the registrar could answer."""
    site = Registered(headers=headers)
    assert site.answer["contact"].endswith("expires=3600")
    assert not site.refresh()


def test_who_does_not_refresh_is_asked() -> None:
    """Some phones keep their own time whatever they are told: OPTIONS keep their NATs open then."""
    site = Registered()
    site.phone.answers_options = True
    site.world.advance(EVERY + 4)
    assert not site.phone.asked
    site.world.advance(100)
    assert len(site.phone.asked) >= 3
    assert site.world.engine.registrations(site.world.now)[-1]["reachability"] == "reachable"


def test_who_is_not_told_is_asked() -> None:
    """Where the registrar's answer cannot be said again, OPTIONS do it as well."""
    site = Registered(headers={"X-Folded": "a\n b"})
    site.phone.answers_options = True
    site.world.advance(100)
    assert len(site.phone.asked) == 4


def test_an_inside_phone_is_none_of_its_business() -> None:
    """REGISTERs of phones inside go to their provider, whatever is set for far ones."""
    world = far_world(far_end=SETTINGS)
    world.register(world.phone)
    assert world.phone.last["contact"].endswith("expires=3600")


def test_a_phone_that_knows_no_rport() -> None:
    """It gets its own Via back, without a word of NAT."""
    site = Registered()
    site.phone.via_parameters = ""
    assert site.refresh()
    assert not site.refresh(Contact="<sip:dora@192.168.1.10:5062>;expires=7")
    site.accept()
    assert "rport" not in site.answer["via"]
    assert "received" not in site.answer["via"]


STEPS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 20, 500, 1700, 3560])),
    st.tuples(st.just("asks"), st.sampled_from(["3600", "25", "600", "0"])),
    st.tuples(st.just("moves"), st.sampled_from([5062, 5099])),
    st.tuples(st.just("restarts"), st.just(0)),
    st.tuples(st.just("registrar"), st.sampled_from([200, 503, 0])),
)


@given(st.lists(STEPS, max_size=25))
def test_nobody_is_told_what_the_registrar_has_not_said(steps: list[tuple[str, object]]) -> None:
    """natfix answers for the same Contact only, after a 2xx, and never beyond what that has granted."""
    site = Registered()
    contact, accepted, until, status = 5062, 5062, site.world.now + 3600, 200
    for what, value in steps:
        if what == "wait":
            site.world.advance(float(str(value)))
        elif what == "moves":
            contact = int(str(value))
        elif what == "registrar":
            status = int(str(value))
        elif what == "restarts":
            site.world.restart()
            site.world.report(PortsInUse(frozenset(), {5060: PBX}))
        elif site.refresh(Contact=f"<sip:dora@192.168.1.10:{contact}>", Expires=str(value)):
            assert value != "0"
            assert contact == accepted
            assert site.world.now + int(site.answer["expires"]) < until
        else:
            accepted = 0
            if status:
                granted = int(site.pbx.last["expires"])
                shown = site.pbx.last["contact"]
                site.pbx.replies(site.pbx.last, status, tag="pbx", headers={"Expires": str(granted)},
                                 contact=f"{shown};expires={granted}" if granted and status == 200 else "")
                if status == 200 and granted:
                    accepted, until = contact, site.world.now + granted


# How long the silences may be

class Prompt:
    """A phone that registers in good time before what it was told ends, and answers OPTIONS."""

    def __init__(self, forgets: float) -> None:
        self.site = Registered(FarEnd(keep_open="refresh", keep_open_longest=120))
        self.world, self.phone, self.forgets = self.site.world, self.site.phone, forgets
        self.spoke = self.world.now

    def live(self, seconds: float) -> list[int]:
        """Let time pass; return what the phone was told, each time."""
        said, until = [], self.world.now + seconds
        while self.world.now < until:
            step = int(self.site.answer["expires"]) * 0.9
            for _ in range(int(step)):
                self.world.advance(1.0)
                self.phone.answers_options = self.world.now - self.spoke < self.forgets
            if not self.site.refresh():
                self.site.accept()
            self.spoke = self.world.now
            said.append(int(self.site.answer["expires"]))
        return said


def test_it_gets_longer_where_the_nat_allows_it() -> None:
    """Step by step, up to the longest; each step was answered at its end."""
    phone = Prompt(forgets=1000)
    said = phone.live(3000)
    assert said[0] == EVERY
    assert said[:5] == sorted(said[:5])
    assert all(110 <= seconds <= 150 for seconds in said[-5:])


def test_it_stays_below_what_the_nat_forgets_after() -> None:
    """Once a silence was too long, none near it is tried again."""
    phone = Prompt(forgets=60)
    phone.live(2000)
    assert all(seconds * 0.9 < 66 for seconds in phone.live(1500))
    row = next(iter(phone.world.engine.registrations(phone.world.now)))
    assert 30 < row["survived"] < 60
