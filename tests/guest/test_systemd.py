"""natfix as a service of a real systemd, on a Debian kernel."""

from __future__ import annotations

import shlex
import sys

from tests.guest.machine import PROJECT, Guest
from tests.guest.marks import needs_guest

pytestmark = needs_guest

CONFIG = """
[outside]
interface = "outside"
[inside]
networks = ["192.168.1.0/24"]
[daemon]
control_socket = "/run/natfix-test.sock"
state_file = "/run/natfix-test.sqlite"
"""
UNIT = f"""
[Service]
Type=notify
NotifyAccess=main
WorkingDirectory={PROJECT}
ExecStart={sys.executable} -m natfix --config /run/natfix-test.toml run
TimeoutStartSec=120
"""
LINKS = """
ip link add outside type dummy
ip addr add 203.0.113.1/24 dev outside
ip link set outside up
"""


def test_systemd_is_told_when_natfix_is_ready_and_ends(systemd_guest: Guest) -> None:
    """A unit of Type=notify is active once the rules are in place, and stopped without a fault."""
    systemd_guest.script(f"{LINKS}"
                         f"echo {shlex.quote(CONFIG)} >/run/natfix-test.toml\n"
                         f"echo {shlex.quote(UNIT)} >/run/systemd/system/natfix-test.service\n"
                         "systemctl daemon-reload; systemctl start natfix-test || journalctl -u natfix-test",
                         timeout=180)
    assert systemd_guest.script("systemctl is-active natfix-test || true") == "active\n"
    assert "queue" in systemd_guest.script("nft list chain ip natfix to_natfix")
    systemd_guest.script("systemctl stop natfix-test", timeout=90)
    assert systemd_guest.script("systemctl show -P Result -P ExecMainStatus natfix-test") == "success\n0\n"
    assert "hook forward" in systemd_guest.script("nft list chain ip natfix divert")
