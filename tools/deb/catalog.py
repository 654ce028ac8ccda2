"""The catalogue of log lines for journalctl.

``python3 catalog.py NATFIX`` prints that of the checkout NATFIX.
"""

from __future__ import annotations

import sys


def main(checkout: str) -> None:
    """Print the catalogue of *checkout*."""
    sys.path.insert(0, checkout)
    from natfix.message_ids import catalog

    print("\n".join(["# Made by tools/deb/catalog.py of natfix/message_ids.py.", "", *catalog()]))


if __name__ == "__main__":
    main(*sys.argv[1:])
