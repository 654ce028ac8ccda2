"""Sections of README.md that a tool writes, between its two markers."""

from __future__ import annotations

from pathlib import Path

from tests.lab.host import PROJECT, LabError

README = PROJECT / "README.md"


def write_section(tool: str, section: str, path: Path = README) -> None:
    """Put *section* between the markers of *tool* in *path*; raises LabError where they are not there."""
    begin, end = (f"<!-- {tool} --write: {word} -->" for word in ("begin", "end"))
    before, has_begin, rest = path.read_text().partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        raise LabError(f"{path} lacks the lines {begin} and {end}")
    path.write_text(f"{before}{begin}\n{section}\n{end}{after}")
