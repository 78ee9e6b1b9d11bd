"""Our reading of ssh_config(5) beside that of ``ssh -G``: the same answers, line by line, and the same refusals."""

from __future__ import annotations

import difflib
import glob
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from sshproto.ssh_config import OPENSSH_9_2, ConfigError, Source, World, resolve
from tests.support import peers
from tests.support.sshconfigs import Made, make

COUNT = 200
BATCH = 25

ODDITIES = ("dynamicforward", "streamlocalbindmask", "syslogfacility")
"""Lines that ``ssh`` is wrong about: see docs/reference/ssh-config.md, "Where ssh -G says something else"."""


@pytest.fixture(scope="module")
def ssh() -> str:
    found = shutil.which("ssh")
    if found is None:
        peers.unavailable("ssh is not installed")
    said = subprocess.run([found, "-V"], capture_output=True, text=True, timeout=peers.SECONDS, check=True).stderr
    if not said.startswith("OpenSSH_9.2"):
        pytest.skip(f"what is compared with is OpenSSH 9.2, this is {said.strip()}")
    return found


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


def environment(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "PATH": os.environ["PATH"], "SHELL": "/bin/sh"}


def world(home: Path) -> World:
    """What ``ssh`` finds when it is run with such an environment: its ``~`` is what the system says, that of Include is
    ``HOME``."""
    me = pwd.getpwuid(os.getuid())

    def include(pattern: str) -> Iterable[tuple[str, bytes]]:
        pattern = f"{home}{pattern[1:]}" if pattern.startswith("~/") else pattern
        return [(name, Path(name).read_bytes()) for name in sorted(glob.glob(pattern)) if Path(name).is_file()]  # noqa: PTH207

    def address(text: str) -> str | None:
        try:
            found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except OSError:
            return None
        return socket.getnameinfo(found[0][4], socket.NI_NUMERICHOST)[0]

    def run(command: str) -> int:
        argv = ["/bin/sh", "-c", command]
        return subprocess.run(argv, check=False, env=environment(home), timeout=peers.SECONDS).returncode

    def service(name: str) -> int | None:
        try:
            return socket.getservbyname(name, "tcp")
        except OSError:
            return None

    return World(
        user=me.pw_name,
        home=me.pw_dir,
        uid=os.getuid(),
        local_host=socket.gethostname(),
        environment=environment(home),
        include=include,
        run=run,
        homes=lambda name: pwd.getpwnam(name).pw_dir if name == "root" else None,
        address=address,
        service=service,
    )


def theirs(ssh: str, made: Made, path: Path, home: Path) -> subprocess.CompletedProcess[str]:
    options = [word for option in made.options for word in ("-o", option)]
    return subprocess.run(
        [ssh, "-F", str(path), "-G", *options, made.host],
        check=False,
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=peers.SECONDS,
    )


def complaints(stderr: str) -> list[tuple[str, int]]:
    """Files and lines that ``ssh`` has found fault with, but for what it only mentions."""
    said = "\n".join(line for line in stderr.splitlines() if "Unsupported option" not in line)
    found = re.findall(r"^(\S+?):? line ([1-9]\d*)", said, re.MULTILINE)
    return list(dict.fromkeys((file, int(line)) for file, line in found))


def compared(lines: list[str], others: list[str]) -> list[str]:
    """Lines without those that ``ssh`` is wrong about, where they differ."""
    return [line for line in lines if line in others or not line.startswith(ODDITIES)]


def difference(ssh: str, made: Made, home: Path) -> str:
    """In what the two readings differ; "" if they don't."""
    path = made.write(home)
    ran = theirs(ssh, made, path, home)
    try:
        sources = [Source(str(path), path.read_bytes())]
        ours = resolve(made.host, sources, world(home), options=made.options, catalogue=OPENSSH_9_2).shown(OPENSSH_9_2)
    except ConfigError as error:
        if not ran.returncode:
            return f"only ours stops: {error}"
        places = [(one.place.file, one.place.line) for one in error.problems if one.place.line]
        faults = complaints(ran.stderr)
        return "" if faults in (places, []) else f"ours finds fault with {places}, ssh with {faults}"
    if ran.returncode:
        return f"only ssh stops: {ran.stderr}"
    said = ran.stdout.splitlines()
    return "\n".join(difflib.unified_diff(compared(said, ours), compared(ours, said), "ssh", "ours", lineterm="", n=0))


@pytest.mark.parametrize("first", range(0, COUNT, BATCH))
def test_generated_configurations_are_read_as_ssh_reads_them(ssh: str, home: Path, first: int) -> None:
    for number in range(first, first + BATCH):
        made = make(number)
        found = difference(ssh, made, home)
        assert not found, f"configuration {number}, host {made.host}, {made.options}:\n{found}\n\n{made.main}"


def test_most_generated_configurations_are_good_ones(home: Path) -> None:
    stopped = 0
    for number in range(COUNT):
        path = make(number).write(home)
        try:
            resolve(make(number).host, [Source(str(path), path.read_bytes())], world(home), catalogue=OPENSSH_9_2)
        except ConfigError:
            stopped += 1
    assert COUNT // 20 < stopped < COUNT // 3


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("web", "ProxyJump none\nProxyCommand nc %h %p\n"),
        ("web", "ProxyCommand none\nProxyJump gate\n"),
        ("web", "ProxyJump gate # and a comment\nProxyUseFdpass yes\n"),
        ("web", "UpdateHostKeys ask\nRequestTTY no\n"),
        ("web", "Match final\nPort 3\nMatch all\nPort 4\n"),
        ("web", "HostName real\nMatch final host real\nPort 3\nHost real\nUser eve\n"),
        ("web", "CanonicalizeHostname yes\nCanonicalDomains x.invalid\nMatch canonical\nPort 3\n"),
        ("web", "CanonicalizeHostname yes\nCanonicalDomains x.invalid\nCanonicalizeFallbackLocal no\n"),
        ("a.b.c", "CanonicalizeHostname yes\nCanonicalDomains x.invalid\nCanonicalizeFallbackLocal no\n"),
        ("127.1", "Host 127.0.0.1\nPort 3\nMatch final\nUser x\n"),
        ("WEB", "Host WEB\nPort 3\nHost web\nUser x\nMatch final\nUser y\n"),
        ("web", "Host=web\n  Port=3\nMatch=host=web\nUser=eve\n"),
        ("web", "RekeyLimit K 1h\nRekeyLimit 5M 2h\n"),
        ("web", "ServerAliveInterval none\nServerAliveInterval 5\n"),
        ("web", "Host *\nInclude nowhere\nInclude /nowhere/*\nPort 5\n"),
        ("web", "SendEnv A B -A C\nSendEnv -B*\nSetEnv A=1 A=2\nSetEnv B=3\n"),
        ("web", "IdentityFile none\nIdentityFile a\nidentityfile a\nCertificateFile a\nCertificateFile a\n"),
        ("web", 'User "a\\"b"\nHostName "x"\nRemoteCommand echo "a\n'),
        ("web", "LocalForward [::1]:8080 a\\:b:80\nLocalForward 8081 [a]x:2\n"),
        ("web", "LocalForward 8081 /a\\ b\nLocalForward /a%h /b%%\n"),
        *(
            ("web", f"ProxyJump {text}\n")
            for text in ("a b,c", "ssh://h:22/", "ssh://[::1]", "h/22", "ssh://u%40x;y@h")
        ),
        ("web", "Port +22\nConnectTimeout +1m+5\nRekeyLimit 500M! 1h\nStreamLocalBindMask 07x\n"),
        ("web", "KexAlgorithms +,nosuch\nPermitRemoteOpen a:1 [::1]:2\n"),
        ("web", "IPQoS 07 255\n"),
        ("web", "IPQoS 256\n"),
        ("web", "EscapeChar \\\\\nLogLevel silent\n"),
    ],
)
def test_what_is_easily_got_wrong(ssh: str, home: Path, host: str, text: str) -> None:
    assert not difference(ssh, Made(host, (), text, {}), home)
