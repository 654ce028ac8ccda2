"""Endpoints and networks."""

import pytest

from natfix.address import UNUSABLE, Endpoint, contains, host_to_int, is_ipv4, network_from_text


@pytest.mark.parametrize(("text", "valid"), [
    ("192.168.1.10", True), ("0.0.0.0", True), ("255.255.255.255", True), ("256.1.1.1", False),
    ("1.2.3", False), ("1.2.3.4.5", False), ("1.2.3.", False), ("a.b.c.d", False), ("1.2.3.4444", False),
    ("::1", False), ("", False), ("1.2.3.٤", False), ("-1.2.3.4", False), ("192.168.1.010", False),
])
def test_only_four_decimals_are_an_address(text: str, valid: bool) -> None:
    """What is not four decimal bytes in ASCII, without leading zeros, is a host name or nothing."""
    assert is_ipv4(text) is valid


def test_endpoint_reads_as_host_and_port() -> None:
    """An endpoint prints as it stands in SIP and in nft listings."""
    assert str(Endpoint("192.0.2.1", 5060)) == "192.0.2.1:5060"


def test_network_text_round_trips() -> None:
    """A prefix is written as it was read; a bare address is a /32."""
    assert str(network_from_text("10.1.0.0/16")) == "10.1.0.0/16"
    assert str(network_from_text("10.1.2.3")) == "10.1.2.3/32"
    assert str(network_from_text("0.0.0.0/0")) == "0.0.0.0/0"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/x", "10.0.0/8", "x/8"])
def test_bad_networks_are_refused(text: str) -> None:
    """Host bits, lengths and addresses that are wrong raise ValueError."""
    with pytest.raises(ValueError, match=r"."):
        network_from_text(text)


def test_contains_is_by_prefix_and_never_by_name() -> None:
    """Membership compares the prefix; host names are in no network."""
    networks = (network_from_text("172.16.0.0/12"), network_from_text("100.64.0.0/10"))
    assert contains(networks, "172.31.255.255")
    assert not contains(networks, "172.32.0.0")
    assert contains(networks, "100.64.0.1")
    assert not contains(networks, "phone.example")
    assert contains(UNUSABLE, "127.0.0.1")
    assert contains(UNUSABLE, "239.1.1.1")


def test_host_to_int_refuses_names() -> None:
    """A host name has no number."""
    assert host_to_int("1.2.3.4") == 0x01020304
    with pytest.raises(ValueError, match="not an IPv4 address"):
        host_to_int("example.net")
