"""The daemon's control socket: one JSON object a line, one line back, over a Unix socket.

A request is ``{"command": "calls"}`` with what else the command takes beside it. The answer is the
result as one object, which always has ``schema_version``, or ``{"error": "one sentence"}``, with
the ``exit_code`` for it. The server half never blocks, since it lives in the loop that holds people's SIP
packets; the client half is what ``natfix status`` and its sisters use. Whoever may open the socket may do
everything: it is made for root and its group only.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from natfix.errors import Busy, ConfigError, NatfixError, NotPermitted, NotRunning
from natfix.message_ids import kind

SCHEMA_VERSION = 1
MAX_REQUEST = 65536         # bytes of one line; a request is a word and a few options
MAX_CLIENTS = 16            # connections held at once; a monitor needs one
READ_SIZE = 65536           # bytes
LOOK_UP = 0.2               # seconds without anything, after which a follower looks at his watch
MAX_UNSENT = 1 << 18        # bytes pushed to a client that does not read; what comes then is lost for it

Handler = Callable[[dict[str, Any]], dict[str, Any]]
# Takes the request and what pushes a document (not before it has returned); returns what is to be called when
# the client has gone.
Streamer = Callable[[dict[str, Any], Callable[[Mapping[str, Any]], bool]], Callable[[], None]]

log = logging.getLogger("natfix")


class ControlServer:
    """The listening half, driven by the loop's selector.

    Every registered file object carries the function to call with the events that are ready.
    """

    def __init__(
        self, path: str, handlers: Mapping[str, Handler], selector: selectors.BaseSelector,
        streamers: Mapping[str, Streamer] | None = None,
    ) -> None:
        """Listen at *path*; *streamers* go on answering until their client goes. Raises Busy where another
        daemon answers there, ConfigError or NotPermitted where no socket can be made."""
        self._streamers = streamers if streamers is not None else {}
        self._path = path
        self._handlers = handlers
        self._selector = selector
        self._clients: set[_Client] = set()
        self._listener = _listen(path)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return      # the client has gone again
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        self._clients.add(_Client(connection, self._answer, self._selector, self._clients))

    def _answer(self, line: bytes, client: _Client) -> dict[str, Any]:
        try:
            request = json.loads(line)
            command = request["command"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"error": 'a request is one JSON object on one line, with a "command"'}
        handler = self._handlers.get(command) if isinstance(command, str) else None
        if isinstance(command, str) and command in self._streamers:
            handler = partial(client.follow, self._streamers[command])
        if handler is None:
            known = ", ".join(sorted({*self._handlers, *self._streamers}))
            return {"error": f"unknown command {command!r}; there are {known}"}
        try:
            return {"schema_version": SCHEMA_VERSION, **handler(request)}
        except NatfixError as problem:
            return {"error": str(problem), "exit_code": problem.exit_code}
        except Exception as problem:    # a broken listing must not end the daemon
            log.exception("control: %s failed", command, extra=kind("request-failed"))
            return {"error": f"internal error in {command}: {problem!r}; the log has the details"}

    def close(self) -> None:
        """Stop listening, remove the socket from the file system, then let the clients go."""
        self._selector.unregister(self._listener)
        self._listener.close()
        _unlink(self._path)
        for client in tuple(self._clients):
            client.close()


class _Client:
    """One connection: lines in, lines out, neither waited for."""

    def __init__(
        self, connection: socket.socket, answer: Callable[[bytes, _Client], dict[str, Any]],
        selector: selectors.BaseSelector, clients: set[_Client],
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._answer = answer
        self._selector = selector
        self._clients = clients
        self._received = bytearray()
        self._unsent = bytearray()
        self._followed: list[Callable[[], None]] = []   # what ends each stream that it gets
        selector.register(connection, selectors.EVENT_READ, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and not self._read():
                self.close()
                return
            self._write()
        except OSError:
            self.close()

    def _read(self) -> bool:
        """Take what has arrived and answer each whole line; False ends the connection."""
        piece = self._connection.recv(READ_SIZE)
        if not piece:
            return False
        self._received += piece
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        for line in lines:
            self._unsent += json.dumps(self._answer(bytes(line), self)).encode() + b"\n"
        return len(rest) <= MAX_REQUEST

    def _write(self) -> None:
        if self._unsent:
            with suppress(BlockingIOError):
                del self._unsent[:self._connection.send(self._unsent)]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._selector.modify(self._connection, wanted, self._ready)

    def follow(self, streamer: Streamer, request: dict[str, Any]) -> dict[str, Any]:
        """Have *streamer* push documents to this client from now on; a second time ends the first."""
        self._end_streams()
        self._followed.append(streamer(request, self._push))
        return {"following": True}

    def _push(self, document: Mapping[str, Any]) -> bool:
        """Send one document more; False where the client has too much unread."""
        if len(self._unsent) > MAX_UNSENT:
            return False
        was_empty = not self._unsent
        self._unsent += json.dumps(document).encode() + b"\n"
        if was_empty:
            self._selector.modify(self._connection, selectors.EVENT_READ | selectors.EVENT_WRITE, self._ready)
        return True

    def _end_streams(self) -> None:
        for end in self._followed:
            end()
        self._followed.clear()

    def close(self) -> None:
        self._end_streams()
        self._clients.discard(self)
        self._selector.unregister(self._connection)
        self._connection.close()


def request(socket_path: str, request: dict[str, Any], timeout: float = 10.0) -> dict[str, Any]:
    """Send one request to the daemon at *socket_path* and return its answer.

    Raises NotRunning where nobody listens, NotPermitted where the socket may not be opened, and
    NatfixError with the daemon's own sentence where it refuses, or where *timeout* seconds pass.
    """
    with _connect(socket_path, timeout) as connection:
        return _ask(connection, socket_path, request)


def follow(
    socket_path: str, request: dict[str, Any], look_up: Callable[[], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield what the daemon pushes in answer to *request*, until it ends; raises like :func:`request`.

    *look_up* is called every now and then, five times a second where nothing comes; what it raises ends this.
    """
    with _connect(socket_path, 10.0) as connection:
        rest = bytearray()
        _ask(connection, socket_path, request, rest)
        connection.settimeout(LOOK_UP if look_up is not None else None)
        while True:
            *lines, rest = rest.split(b"\n")
            yield from map(json.loads, lines)
            if look_up is not None:
                look_up()
            try:
                piece = connection.recv(READ_SIZE)
            except TimeoutError:
                continue
            except ConnectionError:
                return      # that is an end, too
            if not piece:
                return
            rest += piece


def stop(socket_path: str, timeout: float = 10.0, for_good: bool = False) -> dict[str, Any]:
    """Ask the daemon to end, and return its answer once it has let go of queue, files and socket.

    The rule set and all mappings stay; *for_good*, where they will be removed, it ends the TCP connections
    first that cannot go on without it. Raises like :func:`request`.
    """
    with _connect(socket_path, timeout) as connection:
        answer = _ask(connection, socket_path, {"command": "stop", "for_good": for_good})
        try:
            connection.recv(1)      # the daemon closes its connections last of all
        except TimeoutError:
            raise NatfixError(f"natfix (process {answer.get('pid')}) does not end") from None
        except ConnectionError:
            pass                    # that is an end, too
        return answer


def _connect(path: str, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except PermissionError:
        connection.close()
        raise NotPermitted(
            f"no right to open {path}: run this as root, or as a member of group natfix") from None
    except OSError as problem:
        connection.close()
        raise NotRunning(
            f"natfix is not running: nobody answers at {path} ({problem.strerror or problem})"
        ) from None
    return connection


def _ask(
    connection: socket.socket, path: str, request: dict[str, Any], rest: bytearray | None = None,
) -> dict[str, Any]:
    """Ask, and return the answer; what has come behind it is added to *rest*."""
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        line, _, behind = _read_line(connection).partition(b"\n")
        answer = json.loads(line)
    except TimeoutError:
        raise NatfixError(f"natfix does not answer at {path}") from None
    except (OSError, ValueError):
        raise NotRunning(f"natfix ended while it was asked at {path}") from None
    if "error" in answer:
        refusal = NatfixError(answer["error"])
        refusal.exit_code = answer.get("exit_code", NatfixError.exit_code)
        raise refusal
    if rest is not None:
        rest += behind
    return dict(answer)


def _read_line(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(READ_SIZE):
        pieces.append(piece)
        if b"\n" in piece:
            break
    return b"".join(pieces)


def _listen(path: str) -> socket.socket:
    _refuse_second_daemon(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        _unlink(path)
        listener.bind(path)
        os.chmod(path, 0o660)
        listener.listen(MAX_CLIENTS)
    except PermissionError as problem:
        listener.close()
        raise NotPermitted(f"no right to make the control socket {path} ({problem.strerror})") from None
    except OSError as problem:
        listener.close()
        raise ConfigError(f"cannot make the control socket {path} ({problem.strerror or problem})") from None
    listener.setblocking(False)
    return listener


def _refuse_second_daemon(path: str) -> None:
    """Raise Busy where somebody listens at *path*; a socket left by a killed daemon is no hindrance."""
    try:
        _connect(path, timeout=2.0).close()
    except NotRunning:
        return
    raise Busy(f"another natfix is running: it answers at {path} (`natfix down` ends it)")


def _unlink(path: str) -> None:
    """Remove a socket; anything else that has the name is somebody's file and stays."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
