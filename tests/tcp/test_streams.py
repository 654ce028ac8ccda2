"""SIP over TCP through a running natfix: silence, crash, what began before it, and what is no SIP."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import namespaces
from tests.lab.lab import Lab
from tests.tcp.lines import (
    OWN,
    REQUEST_IN,
    REQUEST_OUT,
    RESPONSE_IN,
    Line,
    connect,
    listener,
    message,
    receive,
    wait_for,
)

pytestmark = pytest.mark.lab
SHORT = {f"net/netfilter/nf_conntrack_tcp_{name}": "2" for name in (
    "timeout_established", "timeout_unacknowledged", "timeout_max_retrans")}


def passes_out(line: Line, number: int, fixed: bool = True) -> bool:
    """Tell whether a request arrives at the proxy as natfix has to make it, or as it was sent."""
    expected = message(REQUEST_OUT, number, b"hello").replace(OWN, line.outside if fixed else line.inside)
    line.near.sendall(message(REQUEST_OUT, number, b"hello").replace(OWN, line.inside))
    return receive(line.far, len(expected)) == expected


def passes_in(line: Line, number: int, pattern: str = REQUEST_IN) -> bool:
    """Tell whether a message of the proxy's arrives at the phone as natfix has to make it."""
    expected = message(pattern, number, b"hello").replace(OWN, line.inside)
    line.far.sendall(message(pattern, number, b"hello").replace(OWN, line.outside))
    return receive(line.near, len(expected)) == expected


def test_a_call_after_a_long_silence(lab: Lab) -> None:
    """Conntrack's own patience (here two seconds) does not count: five seconds later a request comes in."""
    namespaces.write_sysctls(lab.gateway.namespace, SHORT)
    lab.start_natfix()
    with listener(lab) as waiting:
        line = connect(lab, waiting)
        assert passes_out(line, 1)
        assert passes_in(line, 1, RESPONSE_IN)
        threading.Event().wait(5)
        assert passes_in(line, 2)
        assert passes_out(line, 2)
        line.close()


def test_a_crash_resets_what_was_moved(lab: Lab) -> None:
    """After SIGKILL and a new start both ends learn that the connection is gone, though neither has spoken;
    the phone connects anew and can be called."""
    natfix = lab.start_natfix()
    with listener(lab) as waiting:
        line = connect(lab, waiting)
        assert passes_out(line, 1)
        assert passes_in(line, 1, RESPONSE_IN)
        wait_for(lambda: natfix.state_file.exists(), 5, "the state file")
        threading.Event().wait(0.5)
        natfix.kill()
        natfix.start()
        for end in (line.near, line.far):
            end.settimeout(5)
            with pytest.raises(ConnectionResetError):
                end.recv(100)
        line.close()
        line = connect(lab, waiting)
        assert passes_out(line, 2)
        assert passes_in(line, 2)
        line.close()


def test_going_ends_what_was_moved(lab: Lab) -> None:
    """`natfix down` resets the connections whose numbers it has moved, rather than have both ends wait for
    what cannot come; what is no SIP goes on. The next connection is nobody's but the kernel's."""
    natfix = lab.start_natfix()
    with listener(lab) as waiting:
        line, web = connect(lab, waiting), connect(lab, waiting)
        assert passes_out(line, 1)
        web.near.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert receive(web.far, 18) == b"GET / HTTP/1.1\r\n\r\n"
        natfix.down()
        for end in (line.near, line.far):
            end.settimeout(5)
            with pytest.raises(ConnectionResetError):
                end.recv(100)
        web.far.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        assert receive(web.near, 19) == b"HTTP/1.1 200 OK\r\n\r\n"
        line = connect(lab, waiting)
        assert passes_out(line, 2, fixed=False)
        line.close()
        web.close()


def test_what_began_before_is_not_touched(lab: Lab) -> None:
    """The connection's octets pass as they come, also through a natfix that starts in the middle of it."""
    with listener(lab) as waiting:
        line = connect(lab, waiting)
        assert passes_out(line, 1, fixed=False)
        natfix = lab.start_natfix()
        assert passes_out(line, 2, fixed=False)
        assert "mark=0 " in lab.gateway.run(["conntrack", "-L", "-p", "tcp"]).stdout
        assert natfix.json("status")["counters"].get("packets", 0) == 0
        line.close()


def test_a_restart_lets_untouched_connections_be(lab: Lab) -> None:
    """What is no SIP goes on through a restart: only connections whose numbers were moved are reset."""
    natfix = lab.start_natfix()
    with listener(lab) as waiting:
        line = connect(lab, waiting)
        line.near.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert receive(line.far, 18) == b"GET / HTTP/1.1\r\n\r\n"
        natfix.kill()
        natfix.start()
        line.far.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        assert receive(line.near, 19) == b"HTTP/1.1 200 OK\r\n\r\n"
        line.close()


def test_tls_passes(lab: Lab, tmp_path: Path) -> None:
    """TLS on SIP's own port works from end to end, and status says that it was seen."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    lab["provider"].run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=proxy",
                         "-keyout", key, "-out", certificate])
    natfix = lab.start_natfix()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=certificate)
    with listener(lab) as waiting:
        line = connect(lab, waiting)
        result: list[bytes] = []

        def answer() -> None:
            with server.wrap_socket(line.far, server_side=True) as far:
                result.append(far.recv(1000))
                far.sendall(b"SIP/2.0 200 OK\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with client.wrap_socket(line.near, server_hostname="proxy") as near:
            near.sendall(b"REGISTER sip:proxy SIP/2.0\r\n\r\n")
            assert near.recv(1000) == b"SIP/2.0 200 OK\r\n\r\n"
        thread.join()
    assert result == [b"REGISTER sip:proxy SIP/2.0\r\n\r\n"]
    assert "none seen" not in natfix.run("status")


def test_a_full_table_leaves_connections_alone(make_lab: Callable[..., Lab]) -> None:
    """A connection beyond [limits] streams, where none is silent, passes unfixed, by the kernel alone."""
    lab = make_lab()
    natfix = lab.start_natfix("[limits]\nstreams = 1\n")
    with listener(lab) as waiting:
        first = connect(lab, waiting)
        assert passes_out(first, 1)
        second = connect(lab, waiting)
        assert passes_out(second, 1, fixed=False)
        packets = natfix.json("status")["counters"]["packets"]
        assert passes_out(second, 2, fixed=False)
        assert natfix.json("status")["counters"]["packets"] == packets
        first.close()
        second.close()
