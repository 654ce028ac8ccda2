"""Reports."""

from natfix.reports import Change, PortsInUse


def test_a_forward_may_lead_nowhere_known() -> None:
    """The operator's forwards are told apart from local sockets, with where they lead if that is known."""
    report = PortsInUse(frozenset({53}), {5060: None})
    assert 5060 not in report.ports
    assert report.forwards == {5060: None}
    assert PortsInUse(frozenset()).forwards == {}


def test_a_change_without_row_is_a_removal() -> None:
    """The store deletes what has no row any more."""
    assert Change("calls", "key", None).row is None
