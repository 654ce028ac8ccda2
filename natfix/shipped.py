"""Where the files are that come with natfix and are no Python: ``nft/`` and ``rules/``.

A checkout has them beside the package, an installed wheel inside it (``natfix/share``).
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def shipped(*parts: str, package: Path = PACKAGE) -> Path:
    """Return the path of a shipped file or directory, for instance ``shipped("nft", "natfix.nft")``.

    Raises FileNotFoundError where it is in neither place: the installation is broken.
    """
    for root in (package / "share", package.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise FileNotFoundError(f"natfix is installed without its file {'/'.join(parts)}: install it again")
