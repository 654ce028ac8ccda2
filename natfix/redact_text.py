"""Texts of a machine with nobody named in them: rules, routes, logs, JSON, for `natfix bundle --redact`.

What is replaced is replaced by the same token wherever it stands, in all texts of one run. A name that one
text shows to be one (``sip:alice@...``) is looked for in every other, too; hence two passes:
:meth:`TextRedactor.learn` each text, then :meth:`TextRedactor.text` each.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address, ip_network
from typing import Any

from natfix.address import is_ipv4
from natfix.redact import PLAIN_WORDS, Redactor

# Of these nobody can tell whose they are.
PLAIN_NETWORKS = frozenset({
    "0.0.0.0/0", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4"})
PLAIN_NAMES = PLAIN_WORDS | frozenset({
    "anonymous", "asterisk", "inside", "invalid", "kamailio", "localhost", "natfix", "outside", "root",
    "sip"})
# What looks like a domain's name and is a file's, a unit's, a module's or a sysctl's.
PLAIN_ENDS = frozenset((
    "btf", "cfg", "conf", "d", "db", "deb", "gz", "html", "json", "ko", "log", "mount", "nft",
    "path", "pcap", "pcapng", "pid", "py", "scope", "service", "sh", "slice", "so", "sock", "socket",
    "sqlite", "sys", "target", "timer", "toml", "txt", "wav", "xml"))
PEER = re.compile(r"@(?:if\d+|none)$")     # as ip(8) has the other end of a link: eth0@if7
PLAIN_BEGINNINGS = ("natfix.", "net.", "self.", "kernel.", "fs.", "vm.")
SHORTEST_NAME = 2
SHORTEST_SHOWN = 3          # letters of a word of a display name
SHORTEST_NUMBER = 6         # digits of a name that is a number; a shorter one may be a port, or a counter
MOST_PREFIX = 4             # digits before a number: 00, or that of the way out
MOST_PIECES = 8             # of one word that are looked up together

# Keys of natfix's documents whose texts are something special.
USERS = frozenset({"contact_user"})
AGENTS = frozenset({"user_agent"})                      # may end in a hardware address without colons
LINES = frozenset({"last", "line", "why"})

_HOST = r"[A-Za-z0-9][\w.-]{0,252}"
_PARTS = {      # in this order: what is an address must not be taken for a word
    "mac": r"(?<![\w:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:-])",
    "uri": r"(?i:\b(?:sips?|tel):)(?:[^@<>\"\s;,\\]{1,256}@)?[^\s<>;?,\"'\]\\]{1,256}",
    "account": rf"(?<![\w.+~%-])[\w.+~%-]{{1,128}}@{_HOST}",
    "ipv6": r"(?<![\w:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{0,32}(?![\w:]|\.\d)",
    "ipv4": r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?(?![\w]|\.\d)",
    "word": r"[A-Za-z0-9+][\w.+~%-]*+",
}
_ANY = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _PARTS.items()))
_URI = re.compile(r"(?i)(sips?|tel):(?:(.*)@)?(.*)", re.DOTALL)
_SHOWN = re.compile(r'\\?"([^"\\<>\n]{1,80})\\?"\s*<sips?:')
_DOMAIN = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}")
_NUMBER = re.compile(r"\+\d{6,15}")
_WITHIN = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_PIECE = re.compile(r"[A-Za-z0-9%]+")
_DIGITS = re.compile(r"\d{6,}")
_USERS = re.compile(rf'"(?:{"|".join(sorted(USERS))})": "([^"\\]+)"')
_PHRASE = re.compile(r"(?:SIP/2\.0 )?\d{3} ")        # what follows, a server may write as it likes
_KEY = re.compile(r"[a-z][a-z0-9_ -]*")
_PORT = re.compile(r":\d{1,5}$")


class TextRedactor:
    """Replaces users, numbers, hosts and addresses in texts of any kind."""

    def __init__(self, key: bytes = b"") -> None:
        self._redactor = Redactor(key)
        self._names: dict[str, bool] = {}       # in lower case -> is that of a host

    # what is a name

    def learn(self, text: str) -> None:
        """Take note of what *text* shows to be somebody's name."""
        for found in _ANY.finditer(text):
            if found.lastgroup == "uri":
                scheme, user, hostport = _uri_parts(found[0])
                self.know_user((user or "").partition(":")[0])
                (self.know_user if scheme.lower() == "tel" else self.know_host)(hostport)
            elif found.lastgroup == "account" and not _is_plain(found[0]):
                user, _, host = found[0].rpartition("@")
                self.know_user(user)
                self.know_host(host)
            elif found.lastgroup == "word" and (name := _domain(found)):
                self.know_host(name)
        for user in _USERS.findall(text):
            self.know_user(user)
        for shown in _SHOWN.findall(text):
            for word in _PIECE.findall(shown):
                if len(word) >= SHORTEST_SHOWN:
                    self.know_user(word)

    def know_user(self, name: str) -> None:
        """Look for *name* from now on, unless it is too short, or anybody's."""
        self._know(name.lstrip("+"), is_host=False)

    def know_host(self, name: str) -> None:
        """Look for the name of a host or a domain from now on."""
        bare = _PORT.sub("", name)
        if ":" not in bare and not is_ipv4(bare):
            self._know(bare, is_host=True)

    def _know(self, name: str, is_host: bool) -> None:
        name = name.strip(".").lower()
        is_short = len(name) < (SHORTEST_NUMBER if name.isdigit() else SHORTEST_NAME)
        if not is_short and name not in PLAIN_NAMES:
            self._names.setdefault(name, is_host)

    # what stands for it

    def text(self, text: str) -> str:
        """Return *text* with nobody named in it."""
        return _ANY.sub(self._token, text)

    def words(self, text: str) -> str:
        """Return *text* with every word replaced: what people write as they like."""
        return _PIECE.sub(lambda found: self._redactor.token("word", found[0]), text)

    def json(self, value: Any, key: str = "") -> Any:
        """Return a JSON document with its texts redacted; keys that are words of a schema stay."""
        if isinstance(value, dict):
            return {name if _KEY.fullmatch(name) else self.text(name): self.json(each, name)
                    for name, each in value.items()}
        if isinstance(value, list):
            return [self.json(each, key) for each in value]
        return self._value(key, value) if isinstance(value, str) else value

    def _value(self, key: str, text: str) -> str:
        if key in USERS:
            return self._user(text)
        if key in AGENTS:
            return self.text(self._redactor.macs(text))
        phrase = _PHRASE.match(text) if key in LINES else None
        return phrase[0] + self._redactor.plain(text[phrase.end():]) if phrase else self.text(text)

    def _token(self, found: re.Match[str]) -> str:
        text = found[0]
        if found.lastgroup == "mac":
            is_nobodys = not text.lower().strip("0:-") or not text.lower().strip("f:-")
            return text if is_nobodys else self._redactor.macs(text)
        if found.lastgroup == "uri":
            return self._uri(text)
        if found.lastgroup == "account":
            return text if _is_plain(text) else self._account(text)
        if found.lastgroup == "ipv6":
            return self._ipv6(text)
        if found.lastgroup == "ipv4":
            return self._ipv4(text)
        name = _domain(found)
        return self._redactor.host(name) + text[len(name):] if name else self._word(text)

    def _uri(self, text: str) -> str:
        scheme, user, hostport = _uri_parts(text)
        if scheme.lower() == "tel":
            return f"{scheme}:{self._user(hostport)}"
        host, colon, port = hostport.partition(":")
        shown = f"{self._user(user)}@" if user is not None else ""
        return f"{scheme}:{shown}{self._host(host)}{colon}{port}"

    def _account(self, text: str) -> str:
        user, _, host = text.rpartition("@")
        return f"{self._user(user)}@{self._host(host)}"

    def _user(self, text: str) -> str:
        """Return what stands for a user; a password behind it never stays."""
        user, colon, password = text.partition(":")
        bare = user.lstrip("+")
        shown = bare if bare.lower() in PLAIN_NAMES else self._redactor.token("user", bare)
        return user[:len(user) - len(bare)] + shown + colon + "x" * len(password)

    def _host(self, text: str) -> str:
        return self._redactor.host(text) if text.lower() not in PLAIN_NAMES else text

    def _ipv4(self, text: str) -> str:
        address, slash, length = text.partition("/")
        if not is_ipv4(address) or text in PLAIN_NETWORKS:
            return text
        shown = self._redactor.host(address)
        if not slash or int(length) > 32 or str(ip_network(text, strict=False)) != text:
            return shown + slash + length
        return str(ip_network(f"{shown}/{length}", strict=False))

    def _ipv6(self, text: str) -> str:
        """Return another address of the same kind, in the same network as its neighbours' other ones."""
        try:
            groups = IPv6Address(text).exploded.split(":")
        except AddressValueError:
            return _PIECE.sub(lambda found: self._word(found[0]), text)     # a time, as a rule
        if groups[0].startswith("ff") or set(groups[:-1]) == {"0000"}:
            return text
        shown = [groups[0] if groups[0].startswith(("fe", "fc", "fd")) else
                 groups[0][0] + self._redactor.token("hex", groups[0])[1:]]
        for place in range(1, 8):
            known = ":".join(groups[:place + 1])        # so that neighbours stay neighbours
            shown.append("0000" if groups[place] == "0000" else self._redactor.token("hex", known)[-4:])
        return str(IPv6Address(":".join(shown)))

    def _word(self, text: str) -> str:
        """Replace the names in a word, whatever they are joined to: the longest first."""
        if _NUMBER.fullmatch(text):
            return self._user(text)
        text = _WITHIN.sub(lambda found: self._ipv4(found[0]), text)
        places = [found.span() for found in _PIECE.finditer(text)]
        shown, at, piece = "", 0, 0
        while piece < len(places):
            last = next((last for last in range(min(piece + MOST_PIECES, len(places)) - 1, piece - 1, -1)
                         if text[places[piece][0]:places[last][1]].lower() in self._names), None)
            if last is not None:
                start, end = places[piece][0], places[last][1]
                name = text[start:end]
                shown += text[at:start] + (
                    self._host(name) if self._names[name.lower()] else self._user(name))
                at, piece = end, last
            piece += 1
        return _DIGITS.sub(self._digits, shown + text[at:])

    def _digits(self, found: re.Match[str]) -> str:
        """Replace a known number that other digits or letters stand before, as in 0049301234567."""
        text = found[0]
        for start in range(MOST_PREFIX + 1):
            if text[start:] in self._names:
                return text[:start] + self._user(text[start:])
        return text


def without_comments(text: str) -> str:
    """Return TOML without what people write as they like beside it."""
    return "\n".join(_without_comment(line) for line in text.splitlines()) + "\n"


def _without_comment(line: str) -> str:
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#":
            return line[:place].rstrip()
    return line


def _uri_parts(text: str) -> tuple[str, str | None, str]:
    found = _URI.fullmatch(text)
    return (found[1], found[2], found[3]) if found else ("", None, text)


def _domain(found: re.Match[str]) -> str:
    """Return the domain's name that a word is, else ""; what is called like a function is none."""
    name = found[0].rstrip(".+~-")
    is_one = _DOMAIN.fullmatch(name) and not _is_plain(name) and not found.string.startswith("(", found.end())
    return name if is_one else ""


def _is_plain(text: str) -> bool:
    name = text.lower()
    return name.rpartition(".")[2] in PLAIN_ENDS or name.startswith(PLAIN_BEGINNINGS) \
        or PEER.search(name) is not None
