"""``python -m natfix``: the same as the command ``natfix``."""

from __future__ import annotations

import sys

from natfix.cli import main

if __name__ == "__main__":
    sys.exit(main())
