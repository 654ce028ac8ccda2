"""What must never leave a SIP message for a log or an export: credentials and media keys.

Their octets become ``x``, so that lengths, offsets and Content-Length stay true. Of credentials only what is
listed here stays: who failed to log in where is what people look for.
"""

from __future__ import annotations

import re

_VALUE = rb"[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*)"      # with folded lines (RFC 3261, section 7.3.1)
# RFC 3261, section 20; RFC 8224's Identity is signed and may be taken for somebody else's call.
_CREDENTIALS = re.compile(
    rb"^(?:(?:proxy-)?authorization|(?:www|proxy)-authenticate|(?:proxy-)?authentication-info|identity|y)"
    + _VALUE, re.I | re.M)
_HARMLESS = re.compile(
    rb"(?<![^\s,])(?:digest(?=[ \t])|(?:username|realm|uri|algorithm|qop|nc|stale)[ \t]*+=[ \t]*+"
    rb"(?:\"(?:[^\"\\\r\n]|\\[^\r\n])*+\"|[^\s,\"]++))", re.I)
# SDES (RFC 4568), MIKEY (RFC 4567), k= (RFC 4566, section 5.12), ICE's password (RFC 8839, section 5.4).
_KEYS = re.compile(
    rb"^(?:a=crypto:[^\r\n:]*+:|a=key-mgmt:|k=|a=ice-pwd:)([^\r\n]*+)", re.I | re.M)
# RFC 3261, section 19.1.1.
_PASSWORDS = re.compile(rb"sips?:[^\s:@<>\";,?&]{1,256}+:([^\s@<>\";,?&]{1,256}+)@", re.I)
_SECRET = re.compile(rb"[^\s,]")


def masked(octets: bytes) -> bytes:
    """Return the message *octets* with its secrets made unreadable; as long as before."""
    octets = _CREDENTIALS.sub(_without_credentials, octets)
    return _PASSWORDS.sub(_without_group, _KEYS.sub(_without_group, octets))


def _without_credentials(found: re.Match[bytes]) -> bytes:
    value = found[1]
    shown = bytearray(_crossed(value))
    for harmless in _HARMLESS.finditer(value):
        shown[harmless.start():harmless.end()] = harmless[0]
    return found[0][:-len(value)] + shown if value else found[0]


def _without_group(found: re.Match[bytes]) -> bytes:
    start, end = found.start(1) - found.start(), found.end(1) - found.start()
    return found[0][:start] + _crossed(found[1]) + found[0][end:]


def _crossed(secret: bytes) -> bytes:
    return _SECRET.sub(b"x", secret)
