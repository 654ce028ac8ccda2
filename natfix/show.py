"""What `natfix status`, `calls`, `registrations` and `notes` print: the daemon's answers, for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from natfix.tables import duration, printable, table

Answer = dict[str, Any]

WITH_TLS = ("{} connections were left alone, nobody can read them; what still helps their phones: rport and "
            "outbound (RFC 5626), STUN or ICE, a provider that answers media to where it comes from")
MODES = {
    "fix": "in force",
    "drain": "in force until the calls have ended; new ones are refused",
    "observe": "observes, and changes nothing",
}


def status_text(answer: Answer) -> str:
    """Return the daemon's state, one line for each thing."""
    queue = answer.get("queue", {})
    lines = {
        "natfix": f"{answer['version']}, process {answer['pid']}, up {duration(answer['uptime'])}",
        "mode": _mode(answer),
        "outside": _outside(answer),
        "calls": f"{answer['calls']}, and {answer['subscriptions']} subscriptions",
        "registrations": answer["registrations"],
        "mappings": f"{answer['signalling_mappings']} signalling, {answer['media_mappings']} media; "
                    f"{answer['flows']} flows in the kernel",
        "tcp": _pairs(answer.get("streams", {})),
        "tls": WITH_TLS.format(_tls(answer)) if _tls(answer) else "none seen",
        "media ports": f"{answer['media_pairs_free']} of {answer['media_pairs']} pairs free",
        "audio": _audio_line(answer.get("audio", {})),
        "levels": _levels(answer.get("levels", {})),
        **{f"SHORT: {each['resource']}".replace("_", " "): f"{each['why']}, since {each['since']}"
           for each in answer.get("shortages", [])},
        "strangers": f"{answer['refused_packets']} packets refused",
        **{f"{name['kind']} {name['name']}": _name(name, answer.get("refused_addresses", {}))
           for name in answer.get("names", [])},
        "policies": _pairs(answer["policies"]) if answer.get("policies") else "nothing dropped or passed",
        "too fast": _pairs(answer["over_rate"]) if answer.get("over_rate") else "nobody",
        f"queue {queue.get('number', '')}".strip(): _pairs(queue, skip=("number",)),
        "packets": _pairs(answer.get("shell", {})),
        "messages": _pairs(answer.get("counters", {})),
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {printable(value)}" for name, value in lines.items())


def _outside(answer: Answer) -> str:
    links = (f"{name} {host or 'is down'}" for name, host in answer.get("outside_links", {}).items())
    return ", ".join(links) or answer.get("outside_address") or "no address"


def _tls(answer: Answer) -> int:
    return int(answer.get("counters", {}).get("streams tls", 0))


def _levels(levels: dict[str, dict[str, int]]) -> str:
    """Return the share of each thing that is taken, the fullest first; what is nearly empty is left out."""
    shares = {name: 100 * level["used"] / level["size"] for name, level in levels.items() if level["size"]}
    fullest = sorted(shares, key=shares.__getitem__, reverse=True)
    shown = (f"{name.replace('_', ' ')} {shares[name]:.0f} %" for name in fullest if shares[name] >= 1)
    return ", ".join(shown) or "all below 1 %"


def _audio_line(audio: Answer) -> str:
    alarms = audio.get("one_way", 0)
    watched = f"{audio.get('watched', 0)} calls watched"
    return f"{watched}, ONE-WAY: {alarms} (`natfix calls`)" if alarms else f"{watched}, none is one-way"


def _mode(answer: Answer) -> str:
    mode = answer.get("mode", "fix")
    if mode == "trial":
        return f"on trial: taken back in {duration(answer['confirm_in'])} unless you run `natfix confirm`"
    return MODES.get(mode, str(mode))


def _pairs(counters: dict[str, Any], skip: Iterable[str] = ()) -> str:
    shown = (f"{name} {value}" for name, value in counters.items() if name not in skip)
    return ", ".join(shown).replace("_", " ") or "nothing yet"


def _name(name: Answer, refused: dict[str, dict[str, str]]) -> str:
    """Return who a name stands for, how old that is, and what is wrong with it since when."""
    reasons = refused.get(name["name"], {})
    good = [host for host in name["addresses"] if host not in reasons]
    asked = f"answered {duration(name['answered_ago'])} ago" if "answered_ago" in name else "never answered"
    said = [", ".join(good) or "nobody", asked]
    if "problem" in name:
        said.append(f"since {name['problem_since']}: {name['problem']}")
    said += [name["remark"]] if "remark" in name else []
    said += [f"{host} is refused: {reason}" for host, reason in reasons.items()]
    return "; ".join(said)


def calls_text(answer: Answer) -> str:
    """Return one line for each call, and below it one for each of its streams."""
    calls = answer["calls"]
    if not calls:
        return "no calls"
    head, *lines = table(
        ("NR", "FROM", "TO", "STATE", "FOR", "AUDIO", "INSIDE", "OUTSIDE", "PEER", "CALL-ID"),
        [(number, call["from"], call["to"], call["state"], duration(call["age"]), _audio_word(call),
          call["inside"], call["outside"], call["peer"], call["call_id"])
         for number, call in enumerate(calls, 1)],
    ).splitlines()
    shown = [head]
    for line, call in zip(lines, calls, strict=True):
        shown += [line, *map(_stream_line, call["streams"])]
    return "\n".join(shown)


def _audio_word(call: Answer) -> str:
    """Return one word for a call's audio, or what is wrong with it."""
    audio = call.get("audio", {})
    alarms = [f"{alarm['direction']} {alarm['cause']}" for alarm in audio.get("alarms", ())]
    return f"ONE-WAY: {', '.join(alarms)}" if alarms else audio.get("state", "-")


def _stream_line(stream: Answer) -> str:
    """Return a stream's way through the gateway and what the kernel counted; conntrack's counters, so that
    they prove that the kernel relays."""
    remote = ", ".join(stream["flows"] or stream["remotes"]) or "nobody yet"
    ends = (stream["inside"], stream["outside"], remote)
    counted = "packets not counted (net.netfilter.nf_conntrack_acct is off, or no flow yet)"
    if "packets_out" in stream:
        counted = f"out {stream['packets_out']}, in {stream['packets_in']} packets"
    refused = f", refused {stream['refused']} from strangers" if stream["refused"] else ""
    return printable(f"    {stream['media']}: {' <-> '.join(ends)}: {counted}{refused}")


def registrations_text(answer: Answer) -> str:
    """Return one line for each binding of a phone."""
    bindings = answer["registrations"]
    if not bindings:
        return "no registrations"
    return table(
        ("ADDRESS OF RECORD", "INSIDE", "OUTSIDE", "REGISTRAR", "SINCE", "EXPIRES", "ANSWERS", "DEVICE"),
        [(each["aor"], each["inside"], each["outside"], each["registrar"],
          duration(each["registered_for"]), duration(each["expires_in"]), _answers(each), each["user_agent"])
         for each in bindings],
    )


def _answers(binding: Answer) -> str:
    """Return whether a far phone answers natfix's OPTIONS, and how soon; "" where that is not known."""
    state = binding.get("reachability", "")
    if state == "reachable":
        return f"in {binding['answer_ms']:.0f} ms"
    return "not any more" if state == "unreachable" else ""


def notes_text(answer: Answer) -> str:
    """Return what was done to the last messages, and why."""
    lines = []
    for decision in answer["decisions"]:
        dropped = " DROPPED" if decision.get("verdict") == "drop" else ""
        subject = " ".join(filter(None, (decision.get("summary"), decision.get("call_id"))))
        lines.append(printable(f"{decision['at']} {decision.get('where', '')}{dropped} {subject}"))
        lines += map(_note_line, decision["notes"])
    return "\n".join(lines) or "no notes yet"


def _note_line(note: dict[str, str]) -> str:
    old, new = note.get("old", ""), note.get("new", "")
    change = f" {old!r} => {new!r}" if old != new else ""
    why = "; ".join(filter(None, (note.get("reason"), note.get("rfc"))))
    return printable(f"    {note['rule']}: {note.get('header', '')}{change}  ({why})")


def event_line(event: Answer) -> str:
    """Return one event of `natfix monitor` as one line: time, event, call, and what there is to say."""
    rest = EVENTS.get(event["event"], _other_event)(event)
    clock = event["at"].partition("T")[2].partition(".")[0]
    return printable(f"{clock} {event['event']:<14} {_short_id(event):<12} {rest}").rstrip()


def _short_id(event: Answer) -> str:
    return str(event.get("call_id", "-"))[:12]


def _call_event(event: Answer) -> str:
    return f"{event['from']} -> {event['to']}  {event['method']}, {event['inside']} <-> {event['peer']}"


def _ended_event(event: Answer) -> str:
    media = ""
    if "packets_out" in event:
        media = f", audio packets out {event['packets_out']}, in {event['packets_in']}"
    what = "talked" if event.get("answered") else "not answered,"
    return f"{event['from']} -> {event['to']}  {event['why']}; {what} {duration(event['duration'])}{media}"


def _binding_event(event: Answer) -> str:
    agent = f"  ({event['user_agent']})" if event.get("user_agent") else ""
    return f"{event['aor']}  {event['inside']} => {event['outside']} at {event['registrar']}{agent}"


def _alarm_event(event: Answer) -> str:
    return f"{event['from']} -> {event['to']}  {event.get('why', '')}"


def _other_event(event: Answer) -> str:
    """Return what else there is, as name=value."""
    hidden = ("schema_version", "at", "event", "call_id", "why")
    facts = [f"{key}={value}" for key, value in event.items() if key not in hidden]
    return "  ".join([*facts, *([event["why"]] if "why" in event else [])])


EVENTS: dict[str, Callable[[Answer], str]] = {
    "call": _call_event, "ended": _ended_event, "alarm": _alarm_event, "alarm-over": _alarm_event,
    **dict.fromkeys(("ringing", "answered", "resumed", "challenged", "cut-off", "goes-on"), _alarm_event),
    **dict.fromkeys(("registered", "unregistered", "expired"), _binding_event),
}


def uas_text(answer: Answer) -> str:
    """Return one line for each UA that has sent SIP, the last one first."""
    agents = answer["uas"]
    if not agents:
        return "nobody has sent SIP yet"
    return table(
        ("ADDRESS", "SIDE", "SEEN", "MESSAGES", "ERRORS", "CHALLENGES", "REPEATED", "LAST", "DEVICE"),
        [(each["address"], each["side"], f"{duration(each['last_seen'])} ago", each["messages"],
          each["errors"], each["challenges"], each["retransmissions"], each["last"], each["user_agent"])
         for each in agents],
        numbers=("MESSAGES", "ERRORS", "CHALLENGES", "REPEATED"),
    )


TEXTS: dict[str, Callable[[Answer], str]] = {
    "status": status_text, "calls": calls_text, "registrations": registrations_text, "notes": notes_text,
    "uas": uas_text,
}
