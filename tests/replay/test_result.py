"""The result: what the outputs read from it, also when it stands on disk."""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.replay.model import Direction, NetworkView, PacketId
from natfix.replay.result import Result
from natfix.replay.spool import Row, record_from_row


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
