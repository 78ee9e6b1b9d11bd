"""The core is pure, and its rooms know only those below them. Read from the source, so that no import is missed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "sshproto"
MODULES = sorted(CORE.rglob("*.py"))
ADAPTERS = sorted((CORE.parent / "adapters").rglob("*.py"))

FORBIDDEN = frozenset(
    (
        "_thread asyncio atexit concurrent ctypes curses fcntl fileinput ftplib getpass glob http imaplib importlib "
        "logging mmap multiprocessing pathlib pickle poplib pty queue random sched secrets select selectors shelve "
        "shutil signal smtplib socket socketserver sqlite3 ssl subprocess syslog telnetlib tempfile termios threading "
        "time trio tty urllib uuid sshproto_cli sshproto_io tests"
    ).split()
)
"""What does I/O, waits, runs beside the caller, or is random."""

THIRD_PARTY = frozenset({"attrs", "cryptography"})

OPTIONAL = {"keys/openssh.py": {"bcrypt"}, "replay/capture/inflate.py": {"backports", "compression"}}
"""What a file may import if it is installed: encrypted OpenSSH keys need bcrypt's key derivation; some captures zstd,
which Python has from 3.14 on."""

LOADERS = {"lazy.py"}
"""What imports by name, out of tables of our own names that tests/unit/test_imports.py holds against the imports that
type checkers see."""

FORBIDDEN_CALLS = frozenset({"open", "print", "input", "exec", "eval", "breakpoint", "__import__"})

ALLOWED_FROM_OS = {"config.py": {"urandom"}}

LEAVES = frozenset(
    {"text", "errors", "algorithms", "config", "events", "timers", "outlet", "questions", "values", "lazy"}
)
"""Modules that any room may use, and that use nothing but each other."""

RANKS = {
    "wire": 1,
    "keys": 2,
    "transport": 3,
    "auth": 3,
    "channels": 3,
    "agent": 3,
    "ssh_config": 3,
    "sftp": 3,
    "engine": 4,
    "requests": 4,
    "weaknesses": 4,
    "connection": 4,
    "client": 5,
    "server": 5,
    "replay": 6,
    "streams": 7,
    "operations": 7,
    "__init__": 8,
}
"""A room may use those of a lower rank, and itself; the modules of the connection (rank 4) may use one another."""

TOGETHER = frozenset({4, 7})
"""Ranks whose rooms may use one another."""

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""Imports that go against the ranks, as (file, imported room), with the reason."""

LONGEST = 600
LONG: dict[str, str] = {
    "transport/link.py": "the transport protocol is one machine; outbox, quota and key exchange are cut off it",
    "wire/messages.py": "a catalogue: every message of SSH-2 in one place",
}
"""Files that may be longer, with the reason."""


def guarded(tree: ast.Module) -> set[int]:
    """The nodes, by id, that stand under ``if TYPE_CHECKING``: they never run."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If):
            test = node.test
            name = test.id if isinstance(test, ast.Name) else test.attr if isinstance(test, ast.Attribute) else ""
            if name == "TYPE_CHECKING":
                found.update(id(inner) for statement in node.body for inner in ast.walk(statement))
    return found


def imports(tree: ast.Module, *, package: str = "sshproto") -> list[tuple[int, str]]:
    """Line and full name of everything that is imported at run time, at any depth, also inside functions."""
    skip = guarded(tree)
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = f"{package}.{module}".rstrip(".")
            # "from sshproto import x" imports the room x; "from sshproto.wire import x" the room wire
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def impurities(source: str, name: str) -> list[str]:
    """What in ``source`` a pure module may not have."""
    tree = ast.parse(source)
    found = []
    for line, imported in imports(tree):
        top, _, rest = imported.partition(".")
        if top == "os":
            good = rest in ALLOWED_FROM_OS.get(name, set()) or (not rest and name in ALLOWED_FROM_OS)
        elif top in sys.stdlib_module_names:
            good = top not in FORBIDDEN or (top == "importlib" and name in LOADERS)
        else:
            good = top == "sshproto" or top in THIRD_PARTY or top in OPTIONAL.get(name, set())
        if not good:
            found.append(f"{name}:{line}: imports {imported}")
    for node in ast.walk(tree):
        what = ""
        if isinstance(node, ast.Assert):
            what = "assert, which python -O drops"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            what = f"calls {node.func.id}()"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, attribute = node.value.id, node.attr
            if module == "os" and attribute not in ALLOWED_FROM_OS.get(name, set()):
                what = f"uses os.{attribute}"
            elif (module, attribute) in {("io", "open"), ("io", "FileIO"), ("datetime", "now"), ("datetime", "utcnow")}:
                what = f"uses {module}.{attribute}"
        if what:
            found.append(f"{name}:{getattr(node, 'lineno', 0)}: {what}")
    return found


def room_of(name: str) -> str:
    """The room of a file, by its path below the package, or of a module, by its dotted name below the package."""
    return name.removesuffix(".py").replace("/", ".").split(".")[0]


def upward(source: str, name: str) -> list[str]:
    """The imports of ``source`` that go up, or across."""
    here = room_of(name)
    package = ".".join(["sshproto", *name.split("/")[:-1]])
    found = []
    for line, imported in imports(ast.parse(source), package=package):
        parts = imported.split(".")
        if parts[0] != "sshproto" or len(parts) == 1:
            continue
        there = room_of(parts[1])
        if there == here or there in LEAVES or (name, there) in EXCEPTIONS:
            continue
        if there not in RANKS:
            found.append(f"{name}:{line}: imports {imported}, which has no rank here")
        elif here in LEAVES:
            found.append(f"{name}:{line}: a module that all use imports {imported}")
        elif not (RANKS[there] < RANKS[here] or (RANKS[there] == RANKS[here] and RANKS[here] in TOGETHER)):
            found.append(f"{name}:{line}: {here} (rank {RANKS[here]}) imports {imported} (rank {RANKS[there]})")
    return found


@pytest.fixture(params=MODULES, ids=lambda path: path.relative_to(CORE).as_posix())
def module(request):
    return request.param, request.param.relative_to(CORE).as_posix()


@pytest.mark.covers("V49", "V80", "V81", "V82", "R170")
def test_pure(module):
    path, name = module
    assert impurities(path.read_text(), name) == []


def test_imports_go_down(module):
    path, name = module
    assert room_of(name) in RANKS or room_of(name) in LEAVES, f"give {name} a rank"
    assert upward(path.read_text(), name) == []


def test_short(module):
    path, name = module
    lines = path.read_text().count("\n")
    if name in LONG:
        assert lines > LONGEST, f"{name} has {lines} lines and need not be listed as long"
    else:
        assert lines <= LONGEST, f"{name} has {lines} lines: it should be two rooms"


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: path.name)
def test_adapters_use_connections_as_everybody_does(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    assert [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr == "_engine"] == []


def test_exceptions_are_needed():
    for name, room in EXCEPTIONS:
        used = {
            room_of(i.split(".")[1])
            for _, i in imports(ast.parse((CORE / name).read_text()))
            if i.startswith("sshproto.")
        }
        assert room in used, f"{name} does not import {room} any more"


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "import asyncio.events",
        "from time import monotonic",
        "def f():\n    import threading",
        "import os",
        "from os import environ",
        "import random",
        "import logging.handlers",
        "import requests",
        "import sshproto_io",
        "open('x')",
        "import io\nio.open('x')",
        "from pathlib import Path",
        "assert True",
        "print('x')",
    ],
)
def test_the_checker_sees_impurity(source):
    assert impurities(source, "wire/codec.py")


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ",
        "import os\nos.open('x', 0)",
        "from os import path",
    ],
)
def test_config_may_have_urandom_and_no_more(source):
    assert impurities(source, "config.py")
    assert not impurities("import os\nos.urandom(1)", "config.py")


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("wire/codec.py", "from sshproto.keys.public import PublicKey"),
        ("wire/codec.py", "from sshproto import connection"),
        ("wire/codec.py", "def f():\n    from sshproto.transport.packets import Opener"),
        ("keys/public.py", "import sshproto.transport.kex"),
        ("transport/kex/dh.py", "from sshproto.auth import client"),
        ("transport/kex/dh.py", "from sshproto.engine import Engine"),
        ("connection.py", "from sshproto.client import ClientConnection"),
        ("client.py", "from sshproto.server import ServerConnection"),
        ("text.py", "from sshproto.wire.codec import Reader"),
        ("client.py", "from sshproto.nowhere import x"),
    ],
)
def test_the_checker_sees_imports_that_go_up(name, source):
    assert upward(source, name)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("wire/codec.py", "from sshproto.errors import WireError"),
        ("wire/codec.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sshproto.client import X"),
        ("keys/public.py", "from sshproto.wire.codec import Reader"),
        ("transport/kex/dh.py", "from ..packets import Opener"),
        ("transport/packets.py", "from sshproto.transport import ciphers"),
        ("client.py", "from sshproto.connection import Connection"),
    ],
)
def test_the_checker_allows_imports_that_go_down(name, source):
    assert upward(source, name) == []
