"""What a scenario of the conformance suite meets at the other end: a server's words for a job, and things to reach."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import shlex
import socket
import socketserver
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import attrs

from tests.support import pattern
from tests.support.seeds import HOST

_PATTERN = f"{shlex.quote(sys.executable)} -I -S {shlex.quote(pattern.__file__)}"

_SHELL = {
    "cat": "cat",
    "true": "true",
    "echo": "echo {}",
    "exit": "exit {}",
    "signal": "echo before; kill -{} $$",
    "stderr": "echo out; echo {} >&2; exit 3",
    "produce": _PATTERN + " produce {}",
    "digest": _PATTERN + " digest",
    "both": _PATTERN + " digest >&2 & exec <&-; " + _PATTERN + " produce {}; wait",
    "numbers": "seq 1 {}",
    "late": "wc -c; " + _PATTERN + " produce {}",
    "early": "echo early; exec >&- 2>&-; n=$(wc -c); exit $((n % 200))",
    "deaf": "echo deaf; exit 4",
    "sleep": "sleep {}",
    "hang": "printf hanging; exec sleep 20",
    "flood": "exec cat /dev/zero",
    "pty": 'if tty >/dev/null; then echo "$TERM $(stty size)"; else echo none; fi',
}


@attrs.frozen
class Place:
    """A server, and what can be reached from it.

    Attributes:
        port: Where it listens.
        ours: It runs :class:`tests.support.faceserver.Commands`; else a shell.
        site: A web site.
        folder: For sockets.
        login: Further arguments of ``connect``.
        second: The port of another server of ours.
    """

    port: int
    ours: bool
    site: Site
    folder: Path
    login: dict[str, Any] = attrs.field(factory=dict)
    second: int = 0

    def say(self, job: str, *words: object) -> str:
        """The command for a job, see :class:`~tests.support.faceserver.Commands`."""
        text = " ".join(map(str, words))
        return f"{job} {text}".rstrip() if self.ours else _SHELL[job].replace("{}", text)

    def stall(self) -> tuple[str, Callable[[Any], Awaitable[object]]]:
        """A command that reads nothing at first and then does ``digest``; and what has a process of it begin."""
        if self.ours:
            return "stall", lambda process: process.send_signal("USR1")
        flag = Path(tempfile.mktemp())

        async def begin(process: Any) -> None:
            flag.touch()  # noqa: ASYNC240  it takes no time

        return f"until [ -e {flag} ]; do sleep 0.02; done; rm {flag}; {self.say('digest')}", begin

    def path(self) -> str:
        """A path for a new socket."""
        return tempfile.mktemp(dir=self.folder)


class _Pages(http.server.BaseHTTPRequestHandler):
    """``GET /SIZE`` gives that much of the pattern; ``POST`` gives the SHA-256 of what was posted."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.disable_nagle_algorithm = self.request.family == socket.AF_INET
        super().setup()

    def do_GET(self) -> None:
        size = int(self.path[1:])
        self._head(size)
        for piece in pattern.pieces(size):
            self.wfile.write(piece)

    def do_POST(self) -> None:
        hasher, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            data = self.rfile.read(min(left, pattern.PIECE))
            if not data:
                return
            hasher.update(data)
            left -= len(data)
        answer = hasher.hexdigest().encode()
        self._head(len(answer))
        self.wfile.write(answer)

    def _head(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def address_string(self) -> str:  # of a Unix socket there is none
        return "somebody"


class _Late(socketserver.BaseRequestHandler):
    """Reads to the end and answers then: how much it was. Half-close has to pass in both directions for that."""

    def handle(self) -> None:
        count = 0
        while data := self.request.recv(65536):
            count += len(data)
        self.request.sendall(f"{count} bytes".encode())


class _Quiet(socketserver.ThreadingMixIn):
    daemon_threads = True
    request_queue_size = 1024  # some tests make five hundred connections before any is accepted

    def handle_error(self, request: Any, address: Any) -> None:
        pass  # clients that go away are part of it


class _TcpServer(_Quiet, socketserver.TCPServer):
    allow_reuse_address = True


class _UnixServer(_Quiet, socketserver.UnixStreamServer):
    pass


@attrs.frozen
class Site:
    """Servers behind a forward, in threads of this process.

    Attributes:
        port, path: Of the web site, by TCP and by Unix-domain socket.
        late_port, late_path: Of what answers only when all has come.
        closed_port: Nobody listens there.
    """

    port: int
    path: str
    late_port: int
    late_path: str
    closed_port: int

    def target(self, kind: str) -> tuple[str, int] | str:
        """The web site by ``"tcp"`` or ``"unix"``."""
        return (HOST, self.port) if kind == "tcp" else self.path

    def late(self, kind: str) -> tuple[str, int] | str:
        return (HOST, self.late_port) if kind == "tcp" else self.late_path


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Site]:
    """What stands behind forwards."""
    late_path, path = str(folder / "late"), str(folder / "site")
    with contextlib.ExitStack() as stack:
        servers: list[Any] = [
            stack.enter_context(_TcpServer((HOST, 0), _Pages)),
            stack.enter_context(_UnixServer(path, _Pages)),
            stack.enter_context(_TcpServer((HOST, 0), _Late)),
            stack.enter_context(_UnixServer(late_path, _Late)),
        ]
        reserved = stack.enter_context(socket.socket())
        reserved.bind((HOST, 0))  # and does not listen
        for server in servers:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield Site(
            port=servers[0].server_address[1],
            path=path,
            late_port=servers[2].server_address[1],
            late_path=late_path,
            closed_port=reserved.getsockname()[1],
        )


# ----------------------------------------------------------------------------------------- blocking clients of forwards


def dial(address: tuple[str, int] | str) -> socket.socket:
    """A plain connection, with a time limit on everything."""
    if not isinstance(address, str):
        sock = socket.create_connection(address, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(10)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def socks4(proxy: tuple[str, int], host: str, port: int, *, name: bool = False) -> socket.socket:
    """A connection by SOCKS 4 (RFC-less, Ying-Da Lee), or 4a with a name."""
    address = b"\0\0\0\1" if name else socket.inet_aton(host)
    request = b"\4\1" + port.to_bytes(2, "big") + address + b"user\0" + (host.encode() + b"\0" if name else b"")
    sock = dial(proxy)
    try:
        sock.sendall(request)
        answer = exactly(sock, 8)
        if answer[:2] != b"\0\x5a":
            raise ConnectionRefusedError(answer[1])
    except BaseException:
        sock.close()
        raise
    return sock


def socks5(proxy: tuple[str, int], host: str, port: int, *, name: bool = False) -> socket.socket:
    """A connection by SOCKS 5 (RFC 1928)."""
    address = bytes((3, len(host))) + host.encode() if name else b"\1" + socket.inet_aton(host)
    sock = dial(proxy)
    try:
        sock.sendall(b"\5\1\0")
        if exactly(sock, 2) != b"\5\0":
            raise ConnectionRefusedError("no method")
        sock.sendall(b"\5\1\0" + address + port.to_bytes(2, "big"))
        answer = exactly(sock, 4)
        if answer[1] != 0:
            raise ConnectionRefusedError(answer[1])
        rest = {1: 4, 4: 16}.get(answer[3]) or exactly(sock, 1)[0]
        exactly(sock, rest + 2)
    except BaseException:
        sock.close()
        raise
    return sock


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("closed")
        data += piece
    return data


def browse(sock: socket.socket, size: int) -> None:
    """Two requests of ``size`` bytes to the web site at the other end of ``sock``: one down, one up."""
    page = HTTPConnection("site")
    page.sock = sock
    with contextlib.closing(page):
        page.request("GET", f"/{size}")
        answer = page.getresponse()
        hasher, count = hashlib.sha256(), 0
        while data := answer.read(pattern.PIECE):
            hasher.update(data)
            count += len(data)
        assert (answer.status, count, hasher.hexdigest()) == (200, size, pattern.digest(size))
        page.request("POST", "/", body=iter(pattern.pieces(size)), headers={"Content-Length": str(size)})
        assert page.getresponse().read().decode() == pattern.digest(size)


def half_close(sock: socket.socket, size: int, before: int = 0) -> None:
    """Send, say that it is the end, and get the answer that comes only then: how much that was, and ``before``."""
    with sock:
        for piece in pattern.pieces(size):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(100):
            answer += data
        assert answer == f"{before + size} bytes".encode()
