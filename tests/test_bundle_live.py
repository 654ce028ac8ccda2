"""`natfix bundle` on a real gateway with a call on it: what is in it, and that --redact names nobody."""

from __future__ import annotations

import json
import re
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from natfix import redact
from natfix.cli import main
from tests.gateway_with_natfix import RTP, SDP, SIP, Dialog, Live, answer_to, header, receive
from tests.kernel.wires import GATEWAY, PHONE, REMOTE
from tests.namespace import kernel_test

pytestmark = kernel_test
MORE = """
            # Dora's line: https://admin:S3CRET@router.example
            # password = "S3CRET"
            [[peer]]
            address = "198.51.100.77"
            [[domain]]
            name = "*.acme.example"
"""
RULE = """nft 'insert rule inet firewall forward ip daddr 192.168.1.77 counter comment "Carla at home"'"""
SEEDS = ("alice", "bob", "4930123456", "Dora", "Carla", "805ec0123456", "acme.example", "router.example",
         PHONE, REMOTE, GATEWAY, "192.168.1.77", "198.51.100.77")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    live = Live(tmp_path)
    live.wires.gateway.run(RULE)
    live.start(MORE)
    yield live
    live.close()


def call(live: Live) -> Dialog:
    """Place a call to a number; who calls is said in its headers, with credentials."""
    dialog = Dialog(live.phone, (PHONE, SIP), (REMOTE, SIP))
    dialog.target = f"sip:+4930123456@{REMOTE}"
    dialog.send_request("INVITE", SDP.format(PHONE, RTP),
                        'Authorization: Digest username="alice", response="S3CRET"\r\n')
    offer, source = receive(live.provider)
    answer = answer_to(offer, "200 OK", f"<sip:bob@{REMOTE}:{SIP}>", SDP.format(REMOTE, 20000))
    live.provider.sendto(answer, source)
    dialog.take_answer(receive(live.phone)[0])
    dialog.send_request("ACK")
    receive(live.provider)
    return dialog


def register(live: Live) -> None:
    """Register the phone, which names its hardware address."""
    dialog = Dialog(live.phone, (PHONE, SIP), (REMOTE, SIP))
    dialog.send_request("REGISTER", more="Expires: 600\r\nUser-Agent: Acme T4 805ec0123456\r\n")
    request, source = receive(live.provider)
    live.provider.sendto(answer_to(request, "200 OK", f"{header(request, 'Contact')};expires=600"), source)
    receive(live.phone)


def bundle_of(live: Live, name: str, *options: str) -> dict[str, str]:
    """Make a bundle on the gateway, and return the texts of its files."""
    path = live.folder / f"{name}.tar.gz"
    config = str(live.folder / "natfix0.toml")
    code = live.wires.gateway.call(
        lambda: main(["--config", config, "bundle", "--write", str(path), *options]))
    assert code == 0
    texts = {}
    with tarfile.open(path) as tar:
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            texts[entry.name.removeprefix(f"{name}/")] = file.read().decode()
    return texts


def test_nobody_is_named(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the plain bundle, seeded names, numbers, addresses, the machine's own ones, stands in no
    file of the redacted one; one address has one token everywhere; inside is private, outside is not."""
    monkeypatch.setattr(redact.os, "urandom", lambda count: bytes(count))
    register(live)
    dialog = call(live)
    plain = bundle_of(live, "plain")
    shown = bundle_of(live, "shown", "--redact")
    assert shown.keys() == plain.keys()
    links = set(re.findall(r"link/ether (\S+)", plain["network/links.txt"]))
    whole = "\n".join(plain.values())
    own = {name for name in (socket.gethostname(),) if name in whole and name not in ("localhost", "natfix")}
    assert links
    for seed in (*SEEDS, *links, *own):
        around = (r"(?<![\d.])", r"(?!\.?\d)") if seed[0].isdigit() else ("", "")
        pattern = re.compile(re.escape(seed).join(around), re.IGNORECASE)
        assert pattern.search(whole), f"{seed} is not even in the plain one"
        where = [name for name, text in shown.items() if pattern.search(text)]
        assert not where, f"{seed} is in {where}"
    assert not [name for texts in (plain, shown) for name, text in texts.items() if "S3CRET" in text]
    explained, = json.loads(plain["daemon/explain.json"])["calls"]
    assert explained["call_id"] == dialog.call_id
    party = json.loads(shown["daemon/explain.json"])["calls"][0]["parties"][0]
    inside, outside = (party[name].partition(":")[0] for name in ("inside", "outside"))
    assert inside.startswith("192.168.")
    assert outside.startswith("203.0.113.")
    for name in ("daemon/calls.json", "rules/natfix.nft", "conntrack/natfix.txt", "daemon/notes.json"):
        assert inside in shown[name], name
        assert outside in shown[name], name
    network = inside.rpartition(".")[0]
    assert f"{network}.0/24 dev inside" in shown["network/routes.txt"]


def test_what_is_in_it(live: Live) -> None:
    """Status, calls, entries, both tables, check: each says what is so; the manifest names each."""
    call(live)
    texts = bundle_of(live, "plain")
    assert json.loads(texts["daemon/status.json"])["calls"] == 1
    assert {line["code"] for line in json.loads(texts["check.json"])["checks"]} >= {"H01", "H05", "H08"}
    assert "udp src=192.168.1.10:5060 dst=203.0.113.50:5060" in texts["conntrack/natfix.txt"]
    assert f"{PHONE} . {RTP}" in texts["rules/natfix.nft"]
    assert "table inet firewall" in texts["rules/nft.txt"]
    assert "net.ipv4.ip_forward = 1" in texts["network/sysctl.txt"]
    manifest = texts["MANIFEST"]
    assert all(name in manifest for name in texts if name != "MANIFEST")
