"""The page on agents tells every name, method and field that there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto import agent
from sshproto.agent import messages
from sshproto.operations import agents
from sshproto_cli.agent import VERBS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "reference"
PAGE = (DOCS / "agent.md").read_text()


def section(title: str) -> str:
    found = re.search(rf"^(#+) {title}\n(.*?)(?=^\1 |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title}"
    return found[2]


def public(cls: type) -> set[str]:
    """The methods, properties and fields of a class."""
    own = {name for name in vars(cls) if not name.startswith("_")}
    return own | ({field.name for field in attrs.fields(cls)} if attrs.has(cls) else set())


def test_every_name_is_told() -> None:
    assert set(agent.__all__) <= set(re.findall(r"\w+", PAGE))


@pytest.mark.parametrize(
    "cls", [agent.Keyring, agent.HeldKey, agent.AgentServer, agent.Identity], ids=lambda it: it.__name__
)
def test_every_member_is_told(cls: type) -> None:
    missing = public(cls) - set(re.findall(r"`(\w+)", section(cls.__name__)))
    told = re.findall(r"\w+", section(cls.__name__))
    assert missing <= set(told)


@pytest.mark.parametrize(
    "cls", [agent.ConfirmNeeded, agent.KeyUsed, agent.RequestRefused, agent.Binding, agent.SignPurpose]
)
def test_every_field_of_an_event_is_told(cls: type) -> None:
    assert public(cls) <= set(re.findall(r"`(\w+)`", section("Events")))


def written(name: str, function: Any) -> str:
    """A method as the page writes it."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]
    return f"{name}{inspect.Signature(parameters)}".replace("'", '"').replace(" = ", "=").replace('b""', 'b""')


def test_every_method_of_an_agent_is_told_with_its_arguments() -> None:
    text = section("Agent")
    for name in public(agents.Agent) - {"close", "closed"}:
        assert f"`{written(name, getattr(agents.Agent, name))}`" in text, name


def test_every_method_of_a_keyring_is_told_with_its_arguments() -> None:
    text = section("Keyring")
    made = re.sub(r"<function (\w+) at \w+>", r"\1", written("Keyring", agent.Keyring.__init__))
    assert f"`{made}`" in text
    for name in ("add", "keys", "find", "remove", "remove_all", "expire", "lock", "unlock", "unlock_after"):
        assert f"`{written(name, getattr(agent.Keyring, name))}`" in text, name


def test_every_request_is_told() -> None:
    told = section("Messages")
    for cls in messages.Request.__args__:
        line = next(line for line in told.splitlines() if f"`{cls.__name__}`" in line)
        assert str(cls.number) in re.findall(r"\d+", line.split("|")[1])


def test_every_verb_is_told() -> None:
    text = (DOCS / "command-line.md").read_text()
    part = text.partition("## `sshproto agent`")[2].partition("\n## ")[0]
    assert set(VERBS) <= set(re.findall(r"\w+", part))
