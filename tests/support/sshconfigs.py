"""Configurations of ``ssh``, made up: files, options and a host, by a number that says which."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import attrs

Pick = Callable[[random.Random], str]

HOSTS = ("web", "db.example.com", "Gate.Example.ORG", "10.0.0.7", "127.1", "::0:1", "build-3", "host.sub.example.net")
NAMES = (*HOSTS, "other", "WEB", "nobody")
PATTERNS = (
    "*",
    "web",
    "*.example.com",
    "10.0.0.?",
    "!web",
    "!*.org",
    "*e*",
    "db*",
    "::*",
    "?eb",
    "build-*",
    "127.0.0.1",
)
USERS = ("alice", "bob", "root", "deploy")
CIPHERS = ("aes128-ctr", "aes256-gcm@openssh.com", "3des-cbc", "aes256-cbc", "chacha20-poly1305@openssh.com")
KEX = ("curve25519-sha256", "diffie-hellman-group1-sha1", "ecdh-sha2-nistp256", "sntrup761x25519-sha512")
MACS = ("hmac-sha1", "hmac-sha2-256", "umac-64@openssh.com", "hmac-md5-96", "hmac-sha2-512-etm@openssh.com")
KEYS = ("ssh-ed25519", "ssh-rsa", "rsa-sha2-512", "ssh-dss", "ecdsa-sha2-nistp256-cert-v01@openssh.com")
AUTHORITIES = ("ssh-ed25519", "ssh-rsa", "rsa-sha2-512", "ecdsa-sha2-nistp256")
PLAIN_PATTERNS = ("ssh-*", "ecdsa-*", "*nistp*")
TOKENS = ("%h", "%n", "%p", "%r", "%u", "%d", "%i", "%k", "%L", "%l", "%C", "%%")
PATHS = ("~/.ssh/{0}", "/tmp/{0}", "{0}", "~root/{0}", "${{HOME}}/{0}", '"/with blank/{0}"', "/a\\ b/{0}")


def one(*words: str) -> Pick:
    """One of some words."""
    return lambda rng: rng.choice(words)


def many(least: int, most: int, pick: Pick) -> Pick:
    """Several words."""
    return lambda rng: " ".join(pick(rng) for _ in range(rng.randint(least, most)))


def listed(names: tuple[str, ...], patterns: tuple[str, ...] = ()) -> Pick:
    """A list of algorithms."""

    def pick(rng: random.Random) -> str:
        sign = rng.choice(("", "", "+", "-", "^"))
        more = (*names, *patterns, *(("*cbc", "*sha1*", "nosuch") if sign == "-" else ()))
        return sign + ",".join(rng.choice(more) for _ in range(rng.randint(1, 3)))

    return pick


def path(rng: random.Random) -> str:
    """A path, with or without tokens."""
    tokens = "".join(rng.choice(TOKENS) for _ in range(rng.randint(0, 2)))
    return rng.choice(PATHS).format(f"id{rng.randint(0, 3)}{tokens}")


def command(rng: random.Random) -> str:
    """A command, with tokens that all commands may have."""
    words = [rng.choice(("nc", "%h", "%p", "'a  b'", '"c d"', "%%", "-x", "e#f", "%r", "a=b")) for _ in range(4)]
    return rng.choice(("none", "= run", *(" ".join(words) for _ in range(6))))


def jump(rng: random.Random) -> str:
    """Hosts to jump through."""
    hosts = (
        "gate",
        "a@gate",
        "gate:2222",
        "a@[::1]:22",
        "10.0.0.1",
        "ssh://b@gate2:23",
        "ssh://gate",
        "a@b@gate",
        "[::2]",
    )
    return "none" if rng.randrange(6) == 0 else ",".join(rng.choice(hosts) for _ in range(rng.randint(1, 3)))


def local(rng: random.Random) -> str:
    """A local or remote forward."""
    listen = rng.choice(
        ("8080", "*:8081", "[::1]:8082", "localhost:8083", "/tmp/s%p", "localhost:8084", "${HOME}/sock", ":8085")
    )
    return f"{listen} {rng.choice(('web:80', '[::2]:81', '/run/%h.sock', 'db:http', 'a:1'))}"


YES = one("yes", "no", "Yes", "true", "FALSE")
TIME = one("0", "5", "1m", "1h30m", "2d", "none", "1w", "90s")
NUMBER = one("0", "1", "2", "3", "10")
VALUES: dict[str, Pick] = {
    "HostName": one("real.%h", "%%x%h", "db.example.com", "10.1.2.3", "::1", "Mixed.Case", "127.2", "%h.example.org"),
    "Port": one("22", "2222", "ssh", "443"),
    "User": one(*USERS),
    "AddressFamily": one("any", "inet", "inet6", "INET"),
    "BatchMode": YES,
    "BindAddress": one("127.0.0.1", "::1"),
    "CanonicalizeHostname": one("yes", "no", "always"),
    "CanonicalDomains": one("example.invalid", "none", "a.invalid b.invalid."),
    "CanonicalizeMaxDots": NUMBER,
    "CanonicalizeFallbackLocal": one("yes", "yes", "yes", "no"),
    "CertificateFile": path,
    "CheckHostIP": YES,
    "Ciphers": listed(CIPHERS),
    "MACs": listed(MACS),
    "KexAlgorithms": listed(KEX),
    "HostKeyAlgorithms": listed(KEYS, PLAIN_PATTERNS),
    "PubkeyAcceptedAlgorithms": listed(KEYS, PLAIN_PATTERNS),
    "HostbasedAcceptedAlgorithms": listed(KEYS, PLAIN_PATTERNS),
    "CASignatureAlgorithms": listed(AUTHORITIES, PLAIN_PATTERNS),
    "ClearAllForwardings": one("no", "no", "yes"),
    "Compression": one("yes", "no"),
    "ConnectTimeout": TIME,
    "ConnectionAttempts": one("1", "2", "3"),
    "ControlMaster": one("yes", "no", "auto", "ask", "autoask"),
    "ControlPath": path,
    "ControlPersist": one("yes", "no", "0", "10m"),
    "DynamicForward": one("1080", "*:1081", "[::1]:1082", "localhost:1083"),
    "EscapeChar": one("~", "none", "^a", "%", "^]"),
    "ExitOnForwardFailure": YES,
    "FingerprintHash": one("md5", "SHA256"),
    "ForwardAgent": one("yes", "no", "~/.", "/dev/null"),
    "ForwardX11": YES,
    "ForwardX11Timeout": TIME,
    "ForwardX11Trusted": YES,
    "GSSAPIAuthentication": YES,
    "GatewayPorts": YES,
    "GlobalKnownHostsFile": one("/etc/a /etc/b", "none", "/c"),
    "HashKnownHosts": YES,
    "HostKeyAlias": one("Alias", "other-name"),
    "IPQoS": one("lowdelay", "af21 cs1", "0x20", "none", "ef throughput"),
    "IdentitiesOnly": YES,
    "IdentityAgent": one("none", "SSH_AUTH_SOCK", "~/agent.%u", "$SOCK", "${HOME}/a"),
    "IdentityFile": path,
    "KbdInteractiveAuthentication": YES,
    "ChallengeResponseAuthentication": YES,
    "KeepAlive": YES,
    "LocalCommand": command,
    "LocalForward": local,
    "LogLevel": one("QUIET", "debug", "INFO", "DEBUG1", "verbose", "debug3", "error", "fatal"),
    "NumberOfPasswordPrompts": NUMBER,
    "PasswordAuthentication": YES,
    "PermitRemoteOpen": one("any", "none", "a:1 [::1]:2", "*:*"),
    "PreferredAuthentications": one("publickey", "password,publickey"),
    "Protocol": one("2", "2,1"),
    "ProxyCommand": command,
    "ProxyJump": jump,
    "ProxyUseFdpass": YES,
    "PubkeyAuthentication": one("yes", "no", "unbound", "host-bound"),
    "RekeyLimit": one("1G", "default none", "500M 1h", "1.5K 30", "16", "default 5m"),
    "RemoteCommand": one("top -d %p", "none", "echo '%h'  %n"),
    "RemoteForward": lambda rng: local(rng) if rng.randrange(3) else rng.choice(("0", "1090", "[::1]:1091")),
    "RequestTTY": one("yes", "no", "force", "auto"),
    "RequiredRSASize": one("1024", "3072"),
    "RevokedHostKeys": one("/etc/revoked", "none"),
    "SendEnv": many(1, 3, one("LANG", "LC_*", "-LC_*", "X?", "-X*", "EDITOR")),
    "ServerAliveCountMax": NUMBER,
    "ServerAliveInterval": TIME,
    "SetEnv": many(1, 2, one("A=1", "B=two", "C=", '"D=with blank"', "A=3")),
    "StdinNull": YES,
    "StreamLocalBindMask": one("0177", "077"),
    "StreamLocalBindUnlink": YES,
    "StrictHostKeyChecking": one("yes", "no", "off", "ask", "accept-new", "true"),
    "SyslogFacility": one("AUTH", "local3"),
    "TCPKeepAlive": YES,
    "Tunnel": one("yes", "no", "ethernet"),
    "TunnelDevice": one("any", "1:2", "3"),
    "UpdateHostKeys": one("yes", "no", "ask"),
    "UserKnownHostsFile": one("none", "~/.ssh/known_hosts", "~/a ~/b", "/k/%k", "${HOME}/.ssh/kh"),
    "VerifyHostKeyDNS": one("yes", "no", "ask"),
    "VisualHostKey": YES,
    "XAuthLocation": one("/bin/xauth"),
    "AddKeysToAgent": one("yes", "no", "ask", "confirm", "confirm 5m", "1h"),
}
"""What may follow each keyword."""

WRONG = (
    *("Port 0", "Port x", "Port 22 23", "Ciphers nosuch", "Compression maybe", "ConnectTimeout 5x", "Nonsense yes"),
    *(
        "LocalForward 80",
        "LocalForward a b",
        "RekeyLimit 5",
        "User",
        'User "a',
        "ProxyJump a,,b",
        "Match host",
        "Match",
    ),
    *("Match all host x", "HostName", "IPQoS nope", "SetEnv A", "SendEnv A=1", "EscapeChar ab", "RequestTTY maybe"),
    *("UserKnownHostsFile a none", "CanonicalDomains -x", "AddKeysToAgent ask 5", "Match wrong x", "IdentityAgent ${"),
    *("ServerAliveCountMax -1", "Host", "Host ''", "LogLevel loud", "HostKeyAlgorithms +foo", "MACs hmac-sha9"),
    *(
        "\f",
        "FutureThing yes",
        "ControlPersist soon",
        "StreamLocalBindMask 9",
        "TunnelDevice a:b",
        "CanonicalizePermittedCNAMEs a",
        "Include ''",
    ),
)
"""Lines that ``ssh`` stops at."""

ODD = (
    *("", "# a comment", "   ", "\t# another", "IgnoreUnknown Future*,x", "RSAAuthentication yes"),
    *(
        "IgnoreUnknown *\nFutureThing '1 2' 3",
        "User=eve",
        "User = eve",
        '"User" eve',
        "  Port\t=\t2200  ",
        "User 'o neil' # who",
        "USER upper",
    ),
)
"""Lines that are written in other ways, or say nothing."""


@attrs.frozen
class Made:
    """A configuration.

    Attributes:
        host: What is typed.
        options: Those of ``-o``.
        main: The file of ``-F``.
        files: What it may include: names, relative to a directory, and what is in them.
    """

    host: str
    options: tuple[str, ...]
    main: str
    files: dict[str, str]

    def write(self, home: Path) -> Path:
        """Write the files below a home directory.

        Returns:
            The one for ``-F``.
        """
        folder = home / ".ssh"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, content in (("config", self.main), *self.files.items()):
            (folder / name).write_text(content)
        return folder / "config"


def make(number: int) -> Made:
    """The configuration of a number: always the same."""
    rng = random.Random(number)
    wrong = rng.randrange(8) == 0
    files = {f"part{index}.conf": _text(rng, depth=1) for index in range(rng.randint(0, 3))}
    main = _text(rng, depth=0, files=tuple(files))
    if wrong:
        lines = main.split("\n")
        lines.insert(rng.randint(0, len(lines)), rng.choice(WRONG))
        main = "\n".join(lines)
    options = tuple(_line(rng, "=") for _ in range(rng.choice((0, 0, 0, 1, 2))))
    return Made(rng.choice(HOSTS), options, main, files)


def _text(rng: random.Random, depth: int, files: tuple[str, ...] = ()) -> str:
    lines: list[str] = []
    for _ in range(rng.randint(1, 5 if depth else 8)):
        what = rng.randrange(10)
        if what < 5:
            lines.append(f"Host {' '.join(rng.choice(PATTERNS) for _ in range(rng.randint(1, 3)))}")
        elif what < 8:
            lines.append(f"Match {_condition(rng)}")
        if files and rng.randrange(2):
            lines.append("Include " + rng.choice((rng.choice(files), "part*.conf", "~/.ssh/part1.conf", "nothing*")))
        lines += [rng.choice(("", "  ", "\t")) + _line(rng) for _ in range(rng.randint(0, 5))]
        if not rng.randrange(3):
            lines.append(rng.choice(ODD))
    return "\n".join(lines) + rng.choice(("", "\n"))


def _line(rng: random.Random, sign: str = "") -> str:
    keyword = rng.choice(list(VALUES))
    written = rng.choice((keyword, keyword, keyword.lower(), keyword.upper()))
    return f"{written}{sign or rng.choice((' ', ' ', ' ', '=', ' = '))}{VALUES[keyword](rng)}"


def _condition(rng: random.Random) -> str:
    if not rng.randrange(5):
        return rng.choice(("all", "final", "canonical", "!final host web", "final all", "canonical all", "!all"))
    found: list[str] = []
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(("host", "originalhost", "user", "localuser", "exec", "final", "canonical"))
        sign = rng.choice(("", "", "!"))
        if name in ("final", "canonical"):
            found.append(sign + name)
        elif name == "exec":
            found.append(
                f'{sign}exec "{rng.choice(("true", "false", "test %h = web", "test %u = root", "test %p = 22"))}"'
            )
        else:
            words = PATTERNS if name.endswith("host") else (*USERS, "*", "!bob")
            found.append(f"{sign}{name} {','.join(rng.choice(words) for _ in range(rng.randint(1, 2)))}")
    return " ".join(found)
