"""Inputs as octets: plain, gzipped, cut, and what cannot be opened."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from natfix.replay.source import CHUNK, Source, Unreadable
from tests.replay.wire import written


def read_all(source: Source) -> bytes:
    return b"".join(iter(source.read, b""))


def test_plain_and_gzip_give_the_same(tmp_path: Path) -> None:
    """A gzipped file, also one of several members, reads as what is in it."""
    data = bytes(range(256)) * 5000
    packed = gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + bytes(100)
    for octets in (data, packed):
        with Source(written(tmp_path, octets)) as source:
            assert source.peek(10) == data[:10]
            assert read_all(source) == data
            assert source.problem == ""
            assert source.position == source.size == len(octets)


@pytest.mark.parametrize("spoil", [
    lambda data: data[:-20], lambda data: data[:500] + b"\xff" * 50 + data[550:]])
def test_gzip_that_is_cut_or_corrupt(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    """What could be unpacked is given, and the rest is named."""
    data = b"".join(i.to_bytes(4, "big") for i in range(10_000))
    with Source(written(tmp_path, spoil(gzip.compress(data)))) as source:
        got = read_all(source)
        assert data.startswith(got[:400])
        assert "gzip" in source.problem


def test_gzip_bomb_comes_in_small_pieces(tmp_path: Path) -> None:
    """However well a file is packed, no read gives more than a chunk."""
    with Source(written(tmp_path, gzip.compress(bytes(50 * CHUNK)))) as source:
        assert max(map(len, iter(source.read, b""))) <= CHUNK


@pytest.mark.parametrize("name", ["missing", "", "a\0b"])
def test_what_cannot_be_opened(tmp_path: Path, name: str) -> None:
    """A missing file, a folder, or an impossible name is one sentence."""
    with pytest.raises(Unreadable, match=r"\.$"):
        Source(str(tmp_path / name) if name != "a\0b" else name)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """"-" is standard input, which has no size and stays open."""
    stream = io.BytesIO(gzip.compress(b"text"))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
    with Source("-") as source:
        assert (read_all(source), source.size) == (b"text", 0)
    assert not stream.closed
