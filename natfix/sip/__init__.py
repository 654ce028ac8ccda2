"""SIP messages as spans into the datagram: :mod:`~natfix.sip.message` and :mod:`~natfix.sip.fields`."""
