"""The package of this checkout, built once for all tests that want it."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
from pathlib import Path

from tests.deb.cleanroot import PROJECT, STORE

PATIENCE = 300.0        # seconds; 20 are usual
KEPT = 5                # packages of earlier sources
PARTS = ("natfix", "nft", "rules", "tools/deb", "tools/build-deb", "tools/lib.sh", "README.md", "LICENSE",
         "pyproject.toml")


class BuildError(Exception):
    """The package could not be built; the text is what the builder said."""


def package() -> Path:
    """Return the package, built as an operator builds it, or as it was built from the same sources before."""
    STORE.mkdir(exist_ok=True)
    with (STORE / "build-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = STORE / f"package-{digest()}"
        if not list(folder.glob("*.deb")):
            build(folder)
        return next(folder.glob("*.deb"))


def build(folder: Path) -> None:
    """Build it into *folder*; packages of long ago make room."""
    for old in sorted(STORE.glob("package-*"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    folder.mkdir(exist_ok=True)
    done = subprocess.run([PROJECT / "tools" / "build-deb", folder],
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise BuildError(done.stderr)


def digest() -> str:
    """Return a name for the sources as they are now."""
    found = hashlib.sha256()
    for part in PARTS:
        path = PROJECT / part
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                found.update(str(file.relative_to(PROJECT)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]


def later_version(deb: Path, version: str, folder: Path) -> Path:
    """Return a package in *folder* that says to be *version*, which is all that differs from *deb*."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    for file in (tree / "DEBIAN" / "control", *tree.glob("usr/lib/natfix/lib/python*/*/natfix/__init__.py")):
        text = file.read_text()
        file.write_text(text.replace("Version: 0", f"Version: {version}+0").replace(
            '__version__ = "', f'__version__ = "{version}+'))
        assert file.read_text() != text
    subprocess.run(["dpkg-deb", "--build", "-Znone", tree, folder], check=True, capture_output=True)
    subprocess.run(["rm", "-r", tree], check=True)
    return next(folder.glob("*.deb"))
