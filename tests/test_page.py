"""The status page: who may look, what is answered; the server as browsers and others meet it."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from natfix.errors import Busy, ConfigError, NotPermitted
from natfix.page import AT_ONCE, PageServer, Watcher, password_from_file
from tests.test_page_view import snapshot


class Still(Watcher):
    """A watcher that has looked once, at something made up."""

    def __init__(self) -> None:
        super().__init__("/nowhere")
        self._snapshot = snapshot()


@pytest.fixture
def serve() -> Iterator[Any]:
    """Return a function that starts a server and returns it with its port."""
    servers: list[PageServer] = []

    def start(where: str = "127.0.0.1:0", password: bytes = b"") -> tuple[PageServer, int]:
        server = PageServer(where, Still(), password)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        name = server.socket.getsockname()
        return server, 0 if isinstance(name, str) else name[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def get(port: int, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Ask; return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_the_page_and_the_metrics(serve: Any) -> None:
    """Both are there, never stored, with a policy that allows nothing from elsewhere."""
    _, port = serve()
    status, headers, body = get(port)
    assert status == 200
    assert "sip:alice@example.com" in body
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert headers["Cache-Control"] == "no-store"
    status, headers, body = get(port, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "natfix_calls 1" in body


def test_it_is_read_only(serve: Any) -> None:
    """Other methods are refused, other paths are not there, HEAD has no body."""
    _, port = serve()
    assert get(port, method="POST")[0] == 501
    assert get(port, method="DELETE")[0] == 501
    assert get(port, "/calls")[0] == 404
    assert get(port, method="HEAD")[::2] == (200, "")


def test_the_search_is_bounded(serve: Any) -> None:
    """Only rows with the text are shown; too long a text, or too many fields, harm nothing."""
    _, port = serve()
    assert "sip:alice@example.com" not in get(port, "/?q=nobody")[2]
    assert "sip:alice@example.com" in get(port, "/?q=ALICE")[2]
    assert get(port, "/?q=" + "x" * 5000)[0] == 200
    assert get(port, "/?" + "&".join(f"a{n}=1" for n in range(50)))[0] == 200


def test_another_sites_name_for_loopback_is_refused(serve: Any) -> None:
    """A page elsewhere could have its own name lead to 127.0.0.1: the Host header tells (DNS rebinding)."""
    _, port = serve()
    assert get(port, Host="evil.example")[0] == 421
    assert get(port, Host=f"localhost:{port}")[0] == 200


def test_a_password_is_asked_for(serve: Any) -> None:
    """Without it, or with a wrong one, nothing is shown; any user name will do."""
    _, port = serve(password=b"correct horse")

    def told(token: str) -> int:
        return get(port, Authorization=token)[0]

    right = base64.b64encode(b"me:correct horse").decode()
    assert get(port)[0] == 401
    assert "WWW-Authenticate" in get(port)[1]
    assert told(f"Basic {right}") == 200
    for wrong in (base64.b64encode(b"me:correct").decode(), "!!!", ""):
        assert told(f"Basic {wrong}") == 401
    assert told(f"Bearer {right}") == 401
    assert get(port, "/metrics")[0] == 401


def test_elsewhere_than_on_loopback_only_with_a_password() -> None:
    """What others can reach is not shown to everybody: one sentence with the cure."""
    with pytest.raises(ConfigError, match="password_file"):
        PageServer("0.0.0.0:0", Still())
    PageServer("0.0.0.0:0", Still(), b"correct horse").server_close()


def test_a_unix_socket(serve: Any, tmp_path: Path) -> None:
    """It is for root and the group; its file goes with the server."""
    path = tmp_path / "page.sock"
    server, _ = serve(str(path))
    assert path.stat().st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert client.makefile("rb").readline().startswith(b"HTTP/1.1 200")
    server.server_close()
    assert not path.exists()


def test_a_port_that_is_taken() -> None:
    """It is said which one, and nothing is left open."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        where = f"127.0.0.1:{holder.getsockname()[1]}"
        with pytest.raises(Busy, match=where):
            PageServer(where, Still())


def test_those_who_say_nothing_keep_nobody_out(serve: Any) -> None:
    """With all threads taken by silent clients, further ones are closed, and it goes on after them."""
    _, port = serve()
    silent = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(AT_ONCE)]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as late:
        late.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with suppress(ConnectionResetError):
            assert late.recv(100) == b""
    for client in silent:
        client.close()
    for _ in range(50):
        try:
            assert get(port)[0] == 200
            break
        except (http.client.HTTPException, ConnectionError):
            continue
    else:
        pytest.fail("it did not go on")


def test_passwords_come_from_a_file(tmp_path: Path) -> None:
    """Its first line; a file that is not there, or too short a password, is refused."""
    file = tmp_path / "password"
    file.write_text("correct horse\nsecond line\n")
    assert password_from_file(str(file)) == b"correct horse"
    assert password_from_file("") == b""
    file.write_text("short\n")
    with pytest.raises(ConfigError, match="fewer than 8"):
        password_from_file(str(file))
    with pytest.raises((ConfigError, NotPermitted), match="No such file"):
        password_from_file(str(tmp_path / "none"))


def test_a_daemon_that_does_not_run_is_said(tmp_path: Path) -> None:
    """The page stays, and says why there is nothing; the metrics say that it is down."""
    watcher = Watcher(str(tmp_path / "none.sock"))
    watcher.look(0.0)
    assert 'role="alert"' in watcher.html("")
    assert watcher.metrics().endswith("natfix_up 0\n")


def test_the_daemons_answers_are_asked_for(tmp_path: Path) -> None:
    """A daemon's five answers over its socket become the page."""
    path = tmp_path / "control.sock"
    made = snapshot()
    answers: dict[str, Any] = {
        "status": made.status, "calls": {"calls": made.calls}, "uas": {"uas": made.uas},
        "registrations": {"registrations": made.registrations}, "notes": {"decisions": made.decisions}}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            for _ in answers:
                client, _ = listener.accept()
                with client:
                    command = json.loads(client.makefile("rb").readline())["command"]
                    client.sendall(json.dumps(answers[command]).encode() + b"\n")

        thread = threading.Thread(target=answer)
        thread.start()
        watcher = Watcher(str(path))
        watcher.look(0.0)
        thread.join(5)
    assert "sip:alice@example.com" in watcher.html("")
