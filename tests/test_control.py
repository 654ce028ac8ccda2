"""The control socket: requests, answers, and everything that can go wrong between two processes."""

from __future__ import annotations

import json
import os
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from natfix.control import MAX_REQUEST, ControlServer, request, stop
from natfix.errors import Busy, ConfigError, NatfixError, NotRunning


class Served:
    """A control server whose selector is turned by a thread of the test."""

    def __init__(self, path: str) -> None:
        self.selector = selectors.DefaultSelector()
        self.ending = threading.Event()
        handlers = {"ping": self.ping, "broken": self.broken, "refused": self.refused, "big": self.big,
                    "stop": self.stop}
        self.server = ControlServer(path, handlers, self.selector)
        self.thread = threading.Thread(target=self.turn)
        self.thread.start()

    def ping(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"pid": 7}

    def stop(self, _request: dict[str, Any]) -> dict[str, Any]:
        self.ending.set()
        return {"pid": 7}

    def broken(self, _request: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("no such thing")

    def refused(self, _request: dict[str, Any]) -> dict[str, Any]:
        raise NatfixError("the port pool is empty")

    def big(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"filler": "x" * asked["size"]}

    def turn(self) -> None:
        while not self.ending.is_set():
            for key, events in self.selector.select(0.02):
                key.data(events)
        self.server.close()

    def close(self) -> None:
        self.ending.set()
        self.thread.join(5)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "control.sock")


@pytest.fixture
def served(path: str) -> Iterator[Served]:
    server = Served(path)
    yield server
    server.close()


def test_answer_carries_schema_version(served: Served, path: str) -> None:
    """A request is answered with the handler's result and the schema version."""
    assert request(path, {"command": "ping"}) == {"schema_version": 1, "pid": 7}


def test_big_answer_arrives_whole(served: Served, path: str) -> None:
    """An answer larger than any socket buffer is sent in pieces without blocking the loop."""
    assert len(request(path, {"command": "big", "size": 3_000_000})["filler"]) == 3_000_000


def test_handler_errors_become_sentences(served: Served, path: str) -> None:
    """A refusal arrives as its sentence; a bug in a listing is reported and the server goes on."""
    with pytest.raises(NatfixError, match="port pool is empty"):
        request(path, {"command": "refused"})
    with pytest.raises(NatfixError, match="internal error in broken"):
        request(path, {"command": "broken"})
    assert request(path, {"command": "ping"})["pid"] == 7


def test_unknown_command_lists_the_known(served: Served, path: str) -> None:
    """A command that does not exist is answered with those that do."""
    with pytest.raises(NatfixError, match="broken, ping, refused"):
        request(path, {"command": "explode"})


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"{}\n", b"nonsense\n", b"\xff\xfe\n", b'{"command": 5}\n',
                                  b"[" * 60000 + b"\n"])
def test_nonsense_is_answered_with_an_error(served: Served, path: str, line: bytes) -> None:
    """Whatever a line holds, the answer is one JSON object with an error."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(line)
        assert "error" in json.loads(client.makefile().readline())


def test_endless_line_ends_the_connection(served: Served, path: str) -> None:
    """A client that never ends its line is let go once it has sent more than a request can be."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(path)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            client.sendall(b"x" * MAX_REQUEST * 100)
    assert request(path, {"command": "ping"})["pid"] == 7


def test_several_requests_on_one_connection(served: Served, path: str) -> None:
    """A monitor may keep its connection and ask again, also with two lines in one piece."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        answers = client.makefile()
        client.sendall(b'{"command": "ping"}\n{"command": "ping"}\n')
        assert json.loads(answers.readline())["pid"] == json.loads(answers.readline())["pid"] == 7


def test_nobody_there_is_not_running(path: str) -> None:
    """Without a daemon the client raises NotRunning (exit 3) and names the socket."""
    with pytest.raises(NotRunning, match=path) as caught:
        request(path, {"command": "ping"})
    assert caught.value.exit_code == 3


def test_second_daemon_is_refused(served: Served, path: str) -> None:
    """A socket at which somebody answers is not taken over (exit 75)."""
    with pytest.raises(Busy) as caught:
        ControlServer(path, {}, selectors.DefaultSelector())
    assert caught.value.exit_code == 75
    assert request(path, {"command": "ping"})["pid"] == 7


def test_socket_of_a_killed_daemon_is_replaced(path: str) -> None:
    """What a killed daemon left behind does not keep the next one from starting."""
    os.makedirs(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    served = Served(path)
    try:
        assert request(path, {"command": "ping"})["pid"] == 7
        assert os.stat(path).st_mode & 0o777 == 0o660
    finally:
        served.close()
    assert not os.path.exists(path)


def test_ordinary_file_is_not_overwritten(tmp_path: Path) -> None:
    """A path that is somebody's file is a configuration error, and the file stays."""
    file = tmp_path / "notes.txt"
    file.write_text("keep")
    with pytest.raises(ConfigError):
        ControlServer(str(file), {}, selectors.DefaultSelector())
    assert file.read_text() == "keep"


def test_overlong_path_is_a_configuration_error(tmp_path: Path) -> None:
    """The kernel's limit on socket paths shows up as a sentence, not a traceback."""
    with pytest.raises(ConfigError, match="control socket"):
        ControlServer(str(tmp_path / ("x" * 120)), {}, selectors.DefaultSelector())


def test_stop_returns_when_the_daemon_has_let_go(path: str) -> None:
    """stop() comes back only after the daemon has removed its socket."""
    served = Served(path)
    assert stop(path)["pid"] == 7
    served.thread.join(5)
    assert not os.path.exists(path)
