"""The proxy of the chaos suite: what a client sees in those modes that need no timing."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.processes import wait_until
from tests.support.proxy import Mode, Proxy


@pytest.fixture
def heard() -> Iterator[tuple[int, list[bytes]]]:
    """A server that notes what it hears and answers each piece; its port, and what it heard."""
    pieces: list[bytes] = []

    def serve(client: socket.socket) -> None:
        with client, suppress(ConnectionResetError):
            client.sendall(b"welcome")
            while piece := client.recv(1000):
                pieces.append(piece)
                client.sendall(b"answer")

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], pieces
        server.shutdown(socket.SHUT_RDWR)


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def test_nobody_listens_while_it_refuses_and_the_port_stays_its_own(heard: tuple[int, list[bytes]]) -> None:
    with Proxy(heard[0]) as proxy:
        with connect(proxy) as client:
            assert client.recv(7, socket.MSG_WAITALL) == b"welcome"
            proxy.set_mode("refuse")
            assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind(("127.0.0.1", proxy.port))
        proxy.set_mode("pass")
        with connect(proxy) as client:
            assert client.recv(7, socket.MSG_WAITALL) == b"welcome"


def test_connections_are_closed_in_order_old_and_new(heard: tuple[int, list[bytes]]) -> None:
    with Proxy(heard[0]) as proxy, connect(proxy) as old:
        assert old.recv(7, socket.MSG_WAITALL) == b"welcome"
        proxy.set_mode("close")
        assert old.recv(1) == b""
        with connect(proxy) as new:
            assert new.recv(1) == b""


@pytest.mark.parametrize(
    ("mode", "requests", "answers"), [("answers_only", [], b"welcome"), ("half_open", [b"?"], b"")]
)
def test_one_way_is_thrown_away_and_such_a_connection_ends_with_the_mode(
    heard: tuple[int, list[bytes]], mode: Mode, requests: list[bytes], answers: bytes
) -> None:
    with Proxy(heard[0]) as proxy:
        proxy.set_mode(mode)
        with connect(proxy) as client:
            client.sendall(b"?")
            assert client.recv(len(answers), socket.MSG_WAITALL) == answers
            wait_until(lambda: proxy._with_gap and heard[1] == requests, "something was thrown away")
            proxy.set_mode("pass")
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""
    assert heard[1] == requests
