"""Tone recognition: it must say yes to the right tone and no to everything else."""

from __future__ import annotations

import array
from pathlib import Path

import pytest

from tests.lab import tones


def test_a_tone_is_recognised_after_three_seconds(tmp_path: Path) -> None:
    """Three seconds of the expected tone are enough, and two are not."""
    assert tones.recognise(tones.write_tone(tmp_path / "3.wav", 440, 3.0), 440, 880).recognised
    assert not tones.recognise(tones.write_tone(tmp_path / "2.wav", 440, 2.0), 440, 880).recognised


def test_swapped_recordings_fail(tmp_path: Path) -> None:
    """The other direction's tone, however loud, is not the expected one."""
    recording = tones.write_tone(tmp_path / "swapped.wav", 880, 10.0)
    assert not tones.recognise(recording, 440, 880).recognised
    assert tones.recognise(recording, 880, 440).recognised


def test_missing_recordings_fail(tmp_path: Path) -> None:
    """No file at all is silence."""
    assert not tones.recognise(None, 440, 880).recognised
    assert not tones.recognise(tmp_path / "absent.wav", 440, 880).recognised


@pytest.mark.parametrize("content", [b"", b"RIFF"])
def test_empty_recordings_fail(tmp_path: Path, content: bytes) -> None:
    """A file that a phone only just opened is silence."""
    recording = tmp_path / "empty.wav"
    recording.write_bytes(content)
    assert not tones.recognise(recording, 440, 880).recognised


def test_silence_and_faint_tones_fail(tmp_path: Path) -> None:
    """Silence, and a tone less than 20 dB above silence, do not count."""
    assert not tones.recognise(tones.write_tone(tmp_path / "silence.wav", 0, 10.0), 440, 880).recognised
    faint = array.array("h", (sample // 600 for sample in tones.tone(440, 10.0)))
    assert not tones.recognise(tones.write_wav(tmp_path / "faint.wav", faint), 440, 880).recognised


def test_a_mixture_fails(tmp_path: Path) -> None:
    """Both tones at once: neither stands 20 dB over the other."""
    both = array.array("h", (x // 2 + y // 2 for x, y in zip(tones.tone(440, 5.0), tones.tone(880, 5.0),
                                                             strict=True)))
    recording = tones.write_wav(tmp_path / "both.wav", both)
    assert not tones.recognise(recording, 440, 880).recognised
    assert not tones.recognise(recording, 880, 440).recognised


def test_pcmu_keeps_a_tone_recognisable(tmp_path: Path) -> None:
    """What PCMU does to a tone costs less than the margin."""
    heard = tones.samples_from_mulaw(tones.mulaw_from_samples(tones.tone(440, 4.0)))
    assert tones.recognise(tones.write_wav(tmp_path / "pcmu.wav", heard), 440, 880).recognised


def test_mulaw_agrees_with_the_standard() -> None:
    """Known pairs of ITU-T G.711: silence, and both ends of the scale."""
    assert tones.mulaw_from_samples(array.array("h", [0, 32767, -32768])) == b"\xff\x80\x00"
    assert list(tones.samples_from_mulaw(b"\xff\x80\x00")) == [0, 32124, -32124]


def test_level_is_relative_to_full_scale() -> None:
    """A sine at a tenth of full scale stands at -20 dB."""
    tenth = array.array("h", (sample * 32767 // (10 * tones.AMPLITUDE) for sample in tones.tone(440, 0.05)))
    assert tones.tone_level(tenth, 440) == pytest.approx(-20.0, abs=0.2)


def test_unfinished_wav_counts_what_is_there(tmp_path: Path) -> None:
    """A recording whose header says length 0, or is not written yet, is read to its end."""
    recording = tones.write_tone(tmp_path / "open.wav", 440, 4.0)
    raw = recording.read_bytes()
    for unfinished in (raw[:40] + bytes(4) + raw[44:], raw[44:]):
        recording.write_bytes(unfinished)
        assert tones.recognise(recording, 440, 880).recognised


def test_other_formats_are_refused(tmp_path: Path) -> None:
    """A stereo file is an error, not silence."""
    recording = tones.write_tone(tmp_path / "stereo.wav", 440, 1.0)
    raw = bytearray(recording.read_bytes())
    raw[22] = 2
    recording.write_bytes(raw)
    with pytest.raises(ValueError, match="not 8 kHz mono"):
        tones.read_wav(recording)
