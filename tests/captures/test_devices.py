"""Faulty devices in the lab, behind a real gateway with natfix: with its repair each of them can talk."""

from __future__ import annotations

import re

import pytest
from scapy.utils import RawPcapNgReader

from tests.captures.__main__ import file_of
from tests.captures.ends import Ua, audio, register
from tests.captures.exchanges import BOB, PROVIDER, RELAY, called, ends
from tests.captures.faults_devices import AGENT, BOBS, untagged
from tests.lab.gateway import Natfix
from tests.lab.lab import Lab
from tests.lab.topology import PROVIDER_ADDRESS

CASES = pytest.mark.parametrize("is_repaired", [True, False])


def start_natfix(lab: Lab, repair: str) -> Natfix:
    """Start natfix with an operator's own quirks file; without a repair the file switches the quirk off."""
    file = lab.directory / "quirks.toml"
    repairs = f'["{repair}"]' if repair else "[]"
    file.write_text(f'[[quirk]]\nname = "faulty"\nuser_agent = "Faulty Phone"\nrepairs = {repairs}\n')
    return lab.start_natfix(f'quirks_files = ["{file}"]\n')


@pytest.mark.lab
@pytest.mark.parametrize("to_source", [False, True])
@CASES
def test_replies_to_the_via_port(lab: Lab, is_repaired: bool, to_source: bool) -> None:
    """A phone that sends from 5062 and listens at 5060 hears the answers at 5060, and is called there; also
    where the server answers to where the request came from."""
    start_natfix(lab, "replies-to-via-port" if is_repaired else "")
    mouth, ear, provider = Ua(lab, "phone1", "alice", 5062), *ends(lab)
    mouth.send(mouth.request("REGISTER", "sip:example.com", "registration", 1, "Expires: 3600", AGENT,
                             to="<sip:alice@example.com>", via="192.168.1.10:5060", contact=ear.contact),
               PROVIDER)
    heard = provider.hear()
    host, _, port = heard.header("Via").split()[1].partition(";")[0].partition(":")
    place = host, int(port)
    answer = provider.answer(heard, 200, f"Contact: {heard.header('Contact')};expires=3600")
    provider.send(answer, heard.source if to_source else place)
    if not is_repaired:
        with pytest.raises(TimeoutError):
            ear.hear(1)
        return
    assert "SIP/2.0 200" in ear.hear().text
    contact = heard.header("Contact").partition("@")[2].partition(">")[0].partition(":")
    provider.send(provider.request("OPTIONS", f"sip:alice@{contact[0]}:{contact[2]}", "ping"),
                  (contact[0], int(contact[2])))
    assert ear.reply(200).text.startswith("OPTIONS sip:alice@192.168.1.10:5060 ")
    assert "SIP/2.0 200" in provider.hear().text


@pytest.mark.lab
@CASES
def test_the_first_tag_is_kept(lab: Lab, is_repaired: bool) -> None:
    """A phone that stays with the tag of its 183 acknowledges the 200's dialog, and ends that one."""
    start_natfix(lab, "keeps-first-tag" if is_repaired else "")
    phone, provider = ends(lab)
    phone.send(phone.request("INVITE", BOB, "call", 1, AGENT, sdp=audio(RELAY)), PROVIDER)
    heard = provider.hear()
    provider.send(provider.answer(heard, 183, sdp=audio(PROVIDER_ADDRESS), tag="early"), heard.source)
    early = phone.hear().header("To")
    provider.send(provider.answer(heard, 200, sdp=audio(PROVIDER_ADDRESS), tag="final"), heard.source)
    assert (phone.hear().header("To") == early) is is_repaired
    right = "tag=final" if is_repaired else "tag=early"
    for cseq, method in ((1, "ACK"), (2, "BYE")):
        phone.send(phone.request(method, BOBS, "call", cseq, AGENT, to=early), PROVIDER)
        heard = provider.hear()
        assert heard.text.startswith(method)
        assert heard.header("To").endswith(right)
    provider.send(provider.answer(heard, 200), heard.source)
    assert phone.hear().header("To") == early


@pytest.mark.lab
@CASES
def test_wrong_sdp_in_the_200(lab: Lab, is_repaired: bool) -> None:
    """A called phone that names another port in its 200 than in its 183 gets its audio at the first one."""
    start_natfix(lab, "keeps-early-sdp" if is_repaired else "")
    phone, provider = ends(lab)
    phone.send(phone.request("REGISTER", "sip:example.com", "registration", 1, "Expires: 3600", AGENT,
                             to="<sip:alice@example.com>"), PROVIDER)
    heard = provider.hear()
    provider.send(provider.answer(heard, 200, f"Contact: {heard.header('Contact')};expires=3600"),
                  heard.source)
    phone.hear()
    provider.send(provider.request("INVITE", f"sip:alice@{heard.source[0]}:{heard.source[1]}", "called",
                                   sdp=audio(PROVIDER_ADDRESS, 20000)), heard.source)
    invite = phone.hear()
    for status, port in ((183, 4000), (200, 4100)):
        phone.send(phone.answer(invite, status, sdp=audio(phone.address, port)), invite.source)
    ringing, ok = provider.hear(), provider.hear()
    said = ok.text.partition("\r\n\r\n")[2]
    assert (said == ringing.text.partition("\r\n\r\n")[2]) is is_repaired
    told = int(said.partition("m=audio ")[2].split()[0])
    with phone.listening(4000) as media:
        provider.talk(20000, (heard.source[0], told), packets=3)
        if is_repaired:
            assert media.recv(999)
        else:
            with pytest.raises(TimeoutError):
                media.recv(999)


@pytest.mark.lab
@CASES
def test_second_early_media(lab: Lab, is_repaired: bool) -> None:
    """A second 183 with other SDP reaches the phone as one without."""
    start_natfix(lab, "drop-second-early-media" if is_repaired else "")
    phone, provider = ends(lab)
    phone.send(phone.request("INVITE", BOB, "call", 1, AGENT, sdp=audio(RELAY)), PROVIDER)
    heard = provider.hear()
    for body in (audio(PROVIDER_ADDRESS, 20000), audio(PROVIDER_ADDRESS, 22000, version=2)):
        provider.send(provider.answer(heard, 183, sdp=body), heard.source)
    assert "m=audio 20000" in phone.hear().text
    second = phone.hear()
    assert ("m=audio" not in second.text) is is_repaired
    assert (second.header("Content-Length") == "0") is is_repaired


@pytest.mark.lab
def test_a_phone_without_a_tag(lab: Lab) -> None:
    """A called phone that gives no tag has a call like others, and is heard (RFC 3261, section 12.1.2)."""
    natfix = start_natfix(lab, "")
    phone, provider = ends(lab)
    place = register(phone, provider)
    heard, ok = called(phone, provider, place, sdp=audio(phone.address))
    phone.send(untagged(ok), heard.source)
    answer = provider.hear()
    assert "tag=" not in answer.header("To")
    contact = f"sip:alice@{place[0]}:{place[1]}"
    provider.send(provider.request("ACK", contact, "called", to=answer.header("To")), place)
    phone.hear()
    assert natfix.request("calls")["calls"][0]["state"] == "confirmed"
    told = int(answer.text.partition("m=audio ")[2].split()[0])
    with phone.listening(4000) as media:
        provider.talk(4000, (place[0], told), packets=3)
        assert media.recv(999)
    provider.send(provider.request("BYE", contact, "called", 2, to=answer.header("To")), place)
    phone.reply(200)
    provider.hear()
    assert natfix.request("calls")["calls"][0]["state"] == "ended"


def seen_inside(name: str) -> list[str]:
    """Return the SIP messages of a capture as the phone sent and got them."""
    with RawPcapNgReader(str(file_of(name))) as reader:
        return [data[42:].decode() for data, facts in reader if facts.ifname == b"inside"]


@pytest.mark.parametrize(("name", "first", "second"), [
    ("device-second-early-media", "SIP/2.0 183.*m=audio 4000", "^CANCEL"),
    ("device-other-sdp-in-200", "SIP/2.0 183.*m=audio 4000", "SIP/2.0 200.*m=audio 4100"),
    ("device-first-tag", "SIP/2.0 200.*To: [^\r]*tag=final", "^BYE.*To: [^\r]*tag=early"),
    ("device-no-reinvite", "^INVITE.*To: [^\r]*tag=", "SIP/2.0 501"),
    ("device-no-tag", "^INVITE", "SIP/2.0 200[^\n]*\r\n.*To: <[^>]*>\r"),
    ("d29-sends-from-another-port", "^REGISTER.*Via: [^\r]*:5060", "^REGISTER"),
])
def test_the_capture_shows_the_fault(name: str, first: str, second: str) -> None:
    """In each repair's capture the device meets what it cannot take, and goes wrong after it."""
    messages = seen_inside(name)
    places = [[at for at, text in enumerate(messages) if re.search(pattern, text, re.S)]
              for pattern in (first, second)]
    assert places[0]
    assert places[1]
    assert places[0][0] < places[1][-1]


def test_early_media_differ_and_the_481_comes() -> None:
    """Two 183 of one tag name two places; the BYE to the first tag is answered with 481."""
    early = [text for text in seen_inside("device-second-early-media") if text.startswith("SIP/2.0 183")]
    assert len({re.search("c=(.*)", text)[0] for text in early}) == len(early) == 2   # type: ignore[index]
    assert len({re.search("To: (.*)", text)[0] for text in early}) == 1     # type: ignore[index]
    assert seen_inside("device-first-tag")[-1].startswith("SIP/2.0 481")
