"""Checks of several outside links ([[link]]): each has to do what one has to, and media must find its way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from natfix.config import Link, Settings
from natfix.findings import Check, Finding, Host, Status
from natfix.interfaces import Links, outside_links


def check_outside_links(host: Host) -> Iterator[Finding]:
    """Is each outside link there, and does an `ip rule` lead marked media to it?"""
    links, settings = host.links(), host.settings
    if not settings.links:
        return
    for name, address in outside_links(links, settings).items():
        if address:
            yield Finding(Status.OK, f"{name}, {address}, is one of {len(settings.links) + 1} outside links")
        else:
            yield Finding(Status.WARNING, f"the outside link {name} is down, not there, or has no address",
                          f"ip address show dev {name}, or take it from natfix.toml")
    yield from _check_mark(links, settings.outside.interface, settings.outside.mark)
    for each in settings.links:
        yield from _check_mark(links, each.interface, each.mark)


def _check_mark(links: Links, name: str, mark: int) -> Iterator[Finding]:
    ways = {each.interface for each in links.steered if mark and mark & each.mask == each.mark}
    if name in ways:
        yield Finding(Status.OK, f"an ip rule leads what is marked {mark:#x} to {name}")
    elif mark:
        yield Finding(
            Status.WARNING, f"no ip rule leads what natfix marks {mark:#x} to {name}: media of calls by "
            f"{name} leaves by whatever link the route to its receiver does",
            f"ip route add default via ROUTER dev {name} table {mark}, and "
            f"ip rule add fwmark {mark:#x} lookup {mark}")
    else:
        yield Finding(
            Status.WARNING, f"{name} has no mark: media of calls by it leaves by whatever link the route to "
            "its receiver does", "in natfix.toml, mark = 0x100 in [outside], another one in each [[link]]")


def on_each_link(check: Check) -> Check:
    """Return *check* for all outside links, one after the other; of the further ones only what is wrong."""
    def checked(host: Host) -> Iterator[Finding]:
        said = list(check(host))
        yield from said
        for link in host.settings.links:
            if link.interface in host.links().addresses:
                for finding in check(replace(host, settings=_as_first(host.settings, link))):
                    if finding.status is not Status.OK and finding not in said:
                        said.append(finding)
                        yield finding
    return checked


def _as_first(settings: Settings, link: Link) -> Settings:
    """Return *settings* as they would be if *link* were the first outside link."""
    first = settings.outside
    others = [Link(first.interface), *(each for each in settings.links if each is not link)]
    outside = replace(first, interface=link.interface, address=link.address, mark=link.mark)
    return replace(settings, outside=outside, links=tuple(others))
