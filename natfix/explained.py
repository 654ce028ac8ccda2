"""`natfix explain CALL` for people: ladder, each edit with its rule and RFC, the kernel's side, the audio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from natfix.tables import duration, printable

Answer = dict[str, Any]

SHOWN_LINE = 44         # columns of a message in the ladder
LONGEST = 120           # of any one text of a stranger
FROM = {"in": "from outside", "out": "from inside"}
STATES = {
    "starting": "not known yet: the call was just answered",
    "uncounted": "not known: the kernel counts no packets of it (it is released to the phones themselves, or "
                 "net.netfilter.nf_conntrack_acct is off)",
    "none": "there is no audio that both sides have agreed on",
}


def call_text(answer: Answer) -> str:
    """Return the whole explanation."""
    parts = [[f"call {_safe(answer['call_id'])}"], _events(answer), _ladder(answer), _edits(answer)]
    for party in answer["parties"]:
        parts += [_kernel(party), _audio(party, answer["events"])]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _safe(text: Any) -> str:
    shown = printable(text)
    return shown if len(shown) <= LONGEST else shown[:LONGEST - 3] + "..."


def _clock(at: str) -> str:
    return at.partition("T")[2].rstrip("Z")


def _events(answer: Answer) -> list[str]:
    return [f"{_clock(event['at'])}  {event['event']:<12} {_safe(event.get('why', ''))}".rstrip()
            for event in answer["events"]]


def _ladder(answer: Answer) -> list[str]:
    """Return the messages as arrows between inside, left, and outside, right."""
    parties, messages = answer["parties"], answer["messages"]
    if not parties or not messages:
        return ["no messages are kept of it"]
    left, right = parties[0]["inside"], parties[1]["inside"] if len(parties) > 1 else parties[0]["peer"]
    lines = [f"{'':15}{left:<26}{right:>26}"]
    if answer["messages_forgotten"]:
        lines.append(f"({answer['messages_forgotten']} earlier messages are forgotten)")
    for number, message in enumerate(messages, 1):
        lines.append(f"{_clock(message['at'])} {number:>2} {_arrow(message, left)}  {_outcome(message)}")
    return lines


def _arrow(message: Answer, left: str) -> str:
    line = _safe(message["line"].removesuffix(" SIP/2.0").removeprefix("SIP/2.0 "))
    text = f" {line if len(line) <= SHOWN_LINE else line[:SHOWN_LINE - 3] + '...'} "
    if _host(message["source"]) == _host(left):
        return f"|--{text:-<{SHOWN_LINE + 2}}->|"
    return f"|<-{text:-<{SHOWN_LINE + 2}}--|"


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0]


def _outcome(message: Answer) -> str:
    edits = sum(is_edit(note) for note in message["notes"])
    if message["dropped"]:
        return "DROPPED"
    if any(note["rule"] == "repeated" for note in message["notes"]):
        return "repeated, same bytes as before"
    return f"{edits} edit{'s' * (edits != 1)}" if edits else "untouched"


def is_edit(note: Answer) -> bool:
    """Tell a change from an explanation of why something was left alone."""
    return bool(note.get("old", "") != note.get("new", ""))


def _edits(answer: Answer) -> list[str]:
    return [line for number, message in enumerate(answer["messages"], 1) if message["notes"]
            for line in _message(number, message)]


def _message(number: int, message: Answer) -> Iterator[str]:
    yield (f"message {number}: {message['source']} -> {message['destination']}, beyond the NAT "
           f"{message['shown_source']} -> {message['shown_destination']}")
    for note in message["notes"]:
        yield from (f"  {line}" for line in note_lines(note))


def note_lines(note: Answer) -> Iterator[str]:
    """Yield what stood there and what stands there now, with rule and RFC; or why it was left alone."""
    why = "; ".join(filter(None, (note.get("reason"), note.get("rfc"))))
    header = note.get("header", "")
    if is_edit(note):
        yield f"- {_safe(header)}: {_safe(note.get('old', ''))}"
        yield f"+ {_safe(header)}: {_safe(note.get('new', ''))}    {note['rule']} ({_safe(why)})"
    else:
        yield f"  {note['rule']}: {_safe(why)}"


def _kernel(party: Answer) -> list[str]:
    lines = [f"in the kernel now, for {party['inside']} shown as {party['outside'] or 'nothing'} to "
             f"{party['peer']} ({party['role']}, {party['state']}):"]
    if not party["elements"] and not party["entries"]:
        return [*lines, "  nothing any more"]
    for element in party["elements"]:
        value = f" : {element['value']}" if "value" in element else ""
        left = f" expires {duration(element['expires_in'])}" if element["present"] else ""
        missing = "" if element["present"] else "   ! MISSING"
        lines.append(f"  ip natfix {element['set']} {{ {element['key']}{value}{left} }}{missing}")
    return lines + [_entry(entry) for entry in party["entries"]]


def _entry(entry: Answer) -> str:
    if not entry["present"]:
        return f"  conntrack {_tuple(entry['source'], entry['destination'])}   ! MISSING"
    out, back = (f" packets={entry[name]}" if name in entry else "" for name in ("packets_out", "packets_in"))
    return (f"  conntrack {_tuple(entry['source'], entry['destination'])}{out} "
            f"{_tuple(entry['reply_source'], entry['reply_destination'])}{back} "
            f"expires {duration(entry['expires_in'])}")


def _tuple(source: str, destination: str) -> str:
    (host, port), (to, to_port) = (each.rpartition(":")[::2] for each in (source, destination))
    return f"src={host} dst={to} sport={port} dport={to_port}"


def _audio(party: Answer, events: list[Answer]) -> list[str]:
    """Return a plain sentence about the audio of each direction."""
    audio = party.get("audio")
    if audio is None:
        has_ended = party["state"] == "ended"
        return ["audio: the call has ended" if has_ended else "audio: the call is not answered yet"]
    way = [f"audio {stream['inside']} <-> {stream['outside']} <-> {stream['remote']}:"
           for stream in party["streams"]] or ["audio:"]
    return [*way, *(f"  {line}" for line in _sentences(audio))]


def _sentences(audio: Answer) -> list[str]:
    state = audio["state"]
    if state in STATES:
        return [STATES[state]]
    rates = f"{audio['rate_out']:.0f}/{audio['rate_in']:.0f} packets/s out/in"
    alarms = [f"ONE-WAY: {_safe(alarm['why'])}" for alarm in audio.get("alarms", ())]
    if alarms:
        return [*alarms, f"now {rates}"]
    if state == "held":
        wanted = " and ".join(FROM[name] for name in audio["wanted"])
        return [f"on hold: both sides have agreed on audio {wanted or 'in no direction'}; {rates}"]
    if state == "paused":
        return [f"RTP pauses: {rates}; it came from both sides before"]
    return [f"RTP flows both ways: {rates}"]
