"""Inputs are recognised by their content."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from natfix.replay.capture import opened
from natfix.replay.counts import Counts
from natfix.replay.source import Unreadable
from tests.replay.test_pcapng_reader import interface, packet, section
from tests.replay.test_snoop import fw, snoop
from tests.replay.test_texts import FW_MONITOR
from tests.replay.wire import PHONE, PROVIDER, ethernet, pcap, udp, written

DATA = ethernet(udp(PHONE, PROVIDER, b"hello"))
INPUTS = {
    "pcap": pcap([DATA]), "pcapng": section() + interface() + packet(DATA), "snoop": snoop([DATA]),
    "fw monitor": snoop([fw("i", b"eth0")]), "fw monitor text": FW_MONITOR.encode(),
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_formats(tmp_path: Path, name: str, pack) -> None:  # type: ignore[no-untyped-def]
    """Whatever the file is called, its format is told from what is in it, gzipped or not."""
    counts = Counts("x")
    source, records = opened(written(tmp_path, pack(INPUTS[name]), "capture.doc"), "wan", counts)
    with source:
        first = next(records)
    assert counts.format == name
    assert getattr(first, "file", "wan") == "wan"


@pytest.mark.parametrize(("data", "said"), [
    (b"", "empty"), (b"PK\x03\x04" + bytes(50), "unpack it first"), (b"\0\1\2\3" * 50, "editcap"),
    (b"%PDF-1.4\n", "save its text"), (gzip.compress(b"", mtime=0)[:12], "gzip"), (b"BZh91AY", "uncompress")])
def test_others(tmp_path: Path, data: bytes, said: str) -> None:
    """What is no capture is one sentence that helps."""
    with pytest.raises(Unreadable, match=said):
        opened(written(tmp_path, data), "", Counts("x"))
