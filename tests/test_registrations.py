"""Bindings and pending REGISTERs."""

import pytest

from natfix.address import Endpoint
from natfix.errors import LimitReached
from natfix.registrations import (
    MAX_PENDING,
    Binding,
    BindingKey,
    PendingKey,
    PendingRegister,
    Registrations,
)

PHONE, REGISTRAR = Endpoint("192.168.1.10", 5060), Endpoint("198.51.100.7", 5060)
PROXY = Endpoint("192.168.1.2", 5060)


def binding(user: str = "alice", inside: Endpoint = PHONE) -> Binding:
    return Binding(BindingKey(inside, f"{user}@example.net"), user, str(inside), "203.0.113.1:5060",
                   REGISTRAR, 3600.0, 0.0)


def test_a_binding_is_found_by_the_user_of_its_contact() -> None:
    """An incoming call names the Contact's user at the outside endpoint."""
    registrations = Registrations(10, 10)
    registrations.add(binding("alice"))
    registrations.add(binding("bob"))
    found = registrations.find_user(PHONE, "bob")
    assert found is not None
    assert found.key.aor == "bob@example.net"
    assert registrations.find_user(PHONE, "carol") is None


def test_a_host_is_registered_while_it_has_a_binding() -> None:
    """An SDP may name another registered inside host, and only while it is one."""
    registrations = Registrations(10, 10)
    registrations.add(binding())
    assert registrations.is_registered(PHONE.host, PROXY.host)
    registrations.remove(binding().key)
    assert not registrations.is_registered(PHONE.host, PROXY.host)
    assert registrations.remove(binding().key) is None


def test_a_host_behind_a_proxy_is_registered_for_that_proxy() -> None:
    """Only who registered it may name it; the proxy's quota counts, and Contact: * of the proxy ends it."""
    registrations = Registrations(10, 1)
    behind = binding()
    behind.key = behind.key._replace(proxy=PROXY)
    registrations.add(behind)
    assert registrations.is_registered(PHONE.host, PROXY.host)
    assert not registrations.is_registered(PHONE.host, "192.168.1.3")
    assert registrations.find_user(PHONE, "alice") is None
    with pytest.raises(LimitReached, match=PROXY.host):
        registrations.add(binding("bob", PROXY))
    assert registrations.of_aor(PHONE.host, "alice@example.net") == []
    assert registrations.of_aor(PROXY.host, "alice@example.net") == [behind]
    registrations.remove(behind.key)
    assert not registrations.is_registered(PHONE.host, PROXY.host)


def test_refreshing_a_binding_takes_no_second_place() -> None:
    """A refresh replaces; only new bindings count against the limits."""
    registrations = Registrations(2, 1)
    registrations.add(binding())
    registrations.add(binding())
    with pytest.raises(LimitReached, match="per_host"):
        registrations.add(binding("bob"))
    registrations.add(binding("carol", Endpoint("192.168.1.11", 5060)))
    with pytest.raises(LimitReached, match="registrations is"):
        registrations.add(binding("dave", Endpoint("192.168.1.12", 5060)))


def test_bindings_of_one_address_of_record() -> None:
    """"Contact: *" ends the bindings of its AOR on that host, nobody else's."""
    registrations = Registrations(10, 10)
    registrations.add(binding("alice"))
    registrations.add(binding("bob"))
    assert [found.user for found in registrations.of_aor(PHONE.host, "alice@example.net")] == ["alice"]
    assert registrations.of_aor("192.168.1.11", "alice@example.net") == []


def test_pending_registers_are_bounded() -> None:
    """A flood of REGISTERs that nobody answers pushes out the oldest ones only."""
    registrations = Registrations(10, 10)
    for number in range(MAX_PENDING + 1):
        registrations.expect(PendingKey(PHONE, "c", number), PendingRegister(REGISTRAR, ""))
    assert registrations.answered(PendingKey(PHONE, "c", 0)) is None
    assert registrations.answered(PendingKey(PHONE, "c", MAX_PENDING)) is not None
