"""What an import costs, counted: modules and classes, which are the same from run to run, unlike seconds."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAZY = {
    "sshproto": "sshproto/__init__.py",
    "sshproto.agent": "sshproto/agent/__init__.py",
    "sshproto.keys": "sshproto/keys/__init__.py",
    "sshproto_io": "adapters/sshproto_io/__init__.py",
    "sshproto_io.asyncio": "adapters/sshproto_io/asyncio.py",
    "sshproto_io.blocking": "adapters/sshproto_io/blocking.py",
    "sshproto_io.trio": "adapters/sshproto_io/trio.py",
}
"""Packages and modules whose names are loaded when they are asked for."""

COUNT = """
import json, sys
before = set(sys.modules)
import {module}
{then}
modules = set(sys.modules) - before
mine = [vars(sys.modules[name]).items() for name in modules if name.startswith("sshproto")]
classes = {{f"{{value.__module__}}.{{name}}" for items in mine for name, value in items
            if isinstance(value, type) and "__attrs_attrs__" in vars(value)}}
print(json.dumps([sorted(modules), sorted(classes)]))
"""

NEVER = {
    "argparse", "bcrypt", "cryptography.hazmat.primitives.asymmetric", "cryptography.hazmat.primitives.serialization",
    "cryptography.x509", "dataclasses", "email", "json", "multiprocessing", "pathlib", "sshproto.replay",
    "sshproto.weaknesses", "sshproto_cli", "sshproto_io.captures", "sshproto_io.recording",
    "sshproto_io.tables", "tempfile", "trio", "unittest", "urllib", "uuid", "zipfile",
}  # fmt: skip
"""What no face needs in order to be there."""

FOUNDATIONS = {"asyncio", "attr", "attrs", "cryptography", "socket", "trio"}
"""What connections stand on, and what is not needed before there is one."""


def loaded(module: str, then: str = "") -> tuple[set[str], set[str]]:
    """The modules that a fresh process has after ``import module``, and the attrs classes of ours in them."""
    code = COUNT.format(module=module, then=then)
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT, timeout=60)
    modules, classes = json.loads(ran.stdout)
    return set(modules), set(classes)


def below(name: str, names: set[str]) -> bool:
    return any(name == other or name.startswith(other + ".") for other in names)


# --------------------------------------------------------------------------------------------------------------- counts


def test_the_package_alone_loads_nothing_that_was_not_asked_for() -> None:
    modules, classes = loaded("sshproto")
    assert {name for name in modules if name.startswith("sshproto")} == {"sshproto", "sshproto.lazy"}
    assert not {name for name in modules if below(name, {"asyncio", "attr", "attrs", "cryptography", "re", "socket"})}
    assert not classes


@pytest.mark.parametrize("module", ["sshproto_io", "sshproto_io.asyncio", "sshproto_io.blocking", "sshproto_io.trio"])
def test_until_there_is_a_connection_there_are_errors_and_no_more(module: str) -> None:
    modules, classes = loaded(module)
    mine = {name for name in modules if name.startswith("sshproto")}
    assert mine == {"sshproto", "sshproto.errors", "sshproto.lazy", "sshproto.text", "sshproto_io", module}
    assert not {name for name in modules if below(name, FOUNDATIONS)}
    assert not classes


@pytest.mark.parametrize(
    ("module", "then", "most_modules", "most_classes"),
    [
        ("sshproto", "sshproto.ClientConnection", 62, 178),
        ("sshproto", "sshproto.ServerConnection", 62, 178),
        ("sshproto_io.blocking", "sshproto_io.blocking.Client", 85, 190),
        ("sshproto_io.blocking", "sshproto_io.blocking.Server", 88, 195),
        ("sshproto_io.asyncio", "sshproto_io.asyncio.Client", 85, 190),
        ("sshproto_io.asyncio", "sshproto_io.asyncio.Server", 88, 195),
    ],
)
def test_what_a_connection_is_made_of_has_bounds(module: str, then: str, most_modules: int, most_classes: int) -> None:
    """Whoever makes it more says here why it has to be.

    A server has handlers, and permits, by which it may restrict a login.
    """
    modules, classes = loaded(module, then)
    assert sorted(name for name in modules if below(name, NEVER)) == []
    assert len({name for name in modules if name.startswith("sshproto")}) <= most_modules
    assert len(classes) <= most_classes


@pytest.mark.parametrize("face", ["asyncio", "blocking", "trio"])
def test_a_client_loads_no_server_and_a_server_no_client(face: str) -> None:
    def made_of(name: str) -> set[str]:
        return loaded(f"sshproto_io.{face}", f"sshproto_io.{face}.{name}")[0]

    server = {"sshproto.server", "sshproto.auth.server", "sshproto.operations.serving", "sshproto_io.server"}
    assert not made_of("Client") & {*server, "sshproto.keys.permits", f"sshproto_io._{face}_server"}
    assert not made_of("Server") & {"sshproto.client", "sshproto.auth.client", f"sshproto_io._{face}_client"}


# --------------------------------------------------------------------------------------------------------------- tables


def names_for_checkers(path: Path) -> dict[str, str]:
    """Where type checkers are told that each name is from."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.body:
                if not isinstance(statement, ast.ImportFrom):  # another's package, for annotations
                    continue
                for alias in statement.names:
                    found[alias.asname or alias.name] = f"{statement.module}:{alias.name}"
    return found


@pytest.mark.parametrize("package", LAZY)
def test_what_type_checkers_are_told_is_what_is_loaded(package: str) -> None:
    module: Any = importlib.import_module(package)
    for_checkers = names_for_checkers(ROOT / LAZY[package])
    assert for_checkers.keys() >= module._HOMES.keys() & set(module.__all__)
    for name in for_checkers.keys() & module._HOMES.keys():
        home = for_checkers[name]
        place, _, called = home.partition(":")
        told = importlib.import_module(place)
        expected = getattr(told, called) if hasattr(told, called) else importlib.import_module(f"{place}.{called}")
        assert module.__getattr__(name) is expected


@pytest.mark.parametrize("package", LAZY)
def test_every_public_name_can_be_had_and_is_listed(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        getattr(module, name)
        assert name in dir(module)


@pytest.mark.parametrize("package", LAZY)
def test_a_name_that_is_not_there_is_missed_as_in_any_module(package: str) -> None:
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing
    assert not hasattr(module, "__wrapped__")


# -------------------------------------------------------------------------------------------------------------- classes


@pytest.mark.parametrize("root", ["sshproto", "adapters"])
def test_classes_are_made_by_the_decorators_that_share_methods(root: str) -> None:
    """attrs' own compile three methods more for each class; see sshproto/values.py."""
    for path in (ROOT / root).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                for decorator in node.decorator_list:
                    called = decorator.func if isinstance(decorator, ast.Call) else decorator
                    assert not ast.unparse(called).startswith(("attr.", "attrs.")), f"{path}: {node.name}"
