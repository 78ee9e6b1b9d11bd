"""From what was read to what holds: defaults, names made canonical, a second pass, tokens put in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from sshproto.keys.known_hosts import match_patterns
from sshproto.ssh_config.algorithms import ANYBODYS, Catalogue
from sshproto.ssh_config.keywords import KEYWORDS, Rule
from sshproto.ssh_config.kinds import Rules, is_domain
from sshproto.ssh_config.places import Forward
from sshproto.ssh_config.problems import COMMAND_LINE, ConfigError, LineError, Place, Problem
from sshproto.ssh_config.reader import Reader
from sshproto.ssh_config.settings import DEFAULT_IDENTITIES, NOTHING, HostConfig
from sshproto.ssh_config.tokens import expand, expand_home
from sshproto.ssh_config.world import Source, World
from sshproto.text import printable

_USER_KNOWN = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_BATCH_ALIVE = 300
_LONGEST_HOST = 1024
_ADDRESS = frozenset("0123456789.")
_HOST = re.compile(r"(?!-)[^\s'`\"$\\;&<>|(){}]+")


def resolve(
    host: str,
    sources: Iterable[Source],
    world: World,
    *,
    options: Iterable[str] = (),
    catalogue: Catalogue = ANYBODYS,
) -> HostConfig:
    """What holds for a host, by ssh_config(5).

    Args:
        host: The name as it was typed. It may reach a command as ``%h``, so that what a shell would not take for a name
            is refused, as by ssh.
        sources: The files, the user's before the machine's.
        world: What is outside.
        options: Lines that come before all files, such as ``"Port=2222"``: those of ``-o``. They are the user's own
            words: a ``User`` that others choose is not put there unseen, since ``%r`` reaches commands, too.
        catalogue: The algorithms that may be named.

    Raises:
        ConfigError: Something in a file is wrong, the host is none, or a name can't be found that has to be.
    """
    if len(host) > _LONGEST_HOST or not _HOST.fullmatch(host) or not host.isprintable():
        raise _error(f"no host name: {printable(host, 80)!r}")
    reader = Reader(host, world, Rules(catalogue, world.environment, world.service))
    sources = tuple(sources)
    reader.options(options)
    reader.files(sources)
    try:
        _find_host(reader)
        if reader.values["canonicalize_hostname"] != "no" or reader.final_wanted:
            reader.final = True
            reader.values["hostname"] = reader.host
            reader.files(sources)
        return _finish(reader)
    except LineError as error:
        raise _error(str(error)) from None


def _error(words: str) -> ConfigError:
    return ConfigError([Problem(Place(COMMAND_LINE, 0), words)])


def tokens_of(world: World, *, typed: str, host: str, port: int, user: str, alias: str | None) -> dict[str, str]:
    """What tokens stand for.

    Args:
        world: What is outside.
        typed, host: The host as it was typed, and as it is called.
        port, user: Where to, and as whom.
        alias: ``HostKeyAlias``, if there is one.
    """
    name = f"{world.local_host}{host}{port}{user}"
    return {
        "C": hashlib.sha1(name.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest(),
        "d": world.home,
        "h": host,
        "i": str(world.uid),
        "k": alias or typed,
        "L": world.local_host.partition(".")[0],
        "l": world.local_host,
        "n": typed,
        "p": str(port),
        "r": user,
        "u": world.user,
    }


# ------------------------------------------------------------------------------------------------------ names of hosts


def _find_host(reader: Reader) -> None:
    """See what the host is called, and make that canonical if it is wanted."""
    values = reader.values
    for name, usual in (("hostname", "no"), ("max_dots", 1), ("fallback_local", True)):
        values.setdefault(f"canonicalize_{name}", usual)  # the second pass can't change what led to it
    given: str | None = values.get("hostname")
    host = reader.typed if given is None else expand(given, {"h": reader.typed})
    if not host:
        raise LineError("the host name is empty")
    numeric = _is_address(host)
    if not numeric:
        host = host.lower()
    wanted = values["canonicalize_hostname"]
    found: str | None = None
    if wanted != "no" or numeric:
        found = _canonical(host, reader)
    if found is None and _follows_names(reader) and (_direct(reader) or wanted == "always"):
        canonical = reader.world.canonical(host)
        if canonical is None and _direct(reader):
            raise LineError(f"could not resolve hostname {printable(host)}")
        if canonical is not None:
            found = _followed(host, canonical, reader)
    reader.host = host if found is None else found
    if given is not None:
        values["hostname"] = host


def _is_address(host: str) -> bool:
    return ":" in host or "%" in host or set(host) <= _ADDRESS


def _direct(reader: Reader) -> bool:
    command = reader.values.get("proxy_command")
    return (command is None or command.lower() == "none") and not reader.values.get("proxy_jump")


def _follows_names(reader: Reader) -> bool:
    rules = reader.values.get("canonicalize_permitted_cnames", ())
    return bool(rules) and rules[0][0].lower() != "none"


def _canonical(host: str, reader: Reader) -> str | None:
    """The canonical name or the usual form of an address; None if it is to stay as it is."""
    values, world = reader.values, reader.world
    family = values.get("address_family", "any")
    address = None if family == ("inet" if ":" in host else "inet6") else world.address(host)
    if address is not None:
        return host if address.lower() == host.lower() else address
    wanted = values["canonicalize_hostname"]
    if _is_address(host) or wanted == "no" or (not _direct(reader) and wanted != "always"):
        return None
    if host.endswith("."):
        candidates = [host]
    elif host.count(".") > values["canonicalize_max_dots"]:
        return None
    else:
        domains = values.get("canonical_domains", ())
        candidates = [f"{host}.{domain}." for domain in domains if domain.lower() != "none"]
    for candidate in candidates:
        name = world.canonical(candidate)
        if name is not None:
            return _followed(candidate.removesuffix("."), name, reader)
    if not values["canonicalize_fallback_local"]:
        raise LineError(f"could not resolve host {printable(host)!r}")
    return None


def _followed(host: str, name: str, reader: Reader) -> str:
    """``host``, or what it is a CNAME of, if that may be followed."""
    values = reader.values
    wanted = values["canonicalize_hostname"]
    name = name.removesuffix(".")
    if not is_domain(name):  # whoever answers for names must not choose what a command makes of %h
        return host
    if name == host or wanted == "no" or (not _direct(reader) and wanted != "always"):
        return host
    for sources, targets in values.get("canonicalize_permitted_cnames", ()):
        if match_patterns(host.lower(), sources) and match_patterns(name.lower(), targets):
            return name
    return host


# ------------------------------------------------------------------------------------------------------------ the rest


def _finish(reader: Reader) -> HostConfig:
    values, world = dict(reader.values), reader.world
    fields = {keyword.field: keyword for keyword in KEYWORDS if keyword.field}
    found: dict[str, Any] = {name: values.get(name, keyword.default) for name, keyword in fields.items()}
    found["host"], found["hostname"] = reader.typed, reader.host
    found["user"] = values.get("user", world.user)
    found["rekey_interval"] = values.get("rekey_interval", 0)
    found["forward_agent_path"] = values.get("forward_agent_path")
    if "server_alive_interval" not in values and found["batch_mode"]:
        found["server_alive_interval"] = _BATCH_ALIVE
    files: tuple[str, ...] = values.get("identity_files", DEFAULT_IDENTITIES)
    found["identity_files"] = files
    if found["host_key_alias"] is not None:
        found["host_key_alias"] = found["host_key_alias"].lower()
    for name in ("remote_command", "proxy_command", "control_path", "revoked_host_keys", "known_hosts_command"):
        if found[name] is not None and found[name].lower() == "none":
            found[name] = None
    if found["proxy_jump"]:
        found["proxy_use_fdpass"] = False
    if not found["connection_attempts"]:
        raise LineError("invalid number of ConnectionAttempts")
    known = values.get("user_known_hosts_files")
    if found["update_host_keys"] is None:
        usual = known is None or known == _USER_KNOWN[:1]
        found["update_host_keys"] = "yes" if usual and found["verify_host_key_dns"] == "no" else "no"
    elif found["update_host_keys"] == "ask":
        lasting = found["control_path"] and values.get("controlpersist", "no") != "no"
        silent = found["log_level"] in ("QUIET", "FATAL", "ERROR")
        if lasting or silent or found["request_tty"] == "no" or found["remote_command"] is not None:
            found["update_host_keys"] = "no"  # nobody could be asked
    if found["clear_all_forwardings"]:
        found |= {"local_forwards": (), "remote_forwards": (), "dynamic_forwards": ()}
        values["tunnel"] = "no"
    alias = found["host_key_alias"]
    tokens = tokens_of(world, typed=reader.typed, host=reader.host, port=found["port"], user=found["user"], alias=alias)
    _put_in(found, tokens, world)
    found["user_known_hosts_files"] = _files(_USER_KNOWN if known is None else known, tokens, world)
    known = values.get("global_known_hosts_files", _GLOBAL_KNOWN)
    found["global_known_hosts_files"] = () if known[0].lower() == "none" else known
    other = {
        keyword.key: keyword.kind.show(values[keyword.key])
        for keyword in KEYWORDS
        if not keyword.field and keyword.rule is not Rule.SPECIAL and keyword.key in values
    }
    for key in ("localcommand", "pkcs11provider", "securitykeyprovider"):
        if other.get(key, "").lower() == "none":
            other[key] = NOTHING
    return HostConfig(
        **found,
        other=other,
        said=frozenset(reader.said),
        notes=tuple(reader.notes),
        unknown=tuple(reader.unknown),
        tokens=tokens,
        world=world,
    )


def _put_in(found: dict[str, Any], tokens: Mapping[str, str], world: World) -> None:
    """Put tokens in where ``ssh -G`` shows values with them."""
    if found["remote_command"] is not None:
        found["remote_command"] = expand(found["remote_command"], tokens)
    for name in ("control_path", "identity_agent", "forward_agent_path"):
        if found[name] is not None:
            found[name] = _path(found[name], tokens, world)
    for name in ("local_forwards", "remote_forwards"):
        found[name] = tuple(_forward(forward, tokens) for forward in found[name])


def _forward(forward: Forward, tokens: Mapping[str, str]) -> Forward:
    listen, target = forward.listen, forward.target
    return attrs.evolve(
        forward,
        listen=expand(listen, tokens) if isinstance(listen, str) else listen,
        target=expand(target, tokens) if isinstance(target, str) else target,
    )


def _path(text: str, tokens: Mapping[str, str], world: World) -> str:
    return expand(expand_home(text, world.home_of), tokens, world.environment)


def _files(names: tuple[str, ...], tokens: Mapping[str, str], world: World) -> tuple[str, ...]:
    if names[0].lower() == "none":
        return ()
    return tuple(_path(name, tokens, world) for name in names)
