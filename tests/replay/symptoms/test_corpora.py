"""The messages and descriptions of others, as one packet each: nothing raises, and nothing is imagined."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

import pytest

from natfix.errors import MalformedMessage
from natfix.replay.model import Vantage
from natfix.sip.message import message_from_bytes
from tests import corpus
from tests.replay.sip import PHONE, PROVIDER, request
from tests.replay.symptoms.capture import Capture, check

pytestmark = pytest.mark.skipif(not corpus.is_there(), reason=corpus.MISSING)

LARGEST = 60_000        # octets of a datagram
# More body than Content-Length counts: mistakes of transcription, and two of RFC 4475 on purpose.
TOO_MUCH_BODY = {
    "082.sip", "353.sip", "sip-malformed6", "sip2", "sip63", "sip68", "torture_msgs2", "dblreq.dat",
    "RFC5118_4_8.sip", "test10.txt", "test18.txt", "input.6.sdp",
}
# c= and m= that are none of the candidates: a test of pjsua for that, and one of a browser's offers by hand.
ICE_MISMATCH = {"201_ice_mismatch_1-L5.sdp", "test_sdp-L1874.sdp"}


def messages() -> Iterator[corpus.Item]:
    for item in corpus.messages():
        try:
            if len(item.raw) < LARGEST:
                message_from_bytes(item.raw)
                yield item
        except MalformedMessage:
            continue


def descriptions() -> Iterator[corpus.Item]:
    for item in corpus.descriptions():
        if len(item.raw) < LARGEST:
            payload = request(contact="phone.example.com", sdp=item.raw.decode("latin-1"))
            yield corpus.Item(item.where, payload)


def found(item: corpus.Item, vantage: Vantage) -> Iterator[tuple[str, str]]:
    """Yield code and file name of what is found in one message, out and back."""
    capture = Capture(vantage)
    if vantage is Vantage.BOTH:
        capture.out(item.raw)
        capture.back(item.raw)
    else:
        capture.sip(item.raw)
        capture.sip(item.raw, PROVIDER, PHONE)
    for finding in capture.findings():
        check(finding)
        yield finding.code, PurePath(item.where).name


@pytest.mark.parametrize("vantage", [Vantage.INSIDE, Vantage.BOTH])
def test_messages_of_others(vantage: Vantage) -> None:
    """Torture, mistakes and oddities: what is found is in the message."""
    every = {each for item in messages() for each in found(item, vantage)}
    assert {code for code, _ in every} <= {"D15"}
    assert {name for _, name in every} <= TOO_MUCH_BODY


def test_descriptions_of_others() -> None:
    """Offers of browsers, phones and servers, fuzz, and what is wrong with them."""
    items = list(descriptions())
    assert len(items) > 100
    every = {each for item in items for each in found(item, Vantage.INSIDE)}
    assert every <= {("D15", name) for name in TOO_MUCH_BODY} | {("D22", name) for name in ICE_MISMATCH}
    assert {("D22", name) for name in ICE_MISMATCH} <= every
