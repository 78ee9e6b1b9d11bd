"""What the source must not do, whatever the tests that run it see."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for root in ("sshproto", "adapters") for path in (TOP / root).rglob("*.py") if "replay" not in path.parts
)
"""The observer compares what was captured, with nobody there who could measure how long it takes."""

SECRET = re.compile(r"(?:^|_)(?:tag|mac|digest|hmac|secret|password|passphrase|cookie|token|private|signature)s?$")
"""Names of what must be compared in constant time."""

FINE = {
    ("sshproto/keys/pem.py", "tag"): "the tag of DER, which says what follows",
    ("sshproto/auth/server.py", "password"): "whether there is one at all",
    ("sshproto/auth/methods.py", "signature"): "names of algorithms",
    ("adapters/sshproto_cli/gate.py", "password"): "two lines of one's own file, read before anybody can connect",
}
"""Comparisons of other things, as (file, name), with what they are."""


def names(node: ast.expr) -> list[str]:
    """How a side of a comparison is called."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.Subscript):
        return names(node.value)
    if isinstance(node, ast.Call):
        return names(node.func)
    return []


def comparisons(source: str) -> list[tuple[int, str]]:
    """Line and name of every comparison by ``==`` or ``!=`` of something that is called like a secret."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and any(isinstance(op, (ast.Eq, ast.NotEq)) for op in node.ops):
            for side in (node.left, *node.comparators):
                found += [(node.lineno, name) for name in names(side) if SECRET.search(name)]
    return found


@pytest.mark.covers("V41")
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(TOP).as_posix())
def test_secrets_are_compared_in_constant_time(path: Path) -> None:
    """``hmac.compare_digest`` it is."""
    where = path.relative_to(TOP).as_posix()
    assert [(line, name) for line, name in comparisons(path.read_text()) if (where, name) not in FINE] == []


@pytest.mark.covers("V41")
def test_the_exceptions_are_needed() -> None:
    found = {(path.relative_to(TOP).as_posix(), name) for path in SOURCES for _, name in comparisons(path.read_text())}
    assert found == set(FINE)
    assert len(SOURCES) > 80
    seen = comparisons("tag == other\nself.mac_tag != x[4:]\nkey.digest() == y\ntags == 1\na == b")
    assert [name for _, name in seen] == ["tag", "mac_tag", "digest", "tags"]


SESSION = """
from tests.support.pair import Pair
from sshproto.channels.requests import Session

pair = Pair.make().login()
channel = pair.client.conn.open_channel(Session())
pair.run()
pair.client.conn.send(channel, b"x")
pair.client.conn.rekey()
pair.run()
pair.client.conn.disconnect("bye")
pair.run()
ends = [type(end.events[-1].error).__name__ for end in (pair.client, pair.server)]
if __debug__ or ends != ["LocalClose", "PeerDisconnected"] or bytes(pair.server.data[0, 0]) != b"x":
    raise SystemExit(f"{__debug__} {ends}")
"""


@pytest.mark.covers("R170")
@pytest.mark.parametrize("flags", [["-O"], ["-OO"]], ids=str)
def test_a_session_without_asserts_and_with_every_warning_an_error(flags: list[str]) -> None:
    command = [sys.executable, *flags, "-W", "error", "-b", "-b", "-c", SESSION]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
