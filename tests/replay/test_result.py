"""The result: what the outputs read from it, also when it stands on disk."""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.replay.model import Direction, NetworkView, PacketId
from natfix.replay.result import Result
from natfix.replay.spool import Row, record_from_row
from tests.replay.small import START, call, result_of


def test_rows_and_dialogs_come_from_disk() -> None:
    """Rows and dialogs are read as often as one likes, in the order in which they were written."""
    result = Result({}, NetworkView())
    rows = [
        Row(float(number), (PacketId(number),), "BYE sip:a@b", "1", Direction.INWARD, "udp", Endpoint("h", 1),
            Endpoint("h", 2), b"x", b"y", (), ())
        for number in (1, 2)
    ]
    for row in rows:
        result.passages.append(record_from_row(row))
    result.dialog_rows.append(({"call_id": "1"},))
    for _ in range(2):
        assert [*result.rows()] == rows
        assert [*result.dialogs()] == [{"call_id": "1"}]


def test_of_one_call() -> None:
    """--call leaves one call's conversation, passages and findings for the files that are written."""
    whole = result_of(*call("1"), *call("2", START + 100, 20))
    one = whole.of_call("2")
    assert [each.call_id for each in one.conversations] == ["2"]
    assert {row.call_id for row in one.rows()} == {"2"}
    assert len([*whole.rows()]) == 2 * len([*one.rows()])
    assert {finding.call_id for finding in one.findings} <= {"2"}
