"""--redact: what can be handed to a provider. Users, numbers, names, addresses and credentials become tokens
of the same length, the same everywhere in one run.

What stands for an address is an address of the same kind and length: private stays private, one network
stays one network, so that the diagnosis is the same. Lengths stay, so Content-Length and every offset stay
true. What is not known to be harmless is replaced: headers that are not listed here, and all bodies that are
not SDP.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import random
import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_network

from natfix.address import Endpoint, is_ipv4

# Octets that say of what kind an address is: they stay, as far as is given here.
KEPT = ((10,), (192, 168), (169, 254), (127,), (0,), (255,), (192, 0, 0), (192, 0, 2), (198, 51, 100),
        (203, 0, 113))
NEVER_FIRST = frozenset({0, 10, 100, 127, 169, 172, 192, 198, 203, *range(224, 256)})
PLAIN_HOSTS = frozenset({"localhost", "invalid", "anonymous.invalid", "local"})


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


URI_HEADERS = _names("""
    from f to t contact m route record-route path service-route reply-to refer-to r referred-by b diversion
    history-info remote-party-id p-asserted-identity p-preferred-identity p-called-party-id call-info
    alert-info error-info""")
NAMES = _names("call-id i in-reply-to replaces join target-dialog")
CREDENTIALS = _names(
    "authorization proxy-authorization www-authenticate proxy-authenticate authentication-info")
HARMLESS = _names("""
    via v cseq max-forwards content-length l content-type c content-encoding e content-disposition allow
    supported k require proxy-require unsupported expires min-expires session-expires x min-se rseq rack
    event o subscription-state allow-events u accept accept-encoding accept-language date timestamp
    retry-after mime-version privacy""")
SENTENCES = _names("user-agent server reason warning")
OPEN_PARAMETERS = frozenset(("algorithm", "qop", "nc", "stale", "charset"))     # of credentials
PLAIN_PARAMETERS = _names("""
    tag lr ttl transport user method comp rport branch expires q reg-id ob index cause privacy screen party
    purpose counter limit reason refresher retry-after handling boundary charset""")
PLAIN_ATTRIBUTES = _names("""
    rtpmap fmtp ptime maxptime sendrecv sendonly recvonly inactive rtcp-mux rtcp-fb rtcp-xr silencesupp setup
    connection extmap group mid curr des conf accept-types floorid sctp-port max-message-size""")
# What reasons and warnings say by themselves; any other word may be somebody's.
PLAIN_WORDS = _names("""
    a accepted acceptable address already alternative ambiguous and answer anonymity at auth authentication
    authorization auto bad be been body branch busy call canceled cancelled cause cleared clearing completed
    conditional consent declined dialog digest does doing elsewhere empty entity error event everywhere exist
    expired extension failed flow for forbidden forwarded found gateway global gone here identity implemented
    in incompatible incomplete info interval invalid is it large length location long loop making media
    message moved missing method much needed needs no node normal not number of ok on or out package
    parameters payment pending permanently permitted precondition progress proxy queued range reached reason
    rejected
    request requested required response ringing route scheme sdp server service session small support
    supported syntax temporarily terminated the time timed timeout timer to too transaction transfer trying
    type unable unacceptable unallocated unauthorized unavailable undecipherable understood unknown
    unsupported unwanted uri url use user version via was with wrong your""")

_IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
_URI = re.compile(r"(?i)\b(sips?|tel):(?:([^@<>\"\s;,]{1,256})@)?([^\s<>;?,\"]{1,256})")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_AUTH = re.compile(r'([A-Za-z][A-Za-z0-9_-]{0,31})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_VIA_HOST = re.compile(r"(?i)^(\s*SIP\s*/\s*2\.0\s*/\s*[A-Za-z]+\s+)([^\s;:,]+)")
_PARAMETER = re.compile(r"(;[ \t]*)([^\s;=<>,?\"]{1,64})([ \t]*=[ \t]*)([^;<>,?\s\"]+)")
_EMBEDDED = re.compile(r"([?&][\w-]{1,64}=)([^&<>\s\";]+)")     # headers in a URI (RFC 3261, section 19.1.1)
_ESCAPED_WORD = re.compile(r"(%[0-9A-Fa-f]{2})|[A-Za-z0-9]+")
_WEB = re.compile(r"(?i)\b(https?|wss?|msrps?|cid|ldaps?):([^\s<>\",;]+)")
_MAC = re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}[:-]?){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f])")
_DOMAIN = re.compile(r"(?<![\w.@-])(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w.-])")
_NAME = re.compile(r"(;(?:to-tag|from-tag|remote-tag|local-tag)=[^;,\s]*|;early-only)|[^\s,]+?(?=;|[\s,]|$)")
_WORD = re.compile(r"[A-Za-z0-9]+")
_SECRET_LINES = re.compile(r"(?i)^[siuepk]=")
_ATTRIBUTE = re.compile(r"a=([^:]{1,64}):(.*)", re.DOTALL)
_WITH_PORT = re.compile(r"(.*):(\d{1,5})")


class Redactor:
    """Replaces what tells of people and places; the same text is replaced by the same token in one run."""

    def __init__(self, key: bytes = b"") -> None:
        self._key = key or os.urandom(32)
        self._octets = lru_cache(maxsize=65536)(self._shuffled)

    def networks(self, text: str) -> list[str]:
        """Return what stands for a network: it holds what stands for each of its addresses."""
        network = ip_network(text, strict=False)
        step = 8 if network.version == 4 else 16        # bits of a part that has a token of its own
        parts = network.subnets(new_prefix=-(-network.prefixlen // step) * step)
        return [str(ip_network(f"{self.host(str(part.network_address))}/{part.prefixlen}", strict=False))
                for part in parts]

    def call_id(self, text: str) -> str:
        """Return what stands for a Call-ID."""
        return _NAME.sub(lambda found: found[1] or self.token("name", found[0]), text)

    def endpoint(self, endpoint: Endpoint) -> Endpoint:
        """Return what stands for an endpoint; ports stay."""
        return Endpoint(self.host(endpoint.host), endpoint.port)

    # -- addresses and names -----------------------------------------------------------------------------

    def host(self, text: str) -> str:
        """Return what stands for an address or a host name, of the same length."""
        if is_ipv4(text):
            return self._ipv4(text)
        bare = text.strip("[]")
        if ":" in bare:
            return text.replace(bare, self._ipv6(bare))
        if text.lower() in PLAIN_HOSTS:
            return text
        labels = text.split(".")
        last = labels[-1] if len(labels) > 1 and len(labels[-1]) <= 4 and labels[-1].isalpha() else ""
        hidden = labels[:-1] if last else labels
        return ".".join([*(self.token("host", label) for label in hidden), *([last] if last else [])])

    def _ipv4(self, text: str) -> str:
        octets = [int(octet) for octet in text.split(".")]
        kept = next((len(prefix) for prefix in KEPT if tuple(octets[:len(prefix)]) == prefix), 0)
        if octets[0] >= 224 or octets[0] in (0, 127):
            return text
        found = octets[:kept]
        for place in range(kept, 4):
            found.append(self._octets(tuple(octets[:place]), len(str(octets[place])), place)[octets[place]])
        return ".".join(map(str, found))

    def _shuffled(self, prefix: tuple[int, ...], digits: int, place: int) -> dict[int, int]:
        """Return what stands for each octet behind *prefix*: a permutation of those that are as long."""
        lowest, highest = ((0, 9), (10, 99), (100, 255))[digits - 1]
        octets = list(range(lowest, highest + 1))
        if place == 0:
            octets = [octet for octet in octets if octet not in NEVER_FIRST]
        groups = [octets]
        if place == 1 and prefix == (172,):
            groups = [[o for o in octets if 16 <= o <= 31], [o for o in octets if not 16 <= o <= 31]]
        if place == 1 and prefix == (100,):
            groups = [[o for o in octets if 64 <= o <= 127], [o for o in octets if not 64 <= o <= 127]]
        found = {octet: octet for octet in range(lowest, highest + 1)}
        for group in groups:
            moved = list(group)
            random.Random(self._digest("octet", repr(prefix))).shuffle(moved)
            found.update(zip(moved, moved[1:] + moved[:1], strict=True))       # none stays what it is
        return found

    def _ipv6(self, text: str) -> str:
        if text.lower().startswith(("fe80", "::1")) or text == "::":
            return text
        head, colon, rest = text.partition(":")
        keep = head if head.lower()[:2] in ("fc", "fd") or head == "2001" else self.token("hex", head)
        return keep + colon + _WORD.sub(lambda found: self.token("hex", found[0]), rest)

    def addresses(self, text: str) -> str:
        """Return *text* with other IPv4 addresses."""
        return _IPV4.sub(lambda found: self._ipv4(found[0]) if is_ipv4(found[0]) else found[0], text)

    # -- texts ----------------------------------------------------------------------------------------------

    def token(self, kind: str, text: str) -> str:
        """Return as many letters and digits as *text* has, each of the same sort; the rest stays."""
        stream = iter(self._digest(kind, text.lower()) * (len(text) // 32 + 1))
        return "".join(_of_the_same_sort(letter, next(stream), kind == "hex") for letter in text)

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.new(self._key, f"{kind}\0{text}".encode("latin-1", "replace"), hashlib.sha256).digest()

    def macs(self, text: str) -> str:
        """Return *text* with other hardware addresses."""
        return _MAC.sub(lambda found: _WORD.sub(lambda word: self.token("hex", word[0]), found[0]), text)

    def plain(self, text: str) -> str:
        """Return a sentence of a program's; what words it has that are not such sentences' are replaced."""
        return _WORD.sub(lambda found: found[0] if found[0].lower() in PLAIN_WORDS
                         else self.token("word", found[0]), text)

    def _words(self, text: str) -> str:
        return _WORD.sub(lambda found: self.token("word", found[0]), text)

    def uri(self, found: re.Match[str]) -> str:
        """Return a URI with another user and host; for :func:`re.sub`."""
        scheme, user, hostport = found.groups()
        if scheme.lower() == "tel":
            return f"{scheme}:{self.token('user', hostport)}"
        with_port = _WITH_PORT.fullmatch(hostport)
        name, port = (with_port[1], f":{with_port[2]}") if with_port else (hostport, "")
        shown = f"{self.token('user', user)}@" if user is not None else ""
        return f"{scheme}:{shown}{self.host(name)}{port}"

    # -- messages -------------------------------------------------------------------------------------------

    def payload(self, raw: bytes) -> bytes:
        """Return a SIP message of the same length with nobody's names in it."""
        text = raw.decode("latin-1")
        ends = [place for mark in ("\r\n\r\n", "\n\n") if (place := text.find(mark)) >= 0]
        at = min(ends, default=len(text))
        head, body = text[:at], text[at:]
        lines = re.split(r"(\r?\n(?![ \t]))", head)
        kind = next((line.partition(":")[2].strip().lower() for line in lines
                     if line.partition(":")[0].strip().lower() in ("content-type", "c")), "application/sdp")
        shown = self._start(lines[0]) + "".join(map(self._header, lines[1:]))
        return (shown + self._body(kind, body)).encode("latin-1")

    def _start(self, line: str) -> str:
        if line.startswith("SIP/"):
            return line[:11] + self.plain(line[11:])
        return self._parameters(_URI.sub(self.uri, line))

    def _header(self, line: str) -> str:
        name, colon, value = line.partition(":")
        if not colon or len(name.split()) > 1:          # what is no name, or many, may be somebody's
            return line if not line.strip() else self._words(line)
        return name + colon + self._value(name.strip().lower(), value)

    def _value(self, name: str, value: str) -> str:
        for names, treat in self._treatments():
            if name in names:
                return treat(value)
        return self._words(value)

    def _treatments(self) -> tuple[tuple[frozenset[str], Callable[[str], str]], ...]:
        return ((URI_HEADERS, self._uris), (NAMES, self.call_id),
                (CREDENTIALS, self._credentials), (HARMLESS, self._harmless),
                (SENTENCES, self._sentence))

    def _uris(self, value: str) -> str:
        shown = _URI.sub(self.uri, _QUOTED.sub(lambda found: f'"{self.token("name", found[1])}"', value))
        before, bracket, rest = shown.partition("<")
        if bracket and '"' not in before:
            before = self.token("name", before)
        return self._parameters(before + bracket + rest)

    def _credentials(self, value: str) -> str:
        scheme = re.match(r"\s*\S+\s+", value)
        start = scheme.end() if scheme and "=" not in scheme[0] else 0
        if start and "=" not in value:
            return value[:start] + self._words(value[start:])
        return value[:start] + _AUTH.sub(self._credential, value[start:])

    def _credential(self, found: re.Match[str]) -> str:
        name, quoted, plain = found.groups()
        text = quoted if quoted is not None else plain
        if name.lower() in OPEN_PARAMETERS:
            return found[0]
        if name.lower() == "uri":
            shown = _URI.sub(self.uri, text)
        elif name.lower() == "realm":
            shown = self.host(text)
        else:
            shown = self.token("user" if name.lower() == "username" else "secret", text)
        return found[0].replace(text, shown) if text else found[0]

    def _harmless(self, value: str) -> str:
        via = _VIA_HOST.match(value)
        if via is not None:
            return via[1] + self.host(via[2]) + self._parameters(value[via.end():])
        return self._parameters(_URI.sub(self.uri, value))

    def _sentence(self, value: str) -> str:
        shown = _QUOTED.sub(lambda found: f'"{self.plain(found[1])}"', _URI.sub(self.uri, value))
        shown = _DOMAIN.sub(lambda found: self.host(found[0]), self.macs(shown))
        return self.addresses(shown)

    def _parameters(self, value: str) -> str:
        """Replace what is not known to be harmless among the parameters and embedded headers of URIs."""
        shown = _EMBEDDED.sub(lambda found: found[1] + _ESCAPED_WORD.sub(
            lambda word: word[1] or self.token("word", word[0]), found[2]), value)
        return _PARAMETER.sub(self._parameter, _WEB.sub(
            lambda found: f"{found[1]}:{self._words(found[2])}", shown))

    def _parameter(self, found: re.Match[str]) -> str:
        before, name, equals, value = found.groups()
        if name.lower() in PLAIN_PARAMETERS:
            shown = self.addresses(value)
        elif name.lower() in ("received", "maddr"):
            shown = self.host(value)
        else:
            shown = self.addresses(value) if _IPV4.search(value) else self.token("name", value)
        return before + name + equals + shown

    def _body(self, kind: str, body: str) -> str:
        if kind.startswith("application/sdp"):
            return "".join(map(self._sdp, re.split(r"(\r?\n)", body)))
        if kind.startswith("multipart/"):
            return "".join(map(self._part, re.split(r"(\r?\n)", body)))
        return self._words(body)

    def _part(self, line: str) -> str:
        if line.startswith("--") or line.lower().startswith("content-"):
            return line
        return self._sdp(line) if line[1:2] == "=" else self._words(line)

    def _sdp(self, line: str) -> str:
        if line.startswith("o="):
            user, space, rest = line[2:].partition(" ")
            return "o=" + (user if user == "-" else self.token("user", user)) + space + self._hosts(rest)
        if line.startswith(("c=", "a=rtcp:", "a=candidate", "a=remote-candidates")):
            return self._hosts(line)
        if _SECRET_LINES.search(line):
            return line[:2] + self._words(line[2:])
        attribute = _ATTRIBUTE.fullmatch(line)
        if attribute is not None and attribute[1].lower() not in PLAIN_ATTRIBUTES:
            return f"a={attribute[1]}:{self._words(attribute[2])}"
        return self.addresses(line)

    def _hosts(self, text: str) -> str:
        """Redact the addresses and names of a line that has both among other words."""
        name, colon, value = text.partition(":") if text.startswith("a=") else ("", "", text)
        words = re.split(r"([ /=])", self.addresses(value))
        return name + colon + "".join(
            self.host(word) if ":" in word or ("." in word and not is_ipv4(word)) else word for word in words)


def _of_the_same_sort(letter: str, chance: int, is_hex: bool) -> str:
    if letter.isascii() and letter.isdigit():
        return str(chance % 10)
    if letter.isascii() and letter.isalpha():
        moved = chr(ord("a") + chance % (6 if is_hex else 26))
        return moved.upper() if letter.isupper() else moved
    return letter if letter.isascii() else "?"
