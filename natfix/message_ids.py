"""The kinds of lines in natfix's log: the MESSAGE_ID of each, by which `journalctl` finds and explains them.

An id is never given to another kind, and never changes: alerts of operators are made for it. A new kind gets
what `journalctl --new-id128` says. The text is what `journalctl -x` shows below the line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

FIELD = "message_id"        # of a record of the log; "call_id" is its other one


class Kind(NamedTuple):
    """One kind of line."""

    message_id: str     # 128 bits, as hexadecimal digits
    subject: str
    text: str           # what it means, and what the operator can do


KINDS: dict[str, Kind] = {
    "ready": Kind(
        "c9d47c0df2424a0186fa239d12088f8b", "natfix is ready", "SIP and its audio are fixed from here on."),
    "ended": Kind(
        "cbb08bb269f245d7aa650d6bfcc1517a", "natfix has ended",
        "The line says what it left in the kernel. Calls keep their audio; SIP is not fixed until natfix "
        "runs again: systemctl start natfix."),
    "ending": Kind(
        "ab0e13b563064f45aa0f2053d918f79a", "natfix was asked to end",
        "By a signal (systemctl stop) or by natfix down."),
    "not-confirmed": Kind(
        "ab53025b0c9f4d3bbdd51c8d5319a61a", "natfix rests: its last trial was not confirmed",
        "natfix up --confirm ran out, or the machine was restarted meanwhile. natfix changes nothing until "
        "natfix up is given again."),
    "trial": Kind(
        "1c19473f84fa4443af7b86e10be944bc", "natfix is on trial",
        "All that natfix has made is taken back when the time is up, unless natfix confirm is given."),
    "confirmed": Kind(
        "a1b47400675c43f28a1d8d90746d36c5", "The trial was confirmed", "natfix stays in force."),
    "rolled-back": Kind(
        "74258a1351c44f90a4b4f181c9a1a3f2", "The trial was not confirmed, everything is taken back",
        "The kernel's rules are as they were before natfix up. Where natfix did its work, give natfix up "
        "--confirm once more, and natfix confirm in time."),
    "reloaded": Kind(
        "95159187f04246c5a453cc71dca825bd", "The configuration was read again",
        "The line names what has changed; calls go on."),
    "configuration-refused": Kind(
        "290e4394c8884eaa90bd7865e77e1c1a", "The new configuration was refused",
        "natfix goes on with the one it has. The line says what is wrong with the file and where; natfix "
        "check reads it without any risk."),
    "drain": Kind(
        "263be950939841238182714190fd093a", "New calls are refused until the running ones have ended",
        "Somebody has given natfix down --drain."),
    "drain-over": Kind(
        "94b8c47e8abc4736a52b3359ca1afe6c", "New calls are fixed again",
        "natfix down --drain was interrupted before the last call had ended."),
    "limit": Kind(
        "2e535f43890c4b398db9ecd9deead1c3", "A limit is reached",
        "Calls beyond it are refused or pass unfixed. Raise it in natfix.toml ([limits], or [media] ports), "
        "or find who takes so much: natfix calls, natfix registrations. Said once a minute at most."),
    "nearly-full": Kind(
        "76b7b2860ebf456eab4eb1ddce4bf693", "Something is about to run out",
        "The line says what, how much of it is taken, and what can be done. Nothing is refused yet; what "
        "will be is dropped as a whole (an INVITE, a REGISTER), and repeated by its sender. Said once until "
        "there is room again; natfix status shows all levels."),
    "room-again": Kind(
        "721cd87992f64a9ab2274dc17b7d8383", "There is room again", "What was about to run out no longer is."),
    "gave-way": Kind(
        "46807e2992fc41629befbd33c3ef41e2", "An unanswered call gave way to another",
        "Somebody rings so many without an answer that media ports ran short: natfix calls shows whom. It "
        "may be an attack, or a dialler."),
    "over-rate": Kind(
        "a0bad0d9590a4e6b88f32670e2d76704", "A host sends faster than it may",
        "What came faster is dropped. Find out why it floods; a host that may is named in natfix.toml as "
        "[[peer]], [[trunk]] or [inside] pbx."),
    "queue-full": Kind(
        "213d83ea04e141dbbe52a2e86740f4d4", "The packet queue was full, SIP was dropped",
        "SIP came faster than this machine treats it; what is dropped is sent again by its sender. natfix "
        "status shows how much; [limits] packets_per_host holds floods back."),
    "one-way-audio": Kind(
        "80c1a71bb2514e0e8e4133674b631728", "A call has audio in one direction only",
        "The line names the direction and the cause, as far as the kernel's counters tell it. natfix explain "
        "@CALL_ID@ shows what was done to this call, and why."),
    "audio-back": Kind(
        "2fc36c193f214345bb336a371120c8d1", "A call's audio is back",
        "It had gone in one direction only before."),
    "rules-restored": Kind(
        "6fb8f0217d0245a7b8176201f02dd3a5", "natfix's rules were taken away, and put back",
        "Another program flushes all rules (nft flush ruleset); have it flush only its own "
        "tables."),
    "leaked": Kind(
        "7c33bdf3b81f4b55a802a3ca706026cd", "Packets left with their inside address",
        "While natfix's rules were away nothing translated them; the far side could not answer them."),
    "kernel-refuses": Kind(
        "448998bdbdcb4dacba190107e8c3211a", "The kernel refused what natfix asked of it",
        "The line has the kernel's reason. The packet concerned was dropped, and comes again; natfix check "
        "shows what this kernel lacks. Each reason is said once, natfix status counts."),
    "entry-refused": Kind(
        "e0ceccad417d4eb39d740761c24846d2", "Conntrack did not take an entry",
        "Audio goes on by natfix's maps. Where the table is full, nothing new gets through this gateway: "
        "compare net.netfilter.nf_conntrack_count with nf_conntrack_max."),
    "not-sent": Kind(
        "e185392787de42c6bcd216b411b7931b", "natfix's own packets are not let out",
        "Those that keep the NAT of far phones open ([far_end] keep_open), for instance. The line says what "
        "stands against it. Said once, natfix status counts."),
    "internal-error": Kind(
        "a32ecc0ec70c4a3e8b5eacfa129a4e5f", "An error in natfix itself",
        "natfix goes on; the packet concerned passed unfixed or was dropped. Please report it with the lines "
        "below it. Each kind is said once, natfix status counts."),
    "request-failed": Kind(
        "f4610106d77d4dd78d5414b2ef1dd03f", "A natfix command could not be answered",
        "An error in natfix itself; calls are not concerned. Please report it with the lines below it."),
    "addresses": Kind(
        "fb40d95db16547828daec0fefb4891a8", "The outside address or link has changed",
        "New messages show the new address. Phones that are registered with the old one cannot be called "
        "until they register again."),
    "advertised": Kind(
        "60d975f12ccf41389082c50ef7be8604", "The address seen from outside",
        "What the STUN server of [outside] advertise says."),
    "stun-failed": Kind(
        "7c650d2c783b4658b39f6c2c497c8d5f", "The STUN server does not answer",
        "The address that the line names is shown to the outside meanwhile. See [outside] advertise."),
    "stun-back": Kind("513bbb5780ff4d35a8c01cf8b970091f", "The STUN server answers again", "All is well."),
    "name-failed": Kind(
        "57cfb8bee55c4e1e969d0116fa25f5ff", "A name could not be resolved",
        "Of a [[peer]] or a [[domain]]. Its last addresses hold meanwhile; a name that has none lets nobody "
        "in. See [daemon] nameservers."),
    "name-changed": Kind(
        "49f563600c0a44babcf88ddfbfed10ef", "A name has other addresses now",
        "Who may talk as this [[peer]] or [[domain]] follows it."),
    "name-back": Kind("ef729bc4271549b3a11adbf7ab678c4f", "A name is resolved again", "All is well."),
    "clock-set": Kind(
        "659a5ddac0674269a68d7ce8649874d9", "The machine's clock was set",
        "Calls and registrations are not concerned: natfix counts time by itself. Lines of its log, its page "
        "and its copies for others have the new time from here on."),
    "state-file": Kind(
        "e5da1fc94dfa4024821d27b75f68e00d", "The state file cannot be written",
        "Mostly a full disk. Calls are not concerned; natfix goes on trying. Should it be restarted before "
        "it can write, it learns of calls from the kernel and from their next messages."),
    "state-file-back": Kind(
        "895f592ff21347eabd970a534caf9828", "The state file is written again",
        "All that had waited for it is in it; a restart loses nothing."),
    "state-file-damaged": Kind(
        "50e7424c3253484e93c8bc4ed5a1d844", "The state file is damaged",
        "What could not be read was set aside; natfix learns of calls from the kernel and from their next "
        "messages."),
    "cannot-see": Kind(
        "7699ba3f0c564da794416d3e78223b7d", "Something about this machine cannot be found out",
        "The line says what: links, ports of programs, or the operator's own rules. What was known before "
        "stands, and natfix looks again."),
    "kernel-lacks": Kind(
        "3d25c16f2410487f8cc1b5e334a1c682", "This kernel lacks something",
        "natfix works without it; the line says what that means. natfix check has the cure."),
    "systemd": Kind(
        "47d6064b372448cca5d220c7aec4b305", "systemd could not be told",
        "Of natfix's state. Where it goes on, systemd takes natfix for hung (WatchdogSec) and restarts it."),
    "hook-failed": Kind(
        "19242b010f11436f93505450bb5be423", "The hook failed",
        "The program of [export] hook cannot be run, took too long, or ended with an error. Calls are not "
        "concerned. Said once until it does its work again; natfix status counts."),
}


def kind(name: str, call_id: str = "") -> dict[str, str]:
    """Return what a call of the log takes as ``extra``; KeyError for a kind that is not in the table."""
    told = {FIELD: KINDS[name].message_id}
    return told | {"call_id": call_id} if call_id else told


def catalog() -> Iterator[str]:
    """Yield the lines of the catalogue file for ``journalctl --update-catalog``."""
    for each in KINDS.values():
        yield from (f"-- {each.message_id}", f"Subject: {each.subject}", "Defined-By: natfix",
                    "Documentation: man:natfix(8)", "", each.text, "")
