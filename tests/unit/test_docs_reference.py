"""The reference pages say what the code says: every name is there, and every default is the code's."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs
import pytest

import sshproto_io
from sshproto import ClientConnection, ServerConnection, algorithms, errors, events, keys
from sshproto.channels import requests
from sshproto.config import (
    VERSION,
    ClientConfig,
    Config,
    Limits,
    Preferences,
    ServerConfig,
    Timeouts,
    compute_now,
    system_entropy,
)
from sshproto.keys import allowed_signers, authorized_keys, host_lines, host_proofs, known_hosts, sshfp, sshsig
from sshproto.timers import Timer
from sshproto.wire.table import Role
from sshproto_io import asyncio as asyncio_face
from sshproto_io import blocking
from sshproto_io import trio as trio_face
from tests.support import render

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [
    DOCS / name
    for name in (
        "reference/connection.md",
        "reference/events.md",
        "reference/limits.md",
        "reference/messages.md",
        "reference/requests.md",
        "reference/keys.md",
        "reference/file-signatures.md",
        "reference/key-formats.md",
        "reference/command-line.md",
        "reference/faces.md",
        "how-to/embed.md",
        "how-to/other-loops.md",
        "how-to/keys.md",
        "how-to/sign-files.md",
        "how-to/answer-questions.md",
        "how-to/property-tests.md",
        "how-to/legacy-devices.md",
        "explanation/operations.md",
        "explanation/state.md",
    )
]
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "s": 1}


def read(name: str) -> str:
    return (DOCS / "reference" / name).read_text(encoding="utf-8")


def sections(text: str, level: int = 3) -> dict[str, str]:
    """What stands under each heading of a level, up to the next heading of that level or a higher one."""
    parts = re.split(rf"^(#{{1,{level}}}) (.+)\n", text, flags=re.MULTILINE)
    return {
        title: body
        for marks, title, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
        if len(marks) == level
    }


def rows(text: str) -> Iterator[list[str]]:
    """The cells of all table rows whose first cell is code."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def quantity(text: str) -> Any:
    """The value of ``64 KiB``, ``2^31``, ``60 s``, ``never``."""
    if text == "never":
        return None
    number, _, unit = text.partition(" ")
    base, _, power = number.partition("^")
    return (int(base) ** int(power) if power else int(base)) * UNITS.get(unit, 1)


# -------------------------------------------------------------------------------------------------- limits and timeouts

LIMITS, _, TIMEOUTS = read("limits.md").partition("\n## Timeouts\n")


@pytest.mark.parametrize(("text", "values"), [(LIMITS, Limits()), (TIMEOUTS, Timeouts())], ids=["limits", "timeouts"])
def test_every_limit_and_timeout_is_told_with_its_default(text: str, values: Any) -> None:
    told = {names_in(cells[0])[0]: quantity(cells[1]) for cells in rows(text)}
    assert told == attrs.asdict(values)


def test_every_timer_is_named() -> None:
    told = {cells[-1].strip("` ") for cells in rows(TIMEOUTS)} - {""}
    assert told == {timer.value for timer in Timer} - {Timer.REKEY.value, Timer.LINGER.value}  # these end nothing


# -------------------------------------------------------------------------------------------------------- configuration


def config_tables() -> dict[str, dict[str, str]]:
    """The defaults as they are told, by table."""
    body = sections(read("connection.md"), 2)["Configuration"]
    marks = ["Both `ClientConfig`", "`ClientConfig` adds", "`ServerConfig` adds", "`Preferences` names"]
    places = [body.index(mark) for mark in marks] + [len(body)]
    return {
        mark.split("`")[1] if "Both" not in mark else "Config": {
            names_in(cells[0])[0]: cells[1] for cells in rows(body[start:stop])
        }
        for mark, start, stop in zip(marks, places, places[1:], strict=False)
    }


def inherited(cls: Any) -> set[str]:
    return {field.name for field in attrs.fields(Config)} if cls not in (Config, Preferences) else set()


@pytest.mark.parametrize("cls", [Config, ClientConfig, ServerConfig, Preferences])
def test_every_field_of_the_configuration_is_told_with_its_default(cls: Any) -> None:
    told = config_tables()[cls.__name__]
    fields = {field.name: field for field in attrs.fields(cls) if field.name not in inherited(cls)}
    assert set(told) == set(fields)
    in_words = {"software": f"sshproto_{VERSION}", "entropy": system_entropy, "oracle": compute_now}
    for name, field in fields.items():
        text = told[name].replace("`", "")
        default = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = default.factory()
        if text == "(required)":
            assert default is attrs.NOTHING, name
        elif name in in_words:
            assert default == in_words[name], name
        elif text.endswith("_DEFAULT"):
            assert default == getattr(algorithms, text), name
        elif text.endswith("()"):
            assert text == f"{type(default).__name__}()"
            assert default == type(default)()
        else:
            assert default == ast.literal_eval(text), name


# ------------------------------------------------------------------------------------------------ the connection object


def public(cls: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(cls) if not name.startswith("_")}


def plain(function: Any) -> str:
    """The parameters of a method with their defaults, without annotations."""
    signature = inspect.signature(function)
    parameters = []
    for parameter in list(signature.parameters.values())[1:]:
        default = parameter.default
        if default is not inspect.Parameter.empty and isinstance(default, int) and not isinstance(default, bool):
            default = int(default)  # an IntEnum shows itself as a number here
        parameters.append(parameter.replace(annotation=inspect.Parameter.empty, default=default))
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)).replace("'", '"')


def test_every_method_is_told_with_its_arguments() -> None:
    told = {}
    for cells in rows(read("connection.md")):
        if match := re.fullmatch(r"`(\w+)(\(.*\))`", cells[0]):
            assert match[1] not in told
            told[match[1]] = match[2]
    methods = {
        name: plain(value)
        for cls in (ClientConnection, ServerConnection)
        for name, value in public(cls).items()
        if inspect.isfunction(value)
    }
    assert told == methods


def test_every_answer_has_its_role() -> None:
    for cells in rows(sections(read("connection.md"), 2)["Answers"]):
        name = cells[0].strip("`").partition("(")[0]
        roles = {cls for cls in (ClientConnection, ServerConnection) if hasattr(cls, name)}
        expected = {"client": {ClientConnection}, "server": {ServerConnection}}
        assert roles == expected.get(cells[1], {ClientConnection, ServerConnection}), name


def test_every_getter_is_told() -> None:
    told = {names_in(cells[0])[0] for cells in rows(sections(read("connection.md"), 2)["Getters"])}
    getters = {name for name, value in public(ClientConnection).items() if isinstance(value, property)}
    assert told == getters == {name for name, value in public(ServerConnection).items() if isinstance(value, property)}


def test_every_error_is_told_with_its_code() -> None:
    body = sections(read("connection.md"), 2)["Errors"]
    raised, _, carried = body.partition("| carried |")
    classes = [
        value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__
    ]
    usage = {cls.__name__ for cls in classes if issubclass(cls, errors.UsageError)}
    ends = {cls.__name__ for cls in classes if issubclass(cls, (errors.Refusal, errors.ChannelEnded))}
    assert {names_in(cells[0])[0] for cells in rows(raised)} == usage | ends | {"SignatureInvalid"}
    losses = {cls.__name__: cls for cls in classes if issubclass(cls, errors.ConnectionLoss)}
    told = {names_in(cells[0])[0]: cells[1:] for cells in rows(carried)}
    assert set(told) == set(losses) - {"ConnectionLoss"}
    for name, (meaning, code) in told.items():
        if code not in ("the peer's", "yours"):
            fixed = losses[name].code
            assert code.partition(",")[0] == ("None" if fixed is None else str(int(fixed))), name
        for attribute in names_in(meaning.partition("Has ")[2].partition(".")[0]):
            assert f"{attribute}:" in (inspect.getdoc(losses[name]) or ""), name


# --------------------------------------------------------------------------------------------------------------- events


def all_events() -> list[Any]:
    return [value for value in vars(events).values() if inspect.isclass(value) and issubclass(value, events.Event)]


ABSTRACT = (events.Event, events.Question, events.AuthQuestion)
TOLD = sections(read("events.md"))


def test_every_event_has_a_section_and_no_other_has() -> None:
    assert set(TOLD) == {cls.__name__ for cls in all_events() if cls not in ABSTRACT}


@pytest.mark.parametrize("cls", [cls for cls in all_events() if cls not in ABSTRACT], ids=lambda cls: cls.__name__)
def test_every_field_of_an_event_is_told(cls: Any) -> None:
    body = TOLD[cls.__name__]
    general = {"id", "user"} if issubclass(cls, events.AuthQuestion) else {"id"}
    own = {field.name for field in attrs.fields(cls)} - general
    told = {name for cells in rows(body) for name in names_in(cells[0])}
    if like := re.search(r"The fields are those of `(\w+)`", body):
        told |= {name for cells in rows(TOLD[like[1]]) for name in names_in(cells[0])}
    if cls is events.ConnectionLost:
        own |= {"reason"}
    assert told == own


@pytest.mark.parametrize("cls", [cls for cls in all_events() if cls not in ABSTRACT], ids=lambda cls: cls.__name__)
def test_questions_are_called_so(cls: Any) -> None:
    assert TOLD[cls.__name__].lstrip().startswith("*Question") == issubclass(cls, events.Question)


def test_every_question_is_in_the_table_of_safe_answers() -> None:
    table = sections(read("events.md"), 2)["Questions"]
    told = {
        name for line in table.splitlines() if line.startswith("| [`") for name in names_in(line.partition(" | ")[0])
    }
    questions = {cls.__name__ for cls in all_events() if issubclass(cls, events.Question) and cls not in ABSTRACT}
    logins = {cls.__name__ for cls in all_events() if issubclass(cls, events.AuthQuestion)}
    assert told == (questions - logins) | {"NoneAuth", "AuthQuestion"}
    refusals = tuple(ClientConnection._REFUSALS | ServerConnection._REFUSALS)
    assert all(issubclass(getattr(events, name), refusals) for name in told)


# ------------------------------------------------------------------------------------------------------------- requests

REQUESTS = {
    "Channel kinds": requests.ChannelOpenData,
    "Channel requests": requests.ChannelRequestData,
    "Global requests": requests.GlobalRequestData,
}
VALUES = [cls for union in REQUESTS.values() for cls in get_args(union)]
SENDERS = {frozenset({Role.SERVER}): "client", frozenset({Role.CLIENT}): "server", frozenset(Role): "either"}


@pytest.mark.parametrize(("title", "union"), REQUESTS.items(), ids=list(REQUESTS))
def test_every_request_is_told_with_its_name_and_sender(title: str, union: Any) -> None:
    told = {names_in(cells[0].strip("["))[0]: cells for cells in summary(title)}
    assert list(told) == [cls.__name__ for cls in get_args(union)]
    for cls in get_args(union):
        _, wire, sender, *rest = told[cls.__name__]
        assert wire == ("any other" if issubclass(cls, requests.Unknown) else f"`{cls.type}`"), cls
        assert sender == SENDERS[cls.receivers], cls
        assert re.search(r"RFC \d+|OpenSSH", rest[-1]), cls
        if title == "Channel requests":
            assert rest[0] == ("never" if cls.notice else "if wanted"), cls


def summary(title: str) -> list[list[str]]:
    """The rows of the table of classes in a part of the page on requests."""
    lines = sections(read("requests.md"), 2)[title].partition("\n### ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| [`")]


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
def test_every_field_of_a_request_is_told_with_its_type_and_default(cls: Any) -> None:
    body = sections(read("requests.md"))[cls.__name__]
    told = {names_in(cells[0])[0]: tuple(cells[1:3]) for cells in map(cells_of, field_lines(body))}
    expected = {}
    for field in attrs.fields(cls):
        kind = getattr(field.type, "__origin__", field.type)
        default = "" if field.default is attrs.NOTHING else repr(field.default).replace("'", '"')
        expected[field.name] = (get_origin(kind) or kind).__name__, default
    assert list(told) == list(expected)
    assert {name: (kind, default.strip("`")) for name, (kind, default) in told.items()} == expected
    assert bool(expected) != ("No fields" in body)


def field_lines(body: str) -> list[str]:
    return [line for line in body.splitlines() if line.startswith("| `")]


def cells_of(line: str) -> list[str]:
    """All cells of a row, empty ones too."""
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


def test_every_other_name_of_requests_is_told() -> None:
    text = read("requests.md")
    told = {names_in(cells[0])[0]: int(cells[1]) for cells in rows(sections(text)["OpenFailure"])}
    assert told == {reason.name: reason.value for reason in requests.OpenFailure}
    assert {name for name in vars(requests) if re.fullmatch("[A-Z]+_?REQUESTS|KINDS", name)} <= set(names_in(text))


def test_requests_have_a_module_of_their_own() -> None:
    import sshproto.requests

    assert all(getattr(sshproto.requests, cls.__name__) is cls for cls in VALUES)


# --------------------------------------------------------------------------------------------------- keys and the faces


class Named:
    """Shows a default that is a function by its name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__

    def __repr__(self) -> str:
        return self.name


def written(name: str, function: Any, *, bound: bool) -> str:
    """A call as the tables write it."""
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(
            annotation=inspect.Parameter.empty,
            default=Named(parameter.default) if inspect.isfunction(parameter.default) else parameter.default,
        )
        for parameter in list(signature.parameters.values())[bound:]
    ]
    text = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return f"`{name}{text.replace(chr(39), chr(34))}`"


def members(cls: Any) -> Iterator[str]:
    """The public members of a class, as the tables write them."""
    for name, value in public(cls).items():
        if inspect.isfunction(value) or inspect.ismethod(value):
            yield written(name, value, bound=inspect.isfunction(value))
        else:
            yield f"`{name}`"
    if attrs.has(cls):
        yield from (f"`{field.name}`" for field in attrs.fields(cls) if not field.name.startswith("_"))


def code_in_first_cells(body: str) -> set[str]:
    return {line[2:].partition(" | ")[0].strip() for line in body.splitlines() if line.startswith("| `")}


@pytest.mark.parametrize(
    "cls",
    [
        keys.PrivateKey,
        keys.PublicKey,
        keys.KnownHosts,
        keys.Match,
        keys.HostEntry,
        keys.AuthorizedKeys,
        keys.AuthorizedKey,
        keys.AuthorizedPrincipals,
        keys.AuthorizedPrincipal,
        keys.Permit,
        keys.Trust,
        keys.Certificate,
        keys.CertificateGrant,
        keys.KRL,
    ],
    ids=lambda cls: cls.__name__,
)
def test_every_member_of_a_key_class_is_told(cls: Any) -> None:
    text = read("keys.md")
    body = (sections(text) | sections(text, 2))[cls.__name__]
    expected = set(members(cls)) if cls is not keys.Trust else {f"`{trust.name}`" for trust in keys.Trust}
    assert expected <= code_in_first_cells(body)


@pytest.mark.parametrize(
    "cls",
    [keys.FileSignature, keys.MessageHash, keys.SignatureRequest, keys.AllowedSigners, keys.AllowedSigner],
    ids=lambda cls: cls.__name__,
)
def test_every_member_of_a_class_of_file_signatures_is_told(cls: Any) -> None:
    body = sections(read("file-signatures.md"))[cls.__name__]
    assert set(members(cls)) <= code_in_first_cells(body)


def test_every_function_of_file_signatures_is_told() -> None:
    text = read("file-signatures.md")
    for function in (sshsig.sign, sshsig.request, allowed_signers.parse, keys.read_revoked):
        assert written(function.__name__, function, bound=False) in text
    assert {field.name for field in attrs.fields(keys.VerifiedSignature)} <= set(re.findall(r"`(\w+)`", text))


def test_every_name_of_keys_is_told() -> None:
    text = read("keys.md")
    assert set(keys.__all__) <= set(re.findall(r"\w+", text))
    for function in (
        known_hosts.parse,
        known_hosts.line_for,
        known_hosts.marked_line,
        host_lines.find,
        host_lines.append,
        host_lines.remove,
        host_lines.hash_names,
        host_proofs.proof_input,
        host_proofs.check_proofs,
        sshfp.compare,
        authorized_keys.parse,
        authorized_keys.parse_principals,
    ):
        assert written(function.__name__, function, bound=False) in text


FACES = (blocking, asyncio_face, trio_face)


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_every_name_of_a_face_is_told(face: Any) -> None:
    assert {*face.__all__, *sshproto_io.__all__} <= set(re.findall(r"\w+", read("faces.md")))


def test_the_faces_have_the_same_names() -> None:
    assert {frozenset(face.__all__) for face in FACES} == {frozenset(blocking.__all__)}


def public_names(cls: Any) -> set[str]:
    """The methods and properties that a class has, itself or from another of the faces' modules."""
    own = [base for base in cls.__mro__ if base.__module__.startswith(("sshproto_io", "sshproto.operations"))]
    return {name for base in own for name in vars(base) if not name.startswith("_") and name.islower()}


PLUMBING = {
    "Client": {"apply", "driver", "spawn", "flush", "shut", "within", "tunnel", "resolve"}
    | {"complete", "told", "turn", "soon", "due", "adopt", "failed", "forget", "end_jobs"}
    | {"connection_made", "connection_lost", "data_received", "eof_received", "pause_writing", "resume_writing"},
    "Process": set(),
    "Server": {"admit", "forget", "accept", "serve", "listens", "start", "stop"},
    "Handler": set(),
}
"""What the parts of a face have for one another."""


@pytest.mark.parametrize("name", PLUMBING)
@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_every_member_of_a_face_is_told(face: Any, name: str) -> None:
    told = set(
        re.findall(
            r"`(\w+)",
            (sections(read("faces.md")) | sections(read("faces.md"), 2))[{"Server": "listen"}.get(name, name)],
        )
    )
    assert public_names(getattr(face, name)) - PLUMBING[name] <= told


def test_the_arguments_of_connect_are_told() -> None:
    text = " ".join(read("faces.md").split())
    for face in FACES:
        # Those of asyncio and Trio take what leads to the server already besides.
        assert re.sub(", (stream|sock)=None", "", written("connect", face.connect, bound=False)) in text


# ------------------------------------------------------------------------------------------------------------- messages


def test_the_table_of_messages_is_up_to_date() -> None:
    assert read("messages.md") == render.page(), "run: python -m tests.support.render"


# ---------------------------------------------------------------------------------------------------------------- links


def slug(title: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.is_file(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in map(slug, titles), target
