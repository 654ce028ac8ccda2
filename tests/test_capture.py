"""`natfix capture`, the half that writes: what it refuses, a full disk, and the line for tcpdump."""

from __future__ import annotations

import io
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from natfix.capture import Wanted, _Run, _write_whole, media_filter, refuse_nonsense, tcpdump_line
from natfix.errors import ConfigError


@pytest.mark.parametrize("wanted", [
    Wanted(), Wanted("1", everything=True), Wanted("1", seconds=-1.0), Wanted("1", seconds=float("nan")),
    Wanted("1", seconds=1e9), Wanted("1", most=-1)])
def test_nonsense_is_refused(wanted: Wanted) -> None:
    """Nothing or too much to capture, and numbers that mean nothing, are usage errors."""
    with pytest.raises(ConfigError):
        refuse_nonsense(wanted)


def test_a_full_disk_leaves_whole_blocks(tmp_path: Path) -> None:
    """What does not fit is not begun: the file ends where the last whole message does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handle = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        blocks = io.BytesIO()
        for octets in (b"a" * 600, b"b" * 600):
            blocks.write(octets)
            try:
                _write_whole(handle, blocks)
            except OSError:
                assert octets[:1] == b"b"
            assert blocks.getvalue() == b""
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        os.close(handle)
    assert (tmp_path / "f").read_bytes() == b"a" * 600


def test_ctrl_c_twice() -> None:
    """The first one ends it in order; the second one at once, where a pipe does not take what is left."""
    run = _Run("nowhere", Wanted(everything=True))
    run.ask_for_end()
    assert run.is_ending
    with pytest.raises(KeyboardInterrupt):
        run.ask_for_end()


def test_where_the_media_is() -> None:
    """Both sides of each stream, RTCP and video as well, in words that tcpdump understands."""
    elements = [
        {"set": "media_in", "key": f"203.0.113.1 . {port}", "value": f"192.168.1.10 . {port - 20000}"}
        for port in (30000, 30001)]
    elements += [{"set": "media_out", "key": "9.9.9.9 . 1", "value": "8.8.8.8 . 2"}]
    found = media_filter({"parties": [{"elements": elements}, {"elements": []}]})
    assert found == ("udp and ((host 203.0.113.1 and (port 30000 or port 30001)) or "
                     "(host 192.168.1.10 and (port 10000 or port 10001)))")
    assert media_filter({"parties": [{"elements": elements[2:]}]}) == ""
    assert tcpdump_line(found, "/tmp/x.pcapng") == f"tcpdump -ni any -w x-media.pcap '{found}'"


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
def test_tcpdump_understands_it() -> None:
    """The line that is printed is one that works."""
    elements = [{"set": "media_in", "key": "203.0.113.1 . 30000", "value": "192.168.1.10 . 10000"}]
    found = media_filter({"parties": [{"elements": elements}]})
    subprocess.run(["tcpdump", "-d", "-y", "RAW", found], check=True, capture_output=True)
