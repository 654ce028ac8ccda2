"""The Debian package in a clean Debian: installed, upgraded, removed and purged for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from natfix import __version__
from natfix.errors import DONE, FINDINGS
from natfix.message_ids import KINDS
from tests.deb.cleanroot import PROJECT, CleanRoot
from tests.deb.conftest import LATER

pytestmark = [pytest.mark.deb, pytest.mark.xdist_group("deb")]

CONFIG = '# mine\n[outside]\ninterface = "outside"\n[inside]\nnetworks = ["192.168.1.0/24"]\n'
# What the unit gives: the user, root's group for /proc/net/netfilter, two capabilities and no more.
AS_SERVICE = ("setpriv --reuid=natfix --regid=natfix --groups=natfix,root --no-new-privs "
              "--bounding-set=-all,+net_admin,+net_raw --inh-caps=-all,+net_admin,+net_raw "
              "--ambient-caps=-all,+net_admin,+net_raw")
RULES = "nft -s list ruleset"
OWN_RULES = "nft -s list table ip natfix"
START = f"{AS_SERVICE} natfix run >/tmp/log 2>&1 </dev/null & echo $!"


def install(root: CleanRoot, deb: Path) -> str:
    """Install *deb* and return what the operator reads."""
    return root.ask(f"apt-get install -y {root.put(deb)} 2>/dev/null")


def configure(root: CleanRoot, text: str = CONFIG) -> None:
    root.run(f"cat >/etc/natfix/natfix.toml <<'END'\n{text}END")


def start(root: CleanRoot) -> str:
    """Start natfix as its service does; return its process id in there once it answers."""
    process = root.ask(START).strip()
    root.run("for i in $(seq 100); do natfix status >/dev/null 2>&1 && exit; sleep 0.1; done\n"
             "cat /tmp/log; exit 1")
    return process


def processes(root: CleanRoot) -> list[str]:
    """Return what runs in there, by name."""
    names = root.ask("cat /proc/[0-9]*/comm").split()
    return sorted(name for name in names if name not in ("sh", "cat"))


def test_installing_starts_nothing_and_changes_no_rule(root: CleanRoot, deb: Path) -> None:
    """The same processes, the same rule set, no unit enabled; the operator is told what comes next."""
    before = (processes(root), root.ask(RULES))
    said = install(root, deb)
    assert (processes(root), root.ask(RULES)) == before
    assert "Nothing is running and no firewall rule was changed.\nNext:  natfix check" in said
    assert root.ask("ls /etc/systemd/system/multi-user.target.wants 2>/dev/null || true").find("natfix") < 0
    owners = root.ask("stat -c '%U %G %a' /var/lib/natfix /run/natfix")
    assert owners == "natfix natfix 700\nnatfix natfix 755\n"
    assert root.ask("ls /etc/natfix") == ""


def test_what_is_installed_works(root: CleanRoot, deb: Path) -> None:
    """Both commands run on Debian's Python and find rules, catalogue and all packages they need."""
    install(root, deb)
    assert root.ask("natfix --version") == f"natfix {__version__}\n"
    configure(root)
    assert 'define outside = { "outside" }' in root.ask("natfix rules")
    assert root.ask("natfix explain D12").startswith("D12  ")
    rows = json.loads(root.run("natfix check --json", check=False).stdout)["checks"]
    own = [row for row in rows if row["name"] in ("packages", "rights", "configuration")]
    assert [row["status"] for row in own] == ["ok"] * 3, own
    capture = root.put(PROJECT / "pcaps" / "call-natfix.pcapng")
    done = root.run(f"{AS_SERVICE} natfix-replay --format json {capture}", check=False)
    assert done.returncode in (DONE, FINDINGS), done.stderr
    assert json.loads(done.stdout)["network"]["outside"] == "203.0.113.1"
    shipped = root.ask("cd /usr/share/natfix && find . -type f").split()
    assert sorted(shipped) == sorted(
        f"./{file.relative_to(PROJECT)}" for folder in ("nft", "rules")
        for file in (PROJECT / folder).rglob("*") if file.is_file())
    catalog = root.ask("cat /usr/lib/systemd/catalog/natfix.catalog")
    assert all(f"-- {each.message_id}\n" in catalog for each in KINDS.values())
    assert root.ask("find /usr/lib/natfix -name 'engine*.pyc'"), "not compiled: each start takes longer"


def test_the_service_needs_no_more_rights_than_it_has(root: CleanRoot, deb: Path) -> None:
    """As user natfix with two capabilities it arms, switches the counters on, reads the queue's state."""
    install(root, deb)
    configure(root)
    start(root)
    assert root.ask("cat /proc/sys/net/netfilter/nf_conntrack_acct") == "1\n"
    assert "waiting" in json.loads(root.ask("natfix status --json"))["queue"]
    assert root.ask("stat -c '%U %a' /run/natfix/control.sock /var/lib/natfix/state.sqlite") \
        == "natfix 660\nnatfix 600\n"
    member = "setpriv --reuid=nobody --regid=nogroup --groups=natfix natfix status"
    assert "outside        203.0.113.1" in root.ask(member)
    stranger = root.run("setpriv --reuid=nobody --regid=nogroup --clear-groups natfix status", check=False)
    assert stranger.returncode == 4
    assert stranger.stderr.endswith("run this as root, or as a member of group natfix\n")


def test_without_its_capability_it_says_so(root: CleanRoot, deb: Path) -> None:
    """The user alone is not enough: one sentence, exit code 4, no rule in the kernel."""
    install(root, deb)
    configure(root)
    before = root.ask(RULES)
    done = root.run("setpriv --reuid=natfix --regid=natfix --clear-groups natfix run", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "CAP_NET_ADMIN" in done.stderr
    assert root.ask(RULES) == before


def test_an_upgrade_leaves_configuration_rules_and_the_running_natfix(
    root: CleanRoot, deb: Path, later_deb: Path,
) -> None:
    """Nothing is cut: rules and process stay as they are, and the next start is the new version's."""
    install(root, deb)
    configure(root)
    process = start(root)
    rules = root.ask(OWN_RULES)
    said = install(root, later_deb)
    assert "Nothing is running" not in said
    assert root.ask(f"cat /proc/{process}/comm").startswith("python3")
    assert root.ask(OWN_RULES) == rules
    assert root.ask("cat /etc/natfix/natfix.toml") == CONFIG
    root.run(f"kill {process}; while grep -q . /proc/{process}/cmdline; do sleep 0.1; done")
    assert root.ask(OWN_RULES) == rules
    start(root)
    assert root.ask(OWN_RULES) == rules
    assert f"natfix         {LATER}+{__version__}" in root.ask("natfix status")
    root.run("/var/lib/dpkg/info/natfix.postinst configure 0.0")      # once more is no error
    assert root.ask(OWN_RULES) == rules


@pytest.mark.parametrize("text", [CONFIG, "nonsense = 1\n"], ids=["sound", "broken"])
def test_purge_leaves_the_rules_as_they_were_and_nothing_of_natfix(
    root: CleanRoot, deb: Path, text: str,
) -> None:
    """A natfix that has run goes with its table, whatever its configuration says by then; so do its files."""
    before = root.ask(RULES)
    install(root, deb)
    configure(root)
    process = start(root)
    assert root.ask(RULES) != before
    configure(root, text)
    said = root.ask("apt-get remove -y natfix 2>&1")
    assert root.ask(RULES) == before, said
    assert root.ask(f"cat /proc/{process}/cmdline || true") == ""
    assert root.ask("cat /proc/sys/net/netfilter/nf_conntrack_acct") == "0\n"
    assert root.ask("cat /etc/natfix/natfix.toml") == text
    root.run("apt-get purge -y natfix 2>&1")
    assert root.ask(RULES) == before
    assert root.ask("find / -xdev -iname '*natfix*' -not -path '/tmp/*'") == ""
    assert root.ask("getent passwd natfix || getent group natfix || true") == ""
    root.run("dpkg --audit | grep . && exit 1; true")
