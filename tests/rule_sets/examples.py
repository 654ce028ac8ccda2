"""What a file of nft/examples says of itself: its settings and commands, as an operator would read them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "nft" / "examples"
FILES = tuple(sorted(path.name for path in FOLDER.iterdir()))
HEADINGS = ("For", "Change", "natfix.toml", "Load", "Check", "Take away")
# The names in the files, and the lab gateway's.
INTERFACES = {"eth0": "outside", "eth1": "inside", "eth2": "inside2", "eth3": "outside2"}


@dataclass(frozen=True)
class Example:
    """One file: its text, and the paragraphs of its header."""

    name: str
    text: str
    parts: dict[str, str]

    @property
    def config(self) -> str:
        """The lines for natfix.toml."""
        return "\n".join(re.findall(r"^#   \|(?: (.*))?$", self.parts["natfix.toml"], re.MULTILINE)) + "\n"

    def commands(self, part: str) -> list[str]:
        """Return the commands of the paragraph *part*, in order."""
        return re.findall(r"^#   \$ (.*)$", self.parts[part], re.MULTILINE)


def example(name: str, **changes: str) -> Example:
    """Return the file *name*, its interfaces changed to the lab's, and *changes* as well."""
    text = (FOLDER / name).read_text()
    for old, new in {**INTERFACES, **changes}.items():
        text = text.replace(old, new)
    header = re.match(r"(?:#.*\n)+", text)
    assert header, f"{name} begins with no comment"
    pieces = re.split(rf"^# ({'|'.join(map(re.escape, HEADINGS))}):", header[0], flags=re.MULTILINE)
    return Example(name, text, dict(zip(pieces[1::2], pieces[2::2], strict=True)))
