"""Netlink by hand: encoding, decoding, and what the kernel says to it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.errors import KernelRefused
from natfix.kernel.netlink import (
    CREATE,
    HEADER,
    NFTABLES,
    REQUEST,
    Connection,
    Message,
    attribute,
    attributes,
    batch,
    each_attribute,
    each_message,
    has_net_admin,
    head,
    nest,
    nested_head,
    number,
    text,
)
from tests.namespace import Namespace, namespace, on_kernel

NEW_TABLE, GET_TABLE, DELETE_TABLE = (NFTABLES << 8 | kind for kind in range(3))


def test_attribute_is_padded_to_four_bytes() -> None:
    """The length says what is meant, the bytes after it fill up."""
    assert attribute(7, b"ab") == b"\x06\x00\x07\x00ab\x00\x00"
    assert attribute(7, b"") == b"\x04\x00\x07\x00"


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_attributes_come_back(wanted: dict[int, bytes]) -> None:
    """What was written one after the other is read as it was, in its order."""
    data = b"".join(attribute(kind, payload) for kind, payload in wanted.items())
    assert list(each_attribute(data)) == list(wanted.items())


def test_nested_attributes_come_back() -> None:
    """A nest is an attribute that holds attributes; its flag is not part of its type."""
    data = nest(1, text(2, "natfix"), number(3, 5060, 2))
    assert attributes(attributes(data)[1]) == {2: b"natfix\0", 3: b"\x13\xc4"}


def test_ready_made_heads_are_those_of_a_nest() -> None:
    """Two headers written beforehand are what nesting would have written."""
    assert nested_head(1, 2, 8) + b"12345678" == nest(1, attribute(2, b"12345678"))


@given(st.binary(max_size=200))
def test_nonsense_ends_the_reading(data: bytes) -> None:
    """Whatever bytes come, reading ends without an error."""
    list(each_attribute(data))
    list(each_message(data))


def test_cut_message_is_not_read() -> None:
    """A message that says it is longer than what arrived does not count."""
    whole = HEADER.pack(20, 2, 0, 1, 0) + b"body"
    assert list(each_message(whole + whole[:-1])) == [(2, 0, 1, b"body")]


# With a kernel


@pytest.fixture
def space() -> Iterator[Namespace]:
    """An empty network namespace."""
    with namespace() as made:
        yield made


@pytest.fixture
def connection(space: Namespace) -> Iterator[Connection]:
    """A connection to its netfilter."""
    made = space.call(Connection)
    yield made
    made.close()


def table(kind: int, name: str) -> Message:
    flags = REQUEST | CREATE if kind == NEW_TABLE else REQUEST
    return Message(kind, flags, head(socket.AF_INET) + text(1, name))


@on_kernel
def test_transaction_is_carried_out(space: Namespace, connection: Connection) -> None:
    """What was sent is there when the call returns."""
    connection.transact([table(NEW_TABLE, "one"), table(NEW_TABLE, "two")])
    assert space.run("nft list tables") == "table ip one\ntable ip two\n"


@on_kernel
def test_failed_transaction_changes_nothing(space: Namespace, connection: Connection) -> None:
    """One refused message takes the others with it, and its error is raised."""
    with pytest.raises(OSError, match="No such file") as problem:
        connection.transact([table(NEW_TABLE, "one"), table(DELETE_TABLE, "absent")])
    assert problem.value.errno == errno.ENOENT
    assert space.run("nft list tables") == ""


@on_kernel
def test_uncommitted_transaction_is_only_checked(space: Namespace, connection: Connection) -> None:
    """Without its end a transaction is answered message by message, and forgotten."""
    answers = connection.exchange(batch([table(NEW_TABLE, "one"), table(GET_TABLE + 50, "x")], commit=False))
    assert list(answers.errors) == [2]
    assert connection.exchange(batch([table(NEW_TABLE, "one")], commit=False)).errors == {}
    assert space.run("nft list tables") == ""


@on_kernel
def test_answers_belong_to_their_messages(connection: Connection) -> None:
    """Of several questions in one exchange each gets its own answer or error."""
    connection.transact([table(NEW_TABLE, "one")])
    answers = connection.exchange([table(GET_TABLE, name) for name in ("none", "one", "nil")])
    assert answers.errors == {0: errno.ENOENT, 2: errno.ENOENT}
    assert attributes(answers.data[1][0], 4)[1] == b"one\0"


@on_kernel
def test_list_longer_than_one_datagram(connection: Connection) -> None:
    """A dump in many parts is read to its end."""
    connection.transact([table(NEW_TABLE, f"table{index}") for index in range(900)])
    assert len(connection.dump(GET_TABLE, head(socket.AF_INET))) == 900


@on_kernel
def test_refused_dump_raises_the_error(connection: Connection) -> None:
    """Listing what does not exist raises the kernel's error, and the next request is answered properly."""
    with pytest.raises(OSError, match="No such file"):
        connection.dump(NFTABLES << 8 | 13, head(socket.AF_INET) + text(1, "absent") + text(2, "set"))
    assert connection.dump(GET_TABLE, head(socket.AF_INET)) == []


@on_kernel
def test_answers_left_over_do_not_confuse(connection: Connection) -> None:
    """What an exchange that broke off has left in the socket is not taken for the next one's answer."""
    connection._send(HEADER.pack(20 + 8, GET_TABLE, REQUEST | 4, 1, 0) + head(socket.AF_INET) + text(1, "x"))
    connection._sequence = 1
    assert connection.exchange([table(GET_TABLE, "y")]).errors == {0: errno.ENOENT}


@on_kernel
def test_sequence_numbers_begin_again(connection: Connection) -> None:
    """After 32 bits of requests, some weeks of work, the next ones are answered like the first."""
    connection._sequence = (1 << 32) - 4
    for _ in range(3):
        assert connection.exchange([table(GET_TABLE, "x"), table(GET_TABLE, "y")]).errors.keys() == {0, 1}
        assert connection.dump(GET_TABLE, head(socket.AF_INET)) == []


@on_kernel
def test_silence_is_not_success(connection: Connection) -> None:
    """Where no answer is there, the request counts as failed."""
    connection._send = lambda data: None  # type: ignore[method-assign]
    with pytest.raises(KernelRefused, match="did not answer"):
        connection.exchange([table(GET_TABLE, "one")])


@on_kernel
def test_rights_are_seen() -> None:
    """Root of these tests has CAP_NET_ADMIN."""
    assert has_net_admin()
