"""`natfix bundle`: all in one file, or why not; no secrets; nothing written over, nothing half-written."""

from __future__ import annotations

import resource
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from natfix import bundle
from natfix.bundle import Made, archive, manifest, redacted, without_secrets
from natfix.bundle_parts import Machine, Part
from natfix.config import Peer, Settings
from natfix.errors import ConfigError, NatfixError, NotRunning

SETTINGS = Settings(peers=(Peer("sip.acme.example"),))


def refuse() -> str:
    raise NotRunning("natfix is not running: nobody answers")


def part(name: str, text: str | Callable[[], str]) -> Part:
    return Part(name, "something", text if callable(text) else lambda: text)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of which little is asked."""
    found = [part("a/one.txt", "eins"), part("two.txt", refuse), part("three.txt", "x" * 30)]
    monkeypatch.setattr(bundle, "parts", lambda machine: iter(found))


def test_what_could_not_be_had(few: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be had costs only itself: the manifest says why, and the exit code is 0."""
    path = tmp_path / "b.tar.gz"
    assert bundle.bundle(Machine(SETTINGS), str(path), redact=False) == 0
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["b/MANIFEST", "b/a/one.txt", "b/three.txt"]
        assert {entry.mode for entry in tar} == {0o600}
        found = tar.extractfile("b/MANIFEST")
        assert found is not None
        text = found.read().decode()
    assert "two.txt                      natfix is not running: nobody answers\n" in text
    assert "addresses are as they are (--redact" in capsys.readouterr().out


def test_a_file_that_is_there(few: None, tmp_path: Path) -> None:
    """It stays as it is, and nothing is asked; --force replaces it; stdout takes no bundle."""
    path = tmp_path / "b.tar.gz"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        bundle.bundle(Machine(SETTINGS), str(path), redact=False)
    assert path.read_text() == "mine"
    assert bundle.bundle(Machine(SETTINGS), str(path), redact=False, force=True) == 0
    assert tarfile.is_tarfile(path)
    with pytest.raises(ConfigError, match="--write FILE"):
        bundle.bundle(Machine(SETTINGS), "-", redact=False)


def test_nothing_half_written(few: None, tmp_path: Path) -> None:
    """Where it cannot be written as a whole nothing is left of it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(NatfixError, match="File too large"):
            bundle.bundle(Machine(SETTINGS), str(tmp_path / "b.tar.gz"), redact=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [
    'url = "https://admin:S3CRET@router.example/x"', 'password = "S3CRET"', "# api_key = 'S3CRET'",
    "Authorization: Digest username=\"a\", response=\"S3CRET\"", "a=crypto:1 AES inline:S3CRET",
    "sip:alice:S3CRET@host", "secret=S3CRET # x"])
def test_secrets_never(text: str) -> None:
    """Passwords and what proves them are crossed out, redacted or not."""
    assert "S3CRET" not in without_secrets(f"first\n{text}\nlast")


def test_settings_with_the_word_stay() -> None:
    """A file's name is no password."""
    assert without_secrets('password_file = "/etc/x"\n') == 'password_file = "/etc/x"\n'


def test_redacted() -> None:
    """Names go from all files and from the manifest, and from others' comments every word."""
    rules = ('iifname "lan0" accept comment "Alice\'s phone"\nlog prefix "acme: "\n'
             "-m comment --comment Bob\n")
    made = [Made(part("rules/nft.txt", ""), rules),
            Made(part("rules/natfix.nft", ""), 'comment "sip:evelyn@1.2.3.4"\n'),
            Made(part("daemon/x.json", ""), '{"to": "sip:evelyn@1.2.3.4"}'),
            Made(part("config/natfix.toml", ""), '# Dora\naddress = "sip.acme.example"\n'),
            Made(part("network/resolv.conf", ""), "search corner\nnameserver 1.2.3.4\n"),
            Made(part("x.txt", ""), "gw.corner is up"),
            Made(part("z", ""), "", "evelyn is not there")]
    shown = redacted(made, Machine(SETTINGS))
    whole = "\n".join(each.text for each in shown) + manifest(shown, redact=True)
    assert not any(name in whole for name in ("Alice", "acme", "Bob", "evelyn", "corner", "1.2.3.4", "Dora"))
    assert 'iifname "lan0" accept comment "' in whole
    assert 'comment "sip:' in whole
    assert "private addresses stay private" in whole


def test_a_bug_costs_one_file() -> None:
    """Who asks for help may need it because natfix has a bug: the rest of the bundle comes all the same."""
    def broken() -> str:
        raise KeyError("x")
    assert bundle._made(part("x", broken)).problem == "KeyError('x')"


def test_what_is_long_loses_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule set of a million elements does not make a bundle that nobody can send."""
    monkeypatch.setattr(bundle, "LARGEST", 20)
    assert bundle._made(part("x", "a" * 10 + "b" * 80 + "c" * 10)).text == (
        "aaaaaaaaaa\n... 80 characters are left out here ...\ncccccccccc")


def test_archive_of_nothing() -> None:
    """The manifest is always there."""
    assert archive([], "x", "only this\n")[:2] == b"\x1f\x8b"
