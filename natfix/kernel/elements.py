"""The elements of natfix's maps and sets: commands into one nftables transaction, and elements back.

Three rules of nf_tables shape this file. Re-adding an element refreshes its timeout on new kernels only,
so an element that may be there is added, deleted and added. Deleting an absent element fails the
transaction, so a deletion is an addition and a deletion. One message takes many elements of one set, so
what a transaction does to a set is gathered: at most three messages a set, whatever the number of commands.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from natfix.address import Endpoint
from natfix.commands import (
    AddMapping,
    AdmitPeer,
    AllowRemote,
    Command,
    DeleteMapping,
    DismissPeer,
    ForbidRemote,
    Kind,
)
from natfix.kernel.base import HeldElement
from natfix.kernel.netlink import (
    ATTRIBUTE,
    CREATE,
    NFTABLES,
    REQUEST,
    Message,
    attribute,
    attributes,
    each_attribute,
    head,
    nest,
    nested_head,
    text,
)

TABLE = "natfix"
OUT = {Kind.SIGNALLING: "signalling_out", Kind.MEDIA: "media_out"}
IN = {Kind.SIGNALLING: "signalling_in", Kind.MEDIA: "media_in"}
ALLOWED = {Kind.SIGNALLING: "signalling_allowed", Kind.MEDIA: "media_allowed", Kind.RELAY: "media_learning"}
OPEN = "media_open"
ENDPOINTS, INWARD, PEERS = "signalling_endpoints", "signalling_inward", "signalling_peers"
REFUSED, FLOODING, MEMORY = "refused", "flooding", "memory"
LINKS_OUT, LINKS_MEDIA = "links_out", "links_media"     # where there are several outside links
MAPPING_SETS = (
    *OUT.values(), *IN.values(), *ALLOWED.values(), OPEN, ENDPOINTS, INWARD, PEERS, LINKS_OUT, LINKS_MEDIA)

ANY = "0.0.0.0"             # AllowRemote: whoever sends

NEW_ELEMENT, GET_ELEMENT, DELETE_ELEMENT = (NFTABLES << 8 | kind for kind in (12, 13, 14))
IN_TABLE, IN_SET, ELEMENTS = 1, 2, 3                                    # NFTA_SET_ELEM_LIST_*
ELEMENT = 1                                                             # NFTA_LIST_ELEM
KEY, DATA, TIMEOUT, EXPIRATION, USER_DATA, EXPRESSION = 1, 2, 4, 5, 6, 7    # NFTA_SET_ELEM_*
EXPRESSIONS = 11
VALUE = 1                                                               # NFTA_DATA_VALUE
EXPRESSION_DATA, COUNTER_PACKETS = 2, 2                                 # NFTA_EXPR_DATA, NFTA_COUNTER_PACKETS
COMMENT = 0                                                             # NFTNL_UDATA_SET_ELEM_COMMENT
COMMENT_SIZE = 127          # bytes; nft takes 128 with the final zero

LONGEST = (1 << 31) // 1000     # seconds; some weeks: conntrack counts in jiffies, up to 1000 a second

MESSAGE_ELEMENTS = 256      # elements of one message: an attribute ends at 65,535 bytes

ENDPOINT_SIZE = 8           # bytes
NAME_SIZE = 16              # of an interface's name: IFNAMSIZ
LINK_SIZE = NAME_SIZE + ENDPOINT_SIZE
MARK_SIZE = 4
# A key or value of two fields (address . port) and of three, each field padded to four bytes.
_PORT = struct.Struct("!H2x")
# What stands before a key, a value and a timeout: headers that are the same each time. A timeout is in
# milliseconds, in 64 bits.
_KEY_HEADS = {size: nested_head(KEY, VALUE, size) for size in (4, ENDPOINT_SIZE, 12, LINK_SIZE)}
_DATA_HEADS = {size: nested_head(DATA, VALUE, size) for size in (MARK_SIZE, ENDPOINT_SIZE)}
_TIMEOUT_HEAD = ATTRIBUTE.pack(12, TIMEOUT)


class Element(NamedTuple):
    """One element as the kernel lists it."""

    key: bytes
    data: bytes             # b"" in a set
    lifetime: float         # seconds left; 0 for an element that stays
    comment: str
    packets: int            # of its counter; 0 where it has none


def endpoint_key(endpoint: Endpoint) -> bytes:
    """Return ``address . port`` as nftables concatenates them."""
    return socket.inet_aton(endpoint.host) + _PORT.pack(endpoint.port)


def remote_key(remote: str, endpoint: Endpoint) -> bytes:
    """Return ``remote address . address . port``."""
    return socket.inet_aton(remote) + endpoint_key(endpoint)


def link_key(endpoint: Endpoint) -> bytes:
    """Return ``outside link . address . port``."""
    return endpoint.link.encode().ljust(NAME_SIZE, b"\0") + endpoint_key(endpoint)


def endpoint_from_link_key(key: bytes) -> Endpoint:
    """Return the endpoint that :func:`link_key` has made *key* of."""
    return endpoint_from_key(key[NAME_SIZE:])._replace(link=key[:NAME_SIZE].rstrip(b"\0").decode())


def endpoint_from_key(key: bytes) -> Endpoint:
    """Return the endpoint that *key* (or a map's value) holds."""
    return Endpoint(socket.inet_ntoa(key[:4]), int.from_bytes(key[4:6]))


def element(key: bytes, data: bytes = b"", lifetime: float = 0, comment: str = "") -> bytes:
    """Return one element, ready to be put into a list; *lifetime* in seconds, 0 for ever."""
    parts = _KEY_HEADS[len(key)] + key
    if data:
        parts += _DATA_HEADS[len(data)] + data
    if lifetime:
        parts += _TIMEOUT_HEAD + max(1, int(min(lifetime, LONGEST) * 1000)).to_bytes(8)
    if comment:
        said = comment.encode()[:COMMENT_SIZE].decode(errors="ignore").encode() + b"\0"
        parts += attribute(USER_DATA, bytes((COMMENT, len(said))) + said)
    return nest(ELEMENT, parts)


def elements_from_dump(bodies: Iterable[bytes]) -> Iterator[Element]:
    """Yield the elements in the bodies of a GET_ELEMENT dump."""
    for body in bodies:
        listed = attributes(body, 4).get(ELEMENTS, b"")
        for _, item in each_attribute(listed):
            yield _element_from(attributes(item))


def _element_from(found: dict[int, bytes]) -> Element:
    return Element(
        attributes(found.get(KEY, b"")).get(VALUE, b""),
        attributes(found.get(DATA, b"")).get(VALUE, b""),
        int.from_bytes(found.get(EXPIRATION, b"")) / 1000,
        _comment_from(found.get(USER_DATA, b"")),
        _packets_from(found),
    )


def _comment_from(user_data: bytes) -> str:
    """User data is a list of type, length (a byte each) and value."""
    while len(user_data) >= 2:
        kind, length = user_data[0], user_data[1]
        if kind == COMMENT:
            return user_data[2:2 + length].rstrip(b"\0").decode(errors="replace")
        user_data = user_data[2 + length:]
    return ""


def _packets_from(found: dict[int, bytes]) -> int:
    expression = found.get(EXPRESSION) or attributes(found.get(EXPRESSIONS, b"")).get(ELEMENT, b"")
    counted = attributes(attributes(expression).get(EXPRESSION_DATA, b""))
    return int.from_bytes(counted.get(COUNTER_PACKETS, b""))


def list_elements(name: str) -> tuple[int, bytes]:
    """Return kind and body of the request that lists the set *name*."""
    return GET_ELEMENT, _in_set(name)


def get_element(name: str, key: bytes) -> Message:
    """Return the request for one element of the set *name*."""
    return Message(GET_ELEMENT, REQUEST, _in_set(name) + nest(ELEMENTS, element(key)))


def held_element(name: str, key: bytes, found: Element | None) -> HeldElement:
    """Return what the kernel said of an element, in the words of nft."""
    value = text_from_data(found.data) if found is not None and found.data else ""
    lifetime = found.lifetime if found is not None else 0.0
    return HeldElement(name, text_from_key(key), value, found is not None, lifetime)


def text_from_key(key: bytes) -> str:
    """Return a key as nft writes it: addresses, and a port where its last field is one; a link in front."""
    if len(key) == LINK_SIZE:
        name = key[:NAME_SIZE].rstrip(b"\0").decode(errors="replace")
        return f'"{name}" . {text_from_key(key[NAME_SIZE:])}'
    hosts, port = (key[:-4], key[-4:-2]) if len(key) >= ENDPOINT_SIZE else (key, b"")
    parts = [socket.inet_ntoa(hosts[at:at + 4]) for at in range(0, len(hosts), 4)]
    return " . ".join([*parts, str(int.from_bytes(port))] if port else parts)


def text_from_data(data: bytes) -> str:
    """Return a value as nft writes it: an endpoint, or a mark."""
    if len(data) == MARK_SIZE:
        return f"{int.from_bytes(data, sys.byteorder):#010x}"
    return text_from_key(data)


class _Planned(NamedTuple):
    """What a transaction does to one key of a set."""

    addable: bytes          # the element that surely can be added now
    wanted: bytes | None    # the one that shall be there in the end
    is_new: bool            # there is none now


class Change:
    """What one transaction does to the sets: gathered by :meth:`put` and :meth:`drop`."""

    def __init__(self) -> None:
        self._sets: dict[str, dict[bytes, _Planned]] = {}       # by set and key

    def __bool__(self) -> bool:
        return bool(self._sets)

    def put(self, name: str, key: bytes, item: bytes, is_new: bool = False) -> None:
        """Let *item*, with *key*, be in the set *name*; *is_new*: the key is not there now."""
        self._plan(name, key, item, item, is_new)

    def drop(self, name: str, key: bytes, item: bytes) -> None:
        """Let *key* be absent from the set *name*; *item* is the element that may be there."""
        self._plan(name, key, item, None, False)

    def _plan(self, name: str, key: bytes, item: bytes, wanted: bytes | None, is_new: bool) -> None:
        entries = self._sets.setdefault(name, {})
        before = entries.get(key)
        entries[key] = _Planned(before.addable, wanted, False) if before else _Planned(item, wanted, is_new)

    def keys(self) -> Iterator[tuple[str, bytes]]:
        """Yield set and key of each element that shall be there."""
        for name, entries in self._sets.items():
            yield from ((name, key) for key, planned in entries.items() if planned.wanted is not None)

    def messages(self) -> list[Message]:
        """Return the messages that bring this change about, whatever was there before."""
        made: list[Message] = []
        for name, entries in self._sets.items():
            old = {key: planned.addable for key, planned in entries.items() if not planned.is_new}
            made += _messages(NEW_ELEMENT, name, list(old.values()))
            made += _messages(DELETE_ELEMENT, name, [element(key) for key in old])
            made += _messages(NEW_ELEMENT, name, _wanted(entries))
        return made

    def replacement(self) -> list[Message]:
        """Return the messages that make the mapping sets hold just this change's elements."""
        made: list[Message] = []
        for name in MAPPING_SETS:
            entries = self._sets.get(name, {})
            made.append(Message(DELETE_ELEMENT, REQUEST, _in_set(name)))       # no element named: all of them
            made += _messages(NEW_ELEMENT, name, _wanted(entries))
        return made


def _wanted(entries: dict[bytes, _Planned]) -> list[bytes]:
    return [planned.wanted for planned in entries.values() if planned.wanted is not None]


def _messages(kind: int, name: str, items: list[bytes]) -> Iterator[Message]:
    flags = REQUEST | CREATE if kind == NEW_ELEMENT else REQUEST
    for start in range(0, len(items), MESSAGE_ELEMENTS):
        yield Message(kind, flags, _in_set(name) + nest(ELEMENTS, *items[start:start + MESSAGE_ELEMENTS]))


@cache
def _in_set(name: str) -> bytes:
    return head(socket.AF_INET) + text(IN_TABLE, TABLE) + text(IN_SET, name)


def change_from_commands(commands: Iterable[Command]) -> Change:
    """Return what *commands* ask of the sets; those about conntrack entries are left out."""
    change = Change()
    for command in commands:
        if handler := _HANDLERS.get(type(command)):
            handler(change, command)
    return change


def _add_mapping(change: Change, command: AddMapping) -> None:
    kind, lifetime, is_new = command.kind, command.lifetime, command.is_new
    inside, outside = endpoint_key(command.inside), endpoint_key(command.outside)
    name, key = _outward_place(kind, command.inside)
    change.put(name, key, element(key, outside, lifetime, command.owner), is_new)
    if command.mark:
        change.put(LINKS_MEDIA, inside, element(inside, _mark(command.mark), lifetime), is_new)
    if kind is Kind.SIGNALLING:     # another link's mapping may have put it there already
        change.put(ENDPOINTS, inside, element(inside, b"", lifetime), is_new and not command.inside.link)
    for name, item in _inward_half(kind, inside, outside, lifetime):
        if command.inward:
            change.put(name, outside, item, is_new)
        elif not is_new:
            change.drop(name, outside, item)


def _outward_place(kind: Kind, inside: Endpoint) -> tuple[str, bytes]:
    """Return the map of what *inside* is shown as, and its key there."""
    return (LINKS_OUT, link_key(inside)) if inside.link else (OUT[kind], endpoint_key(inside))


def _mark(mark: int) -> bytes:
    return mark.to_bytes(MARK_SIZE, sys.byteorder)


def _inward_half(kind: Kind, inside: bytes, outside: bytes, lifetime: float) -> Iterator[tuple[str, bytes]]:
    yield IN[kind], element(outside, inside, lifetime)
    if kind is Kind.SIGNALLING:
        yield INWARD, element(outside, b"", lifetime)


def _delete_mapping(change: Change, command: DeleteMapping) -> None:
    kind = command.kind
    inside, outside = endpoint_key(command.inside), endpoint_key(command.outside)
    name, key = _outward_place(kind, command.inside)
    change.drop(name, key, element(key, outside))
    if command.mark:
        change.drop(LINKS_MEDIA, inside, element(inside, _mark(command.mark)))
    change.drop(IN[kind], outside, element(outside, inside))
    if kind is Kind.SIGNALLING:
        change.drop(ENDPOINTS, inside, element(inside))
        change.drop(INWARD, outside, element(outside))


def _allow_remote(change: Change, command: AllowRemote) -> None:
    name, key = _filter_of(command)
    change.put(name, key, element(key, b"", command.lifetime), command.is_new)


def _forbid_remote(change: Change, command: ForbidRemote) -> None:
    name, key = _filter_of(command)
    change.drop(name, key, element(key))


def _admit_peer(change: Change, command: AdmitPeer) -> None:
    key = socket.inet_aton(command.remote)
    change.put(PEERS, key, element(key))


def _dismiss_peer(change: Change, command: DismissPeer) -> None:
    key = socket.inet_aton(command.remote)
    change.drop(PEERS, key, element(key))


def _filter_of(command: AllowRemote | ForbidRemote) -> tuple[str, bytes]:
    if command.remote == ANY and command.kind is Kind.MEDIA:
        return OPEN, endpoint_key(command.outside)
    return ALLOWED[command.kind], remote_key(command.remote, command.outside)


_HANDLERS: dict[type, Callable[[Change, Any], None]] = {
    AddMapping: _add_mapping,
    DeleteMapping: _delete_mapping,
    AllowRemote: _allow_remote,
    ForbidRemote: _forbid_remote,
    AdmitPeer: _admit_peer,
    DismissPeer: _dismiss_peer,
}
