"""Other people's SSH, on loopback, for tests that must not only agree with themselves.

Servers are context managers that give a :class:`Server`; clients are functions that run one command and give a
:class:`Ran`.  Nothing here knows sshproto: a server of ours is described by a :class:`Server` as well.

Rules: ports are free ones, never 22; keys, homes and logs live in directories of their own; no file of the user who
runs the tests is read or written; every wait has an end; every process that was started is ended.  A peer that the
machine lacks skips the test with its name and how to install it, and fails it under ``SSHPROTO_REQUIRE_PEERS=1``.

``SSHPROTO_TEST_USER`` and ``SSHPROTO_TEST_PASSWORD`` name a system user for tests of passwords; ``.ci/run`` makes one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import itertools
import os
import pwd
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import attrs
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.support import processes

HOST = "127.0.0.1"
SECONDS = 30.0
"""The longest wait for anything: a server to listen, a client to end."""

PACKAGES = {
    "ssh": "openssh-client",
    "sftp": "openssh-client",
    "scp": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ssh-agent": "openssh-client",
    "ssh-add": "openssh-client",
    "sshd": "openssh-server",
    "dropbear": "dropbear-bin",
    "dbclient": "dropbear-bin",
    "dropbearconvert": "dropbear-bin",
    "plink": "putty-tools",
    "psftp": "putty-tools",
    "puttygen": "putty-tools",
    "curl": "curl",
    "git": "git",
    "rsync": "rsync",
    "parallel-ssh": "pssh",
    "tmux": "tmux",
    "top": "procps",
    "vi": "vim-tiny",
    "tcpdump": "tcpdump",
    "tshark": "tshark",
    "chromium": "chromium",
    "Xvfb": "xvfb",
    "xauth": "xauth",
    "xclock": "x11-apps",
    "xwininfo": "x11-utils",
    "xdpyinfo": "x11-utils",
}
"""Which Debian package has which program."""


# -------------------------------------------------------------------------------------------------------- what is there


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it where every peer is required."""
    if os.environ.get("SSHPROTO_REQUIRE_PEERS") == "1":
        pytest.fail(f"{reason} (SSHPROTO_REQUIRE_PEERS=1)", pytrace=False)
    pytest.skip(reason)


def need(program: str) -> str:
    """The full path of ``program``, also from the directories that only root has in its PATH."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        unavailable(f"{program} is not installed: apt-get install {PACKAGES[program]}")
    return path


def need_module(name: str, extra: str = "interop") -> ModuleType:
    """The module ``name``; its deprecation warnings at import are not ours to see."""
    if importlib.util.find_spec(name) is None:
        unavailable(f"{name} is not installed: pip install '.[{extra}]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        unavailable(f"{what} needs to run as root")


def current_user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def system_user() -> tuple[str, str]:
    """Name and password of the system user for password tests."""
    need_root("a login with a system password")
    user, password = os.environ.get("SSHPROTO_TEST_USER"), os.environ.get("SSHPROTO_TEST_PASSWORD")
    if not user or not password:
        unavailable("no system user for password tests: .ci/run makes one and sets SSHPROTO_TEST_USER, ..._PASSWORD")
    return user, password


# --------------------------------------------------------------------------------------------------------------- values


@attrs.frozen
class Key:
    """A private key in a file of the OpenSSH format.

    Attributes:
        path: The file, mode 600; beside it ``path.pub``.
        public: The one-line form, without comment.
    """

    path: Path
    public: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)


@attrs.frozen(kw_only=True)
class Server:
    """A server that listens on loopback.

    Attributes:
        port: Where.
        user: Whom to log in as.
        host_keys: Its public keys, one-line form.
        password: A password of ``user``, if it has one.
        log_file: What the server writes, if it is a program.
    """

    port: int
    user: str
    host_keys: tuple[str, ...]
    password: str | None = attrs.field(default=None, repr=False)
    log_file: Path | None = None

    @property
    def known_hosts(self) -> str:
        return "".join(f"[{HOST}]:{self.port} {key}\n" for key in self.host_keys)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file else ""


@attrs.frozen
class Ran:
    """How a client ended."""

    returncode: int
    stdout: bytes
    stderr: bytes


def fingerprint(public: str) -> str:
    """``SHA256:...`` of a one-line public key."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def make_key(directory: Path, kind: str = "ed25519", name: str | None = None) -> Key:
    """Write a new private key ``name`` into ``directory``.

    Args:
        directory: Where.
        kind: ``"ed25519"``, ``"rsa"``, ``"nistp256"``, ``"nistp384"`` or ``"nistp521"``.
        name: The file's name; ``id_<kind>`` if not given.
    """
    private: Any
    if kind == "ed25519":
        private = ed25519.Ed25519PrivateKey.generate()
    elif kind == "rsa":
        private = rsa.generate_private_key(65537, 2048)
    else:
        curve = {"nistp256": ec.SECP256R1, "nistp384": ec.SECP384R1, "nistp521": ec.SECP521R1}[kind]
        private = ec.generate_private_key(curve())
    form, no_encryption = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    path = directory / (name or f"id_{kind}")
    path.touch(mode=0o600)
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, no_encryption))
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.with_name(path.name + ".pub").write_bytes(public + b"\n")
    return Key(path, public.decode())


# ------------------------------------------------------------------------------------------------------------ processes


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory of our own that other users may enter: servers read some files as the user who logs in.

    Not pytest's ``tmp_path``, which only its owner may enter.
    """
    with tempfile.TemporaryDirectory(prefix="sshproto-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def environment(home: Path, **more: str) -> dict[str, str]:
    """What a peer sees: nothing of the user's own settings and agents."""
    path = os.environ.get("PATH", "/usr/bin:/bin")
    mine = {"HOME": str(home), "USER": current_user(), "SSHPROTO_CONFIG": "none"}
    return {"PATH": path, "LANG": "C.UTF-8", **mine, **more}


def free_port() -> int:
    """A port that nobody listens at, for a program that is told where to listen.

    The system gives none of these to those who ask it for any, and each of the processes that run tests has its own: so
    nobody else takes it meanwhile, or is dialled in its place.
    """
    while True:
        port = 20_000 + _worker() * 1500 + next(_PORTS) % 1500
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            return port


_PORTS = itertools.count(os.getpid())


def _worker() -> int:
    """The number of this process among those that run tests."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8


def _end(process: subprocess.Popen[bytes]) -> None:
    """End ``process`` and what it started; sshd's sessions outlive a sshd that is merely terminated."""
    sessions = processes.descendants(process.pid) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
    for pid in sessions:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def listening(argv: Sequence[str], log_file: Path, ready: str, env: dict[str, str]) -> Iterator[None]:
    """Run a server until the block is left. Enters the block when ``ready`` stands in its log."""
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
        )
    try:
        deadline = time.monotonic() + SECONDS
        while ready not in log_file.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                text = log_file.read_text(errors="replace")
                pytest.fail(f"{argv[0]} did not start (status {process.poll()}):\n{text}", pytrace=False)
            time.sleep(0.01)
        yield
    finally:
        _end(process)


@contextlib.contextmanager
def ssh_agent(path: Path, **more: str) -> Iterator[Path]:
    """OpenSSH's agent until the block is left, at a socket. Without a word of it: the socket is there a moment before
    anybody listens at it.

    Args:
        path: Where the socket is to be.
        more: Variables of its environment.
    """
    argv = [need("ssh-agent"), "-D", "-a", str(path)]
    with listening(argv, path.with_name(path.name + ".log"), "SSH_AUTH_SOCK=", environment(path.parent, **more)):
        yield path


def run(argv: Sequence[str], env: dict[str, str], stdin: bytes = b"", seconds: float = SECONDS) -> Ran:
    """Run a client to its end. It has no terminal: a client that would ask on one gets an error instead."""
    done = subprocess.run(
        argv, input=stdin, capture_output=True, env=env, timeout=seconds, start_new_session=True, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


# -------------------------------------------------------------------------------------------------------------- OpenSSH


@contextlib.contextmanager
def sshd(
    config: Sequence[str] = (),
    *,
    authorized_keys: Sequence[str] = (),
    host_keys: Sequence[str] = ("ed25519",),
    password: bool = False,
) -> Iterator[Server]:
    """The stock OpenSSH server, run as the current user.

    Args:
        config: Lines of sshd_config; they come first, and sshd takes the first value of an option.
        authorized_keys: Lines; whoever has one of these keys may log in as the server's ``user``.
        host_keys: Kinds, see :func:`make_key`.
        password: Log in as the system user for password tests, through PAM, with ``password`` and
            ``keyboard-interactive`` as well.
    """
    program = need("sshd")
    user, secret = system_user() if password else (current_user(), None)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd jails itself; the boot makes it otherwise
    with scratch() as directory:
        keys = [make_key(directory, kind, f"host_{kind}") for kind in host_keys]
        (directory / "authorized_keys").write_text("".join(f"{line}\n" for line in authorized_keys))
        port = free_port()
        lines = [
            *config,
            f"ListenAddress {HOST}:{port}",
            *(f"HostKey {key.path}" for key in keys),
            f"AuthorizedKeysFile {directory}/authorized_keys",
            "StrictModes no",  # the directories above are not checked; /tmp belongs to everyone
            "PidFile none",
            "PermitRootLogin yes",
            f"UsePAM {'yes' if password else 'no'}",
            f"PasswordAuthentication {'yes' if password else 'no'}",
            f"KbdInteractiveAuthentication {'yes' if password else 'no'}",
            "PrintMotd no",
            "PrintLastLog no",
            "UseDNS no",
            "MaxStartups 100",
            "SetEnv SHLVL=1",  # or bash reads the user's .bashrc before each command that comes from sshd
            "Subsystem sftp internal-sftp",
        ]
        config_file = directory / "sshd_config"
        config_file.write_text("".join(f"{line}\n" for line in lines))
        log_file = directory / "log"
        # sshd wants its full path to run itself again for each connection.
        argv = [program, "-D", "-e", "-f", str(config_file)]
        with listening(argv, log_file, f"Server listening on {HOST} port {port}.", environment(directory)):
            publics = tuple(key.public for key in keys)
            yield Server(port=port, user=user, host_keys=publics, password=secret, log_file=log_file)


def ssh_options(server: Server, home: Path, key: Key | None) -> list[str]:
    """What ssh, sftp and scp have in common: no file of the user's, no agent, the server's keys and no others."""
    (home / "known_hosts").write_text(server.known_hosts)
    options = {
        "Port": server.port,
        "User": server.user,
        "UserKnownHostsFile": home / "known_hosts",
        "GlobalKnownHostsFile": "none",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "IdentityFile": key.path if key else "none",
        "ConnectTimeout": 10,
    }
    return ["-F", "none", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]


def _askpass(home: Path, password: str | None) -> dict[str, str]:
    """A password for OpenSSH's clients, which read one from a program and from nowhere else."""
    if password is None:
        return {}
    program = home / "askpass"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$SSHPROTO_ASKPASS"\n')
    program.chmod(0o700)
    return {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force", "SSHPROTO_ASKPASS": password}


def ssh(
    server: Server,
    *command: str,
    key: Key | None = None,
    password: str | None = None,
    options: Sequence[str] = (),
    stdin: bytes = b"",
) -> Ran:
    """OpenSSH's client.

    Args:
        server: Where to.
        command: Words of the command, joined by spaces by ssh itself; none asks for a shell.
        key: Log in with this key, and only this one.
        password: Log in with this password, where the server has that or keyboard-interactive.
        options: More arguments, such as ``"-v"`` or ``"-oCiphers=aes128-ctr"``; these win.
        stdin: The command's input.
    """
    program = need("ssh")
    with scratch() as home:
        # BatchMode forbids passwords, also those of SSH_ASKPASS.
        batch = "-oBatchMode=yes" if password is None else "-oNumberOfPasswordPrompts=1"
        argv = [program, *options, *ssh_options(server, home, key), batch, HOST, "--", *command]
        return run(argv, environment(home, **_askpass(home, password)), stdin)


def sftp(server: Server, batch: str, *, key: Key, options: Sequence[str] = ()) -> Ran:
    """OpenSSH's sftp; ``batch`` holds its commands, one a line. It stops at the first that fails."""
    program = need("sftp")
    with scratch() as home:
        argv = [program, *options, *ssh_options(server, home, key), "-oBatchMode=yes", "-b", "-", HOST]
        return run(argv, environment(home), batch.encode())


# ------------------------------------------------------------------------------------------------------------- Dropbear


def _dropbear_key(key: Key) -> Path:
    """``key`` in Dropbear's own format, which is all that Dropbear 2022.83 reads."""
    path = key.path.with_name(key.path.name + ".dropbear")
    done = run([need("dropbearconvert"), "openssh", "dropbear", str(key.path), str(path)], environment(key.path.parent))
    if done.returncode:
        pytest.fail(f"dropbearconvert: {done.stderr.decode()}", pytrace=False)
    return path


_OTHER_PASSWD = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/passwd && exec "$@"']
"""Run the command after the next word with that word's file as /etc/passwd, for itself only."""


@functools.cache
def _can_swap_passwd() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    argv = [*_OTHER_PASSWD, "/etc/passwd", "true"]
    return subprocess.run(argv, capture_output=True, timeout=SECONDS, check=False).returncode == 0


@contextlib.contextmanager
def _dropbear_home(directory: Path, authorized_keys: Sequence[str]) -> Iterator[tuple[list[str], str]]:
    """Where Dropbear looks for authorized keys: in the home that /etc/passwd names, and nowhere else.

    Gives the words to put before the command, and the user. The true home of the user who runs the tests stays
    untouched: either Dropbear sees an /etc/passwd of its own, or the system user for password tests lends its home.
    """
    text = "".join(f"{line}\n" for line in authorized_keys)
    if _can_swap_passwd():
        home = directory / "home"
        (home / ".ssh").mkdir(mode=0o700, parents=True)
        (home / ".ssh/authorized_keys").write_text(text)
        user = current_user()
        rows = [row.split(":") for row in Path("/etc/passwd").read_text().splitlines()]
        rows = [[*row[:5], str(home), row[6]] if row[0] == user else row for row in rows]
        (directory / "passwd").write_text("".join(":".join(row) + "\n" for row in rows))
        yield [*_OTHER_PASSWD, str(directory / "passwd")], user
        return
    user, _ = system_user()
    entry = pwd.getpwnam(user)
    ssh_directory = Path(entry.pw_dir) / ".ssh"
    lock = Path(entry.pw_dir) / ".sshproto-lock"
    deadline = time.monotonic() + SECONDS
    while True:  # one test at a time
        try:
            lock.touch(exist_ok=False)
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                pytest.fail(f"{lock} is held by another test, or left behind by one", pytrace=False)
            time.sleep(0.05)
    try:
        ssh_directory.mkdir(mode=0o700, exist_ok=True)
        authorized = ssh_directory / "authorized_keys"
        authorized.write_text(text)
        for path in (ssh_directory, authorized):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        yield [], user
    finally:
        lock.unlink()


@contextlib.contextmanager
def dropbear(
    options: Sequence[str] = (),
    *,
    authorized_keys: Sequence[str] = (),
    host_keys: Sequence[str] = ("ed25519",),
    password: bool = False,
) -> Iterator[Server]:
    """Dropbear's server; as :func:`sshd`. It has password, but no keyboard-interactive without PAM."""
    program = need("dropbear")
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(scratch())
        keys = [make_key(directory, kind, f"host_{kind}") for kind in host_keys]
        if password:
            before, (user, secret) = [], system_user()
        else:
            before, user = stack.enter_context(_dropbear_home(directory, authorized_keys))
            secret = None
        port, log_file = free_port(), directory / "log"
        argv = [*before, program, "-F", "-E", "-m", "-p", f"{HOST}:{port}", "-P", str(directory / "pid"), *options]
        if not password:
            argv.append("-s")
        for key in keys:
            argv += ["-r", str(_dropbear_key(key))]
        with listening(argv, log_file, "Not backgrounding", environment(directory)):
            publics = tuple(key.public for key in keys)
            yield Server(port=port, user=user, host_keys=publics, password=secret, log_file=log_file)


def dbclient(
    server: Server,
    *command: str,
    key: Key | None = None,
    password: str | None = None,
    options: Sequence[str] = (),
    stdin: bytes = b"",
    variables: Mapping[str, str] | None = None,
) -> Ran:
    """Dropbear's client; as :func:`ssh`. Its ~/.ssh/known_hosts has names without ports."""
    program = need("dbclient")
    with scratch() as home:
        (home / ".ssh").mkdir(mode=0o700)
        # With an unknown host it asks on the terminal, and spins for ever where there is none: so always say the keys.
        # Of several lines for a host it reads the one whose type was negotiated.
        (home / ".ssh/known_hosts").write_text("".join(f"{HOST} {public}\n" for public in server.host_keys))
        argv = [program, "-T", *options, "-p", str(server.port)]
        if key:
            argv += ["-i", str(_dropbear_key(key))]
        more = dict(variables or {}) | ({} if password is None else {"DROPBEAR_PASSWORD": password})
        return run([*argv, f"{server.user}@{HOST}", *command], environment(home, **more), stdin)


# ---------------------------------------------------------------------------------------------------------------- PuTTY


def plink(
    server: Server,
    *command: str,
    key: Key | None = None,
    password: str | None = None,
    options: Sequence[str] = (),
    stdin: bytes = b"",
    variables: Mapping[str, str] | None = None,
) -> Ran:
    """PuTTY's command-line client; as :func:`ssh`."""
    program = need("plink")
    with scratch() as home:
        argv = [program, "-batch", "-ssh", "-T", "-noagent", *options, "-P", str(server.port), "-l", server.user]
        for public in server.host_keys:
            argv += ["-hostkey", fingerprint(public)]
        if key:
            ppk = home / "key.ppk"
            done = run([need("puttygen"), str(key.path), "-O", "private", "-o", str(ppk)], environment(home))
            if done.returncode:
                pytest.fail(f"puttygen: {done.stderr.decode()}", pytrace=False)
            argv += ["-i", str(ppk)]
        if password is not None:  # not -pwfile: PuTTY has that since 0.77 only
            argv += ["-pw", password]
        return run([*argv, HOST, *command], environment(home, **(variables or {})), stdin)


# ------------------------------------------------------------------------------------------------------------- asyncssh


def asyncssh_options(server: Server, *, key: Key | None = None, password: str | None = None) -> dict[str, Any]:
    """Arguments of ``asyncssh.connect`` that read no file of the user's."""
    asyncssh = need_module("asyncssh")
    return {
        "host": HOST,
        "port": server.port,
        "username": server.user,
        "known_hosts": asyncssh.import_known_hosts(server.known_hosts),
        "client_keys": [str(key.path)] if key else None,
        "password": password,
        "agent_path": None,
        "config": None,
        "connect_timeout": SECONDS,
    }


def asyncssh_run(server: Server, command: str, *, stdin: bytes = b"", **credential: Any) -> Ran:
    """One command with asyncssh's client; ``key=`` or ``password=``."""
    asyncssh = need_module("asyncssh")

    async def main() -> Ran:
        async with asyncssh.connect(**asyncssh_options(server, **credential)) as connection:
            # With an empty input it would send no EOF.
            words = {"input": stdin} if stdin else {"stdin": asyncssh.DEVNULL}
            done = await connection.run(command, encoding=None, **words)
            return Ran(done.returncode, done.stdout, done.stderr)

    return asyncio.run(asyncio.wait_for(main(), SECONDS))


@contextlib.contextmanager
def asyncssh_server(
    *,
    authorized_keys: Sequence[str] = (),
    password: str | None = None,
    host_keys: Sequence[str] = ("ed25519",),
    **options: Any,
) -> Iterator[Server]:
    """asyncssh's server in a thread of its own. It runs commands with the shell, and has SFTP.

    Args:
        authorized_keys: Lines; whoever has one of these keys may log in as ``guest``.
        password: May log in as ``guest``, with ``password`` and ``keyboard-interactive``.
        host_keys: Kinds, see :func:`make_key`.
        options: More arguments of ``asyncssh.listen``.
    """
    asyncssh = need_module("asyncssh")

    connections: list[Any] = []

    class Application(asyncssh.SSHServer):  # type: ignore[name-defined,misc]
        def connection_made(self, connection: Any) -> None:
            connections.append(connection)

        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return password is not None

        def validate_password(self, username: str, given: str) -> bool:
            return username == "guest" and given == password

    async def handle(process: Any) -> None:
        child = await asyncio.create_subprocess_shell(
            process.command or "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        # Not process.redirect(): it may still hold output when the child has ended, and exit() would cut that off.
        # No EOF before the exit status: PuTTY closes a channel with EOF both ways at once, and reports a status of 0.
        feeding = asyncio.create_task(feed(process.stdin, child.stdin))
        await asyncio.gather(copy(child.stdout, process.stdout), copy(child.stderr, process.stderr))
        process.exit(await child.wait())
        feeding.cancel()  # a client need not end its input

    async def copy(source: Any, sink: Any) -> None:
        with contextlib.suppress(OSError):  # the reader does not read to the end
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()

    async def feed(source: Any, sink: Any) -> None:
        await copy(source, sink)
        sink.close()

    async def serve(directory: Path, report: queue.Queue[Any]) -> None:
        listed = "".join(f"{line}\n" for line in authorized_keys)
        server = await asyncssh.listen(
            HOST,
            0,
            server_factory=Application,
            server_host_keys=[str(directory / f"host_{kind}") for kind in host_keys],
            authorized_client_keys=asyncssh.import_authorized_keys(listed) if listed else None,
            process_factory=handle,
            sftp_factory=True,
            encoding=None,
            config=None,
            **options,
        )
        stop = asyncio.Event()
        report.put((asyncio.get_running_loop(), stop, server.sockets[0].getsockname()[1]))
        async with server:
            await stop.wait()
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.wait_closed() for connection in connections))

    with scratch() as directory:
        publics = tuple(make_key(directory, kind, f"host_{kind}").public for kind in host_keys)
        report: queue.Queue[Any] = queue.Queue()

        def main() -> None:
            try:
                asyncio.run(serve(directory, report))
            except BaseException as error:
                report.put(error)
                raise

        thread = threading.Thread(target=main, name="asyncssh server", daemon=True)
        thread.start()
        answer = report.get(timeout=SECONDS)
        if isinstance(answer, BaseException):
            raise answer
        loop, stop, port = answer
        try:
            yield Server(port=port, user="guest", host_keys=publics, password=password)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(SECONDS)


# ------------------------------------------------------------------------------------------------------------- paramiko


@contextlib.contextmanager
def paramiko_client(
    server: Server, *, key: Key | None = None, password: str | None = None, **options: Any
) -> Iterator[Any]:
    """A ``paramiko.SSHClient`` that is logged in; ``options`` go to its ``connect``."""
    paramiko = need_module("paramiko")
    client = paramiko.SSHClient()  # its default is to reject unknown hosts
    with scratch() as home, contextlib.closing(client):
        (home / "known_hosts").write_text(server.known_hosts)
        client.load_host_keys(str(home / "known_hosts"))
        client.connect(
            HOST,
            server.port,
            server.user,
            password,
            key_filename=str(key.path) if key else None,
            allow_agent=False,
            look_for_keys=False,
            timeout=SECONDS,
            banner_timeout=SECONDS,
            auth_timeout=SECONDS,
            **options,
        )
        yield client


def paramiko_run(server: Server, command: str, *, stdin: bytes = b"", **credential: Any) -> Ran:
    """One command with paramiko's client; ``key=`` or ``password=``. For output that fits a window (2 MiB)."""
    with paramiko_client(server, **credential) as client:
        writer, reader, errors = client.exec_command(command, timeout=SECONDS)
        writer.write(stdin)
        writer.channel.shutdown_write()
        stdout, stderr = reader.read(), errors.read()
        return Ran(reader.channel.recv_exit_status(), stdout, stderr)


def _paramiko_interface(authorized_keys: Sequence[str], password: str | None) -> Any:
    """What paramiko's server asks: may this user in, what shall a channel do."""
    paramiko = need_module("paramiko")
    blobs = {base64.b64decode(line.split()[1]) for line in authorized_keys}

    class Interface(paramiko.ServerInterface):  # type: ignore[name-defined,misc]
        def get_allowed_auths(self, username: str) -> str:
            return ",".join((["publickey"] if blobs else []) + (["password"] if password is not None else []))

        def check_auth_publickey(self, username: str, key: Any) -> int:
            good = username == "guest" and key.asbytes() in blobs
            return int(paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED)

        def check_auth_password(self, username: str, given: str) -> int:
            good = username == "guest" and password is not None and given == password
            return int(paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED)

        def check_channel_request(self, kind: str, number: int) -> int:
            known = kind == "session"
            return int(paramiko.OPEN_SUCCEEDED if known else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)

        def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
            threading.Thread(target=self.execute, args=(channel, command), daemon=True).start()
            return True

        def execute(self, channel: Any, command: bytes) -> None:
            child = subprocess.Popen(["sh", "-c", command], stdin=-1, stdout=-1, stderr=-1)
            streams = [(child.stdout, channel.sendall), (child.stderr, channel.sendall_stderr)]
            copies = [threading.Thread(target=self.copy, args=stream) for stream in streams]
            threading.Thread(target=self.feed, args=(channel, child.stdin), daemon=True).start()
            for thread in copies:
                thread.start()
            for thread in copies:
                thread.join()
            with contextlib.suppress(OSError):  # the connection is gone
                channel.send_exit_status(child.wait())
                channel.close()

        def copy(self, source: Any, write: Any) -> None:
            with source, contextlib.suppress(OSError):
                while data := source.read1(65536):
                    write(data)

        def feed(self, channel: Any, sink: Any) -> None:
            with contextlib.suppress(OSError), sink:  # a child that does not read its input
                while data := channel.recv(65536):
                    sink.write(data)
                    sink.flush()

    return Interface()


@contextlib.contextmanager
def paramiko_server(
    *, authorized_keys: Sequence[str] = (), password: str | None = None, host_keys: Sequence[str] = ("ed25519",)
) -> Iterator[Server]:
    """paramiko's server in threads; as :func:`asyncssh_server`, but no keyboard-interactive and no shell."""
    paramiko = need_module("paramiko")
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(scratch())
        keys = [make_key(directory, kind, f"host_{kind}") for kind in host_keys]
        listener = stack.enter_context(socket.create_server((HOST, 0)))
        transports: list[Any] = []

        def accept() -> None:
            with contextlib.suppress(OSError):  # the listener is closed: the end
                while True:
                    connection, _ = listener.accept()
                    transport = paramiko.Transport(connection)
                    transports.append(transport)
                    for key in keys:
                        transport.add_server_key(paramiko.PKey.from_path(key.path))
                    # With an event it returns at once; without one it waits for the key exchange and may raise.
                    transport.start_server(threading.Event(), _paramiko_interface(authorized_keys, password))

        thread = threading.Thread(target=accept, name="paramiko server", daemon=True)
        thread.start()
        try:
            publics = tuple(key.public for key in keys)
            yield Server(port=listener.getsockname()[1], user="guest", host_keys=publics, password=password)
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which close() does not
            thread.join(SECONDS)
            for transport in transports:
                transport.close()
                transport.join(SECONDS)
