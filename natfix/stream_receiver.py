"""The receiving half of TCP towards one end of a relayed connection: numbers expected, octets put in order.

Positions are numbers of the wire that do not wrap (:func:`natfix.segment.unwrap`).
"""

from __future__ import annotations

FARTHEST = 1 << 16      # octets ahead of what is expected that are kept
MOST_BLOCKS = 64        # of octets with gaps between them


class Receiver:
    """What has come from one end; nothing in it is older than :attr:`expected`."""

    __slots__ = ("_blocks", "_fin", "_latest", "expected", "is_finished")

    def __init__(self, start: int) -> None:
        """*start* is the first octet's position, behind the SYN."""
        self.expected = start
        self.is_finished = False        # the FIN has come, and all before it
        self._fin: int | None = None    # where it stands
        self._blocks: list[tuple[int, bytearray]] = []      # ahead, in order, with gaps between them
        self._latest = 0                # where the last one that came begins

    @property
    def ahead(self) -> int:
        """How many octets wait for those before them."""
        return sum(len(octets) for _, octets in self._blocks) if self._blocks else 0

    def take(self, start: int, octets: bytes, has_fin: bool) -> bytes:
        """Take a segment; return the octets that are next in order, which may be none."""
        end = start + len(octets)
        if has_fin and self._fin is None and end >= self.expected and end - self.expected <= FARTHEST:
            self._fin = end
        if octets and end > self.expected:
            if start > self.expected:
                self._keep(start, octets)
                octets = b""
            else:
                octets = octets[self.expected - start:] if start < self.expected else octets
                self.expected = end
                if self._blocks:
                    octets = b"".join((octets, *self._following()))
        else:
            octets = b""
        if self.expected == self._fin and not self.is_finished:
            self.is_finished = True
            self.expected += 1
            self._blocks.clear()
        return octets

    def blocks(self) -> list[tuple[int, int]]:
        """Return what is ahead as SACK blocks, the one that grew last first (RFC 2018, section 4)."""
        spans = [(start, start + len(octets)) for start, octets in self._blocks]
        return sorted(spans, key=lambda span: not span[0] <= self._latest < span[1])

    def _following(self) -> list[bytearray]:
        """Take off what is not ahead any more."""
        found = []
        while self._blocks and self._blocks[0][0] <= self.expected:
            start, octets = self._blocks.pop(0)
            if start + len(octets) > self.expected:
                found.append(octets[self.expected - start:])
                self.expected = start + len(octets)
        return found

    def _keep(self, start: int, octets: bytes) -> None:
        """Keep what is ahead; where it overlaps, what came first counts."""
        octets = octets[:max(0, self.expected + FARTHEST - start)]
        end = start + len(octets)
        touched = [block for block in self._blocks if block[0] <= end and start <= block[0] + len(block[1])]
        if not octets or (not touched and len(self._blocks) >= MOST_BLOCKS):
            return
        self._latest = start
        if len(touched) == 1 and touched[0][0] + len(touched[0][1]) == start:
            touched[0][1].extend(octets)
            return
        first = min(start, *(at for at, _ in touched), start)
        last = max(end, *(at + len(each) for at, each in touched), end)
        whole = bytearray(last - first)
        whole[start - first:end - first] = octets
        for at, each in touched:
            whole[at - first:at - first + len(each)] = each
            self._blocks.remove((at, each))
        self._blocks.append((first, whole))
        self._blocks.sort(key=lambda block: block[0])
