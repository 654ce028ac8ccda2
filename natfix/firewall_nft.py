"""`nft -j -t list ruleset` read into :mod:`natfix.firewall`'s words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from natfix.address import Network, network_from_text
from natfix.firewall import NEVER, NOT_UNDERSTOOD, PORTS, Chain, Condition, Effect, FlowTable, Rule, Ruleset

FAMILIES = ("ip", "inet")       # those that see routed IPv4 packets
ALL_BITS = 0xFFFFFFFF
MARK = {"meta": {"key": "mark"}}

# What a rule tests (its JSON, flattened) and the key of the facts that answers it.
KEYS = {
    "meta.iifname": "iifname", "meta.iif": "iifname", "meta.oifname": "oifname", "meta.oif": "oifname",
    "meta.l4proto": "proto", "ip.protocol": "proto", "meta.nfproto": "nfproto", "meta.protocol": "ethertype",
    "ip.saddr": "saddr", "ip.daddr": "daddr", "ct.state": "ctstate", "ct.status": "ctstatus",
    "udp.sport": "sport", "udp.dport": "dport", "th.sport": "sport", "th.dport": "dport",
    "ct.original.proto-dst": "ctorigdport",
}
# Protocols that a UDP packet over IPv4 is not: a test of their fields implies the protocol.
OTHER_PROTOCOLS = frozenset({"tcp", "sctp", "dccp", "udplite", "icmp", "icmpv6", "ip6", "esp", "ah", "arp"})
VERDICTS = {"accept": "accept", "drop": "drop", "reject": "drop", "return": "return"}


def ruleset_from_json(listing: dict[str, Any]) -> Ruleset:
    """Return what the JSON *listing* of nft says of routed IPv4 packets."""
    ruleset = Ruleset()
    for item in _items(listing, "table"):
        ruleset.tables.add(f"{item['family']} {item['name']}")
    for item in _items(listing, "chain"):
        ruleset.chains[_table(item), item["name"]] = Chain(
            _table(item), item["name"], item.get("type", ""), item.get("hook", ""),
            item.get("policy", "accept"))
    for item in _items(listing, "flowtable"):
        flags = item.get("flags", ())
        links = item.get("dev", ())
        ruleset.flow_tables[_table(item), item["name"]] = FlowTable(
            frozenset([links] if isinstance(links, str) else links), "offload" in flags)
    named = {(_table(item), item["name"]): item["type"] for item in _items(listing, "ct helper")}
    named |= {(_table(item), f"@{item['name']}"): item.get("elem", []) for item in _items(listing, "map")}
    for item in _items(listing, "rule"):
        ruleset.chains[_table(item), item["chain"]].rules.extend(_rules_or_unknown(item, named))
    return ruleset


def dnat_maps(listing: dict[str, Any]) -> frozenset[tuple[str, str]]:
    """Return table and name of the maps that DNAT rules look into; a terse listing lacks their elements."""
    return frozenset(
        (_table(item), data[1:]) for item in _items(listing, "rule") for part in item.get("expr", ())
        if "dnat" in part and isinstance(data := _lookup(part["dnat"]).get("data"), str)
    )


def _items(listing: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of one *kind* in the families that see routed IPv4 packets."""
    for entry in listing.get("nftables", ()):
        if kind in entry and entry[kind].get("family") in FAMILIES:
            yield entry[kind]


def _table(item: dict[str, Any]) -> str:
    return f"{item['family']} {item['table']}"


def _rules_or_unknown(item: dict[str, Any], named: Mapping[tuple[str, str], Any]) -> list[Rule]:
    """Return what *item* says; a form that only a newer nft knows is one rule that is not understood."""
    try:
        return list(_rules(item, named))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return [Rule((NOT_UNDERSTOOD,), handle=f"handle {item.get('handle', '?')}")]


def _rules(item: dict[str, Any], named: Mapping[tuple[str, str], Any]) -> Iterator[Rule]:
    """Yield the rule *item*; a map becomes one rule for each of its elements."""
    conditions: list[Condition] = []
    effects: list[Effect] = []
    handle = f"handle {item['handle']}" if "handle" in item else ""
    for part in item.get("expr", ()):
        (kind, value), = part.items()
        if kind == "match":
            conditions.append(_condition(value))
        elif kind == "vmap":
            yield from (Rule((*conditions, condition), *verdict, handle=handle)
                        for condition, verdict in _verdict_map(value))
        elif kind in VERDICTS or kind in ("jump", "goto"):
            yield Rule(tuple(conditions), *_verdict(kind, value), tuple(effects), handle)
            return
        elif kind == "xt":
            conditions.append(NOT_UNDERSTOOD)
        elif kind == "ct helper":
            effects.append(Effect("helper", named.get((_table(item), value), value)))
        elif kind == "dnat" and (lookup := _lookup(value)):
            elements = _elements(lookup["data"], _table(item), named)
            yield from (_dnat_rule(conditions, lookup["key"], each, handle) for each in elements)
        else:
            effects.extend(_effects(kind, value))
    if effects:
        yield Rule(tuple(conditions), effects=tuple(effects), handle=handle)


def _verdict(kind: str, value: Any) -> tuple[str, str]:
    if kind in ("jump", "goto"):
        return kind, value["target"]
    return VERDICTS.get(kind, ""), ""


def _condition(match: dict[str, Any]) -> Condition:
    if (mask := _mark_mask(match["left"])) is not None and isinstance(match["right"], int):
        return Condition("mark", ((match["right"], mask),), negated=match["op"] in ("!=", "!"))
    key, values = _key(match["left"]), _values(match["right"])
    if key in OTHER_PROTOCOLS:
        return NEVER
    if values is None:
        return NOT_UNDERSTOOD
    return Condition(key, tuple(map(_reader(key), values)), negated=match["op"] in ("!=", "!"))


def _mark_mask(left: Any) -> int | None:
    """Return the bits of the packet's mark that a test looks at; None where it looks at something else."""
    if left == MARK:
        return ALL_BITS
    if isinstance(left, dict) and isinstance(parts := left.get("&"), list) and parts[0] == MARK:
        return parts[1] if isinstance(parts[1], int) else None
    return None


def _key(left: Any) -> str:
    """Return the facts' key for the left side of a test, "" where there is none, a protocol for its field."""
    if not isinstance(left, dict):
        return ""
    (kind, value), = left.items()
    if kind == "payload" and isinstance(value, dict):
        if value.get("protocol") in OTHER_PROTOCOLS:
            return str(value["protocol"])
        return KEYS.get(f"{value.get('protocol')}.{value.get('field')}", "")
    if kind in ("meta", "ct") and isinstance(value, dict):
        direction = f"{value['dir']}." if "dir" in value else ""
        return KEYS.get(f"{kind}.{direction}{value.get('key')}", "")
    return ""


def _values(right: Any) -> list[Any] | None:
    """Return the values of a test's right side; None where they are in a named set or an expression."""
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    values = right if isinstance(right, list) else [right]
    known = [each["elem"]["val"] if isinstance(each, dict) and "elem" in each else each for each in values]
    if any(isinstance(each, str) and each.startswith("@") for each in known):
        return None
    if any(isinstance(each, dict) and not {"prefix", "range"} & each.keys() for each in known):
        return None
    return known


def _reader(key: str) -> Callable[[Any], Any]:
    if key in ("saddr", "daddr"):
        return _network
    if key in PORTS:
        return _port_range
    return str


def _network(value: Any) -> Network:
    """Return a network; a range of addresses as the one address it begins with, which covers no network."""
    if isinstance(value, dict) and "prefix" in value:
        return network_from_text(f"{value['prefix']['addr']}/{value['prefix']['len']}")
    text = str(value["range"][0] if isinstance(value, dict) else value)
    try:
        return network_from_text(text)
    except ValueError:
        return Network(0, ALL_BITS)     # a host name, which no inside network is


def _port_range(value: Any) -> tuple[int, int]:
    if isinstance(value, dict):
        first, last = value["range"]
        return int(first), int(last)
    return (value, value) if isinstance(value, int) else (0, -1)


def _verdict_map(vmap: dict[str, Any]) -> Iterator[tuple[Condition, tuple[str, str]]]:
    key, data = _key(vmap["key"]), vmap["data"]
    if not isinstance(data, dict) or "set" not in data:
        return      # a named map: terse listings leave its elements out
    for wanted, verdict in data["set"]:
        (kind, value), = verdict.items()
        condition = _condition({"left": vmap["key"], "op": "==", "right": wanted}) if key else NOT_UNDERSTOOD
        yield condition, _verdict(kind, value)


def _effects(kind: str, value: Any) -> Iterator[Effect]:
    if kind == "mangle" and value["key"] == {"ct": {"key": "mark"}}:
        yield Effect("ctmark", _kept_bits(value["value"]))
    elif kind == "flow":
        yield Effect("flow", str(value.get("flowtable", "")).removeprefix("@"))
    elif kind in ("masquerade", "snat"):
        yield Effect("masquerade", _random_flags(value))
    elif kind == "dnat":
        yield Effect("dnat", _forward(value))
    elif kind == "notrack":
        yield Effect("notrack")
    elif kind == "queue":
        yield Effect("queue", _numbers(value.get("num", 0) if isinstance(value, dict) else 0))


def _numbers(value: Any) -> tuple[int, int] | None:
    """Return the first and the last of a number or a range of them; None where that varies."""
    if isinstance(value, dict) and "range" in value:
        return tuple(value["range"])
    return (value, value) if isinstance(value, int) else None


def _random_flags(value: Any) -> str | None:
    """Return the flags of a NAT statement that have it choose ports by chance, None where it has none."""
    flags = value.get("flags", ()) if isinstance(value, dict) else ()
    chosen = [flags] if isinstance(flags, str) else flags
    return " ".join(each for each in chosen if "random" in each) or None


def _lookup(dnat: Any) -> dict[str, Any]:
    """Return the map that a DNAT statement takes its target from, {} where it says the target itself."""
    address = dnat.get("addr") if isinstance(dnat, dict) else None
    return dict(address["map"]) if isinstance(address, dict) and "map" in address else {}


def _elements(data: Any, table: str, named: Mapping[tuple[str, str], Any]) -> list[Any]:
    """Return key and value of each element of a map, which stands in the rule or has a name."""
    return list(named.get((table, data), ()) if isinstance(data, str) else data.get("set", ()))


def _dnat_rule(conditions: list[Condition], key: Any, element: list[Any], handle: str) -> Rule:
    """Return the rule that one *element*, key and value, of a DNAT map is."""
    wanted, target = element
    own = [
        _condition({"left": left, "op": "==", "right": right})
        for left, right in zip(_parts(key), _parts(wanted), strict=False)
    ]
    address, port = (*_parts(target), 0)[:2]
    effect = Effect("dnat", _forward({"addr": address, "port": port}))
    return Rule((*conditions, *own), effects=(effect,), handle=handle)


def _parts(value: Any) -> list[Any]:
    """Return the parts of a concatenation, or the one value that there is."""
    if isinstance(value, dict) and "elem" in value:
        value = value["elem"]["val"]
    return list(value["concat"]) if isinstance(value, dict) and "concat" in value else [value]


def _forward(value: Any) -> tuple[str, int] | None:
    """Return address and port (0: the same) that a DNAT statement sends to; None where that varies."""
    address, port = value.get("addr"), value.get("port", 0)
    return (address, port) if isinstance(address, str) and isinstance(port, int) else None


def _kept_bits(value: Any) -> int:
    """Return the bits of the ct mark that "ct mark set *value*" leaves as they were."""
    if value == {"ct": {"key": "mark"}}:
        return ALL_BITS
    if not isinstance(value, dict):
        return 0
    (operator, operands), = value.items()
    if operator not in ("|", "&", "^") or not all(isinstance(each, int) for each in operands[1:]):
        return 0
    kept = _kept_bits(operands[0])
    for constant in operands[1:]:
        kept &= constant if operator == "&" else ~constant
    return kept
