"""`natfix page`: a read-only status page, in a process of its own that only asks the daemon.

It needs no rights but to open the control socket. It listens on loopback or on a Unix socket; anywhere else
only with a password. Nothing that a browser sends reaches the daemon: the page asks by itself, every few
seconds, whoever looks.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import socket
import socketserver
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from natfix.control import request
from natfix.errors import Busy, ConfigError, NatfixError, NotPermitted
from natfix.expect import endpoint_from_setting
from natfix.metrics import CONTENT_TYPE, metrics_text
from natfix.page_view import Rates, Snapshot, no_snapshot, page, policy

ASK_EVERY = 2.0         # seconds
AT_ONCE = 16            # connections; more are closed
PATIENCE = 10.0         # seconds for one request
LONGEST_QUERY = 100     # characters that are searched for
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1"})
QUESTIONS = {"calls": "calls", "registrations": "registrations", "uas": "uas", "notes": "decisions"}


class Watcher:
    """Asks the daemon every few seconds, from a thread of its own."""

    def __init__(self, control_socket: str) -> None:
        self._path = control_socket
        self._lock = threading.Lock()
        self._rates = Rates()
        self._snapshot = no_snapshot("nobody was asked yet")
        self._ending = threading.Event()

    def look(self, now: float) -> None:
        """Ask for all that the page shows."""
        try:
            status = request(self._path, {"command": "status"})
            answers = {name: request(self._path, {"command": command})[name]
                       for command, name in QUESTIONS.items()}
            snapshot = Snapshot(status, **answers)
        except NatfixError as problem:
            snapshot = no_snapshot(str(problem))
        with self._lock:
            self._snapshot = snapshot
            self._rates.take(snapshot.calls, now)

    def html(self, query: str) -> str:
        """Return the page as of the last look."""
        with self._lock:
            return page(self._snapshot, self._rates, query)

    def metrics(self) -> str:
        """Return the metrics as of the last look."""
        with self._lock:
            return metrics_text(self._snapshot.status or None)

    def begin(self) -> None:
        """Look once, then again and again until :meth:`end`."""
        self.look(time.monotonic())
        threading.Thread(target=self._go_on, name="watcher", daemon=True).start()

    def end(self) -> None:
        self._ending.set()

    def _go_on(self) -> None:
        while not self._ending.wait(ASK_EVERY):
            self.look(time.monotonic())


class Handler(BaseHTTPRequestHandler):
    """One request: GET or HEAD of the page or of the metrics."""

    server: PageServer
    timeout = PATIENCE
    server_version = "natfix"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page, the metrics, or why not."""
        url = urlsplit(self.path)
        if not self.server.is_meant(self.headers.get("Host", "")):
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", "this is not the host that you mean\n")
        elif not self.server.may_see(self.headers.get("Authorization", "")):
            self._answer(HTTPStatus.UNAUTHORIZED, "text/plain", "a password is needed\n")
        elif url.path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8",
                         self.server.watcher.html(_search_text(url.query)))
        elif url.path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE, self.server.watcher.metrics())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", "there is / and /metrics\n")

    do_HEAD = do_GET        # noqa: N815

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        octets = text.encode("utf-8", "backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(octets)))
        self.send_header("Content-Security-Policy", policy())
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="natfix", charset="UTF-8"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(octets)

    def log_message(self, *_: Any) -> None:
        """Say nothing: what browsers send has no place in a firewall's log."""

    def address_string(self) -> str:
        return "client"         # a Unix socket's has none


class PageServer(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """Listens, and gives each connection a thread; AT_ONCE at most."""

    daemon_threads = True

    def __init__(self, where: str, watcher: Watcher, password: bytes = b"") -> None:
        """Listen at *where*: "address:port", or the path of a Unix socket.

        Raises ConfigError where others could look without a password, Busy or NotPermitted where it cannot
        be had.
        """
        self.watcher = watcher
        self._password = password
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._path = where if where.startswith("/") else ""
        self._is_loopback = not self._path and where.startswith("127.")
        if not (self._path or self._is_loopback or password):
            raise ConfigError(f"[page] listen: {where} can be reached by others: give [page] password_file, "
                              'too, or listen at "127.0.0.1:8060"')
        self.socket = _listen(where)
        super().__init__(where, Handler)

    def fileno(self) -> int:
        return self.socket.fileno()

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.socket.accept()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no error."""

    def shutdown_request(self, request: Any) -> None:
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
        request.close()

    def server_close(self) -> None:
        self.socket.close()
        if self._path:
            with suppress(OSError):
                os.unlink(self._path)

    def is_meant(self, host: str) -> bool:
        """Tell whether a browser means this page: on loopback, any site's name could lead here."""
        return not self._is_loopback or host.rpartition(":")[0] in LOOPBACK_NAMES or host in LOOPBACK_NAMES

    def may_see(self, authorization: str) -> bool:
        """Tell whether the password was given, where there is one (RFC 7617; any user name will do)."""
        if not self._password:
            return True
        scheme, _, token = authorization.partition(" ")
        try:
            given = base64.b64decode(token, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            given = b""
        return scheme.lower() == "basic" and hmac.compare_digest(given, self._password)


def _search_text(query: str) -> str:
    """Return what a URL's *query* asks to search for; "" for nonsense."""
    try:
        fields = parse_qs(query, max_num_fields=8)
    except ValueError:
        return ""
    return fields.get("q", [""])[0][:LONGEST_QUERY]


def password_from_file(path: str) -> bytes:
    """Return the first line of *path*; b"" without a path. Raises ConfigError or NotPermitted."""
    if not path:
        return b""
    try:
        password = Path(path).read_bytes().partition(b"\n")[0].strip()
    except PermissionError:
        raise NotPermitted(f"[page] password_file: {path} may not be read by this user") from None
    except OSError as problem:
        raise ConfigError(f"[page] password_file: {path}: {problem.strerror}") from None
    if len(password) < 8:
        raise ConfigError(f"[page] password_file: the first line of {path} has fewer than 8 characters")
    return password


def _listen(where: str) -> socket.socket:
    family = socket.AF_UNIX if where.startswith("/") else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family is socket.AF_UNIX:
            with suppress(FileNotFoundError):
                os.unlink(where)
            listener.bind(where)
            os.chmod(where, 0o660)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(endpoint_from_setting(where, 0)[:2])
        listener.listen(AT_ONCE)
    except PermissionError:
        listener.close()
        raise NotPermitted(f"[page] listen: this user may not listen at {where}") from None
    except OSError as problem:
        listener.close()
        raise Busy(f"[page] listen: {where}: {problem.strerror}") from None
    return listener


def serve(where: str, control_socket: str, password_file: str) -> None:
    """Show the page until Ctrl-C or SIGTERM; raises like :class:`PageServer`."""
    watcher = Watcher(control_socket)
    server = PageServer(where, watcher, password_from_file(password_file))
    watcher.begin()
    try:
        server.serve_forever(poll_interval=0.5)
    except KeyboardInterrupt:
        pass
    finally:
        watcher.end()
        server.server_close()
