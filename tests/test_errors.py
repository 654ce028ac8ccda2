"""Errors and exit codes."""

from natfix import errors


def test_every_error_has_its_documented_exit_code() -> None:
    """The table of exit codes in operator documentation is the one the errors carry."""
    codes = {
        error.__name__: error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.NatfixError)
    }
    assert codes == {
        "NatfixError": 1, "ConfigError": 2, "NotRunning": 3, "NotPermitted": 4, "KernelRefused": 5,
        "Busy": 75,
    }


def test_malformed_input_is_not_an_operator_error() -> None:
    """Bad packets never end a command: they are no NatfixError."""
    assert not issubclass(errors.MalformedMessage, errors.NatfixError)
    assert not issubclass(errors.MalformedPacket, errors.NatfixError)
    assert not issubclass(errors.LimitReached, errors.NatfixError)
