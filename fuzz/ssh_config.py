"""Files of ssh_config(5), whatever is in them: they are read or refused with every place, and the first value counts.

The first byte of an input chooses the host; what follows is the file, up to a NUL the one that it includes as ``part``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence

from fuzz.clear import fit_to_show
from fuzz.running import main
from fuzz.running import mutate as mutate_bytes
from sshproto.ssh_config import OPENSSH_9_2, OURS, ConfigError, HostConfig, Source, World, resolve
from sshproto.ssh_config.keywords import BY_NAME

MODULES = (
    *("sshproto.ssh_config.reader", "sshproto.ssh_config.words", "sshproto.ssh_config.kinds"),
    *("sshproto.ssh_config.places", "sshproto.ssh_config.conditions", "sshproto.ssh_config.finish"),
    *("sshproto.ssh_config.tokens", "sshproto.ssh_config.settings", "sshproto.ssh_config.algorithms"),
)
_HOSTS = ("host", "db.example.org", "10.0.0.1", "::1", "Gate")
_BLOCKS = re.compile(rb"(?i)host\b|match|include|ignoreunknown|hostname|canonical|clearall|\"|\f|\0")
_FIRST = ("port", "user", "compression", "request_tty", "ciphers", "host_key_alias", "rekey_limit", "escape_char")


def _world(part: bytes) -> World:
    def include(pattern: str) -> Iterable[tuple[str, bytes]]:
        return [("part", part)] if pattern.endswith("part") else ()

    return World(
        user="me",
        home="/home/me",
        environment={"HOME": "/home/me", "A": "b"},
        include=include,
        run=lambda command: len(command) % 2,
        homes=lambda name: f"/home/{name}" if name.isalpha() else None,
        address=lambda text: text if set(text) <= set("0123456789.:") else None,
        canonical=lambda name: f"real.{name}" if name.startswith("d") else None,
        service={"ssh": 22, "http": 80}.get,
    )


def _read(host: str, content: bytes, part: bytes = b"") -> HostConfig | None:
    try:
        return resolve(host, [Source("file", content)], _world(part))
    except ConfigError as error:
        fit_to_show(str(error))
        for problem in error.problems:
            fit_to_show(str(problem))
            place, lines = problem.place, {"file": content, "part": part}.get(problem.place.file, b"").split(b"\n")
            if not (
                0 < place.line <= len(lines) or (place.line == 0 and place.file in ("command-line", "file", "part"))
            ):
                raise AssertionError(f"there is no {place}") from None
        return None


def fuzz(data: bytes) -> None:
    """Read a file for a host, and as one for others, and line by line."""
    host = _HOSTS[(data[0] if data else 0) % len(_HOSTS)]
    content, _, part = data[1:].partition(b"\0")
    found = _read(host, content, part)
    if found is None:
        return
    for catalogue in (OURS, OPENSSH_9_2):
        for line in found.shown(catalogue):
            if line.partition(" ")[0].lower() not in (*BY_NAME, "host"):
                raise AssertionError(f"shown is {line!r}")
    for expand in (found.identity_paths, found.certificate_paths, found.proxy_command_line, found.jumps):
        try:
            expand()
        except ConfigError as error:
            fit_to_show(str(error))
    if _BLOCKS.search(content):
        return
    others = _read(host, b"Host !*\n" + content)
    if others is not None and others.shown() != _nothing(host):
        raise AssertionError("lines for other hosts have had an effect")
    _compare_lines(host, content, found)


def _nothing(host: str) -> list[str]:
    return resolve(host, [], _world(b"")).shown()


def _compare_lines(host: str, content: bytes, found: HostConfig) -> None:
    """Without blocks, each value is that of the first line that has one."""
    usual = resolve(host, [], _world(b""))
    expected = {name: getattr(usual, name) for name in _FIRST}
    open_names = set(_FIRST)
    for line in content.split(b"\n")[:50]:
        alone = _read(host, line)
        if alone is None:
            raise AssertionError(f"alone, {line!r} is refused")
        for name in tuple(open_names):
            said = {"rekey_limit": "rekeylimit", "host_key_alias": "hostkeyalias"}.get(name, name.replace("_", ""))
            if said in alone.said:
                expected[name] = getattr(alone, name)
                open_names.discard(name)
    if content.count(b"\n") < 50 and expected != {name: getattr(found, name) for name in _FIRST}:
        raise AssertionError(f"expected {expected}")


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change bytes, or whole lines."""
    if rng.randrange(2):
        return mutate_bytes(data, others, rng)
    lines, more = data[1:].split(b"\n"), rng.choice(others)[1:].split(b"\n")
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(lines))
        if rng.randrange(3):
            lines.insert(at, rng.choice(more))
        elif lines:
            del lines[min(at, len(lines) - 1)]
    return data[:1] + b"\n".join(lines)[:4096]


def seeds() -> list[bytes]:
    """Files with every keyword, blocks, includes, and lines that are odd."""
    from tests.support.sshconfigs import VALUES, WRONG

    rng = random.Random(7)
    plain = [f"{name} {pick(rng)}" for name, pick in VALUES.items() for _ in range(2)]
    texts = [
        "\n".join(plain[:60]),
        "\n".join(plain[60:120]),
        "\n".join(plain[120:]),
        "Port 5\nPort 6\nUser a\nUser b\nCompression yes\nCompression no\nRequestTTY force\nEscapeChar none",
        "Host *.org !x 10.*\nPort 1\nMatch host h* user me,you exec \"true %h\"\nUser 'a b'\nMatch all\nUser c",
        "Host host\nInclude part ~/part\nMatch !final originalhost host\nHostName real.%h\nMatch final\nUser x\0Port 5",
        "CanonicalizeHostname yes\nCanonicalDomains example.org\nCanonicalizePermittedCNAMEs *.org:*\nMatch canonical",
        "IgnoreUnknown X*,y\nXthing 1\n y = 2\nProxyJump a@[::1]:5,ssh://b%40c@d:6/ # x\nProxyCommand nc '%h' %p",
        "LocalForward [::1]:80 /sock%h\nRemoteForward 0\nDynamicForward *:1080\nLocalForward a\\:b:1 c:2\nTag x",
        "Include part\0Include part",
        *WRONG,
    ]
    return [bytes((number % len(_HOSTS),)) + text.encode() for number, text in enumerate(texts)]


if __name__ == "__main__":
    main("ssh_config", fuzz, seeds, mutate, MODULES)
