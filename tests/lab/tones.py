"""Tones: written as WAV files, and recognised in recordings (Goertzel's algorithm, no third-party code).

A tone counts as *recognised* where it stands 20 dB over the other direction's tone and 20 dB over
silence, for 3 s or more in all. A recording that is missing, empty or swapped fails the same code.
"""

from __future__ import annotations

import array
import math
import struct
from pathlib import Path
from typing import NamedTuple

RATE = 8000             # samples per second: PCMU, RFC 3551 section 4.5.14
WINDOW = 400            # samples, 50 ms: bins of 20 Hz, so multiples of 20 Hz do not leak into others
MARGIN = 20.0           # decibels over the other tone, and over silence
SILENCE = -60.0         # decibels below full scale; PCMU's idle pattern lies below
ENOUGH = 3.0            # seconds
AMPLITUDE = 12000       # of 32767
PCM, MULAW = 1, 7       # WAVE format tags


class Heard(NamedTuple):
    """What one recording holds. Levels are decibels relative to a full-scale tone, medians over windows."""

    expected: int       # hertz
    seconds: float      # for how long the expected tone was recognised
    level: float        # of the expected tone
    other: float        # of the other tone
    length: float       # seconds of recording

    @property
    def recognised(self) -> bool:
        """Tell whether the expected tone was heard for long enough."""
        return self.seconds >= ENOUGH

    def __str__(self) -> str:
        word = "recognised" if self.recognised else "NOT recognised"
        return (f"{self.expected} Hz {word}: {self.seconds:.1f} s of {self.length:.1f} s "
                f"({self.level:.0f} dB, the other tone {self.other:.0f} dB)")


def recognise(recording: Path | None, expected: int, other: int) -> Heard:
    """Return what *recording* holds of the tone *expected* (Hz) against *other*; None counts as silence."""
    samples = read_wav(recording) if recording is not None and recording.exists() else array.array("h")
    wanted, unwanted, good = [], [], 0
    for start in range(0, len(samples) - WINDOW + 1, WINDOW):
        window = samples[start:start + WINDOW]
        level, rest = tone_level(window, expected), tone_level(window, other)
        wanted.append(level)
        unwanted.append(rest)
        good += level >= rest + MARGIN and level >= SILENCE + MARGIN
    return Heard(expected, good * WINDOW / RATE, _median(wanted), _median(unwanted), len(samples) / RATE)


def tone_level(samples: array.array[int], frequency: int) -> float:
    """Return the level of *frequency* (Hz) in *samples*, in decibels to full scale; -120 at the least."""
    factor = 2.0 * math.cos(2.0 * math.pi * frequency / RATE)
    last = before = 0.0
    for sample in samples:
        last, before = sample + factor * last - before, last
    power = last * last + before * before - factor * last * before
    amplitude = 2.0 * math.sqrt(max(power, 0.0)) / len(samples) / 32767
    return max(20.0 * math.log10(amplitude), -120.0) if amplitude > 0 else -120.0


def tone(frequency: int, seconds: float) -> array.array[int]:
    """Return 16-bit samples of a sine of *frequency* hertz; 0 Hz is silence."""
    step = 2.0 * math.pi * frequency / RATE
    # One second repeats itself, since frequencies are whole numbers.
    second = [round(AMPLITUDE * math.sin(step * index)) for index in range(RATE)]
    count = round(seconds * RATE)
    return array.array("h", (second * (count // RATE + 1))[:count])


def write_tone(path: Path, frequency: int, seconds: float) -> Path:
    """Write a mono 8 kHz WAV file of the tone and return its path."""
    return write_wav(path, tone(frequency, seconds))


def write_wav(path: Path, samples: array.array[int]) -> Path:
    """Write 16-bit mono samples at 8 kHz and return the path."""
    data = samples.tobytes()
    form = struct.pack("<HHIIHH", PCM, 1, RATE, RATE * 2, 2, 16)
    path.write_bytes(b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16)
                     + form + b"data" + struct.pack("<I", len(data)) + data)
    return path


def read_wav(path: Path) -> array.array[int]:
    """Return the samples of an 8 kHz mono WAV file (16-bit or mu-law); raises ValueError for others.

    A file that is still being written says a data length of 0, or an old one: what is there counts.
    Until the end of the call Linphone's have no header at all.
    """
    raw = path.read_bytes()
    if len(raw) < 44:
        return array.array("h")
    if raw[:4] != b"RIFF":
        return array.array("h", raw[:len(raw) // 2 * 2])
    form, start = _wav_format(raw)
    code, channels, rate = form[:3]
    if (channels, rate) != (1, RATE) or code not in (PCM, MULAW):
        raise ValueError(f"{path}: not 8 kHz mono PCM or mu-law: {form}")
    data = raw[start:]
    if code == MULAW:
        return array.array("h", (MULAW_TO_LINEAR[byte] for byte in data))
    return array.array("h", data[:len(data) // 2 * 2])


def mulaw_from_samples(samples: array.array[int]) -> bytes:
    """Return 16-bit samples as PCMU (ITU-T G.711)."""
    return bytes(_mulaw_byte(sample) for sample in samples)


def samples_from_mulaw(data: bytes) -> array.array[int]:
    """Return PCMU bytes as 16-bit samples."""
    return array.array("h", (MULAW_TO_LINEAR[byte] for byte in data))


def _wav_format(raw: bytes) -> tuple[tuple[int, ...], int]:
    offset, form = 12, ()
    while offset + 8 <= len(raw):
        name, size = raw[offset:offset + 4], int.from_bytes(raw[offset + 4:offset + 8], "little")
        if name == b"fmt ":
            form = struct.unpack_from("<HHIIHH", raw, offset + 8)
        if name == b"data":
            return form, offset + 8
        offset += 8 + size
    raise ValueError("a WAV file without data")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else -120.0


def _mulaw_byte(sample: int) -> int:
    sign, magnitude = (0x80, -sample) if sample < 0 else (0, sample)
    magnitude = min(magnitude, 32635) + 132
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | (magnitude >> (exponent + 3)) & 15) & 0xFF


def _linear(byte: int) -> int:
    byte = ~byte & 0xFF
    magnitude = (((byte & 15) << 3) + 132 << (byte >> 4 & 7)) - 132
    return -magnitude if byte & 0x80 else magnitude


MULAW_TO_LINEAR = tuple(_linear(byte) for byte in range(256))
