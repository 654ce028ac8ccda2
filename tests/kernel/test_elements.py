"""Commands into the messages of one nftables transaction, element by element."""

from __future__ import annotations

from collections import defaultdict

from natfix.address import Endpoint
from natfix.commands import (
    AddMapping,
    AdmitPeer,
    AllowRemote,
    CloseFlow,
    Command,
    DeleteMapping,
    DismissPeer,
    Flow,
    ForbidRemote,
    Kind,
)
from natfix.kernel.elements import (
    COMMENT_SIZE,
    DELETE_ELEMENT,
    ELEMENTS,
    IN_SET,
    MAPPING_SETS,
    MESSAGE_ELEMENTS,
    NEW_ELEMENT,
    Change,
    Element,
    change_from_commands,
    element,
    elements_from_dump,
    endpoint_from_key,
    endpoint_key,
)
from natfix.kernel.netlink import Message, attributes, head, nest

INSIDE, OUTSIDE = Endpoint("192.168.1.10", 5060), Endpoint("203.0.113.1", 15060)
OTHER = Endpoint("203.0.113.1", 7)
MEDIA, SIGNALLING = Kind.MEDIA, Kind.SIGNALLING


def carried_out(messages: list[Message]) -> dict[str, dict[bytes, Element]]:
    """Carry *messages* out in memory, as strictly as the kernel does."""
    sets: dict[str, dict[bytes, Element]] = defaultdict(dict)
    for message in messages:
        found = attributes(message.body, 4)
        held = sets[found[IN_SET].rstrip(b"\0").decode()]
        items = list(elements_from_dump([message.body]))
        if message.kind == DELETE_ELEMENT and ELEMENTS not in found:
            held.clear()
        for item in items:
            if message.kind == DELETE_ELEMENT:
                del held[item.key]
            else:
                assert message.kind == NEW_ELEMENT
                assert item.key not in held or held[item.key].data == item.data
                held.setdefault(item.key, item)
    return {name: held for name, held in sets.items() if held}


def result(*commands: Command) -> dict[str, dict[bytes, Element]]:
    return carried_out(change_from_commands(commands).messages())


def test_endpoint_is_address_and_port_padded() -> None:
    """nftables concatenates fields that are padded to four bytes each."""
    assert endpoint_key(INSIDE) == b"\xc0\xa8\x01\x0a\x13\xc4\x00\x00"
    assert endpoint_from_key(endpoint_key(INSIDE)) == INSIDE


def test_media_mapping_is_two_elements() -> None:
    """Each half translates one way; the owner is said in the outgoing one."""
    made = result(AddMapping(MEDIA, INSIDE, OUTSIDE, 60, owner="call 1"))
    assert made["media_out"][endpoint_key(INSIDE)][1::2] == (endpoint_key(OUTSIDE), "call 1")
    assert made["media_in"][endpoint_key(OUTSIDE)][1::2] == (endpoint_key(INSIDE), "")
    assert made.keys() == {"media_out", "media_in"}


def test_signalling_mapping_is_in_the_sets_as_well() -> None:
    """Its endpoints also stand in the sets that mark flows, the outside one only with an inward half."""
    made = result(AddMapping(SIGNALLING, INSIDE, OUTSIDE, 60))
    assert made.keys() == {"signalling_out", "signalling_in", "signalling_endpoints", "signalling_inward"}
    made = result(AddMapping(SIGNALLING, INSIDE, OUTSIDE, 60, inward=False))
    assert made.keys() == {"signalling_out", "signalling_endpoints"}


def test_deletion_may_meet_nothing() -> None:
    """An absent element is added first, since deleting what is not there fails a transaction."""
    assert result(DeleteMapping(SIGNALLING, INSIDE, OUTSIDE)) == {}
    assert result(ForbidRemote(MEDIA, OUTSIDE, "198.51.100.1")) == {}


def test_last_word_counts() -> None:
    """Several commands about one mapping leave what the last one says."""
    made = result(AddMapping(MEDIA, INSIDE, OUTSIDE, 60), DeleteMapping(MEDIA, INSIDE, OUTSIDE),
                  AddMapping(MEDIA, INSIDE, OUTSIDE, 60, owner="b"))
    assert made["media_out"][endpoint_key(INSIDE)].comment == "b"
    assert result(AddMapping(MEDIA, INSIDE, OUTSIDE, 60), DeleteMapping(MEDIA, INSIDE, OUTSIDE)) == {}


def test_moved_mapping_begins_with_the_old_value() -> None:
    """A mapping deleted and added elsewhere first names the value that may be there, lest it clash."""
    made = change_from_commands([DeleteMapping(MEDIA, INSIDE, OUTSIDE), AddMapping(MEDIA, INSIDE, OTHER, 60)])
    first = next(elements_from_dump([made.messages()[0].body]))
    assert first.data == endpoint_key(OUTSIDE)
    assert carried_out(made.messages())["media_out"][endpoint_key(INSIDE)].data == endpoint_key(OTHER)


def test_what_is_new_is_only_added() -> None:
    """Where the kernel holds nothing there is nothing to delete first: one message a set."""
    new = AddMapping(SIGNALLING, INSIDE, OUTSIDE, 60, is_new=True)
    allowed = AllowRemote(SIGNALLING, OUTSIDE, "198.51.100.1", 60, is_new=True)
    messages = change_from_commands([new, allowed]).messages()
    assert [message.kind for message in messages] == [NEW_ELEMENT] * 5
    assert carried_out(messages) == result(new._replace(is_new=False), allowed._replace(is_new=False))
    assert result(new._replace(inward=False)).keys() == {"signalling_out", "signalling_endpoints"}


def test_what_is_new_may_be_deleted_before() -> None:
    """In one transaction an old mapping ends, and a new one begins with the same endpoints."""
    assert result(DeleteMapping(MEDIA, INSIDE, OUTSIDE),
                  AddMapping(MEDIA, INSIDE, OUTSIDE, 60, is_new=True)).keys() == {"media_out", "media_in"}
    assert result(AddMapping(MEDIA, INSIDE, OUTSIDE, 60, is_new=True),
                  DeleteMapping(MEDIA, INSIDE, OUTSIDE)) == {}


def test_anyone_is_a_set_of_its_own() -> None:
    """0.0.0.0 opens media to all; an address opens it to that one."""
    assert result(AllowRemote(MEDIA, OUTSIDE, "0.0.0.0", 60)).keys() == {"media_open"}
    assert result(AllowRemote(MEDIA, OUTSIDE, "198.51.100.1", 60)).keys() == {"media_allowed"}
    assert result(AllowRemote(SIGNALLING, OUTSIDE, "198.51.100.1", 60)).keys() == {"signalling_allowed"}


def test_a_peer_is_one_element_that_stays() -> None:
    """Who is listed needs no element at each mapping, and what it opens ends with the inward halves."""
    made = result(AdmitPeer("198.51.100.1"), AdmitPeer("198.51.100.2"), DismissPeer("198.51.100.1"))
    assert [(name, *items) for name, items in made.items()] == [("signalling_peers", b"\xc6\x33\x64\x02")]
    assert made["signalling_peers"][b"\xc6\x33\x64\x02"].lifetime == 0


def test_entries_are_not_elements() -> None:
    """Commands about conntrack entries change no set."""
    assert not change_from_commands([CloseFlow(Flow(INSIDE, OTHER, OTHER, OUTSIDE))])


def test_replacement_empties_every_mapping_set() -> None:
    """A resync clears all sets of mappings, and puts back what is wanted once."""
    change = change_from_commands([AddMapping(MEDIA, INSIDE, OUTSIDE, 60)])
    messages = change.replacement()
    assert sum(message.kind == DELETE_ELEMENT for message in messages) == len(MAPPING_SETS)
    assert carried_out(messages).keys() == {"media_out", "media_in"}


def test_many_elements_are_several_messages() -> None:
    """No message grows beyond what one attribute can say (65,535 bytes)."""
    change = Change()
    for port in range(2 * MESSAGE_ELEMENTS + 1):
        key = endpoint_key(Endpoint("192.168.1.10", port))
        change.put("media_out", key, element(key, endpoint_key(OUTSIDE), 60, "x" * 200))
    messages = change.messages()
    assert len(messages) == 9
    assert max(len(message.body) for message in messages) < 65536
    assert len(carried_out(messages)["media_out"]) == 2 * MESSAGE_ELEMENTS + 1


def test_long_comment_is_cut_between_characters() -> None:
    """nft shows at most 127 bytes of an owner; a character is never cut in two."""
    item = next(elements_from_dump([head(2) + nest(ELEMENTS, element(b"12345678", comment="ü" * 100))]))
    assert item.comment == "ü" * (COMMENT_SIZE // 2)
