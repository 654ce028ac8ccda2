"""The Debian package under a real systemd, on a Debian kernel: installed, upgraded, broken, purged.

What happens in the guest is one story of some minutes, told by the fixture; the tests judge its parts.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deb.build import BuildError, later_version, package
from tests.guest.machine import Guest
from tests.guest.marks import needs_guest

pytestmark = needs_guest

LATER = "99.0"
LINKS = """
for link in outside inside; do ip link add $link type dummy; ip link set $link up; done
ip addr add 203.0.113.1/24 dev outside
ip addr add 192.168.1.1/24 dev inside
"""
CONFIG = '[outside]\ninterface = "outside"\n[inside]\nnetworks = ["192.168.1.0/24"]\n'
# Emulated, everything takes 5 to 20 times as long.
SLOW = "[Unit]\nStartLimitIntervalSec=600\n[Service]\nTimeoutStartSec=120\nWatchdogSec=60\n"
OPERATOR = "table inet operator { chain forward { type filter hook forward priority 0; policy drop; }; }"
# One RTP port of a call in progress.
CALL = """
nft add element ip natfix media_out '{ 192.168.1.10 . 4000 timeout 30m : 203.0.113.1 . 30000 }'
nft add element ip natfix media_in '{ 203.0.113.1 . 30000 timeout 30m : 192.168.1.10 . 4000 }'
"""
FACTS = """
echo "state: $(systemctl show -P ActiveState natfix)"
echo "restarts: $(systemctl show -P NRestarts natfix)"
echo "pid: $(systemctl show -P MainPID natfix)"
echo "retry: $(systemctl show -P ActiveState natfix-retry.timer)"
echo "divert: $(nft list chain ip natfix to_natfix 2>/dev/null | grep -c queue)"
echo "guard: $(nft list chain ip natfix guard 2>/dev/null | grep -c drop)"
echo "call: $(nft list map ip natfix media_in 2>/dev/null | grep -c '203.0.113.1 . 30000')"
"""
ACTIVE = """
for second in $(seq 150); do
    case $(systemctl show -P ActiveState natfix) in
        active) exit ;;
        failed) break ;;
    esac
    sleep 1
done
journalctl --no-pager -u natfix >&2; exit 1
"""

Facts = dict[str, Any]


def facts(guest: Guest, **more: str) -> Facts:
    """Return what systemd and the kernel say of natfix now, and what the scripts *more* print."""
    pairs = (line.partition(": ") for line in guest.script(FACTS).splitlines())
    found: Facts = {name: value for name, _, value in pairs}
    return found | {name: guest.script(script, timeout=120) for name, script in more.items()}


@pytest.fixture(scope="module")
def story(systemd_guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Facts]:
    """What there was to see after each stage of a package's life."""
    try:
        deb = package()
    except BuildError as problem:
        pytest.skip(f"no package: {str(problem).splitlines()[-1]}")
    later = later_version(deb, LATER, tmp_path_factory.mktemp("later"))
    guest = systemd_guest
    # The machine that runs the tests may forbid services; the guest is a machine of its own.
    guest.script(f"{LINKS} rm -f /usr/sbin/policy-rc.d\n"
                 f"printf '%s' 'flush ruleset; {OPERATOR}' >/etc/nftables.conf; systemctl start nftables")
    seen = {"before": facts(guest, rules="nft -s list ruleset")}
    said = guest.script(f"dpkg --force-unsafe-io --no-triggers -i {deb}", timeout=400)
    seen["installed"] = {"said": said, **facts(guest, rules="nft -s list ruleset")}
    guest.script(f"printf '%s' '{CONFIG}' >/etc/natfix/natfix.toml\n"
                 f"mkdir /run/systemd/system/natfix.service.d\n"
                 f"printf '%s' '{SLOW}' >/run/systemd/system/natfix.service.d/slow.conf\n"
                 "systemctl daemon-reload; systemctl enable natfix; systemctl start natfix || true" + ACTIVE,
                 timeout=240)
    seen["started"] = facts(
        guest, status="natfix status --json", user="ps -o user= -p $(systemctl show -P MainPID natfix)",
        counting="cat /proc/sys/net/netfilter/nf_conntrack_acct")
    seen["reloaded"] = {"said": guest.script(
        "sed -i '1i [media]\\nsilence = 900' /etc/natfix/natfix.toml; systemctl reload natfix\n"
        "journalctl --no-pager -u natfix -o cat", timeout=120)}
    guest.script("nft delete table ip natfix\n"
                 "for second in $(seq 20); do\n"
                 "    nft list chain ip natfix to_natfix 2>/dev/null | grep -q queue && exit\n"
                 "    sleep 1\n"
                 "done; journalctl --no-pager -u natfix >&2; exit 1")
    guest.script(CALL + "echo 'nonsense = 1' >/etc/natfix/natfix.toml; systemctl kill -s KILL natfix\n"
                 "for second in $(seq 150); do\n"
                 "    systemctl show -P ExecMainExitTimestampMonotonic natfix-failed | grep -qx 0 || exit 0\n"
                 "    sleep 1\n"
                 "done", timeout=240)
    seen["broken"] = facts(guest, alarm="journalctl --no-pager -q -t natfix -p crit -o cat")
    guest.script(f"printf '%s' '{CONFIG}' >/etc/natfix/natfix.toml; natfix up || natfix up || true"
                 + ACTIVE, timeout=240)
    seen["repaired"] = facts(guest)
    guest.script(f"dpkg --force-unsafe-io --no-triggers -i {later}" + ACTIVE, timeout=400)
    seen["upgraded"] = facts(guest, version="natfix --version", config="cat /etc/natfix/natfix.toml")
    guest.script("systemctl restart nftables; sleep 3", timeout=120)
    seen["firewall restarted"] = facts(guest)
    guest.script("dpkg --force-unsafe-io --no-triggers --purge natfix", timeout=240)
    seen["purged"] = facts(
        guest, rules="nft -s list ruleset",
        left="ls -d /etc/natfix /var/lib/natfix /run/natfix /usr/lib/natfix /lib/systemd/system/natfix* "
             "/etc/systemd/system/multi-user.target.wants/natfix.service 2>/dev/null || true",
        user="getent passwd natfix || getent group natfix || true")
    return seen



def test_installing_starts_nothing(story: dict[str, Facts]) -> None:
    """No unit runs and no rule has changed; the operator is told what comes next."""
    installed = story["installed"]
    assert "Next:  natfix check" in installed["said"]
    assert (installed["state"], installed["retry"]) == ("inactive", "inactive")
    assert installed["rules"] == story["before"]["rules"]


def test_it_runs_as_its_own_user_and_tells_systemd(story: dict[str, Facts]) -> None:
    """Active by its own word, as user natfix, with all restrictions of the unit; it answers and counts."""
    started = story["started"]
    assert (started["state"], started["divert"], started["user"].strip()) == ("active", "1", "natfix")
    status = json.loads(started["status"])
    assert status["outside_address"] == "203.0.113.1"
    assert status["queue"]["waiting"] == 0          # from /proc/net/netfilter, which is not everybody's
    assert started["counting"] == "1\n"


def test_reload_reads_the_configuration_again(story: dict[str, Facts]) -> None:
    """`systemctl reload` has the running natfix take what has changed."""
    assert "configuration read again: [media] silence" in story["reloaded"]["said"]


def test_killed_and_unable_to_start_it_lets_sip_pass(story: dict[str, Facts]) -> None:
    """After kill -9 it is started again; three attempts later the divert alone goes, with an alarm.

    Guard and the call's element stay; another attempt is planned.
    """
    broken = story["broken"]
    assert 1 <= int(broken["restarts"]) <= 3
    assert (broken["state"], broken["divert"], broken["guard"], broken["call"]) == ("failed", "0", "1", "1")
    assert "SIP passes this gateway unfixed" in broken["alarm"]
    assert broken["retry"] == "active"


def test_repaired_it_arms_again(story: dict[str, Facts]) -> None:
    """`natfix up` starts the unit, within the minute, too: the divert is back, the call still known."""
    repaired = story["repaired"]
    assert (repaired["state"], repaired["divert"], repaired["call"]) == ("active", "1", "1")


def test_an_upgrade_replaces_the_running_natfix_and_cuts_no_call(story: dict[str, Facts]) -> None:
    """The new version runs, the call's element is there, the configuration as it was."""
    upgraded = story["upgraded"]
    assert (upgraded["state"], upgraded["divert"], upgraded["call"]) == ("active", "1", "1")
    assert upgraded["pid"] != story["repaired"]["pid"]
    assert upgraded["version"].startswith(f"natfix {LATER}+")
    assert upgraded["config"] == CONFIG


def test_a_firewall_that_restarts_takes_natfix_along(story: dict[str, Facts]) -> None:
    """`systemctl restart nftables` flushes all rules, and has natfix started anew, after it."""
    restarted = story["firewall restarted"]
    assert restarted["state"] in ("activating", "active")
    assert restarted["pid"] != story["upgraded"]["pid"]


def test_purge_leaves_nothing(story: dict[str, Facts]) -> None:
    """The rule set is as before; no process, timer, file, link or user is left."""
    purged = story["purged"]
    assert purged["rules"] == story["before"]["rules"]
    assert (purged["left"], purged["user"]) == ("", "")
    assert (purged["pid"], purged["retry"]) in (("0", "inactive"), ("", ""))
