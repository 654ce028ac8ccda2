"""SDP as playbook tests read it: in the simplest way, with no code of natfix's."""

from __future__ import annotations

import re
from typing import NamedTuple

from natfix.address import Endpoint


class Stream(NamedTuple):
    """One m-line: where its sender wants media."""

    kind: str
    rtp: Endpoint
    rtcp: Endpoint


def streams_of(body: bytes) -> list[Stream]:
    """Return the m-lines of an SDP, read in the simplest way."""
    session, *sections = re.split(r"^m=", body.decode(), flags=re.MULTILINE)
    return [_stream("m=" + section, _match(r"^c=IN IP4 (\S+)", session)) for section in sections]


def _stream(section: str, session_host: str) -> Stream:
    host = _match(r"^c=IN IP4 (\S+)", section) or session_host
    port = int(_match(r"^m=\S+ (\d+)", section))
    rtcp_port = int(_match(r"^a=rtcp:(\d+)", section) or port + 1)
    rtcp_host = _match(r"^a=rtcp:\d+ IN IP4 (\S+)", section) or host
    return Stream(_match(r"^m=(\S+)", section), Endpoint(host, port), Endpoint(rtcp_host, rtcp_port))


def _match(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""
