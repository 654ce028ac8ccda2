"""Messages as nobody should send them: torture, mutations, random bytes, huge ones; reproducible."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from tests import corpus
from tests.flood.flooder import message
from tests.strategies import BREAKAGES

LARGEST = 65507         # bytes; what one UDP datagram over IPv4 carries
CALL_ID = re.compile(rb"(?im)^((?:call-id|i)[ \t]*:[ \t]*)[^\r\n]+")
VIA_HOST = re.compile(rb"(?im)^(?:via|v)[ \t]*:\s*SIP\s*/\s*2\.0\s*/\s*\w+\s+([\w.-]+)")
METHODS = ("INVITE", "REGISTER", "OPTIONS", "MESSAGE", "SUBSCRIBE", "REFER", "PUBLISH")
TINY = (b"", b"\r\n\r\n", b"\0", b"\0\0\0\0", b"SIP/2.0", b"INVITE", b"INVITE \r\n")
CONVERSATION = ("INVITE", "180", "200", "ACK", "BYE", "200 BYE")


class Junk(NamedTuple):
    """One datagram."""

    payload: bytes
    from_inside: bool
    kind: str


def junk(count: int, seed: int, inside: str, outside: str) -> Iterator[Junk]:
    """Yield *count* datagrams of a phone at *inside* and a peer at *outside* ("address:port"); the same for
    the same *seed*."""
    chance = Random(seed)
    real = [item.raw for item in corpus.messages() if 0 < len(item.raw) < 60000]
    torture = [item.raw for rfc in (4475, 5118) for item in corpus.torture(rfc)] if corpus.is_there() else []
    made = _Maker(chance, real or [message(method, inside, outside, 0) for method in METHODS],
                  torture or [message("OPTIONS", inside, outside, 0)], inside, outside)
    kinds = list(made.kinds)
    weights = [made.kinds[kind][0] for kind in kinds]
    for serial in range(count):
        (kind,) = chance.choices(kinds, weights)
        from_inside = chance.random() < 0.6
        payload = made.kinds[kind][1](serial, from_inside)
        yield Junk(payload[:LARGEST], from_inside, kind)


class _Maker:
    def __init__(self, chance: Random, real: list[bytes], torture: list[bytes], inside: str, outside: str
                 ) -> None:
        self.chance, self.real, self.torture = chance, real, torture
        self.ends = {True: inside, False: outside}
        self.talk = 0
        self.kinds = {
            "torture": (15, self._torture), "mutated": (40, self._mutated), "whole": (10, self._whole),
            "talk": (20, self._talk), "random": (10, self._random), "huge": (2, self._huge),
            "tiny": (3, self._tiny),
        }

    def _torture(self, serial: int, from_inside: bool) -> bytes:
        return self._adopted(self.chance.choice(self.torture), serial, from_inside)

    def _whole(self, serial: int, from_inside: bool) -> bytes:
        return self._adopted(self.chance.choice(self.real), serial, from_inside)

    def _mutated(self, serial: int, from_inside: bool) -> bytes:
        return self._broken(self._adopted(self.chance.choice(self.real + self.torture), serial, from_inside))

    def _talk(self, serial: int, from_inside: bool) -> bytes:
        """Messages of calls that share a Call-ID, so that each finds state of others; half are broken."""
        step = self.chance.choice(CONVERSATION)
        self.talk += step == "INVITE"
        method = step if step.isupper() else "INVITE"
        own, peer = self.ends[from_inside], self.ends[not from_inside]
        made = message(method if step != "200 BYE" else "BYE", own, peer, 10**6 + self.talk // 4)
        if step[0].isdigit():
            made = re.sub(rb"^[^\r\n]+", b"SIP/2.0 " + step[:3].encode() + b" X", made, count=1)
            made = made.replace(b"To: <sip:bob@" + peer.encode() + b">", b"To: <sip:bob@x>;tag=t")
        return self._broken(made) if self.chance.random() < 0.5 else made

    def _random(self, serial: int, from_inside: bool) -> bytes:
        return self.chance.randbytes(self.chance.randrange(1, 1400))

    def _huge(self, serial: int, from_inside: bool) -> bytes:
        base = self._adopted(self.chance.choice(self.real), serial, from_inside)
        head, _, body = base.partition(b"\r\n\r\n")
        filler = b"\r\nX-Filler: " + b"y" * self.chance.randrange(1000, 60000)
        return self._broken(head + filler + b"\r\n\r\n" + body)

    def _tiny(self, serial: int, from_inside: bool) -> bytes:
        return self.chance.choice(TINY)

    def _adopted(self, raw: bytes, serial: int, from_inside: bool) -> bytes:
        """Give a message its own Call-ID, and as a rule the address that it is really sent from."""
        raw = CALL_ID.sub(rb"\g<1>%d@junk" % serial, raw, count=1)
        named = VIA_HOST.search(raw)
        if named is not None and self.chance.random() < 0.7:
            raw = raw.replace(named[1], self.ends[from_inside].partition(":")[0].encode())
        return raw

    def _broken(self, raw: bytes) -> bytes:
        for _ in range(self.chance.randrange(1, 5)):
            at = self.chance.randrange(max(len(raw), 1))
            raw = self.chance.choice(BREAKAGES)(raw, at, self.chance.randbytes(self.chance.randrange(9)))
        return raw
