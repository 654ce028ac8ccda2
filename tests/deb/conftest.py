"""The package of this checkout, a later version of it, and a clean Debian with an operator's firewall."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deb.cleanroot import PROJECT, CleanRoot, CleanRootError, bare_root, missing

LATER = "99.0"
PATIENCE = 300.0        # seconds to build the package; 20 are usual
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
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built as an operator builds it; skipped where pip reaches no index."""
    done = subprocess.run([PROJECT / "tools" / "build-deb", tmp_path_factory.mktemp("deb")],
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    if "No matching distribution" in done.stderr or "connection" in done.stderr.lower():
        pytest.skip("no package: pip reaches no package index")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="package")
def later_deb(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package as version 99.0, which is all that it says of itself that differs."""
    folder = tmp_path_factory.mktemp("later")
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    for file in (tree / "DEBIAN" / "control", *tree.glob("usr/lib/natfix/lib/python*/*/natfix/__init__.py")):
        text = file.read_text()
        file.write_text(text.replace("Version: 0", f"Version: {LATER}+0").replace(
            '__version__ = "', f'__version__ = "{LATER}+'))
        assert file.read_text() != text
    subprocess.run(["dpkg-deb", "--build", "-Znone", tree, folder], check=True, capture_output=True)
    shutil.rmtree(tree)
    return next(folder.glob("*.deb"))


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
