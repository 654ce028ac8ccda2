"""Phones that scenarios set up alike, here and in tests/compare: two that are registered, and transfers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from tests.lab.audio import talk
from tests.lab.programs import Baresip, Kamailio, Linphone

if TYPE_CHECKING:
    from tests.lab.lab import Lab

PASSWORDS = {"alice": "secret", "bob": "hidden"}
Phone = TypeVar("Phone", Baresip, Linphone)
Row = tuple[str, str, int]      # host, user, tone
ALICE_AND_BOB: tuple[Row, Row] = (("phone1", "alice", 440), ("remote1", "bob", 880))


def two_phones(
    lab: Lab, kind: type[Phone] = Baresip, *, routes: dict[str, str] | None = None, **options: Any
) -> tuple[Phone, Phone]:
    """Return alice inside and bob outside, registered with digest; *routes* are the provider's trunks."""
    provider = lab.start(Kamailio(users=PASSWORDS, routes=routes))
    alice, bob = (lab.start(kind(host, user, registrar=provider.address, password=PASSWORDS[user], tone=tone,
                                 **options))
                  for host, user, tone in ALICE_AND_BOB)
    alice.register()
    bob.register()
    return alice, bob


def open_phones(lab: Lab, rows: Iterable[Row], kind: type[Phone] = Baresip, **options: Any) -> list[Phone]:
    """Return one registered phone for each of *rows*, of a provider that runs and asks for no password."""
    phones = [lab.start(kind(host, user, registrar=lab["provider"].address, tone=tone, **options))
              for host, user, tone in rows]
    for phone in phones:
        phone.register()
    return phones


def behind_two_proxies(lab: Lab) -> tuple[Baresip, Baresip]:
    """Return alice, registered by way of a proxy inside that adds Path, and bob; the provider gives her a
    Service-Route."""
    provider = lab.start(Kamailio(service_route=True))
    proxy = lab.start(Kamailio("pbx", next_hop=f"{provider.address}:5060"))
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, tone=440,
                              account=f'outbound="sip:{proxy.address}:5060"'))
    alice.register()
    bob, = open_phones(lab, ALICE_AND_BOB[1:])
    return alice, bob


def blind_transfer(lab: Lab, rows: Iterable[Row]) -> tuple[Baresip, Baresip]:
    """The first of *rows* calls the second, which sends it on to the third; they talk.

    Returns the first and the third, still in their call.
    """
    stays, sends, third = open_phones(lab, rows)
    stays.dial(sends.uri)
    sends.transfer(third.uri)
    third.wait_event("CALL_ESTABLISHED")
    sends.wait_closed()
    talk()
    return stays, third


def attended_transfer(lab: Lab) -> tuple[Linphone, Linphone, int]:
    """Alice, inside, has bob on hold and carol, inside, on the line, and connects them (Replaces); they talk.

    Returns bob and carol, still in their call, and the mark of what carol printed before.
    """
    rows = (("phone1", "alice", 660), ("remote1", "bob", 880), ("phone2", "carol", 440))
    alice, bob, carol = open_phones(lab, rows, Linphone)
    first = alice.dial(bob.uri)
    alice.hold()
    alice.wait_printed("is now (paused)")
    second = alice.dial(carol.uri)
    for phone in (bob, carol):
        phone.record()
    mark = carol.mark()
    alice.transfer_to_call(first, second)
    carol.wait_printed(r"Call 2 with \S+ (connected)", mark)
    talk()
    return bob, carol, mark
