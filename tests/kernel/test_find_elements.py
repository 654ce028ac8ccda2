"""Single elements are looked up, since a dump would take long: what is there, what is missing."""

from __future__ import annotations

from natfix.commands import AllowRemote, CloseFlow, DeleteMapping
from natfix.kernel.advertise import AdvertisedKernel
from natfix.kernel.elements import text_from_key
from natfix.kernel.fake import FakeKernel
from natfix.reports import AddressesChanged
from tests.kernel.wires import FLOW, MEDIA, RTP, RTP_OUT, RTP_REMOTE, SKELETON, Wires, media
from tests.namespace import kernel_test

pytestmark = kernel_test


def test_in_the_kernel(gateway: Wires) -> None:
    """Both halves and the permission, with value and time left; what was never there is absent."""
    wanted = [media(lifetime=300), AllowRemote(MEDIA, RTP_OUT, RTP_REMOTE.host, 300), CloseFlow(FLOW)]
    gateway.kernel.apply(wanted)
    found = {each.name: each for each in gateway.kernel.find_elements(wanted)}
    assert set(found) == {"media_out", "media_in", "media_allowed"}
    assert all(each.is_present and 299 < each.lifetime <= 300 for each in found.values())
    assert found["media_out"].key == f"{RTP.host} . {RTP.port}"
    assert found["media_out"].value == f"{RTP_OUT.host} . {RTP_OUT.port}"
    assert found["media_allowed"].key == f"{RTP_REMOTE.host} . {RTP_OUT.host} . {RTP_OUT.port}"
    assert found["media_allowed"].value == ""
    gateway.kernel.apply([DeleteMapping(MEDIA, RTP, RTP_OUT)])
    present = {each.name: each.is_present for each in gateway.kernel.find_elements(wanted)}
    assert present == {"media_out": False, "media_in": False, "media_allowed": True}
    assert gateway.kernel.find_elements([CloseFlow(FLOW)]) == []


def test_without_the_table(bare: Wires) -> None:
    """Where somebody has flushed all rules everything is missing, and that is an answer."""
    found = bare.kernel.find_elements([media()])
    assert found
    assert not any(each.is_present for each in found)


def test_in_memory() -> None:
    """The fake kernel tells mappings that are there from those that are not."""
    kernel = FakeKernel()
    kernel.install(SKELETON)
    assert [each.is_present for each in kernel.find_elements([media()])] == [False]
    kernel.apply([media(lifetime=300)])
    found, = kernel.find_elements([media()])
    assert (found.is_present, found.value) == (True, f"{RTP_OUT.host} . {RTP_OUT.port}")


def test_behind_another_nat() -> None:
    """What others see as the outside address is looked up, and shown, as the link's own."""
    below = FakeKernel()
    below.install(SKELETON)
    kernel = AdvertisedKernel(below, AddressesChanged({"wan0": "10.0.0.2"}, (), advertised=RTP_OUT.host))
    kernel.apply([media(lifetime=300)])
    found, = kernel.find_elements([media()])
    assert (found.is_present, found.value) == (True, f"10.0.0.2 . {RTP_OUT.port}")


def test_keys_as_text() -> None:
    """An address, an endpoint, and a remote with an endpoint."""
    host, port = bytes((192, 0, 2, 1)), (5060).to_bytes(2) + b"\0\0"
    assert text_from_key(host) == "192.0.2.1"
    assert text_from_key(host + port) == "192.0.2.1 . 5060"
    assert text_from_key(host + host + port) == "192.0.2.1 . 192.0.2.1 . 5060"
