"""The package of this checkout, a later version of it, and a clean Debian with an operator's firewall."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deb.build import BuildError, later_version, package
from tests.deb.cleanroot import CleanRoot, CleanRootError, bare_root, missing

LATER = "99.0"
FIREWALL = """
table inet operator {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "inside" accept
    }
}
table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "outside" masquerade
    }
}
"""
LINKS = """
ip link add outside type veth peer name provider; ip addr add 203.0.113.1/24 dev outside
ip link add inside type veth peer name phones; ip addr add 192.168.1.1/24 dev inside
for link in outside provider inside phones; do ip link set $link up; done
"""


@pytest.fixture(scope="package")
def deb() -> Path:
    """The package, built as an operator builds it; skipped where pip reaches no index."""
    try:
        return package()
    except BuildError as problem:
        if "No matching distribution" in str(problem) or "connection" in str(problem).lower():
            pytest.skip("no package: pip reaches no package index")
        raise


@pytest.fixture(scope="package")
def later_deb(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package as version 99.0."""
    return later_version(deb, LATER, tmp_path_factory.mktemp("later"))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[CleanRoot]:
    """A clean Debian as gateway: two links, and an operator's firewall."""
    if reason := missing():
        pytest.skip(reason)
    try:
        bare_root()
    except CleanRootError as problem:
        pytest.skip(str(problem))
    with CleanRoot(tmp_path) as made:
        made.run(LINKS)
        made.run(f"nft -f - <<'END'\n{FIREWALL}\nEND")
        yield made
