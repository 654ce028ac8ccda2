"""natfix.replay.redact: captures of others are redacted before anything looks at them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from natfix.replay.model import Side
from natfix.replay.reading import Input
from natfix.replay.redact import Redactor
from natfix.replay.replay import Options, run
from natfix.replay.sightings import Reader
from natfix.sip.message import message_from_bytes


def test_real_captures_name_nobody(data_folder: Path) -> None:
    """No user, display name, address or credential of a real capture is left, and it still parses."""
    path = data_folder / "eim-lab-maryls" / "sip.pcap"
    redactor = Redactor()
    for item in Reader(str(path)):
        before, after = item.payload, redactor.item(item).payload       # type: ignore[union-attr]
        found = set(re.findall(rb"sips?:([^@>;\s\"]{3,})@", before))
        found |= set(re.findall(rb"\d+(?:\.\d+){3}", before))
        found |= set(re.findall(rb'(?:username|nonce|response)="([^"]{4,})"', before))
        assert found
        assert [each for each in found if each in after] == []
        message_from_bytes(after)


@pytest.mark.parametrize(
    "name", ["eim-lab-maryls/sip.pcap", "goffinet-sip-captures/Forensic_challenge_4.pcap"])
def test_the_diagnosis_is_the_same(data_folder: Path, name: str) -> None:
    """Redacted or not, the same is found wrong, by the same packets, on the same sides."""
    results = [run(Options((Input(str(data_folder / name)),), redact=redact)) for redact in (False, True)]
    plain, redacted = ([(f.code, f.packets) for f in result.findings] for result in results)
    assert plain == redacted
    views = [result.network for result in results]
    assert views[0].vantage is views[1].vantage
    assert [view.side_of(view.outside) for view in views] == [Side.OUTSIDE] * 2 or not views[0].outside
