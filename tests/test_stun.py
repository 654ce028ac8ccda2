"""STUN's Binding request and answer, octet by octet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.stun import binding_request, mapped_endpoint

TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
# RFC 5769, section 2.2: the answer to a request with that transaction ID, with its IPv4 address.
SAMPLE = bytes.fromhex(
    "0101003c 2112a442 b7e7a701bc34d686fa87dfae"
    "8022000b 7465737420766563746f7220"
    "00200008 0001a147e112a643"
    "00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004 c07d4c96")
MAPPED = bytes.fromhex("0001 0008 0001 1234 c6336407")     # 198.51.100.7:4660
SEEN = bytes.fromhex("0020 0008 0001 3326 e721c044")       # 198.51.100.6:4660, under the mask


def answer(*attributes: bytes, kind: int = 0x0101) -> bytes:
    body = b"".join(attributes)
    return kind.to_bytes(2) + len(body).to_bytes(2) + bytes.fromhex("2112a442") + TRANSACTION + body


def test_request() -> None:
    """Type, no attributes, magic cookie, transaction ID."""
    assert binding_request(TRANSACTION) == bytes.fromhex("00010000 2112a442") + TRANSACTION


def test_the_rfcs_sample() -> None:
    """The answer of RFC 5769, section 2.2 names 192.0.2.1:32853; what is unknown is passed over."""
    assert mapped_endpoint(SAMPLE, TRANSACTION) == Endpoint("192.0.2.1", 32853)


def test_the_masked_address_counts() -> None:
    """A NAT that rewrites addresses in payloads does not find the masked one."""
    assert mapped_endpoint(answer(MAPPED, SEEN), TRANSACTION) == Endpoint("198.51.100.6", 4660)
    assert mapped_endpoint(answer(MAPPED), TRANSACTION) == Endpoint("198.51.100.7", 4660)


@pytest.mark.parametrize("wrong", [
    b"", answer(SEEN)[:-1], answer(SEEN) + b"x", answer(SEEN, kind=0x0111), answer(),
    answer(bytes.fromhex("0020 0014 0002 3326") + bytes(16)), answer(bytes.fromhex("0020 0008 0001")),
    answer(SEEN).replace(b"\x21\x12\xa4\x42", b"\x21\x12\xa4\x43"),
], ids=["empty", "cut", "longer", "error response", "no address", "IPv6", "cut attribute", "no cookie"])
def test_what_is_no_answer(wrong: bytes) -> None:
    """Anything but a whole success response with an IPv4 address."""
    assert mapped_endpoint(wrong, TRANSACTION) is None


def test_others_answers() -> None:
    """An answer to another transaction is a stranger's."""
    assert mapped_endpoint(answer(SEEN), bytes(12)) is None


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    """No octets whatever raise anything."""
    assert mapped_endpoint(answer(data), TRANSACTION) is None or len(data) >= 12
