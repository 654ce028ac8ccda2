"""`natfix check` as a whole: every line, the sum, the document, and the exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from natfix import check_host
from natfix.check import CHECKS, CONFIGURATION, as_document, as_text, check_all, exit_code, read_configuration
from natfix.config import Settings
from natfix.errors import KernelRefused, NotPermitted
from natfix.findings import Finding, Host, Status
from natfix.firewall import Ruleset
from tests.hosts import CAPABLE, LINKS, gateway
from tests.namespace import kernel_test, namespace
from tests.schema import problems

NO_SOCKET = '[daemon]\ncontrol_socket = "/nonexistent/natfix.sock"'
FINE = [Finding(Status.OK, "defaults")]


@pytest.fixture(autouse=True)
def all_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it does not matter what this Python has installed."""
    monkeypatch.setattr(check_host, "PACKAGES", {})


def test_good_gateway(tmp_path: Path) -> None:
    """On a gateway where all is well, every check has a line and the exit code is 0."""
    lines = check_all(gateway(tmp_path, NO_SOCKET), FINE)
    assert exit_code(lines) == 0, as_text(lines)
    assert {line.code for line in lines} == {CONFIGURATION[0], *(code for code, _, _ in CHECKS)}
    assert as_text(lines).splitlines()[-1] == "21 checks, 0 warnings, 0 errors"


def test_codes_are_in_order() -> None:
    """Codes are stable and public: H01, H02 and so on, without gap or repetition."""
    codes = [CONFIGURATION[0], *(code for code, _, _ in CHECKS)]
    assert codes == [f"H{number:02}" for number in range(1, len(codes) + 1)]


def test_one_line_each_with_the_cure(tmp_path: Path) -> None:
    """A finding is one line, loud, with what to do behind the arrow."""
    lines = check_all(gateway(tmp_path, NO_SOCKET, firewall=""), FINE)
    assert exit_code(lines) == 6
    (nat,) = (line for line in as_text(lines).splitlines() if line.startswith("nat "))
    assert nat.startswith("nat            WARNING  no rule translates")
    assert "  -> nft 'add table" in nat


def test_document_obeys_its_schema(tmp_path: Path) -> None:
    """--json is one document, as the shipped schema says, also where there are findings."""
    for host in (gateway(tmp_path, NO_SOCKET), gateway(tmp_path, NO_SOCKET, ruleset=Ruleset())):
        document = json.loads(json.dumps(as_document(check_all(host, FINE))))
        assert problems(document, "check") == []


def test_the_same_error_is_told_once(tmp_path: Path) -> None:
    """Where nobody knows which link is outside, one line says so and the others refer to it; exit code 2."""
    lines = check_all(gateway(tmp_path, NO_SOCKET, links=LINKS._replace(routes=())), FINE)
    errors = [line for line in lines if line.finding.status is Status.ERROR]
    assert [line.name for line in errors] == ["links"]
    assert sum("not checked" in line.finding.text for line in lines) == 7
    assert exit_code(lines) == 2


def test_missing_right_ends_with_its_code(tmp_path: Path) -> None:
    """Without the right to look, the rest is still checked, and the exit code is 4."""
    host = replace_ruleset(gateway(tmp_path, NO_SOCKET, capabilities=replace(CAPABLE, net_admin=False)))
    lines = check_all(host, FINE)
    assert exit_code(lines) == NotPermitted.exit_code
    assert "packets are forwarded" in as_text(lines)


def replace_ruleset(host: Host) -> Host:
    def refuse() -> Ruleset:
        raise NotPermitted("no right")
    return replace(host, ruleset=refuse)


def test_kernel_without_library_is_a_finding(tmp_path: Path) -> None:
    """A check that cannot be made is an error line, not a traceback."""
    def refuse() -> Ruleset:
        raise KernelRefused("libnftables.so.1 is not installed")
    lines = check_all(replace(gateway(tmp_path, NO_SOCKET), ruleset=refuse), FINE)
    assert exit_code(lines) == 6
    assert as_text(lines).count("libnftables.so.1 is not installed") == 1


def test_broken_configuration(tmp_path: Path) -> None:
    """Every fault of the file is a line, the other checks go on with the defaults, exit code 2."""
    path = tmp_path / "natfix.toml"
    path.write_text("[media]\nfoo = 1\nbar = 2\n")
    settings, findings, code = read_configuration(str(path))
    assert settings == Settings()
    assert len(findings) == 2
    assert exit_code(check_all(gateway(tmp_path, NO_SOCKET), findings, code)) == 2


def test_broken_quirks_file(tmp_path: Path) -> None:
    """A quirks file that natfix.toml names is read as well."""
    path = tmp_path / "natfix.toml"
    path.write_text('quirks_files = ["/nonexistent/quirks.toml"]\n')
    _, findings, code = read_configuration(str(path))
    assert (findings[0].text, code) == ("/nonexistent/quirks.toml: there is no such quirks file", 2)


def test_configuration_is_named(tmp_path: Path) -> None:
    """The first line says which file counts."""
    path = tmp_path / "natfix.toml"
    path.write_text("version = 1\n")
    _, (finding,), code = read_configuration(str(path))
    assert (finding.text, code) == (f"{path}; 1 quirk", 0)


def test_own_quirks_are_counted_and_wrong_ones_refused(tmp_path: Path) -> None:
    """Own quirks add to the shipped one; a wrong repair is refused with file, line and suggestion."""
    path, quirks = tmp_path / "natfix.toml", tmp_path / "quirks.toml"
    path.write_text(f'quirks_files = ["{quirks}"]\n')
    rule = '[[quirk]]\nname = "ata"\nuser_agent = "Cisco ATA 18"\nrepairs = ["keeps-early-sdp"]\n'
    quirks.write_text(rule)
    assert read_configuration(str(path))[1][0].text == f"{path}; 2 quirks"
    quirks.write_text(rule.replace("keeps-early", "keep-early"))
    _, findings, code = read_configuration(str(path))
    assert code == 2
    assert findings[0].text.startswith(f"{quirks}:4: repairs = ")
    assert 'did you mean "keeps-early-sdp"?' in findings[0].text


GATEWAY = '''
ip link add wan0 type veth peer name wanx; ip link add lan0 type veth peer name lanx
ip address add 203.0.113.1/24 dev wan0; ip link set wan0 up
ip address add 192.168.1.1/24 dev lan0; ip link set lan0 up
ip route add default via 203.0.113.254
sysctl -qw net.ipv4.ip_forward=1
nft -f - <<END
table inet filter {
    chain forward { type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan0" oifname "wan0" accept
    }
}
table ip nat {
    chain postrouting { type nat hook postrouting priority srcnat;
        oifname "wan0" masquerade
    }
}
END
'''


class TestRealGateway:
    """The checks against this machine's kernel, in a namespace."""

    pytestmark = kernel_test

    def test_missing_line_and_its_cure(self) -> None:
        """On a default-drop gateway just the documented line is missing; run as printed, it cures."""
        with namespace() as here:
            here.run(GATEWAY)
            settings = Settings()
            lines = here.call(lambda: check_all(Host(settings), FINE))
            (finding,) = [line.finding for line in lines if line.finding.status is Status.WARNING]
            assert finding.cure == "nft insert rule inet filter forward ct status dnat accept"
            assert exit_code(lines) == 6
            here.run(finding.cure)
            assert exit_code(here.call(lambda: check_all(Host(settings), FINE))) == 0

    def test_checking_changes_nothing(self) -> None:
        """The rule set after a check is the one before it."""
        with namespace() as here:
            here.run(GATEWAY)
            before = here.run("nft list ruleset")
            here.call(lambda: check_all(Host(Settings()), FINE))
            assert here.run("nft list ruleset") == before
