"""What holds for one host, when all that is said about it has been read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from sshproto.ssh_config.algorithms import ANYBODYS, AlgorithmList, Catalogue
from sshproto.ssh_config.keywords import BY_NAME, SHOWN, Keyword
from sshproto.ssh_config.places import Forward, Jump
from sshproto.ssh_config.problems import COMMAND_LINE, ConfigError, LineError, Place, Problem
from sshproto.ssh_config.reader import Unknown
from sshproto.ssh_config.tokens import PROXY, expand, expand_home
from sshproto.ssh_config.world import World
from sshproto.values import frozen

DEFAULT_IDENTITIES = tuple(
    f"~/.ssh/id_{name}" for name in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "xmss", "dsa")
)
"""The keys that ``ssh`` tries if no ``IdentityFile`` is given."""

NOTHING = ""
"""What of :attr:`HostConfig.other` is not shown."""

_CATEGORIES = {
    "ciphers": "cipher",
    "macs": "mac",
    "kex_algorithms": "kex",
    "host_key_algorithms": "signature",
    "pubkey_accepted_algorithms": "signature",
    "hostbased_accepted_algorithms": "signature",
    "ca_signature_algorithms": "authority",
}


@frozen(kw_only=True)
class HostConfig:
    """What holds for a host. Made by :func:`~sshproto.ssh_config.resolve`.

    Each attribute is a keyword of ssh_config(5). Where ``ssh -G`` shows a value with its tokens put in, it is so here;
    :attr:`identity_files`, :attr:`certificate_files`, :attr:`proxy_command` and :attr:`proxy_jump` are as written, and
    methods put them in.

    Attributes:
        host: The name that was typed.
        hostname: The name or address to connect to.
        user: Whom to log in as; the local user if nothing is said.
        connect_timeout, server_alive_interval, rekey_interval, forward_x11_timeout: Seconds; None, or 0, for never.
        rekey_limit: Bytes; 0 for the cipher's own limit.
        identity_files: Keys, in order. If none was given, those of :data:`DEFAULT_IDENTITIES`.
        user_known_hosts_files, global_known_hosts_files: In order; empty for ``none``.
        add_keys_to_agent: ``"yes"``, ``"no"``, ``"ask"`` or ``"confirm"``, and seconds, 0 for ever.
        escape_char: A character, or ``"none"``.
        forward_agent, forward_agent_path: Whether to, and where the agent is if that is said.
        other: What the remaining keywords say, by their names in lower case, as ``ssh -G`` shows it. Only what is said.
        said: The keywords that something was said about, in lower case: the others have their defaults.
        notes: What is worth being told.
        unknown: Lines with keywords that nobody knows.
    """

    host: str
    hostname: str
    user: str
    port: int
    ignore_unknown: str | None
    address_family: str
    bind_address: str | None
    connection_attempts: int
    connect_timeout: int | None
    proxy_command: str | None
    proxy_jump: tuple[Jump, ...]
    proxy_use_fdpass: bool
    canonicalize_hostname: str
    canonical_domains: tuple[str, ...]
    canonicalize_max_dots: int
    canonicalize_fallback_local: bool
    canonicalize_permitted_cnames: tuple[tuple[str, str], ...]
    tcp_keep_alive: bool
    ip_qos: tuple[int, int]
    ciphers: AlgorithmList | None
    macs: AlgorithmList | None
    kex_algorithms: AlgorithmList | None
    host_key_algorithms: AlgorithmList | None
    pubkey_accepted_algorithms: AlgorithmList | None
    ca_signature_algorithms: AlgorithmList | None
    hostbased_accepted_algorithms: AlgorithmList | None
    compression: bool
    rekey_limit: int
    rekey_interval: int
    required_rsa_size: int
    server_alive_count_max: int
    server_alive_interval: int
    strict_host_key_checking: str
    user_known_hosts_files: tuple[str, ...]
    global_known_hosts_files: tuple[str, ...]
    host_key_alias: str | None
    hash_known_hosts: bool
    revoked_host_keys: str | None
    update_host_keys: str
    check_host_ip: bool
    known_hosts_command: str | None
    no_host_authentication_for_localhost: bool
    verify_host_key_dns: str
    visual_host_key: bool
    fingerprint_hash: str
    identity_files: tuple[str, ...]
    certificate_files: tuple[str, ...]
    identities_only: bool
    identity_agent: str | None
    add_keys_to_agent: tuple[str, int]
    preferred_authentications: str | None
    pubkey_authentication: str
    password_authentication: bool
    kbd_interactive_authentication: bool
    number_of_password_prompts: int
    batch_mode: bool
    request_tty: str
    remote_command: str | None
    session_type: str
    stdin_null: bool
    send_env: tuple[str, ...]
    set_env: tuple[tuple[str, str], ...]
    escape_char: str
    log_level: str
    local_forwards: tuple[Forward, ...]
    remote_forwards: tuple[Forward, ...]
    dynamic_forwards: tuple[Forward, ...]
    clear_all_forwardings: bool
    exit_on_forward_failure: bool
    gateway_ports: bool
    permit_remote_open: tuple[str, ...]
    stream_local_bind_mask: int
    stream_local_bind_unlink: bool
    forward_agent: bool
    forward_agent_path: str | None
    forward_x11: bool
    forward_x11_trusted: bool
    forward_x11_timeout: int
    xauth_location: str
    control_path: str | None
    tag: str | None
    other: Mapping[str, str] = attrs.field(hash=False)
    said: frozenset[str]
    notes: tuple[Problem, ...]
    unknown: tuple[Unknown, ...]
    tokens: Mapping[str, str] = attrs.field(repr=False, hash=False)
    world: World = attrs.field(repr=False, eq=False, hash=False)

    @property
    def quiet(self) -> bool:
        """Whether ``LogLevel`` asks for errors only."""
        return self.log_level in ("QUIET", "FATAL", "ERROR")

    def expand(self, text: str) -> str:
        """A path with ``~``, tokens and variables put in.

        Raises:
            ConfigError: One has no meaning, or no value.
        """
        try:
            return expand(expand_home(text, self.world.home_of), self.tokens, self.world.environment)
        except LineError as error:
            raise ConfigError([Problem(Place(COMMAND_LINE, 0), str(error))]) from None

    def identity_paths(self) -> tuple[str, ...]:
        """The files of :attr:`identity_files`, without ``none``.

        Raises:
            ConfigError: See :meth:`expand`.
        """
        return tuple(self.expand(name) for name in self.identity_files if name.lower() != "none")

    def certificate_paths(self) -> tuple[str, ...]:
        """The files of :attr:`certificate_files`.

        Raises:
            ConfigError: See :meth:`expand`.
        """
        return tuple(map(self.expand, self.certificate_files))

    def agent_path(self) -> str | None:
        """Where the agent is: what ``IdentityAgent`` says, or else ``SSH_AUTH_SOCK``; None if there is none."""
        return self._socket("SSH_AUTH_SOCK" if self.identity_agent is None else self.identity_agent)

    def forwarded_agent_path(self) -> str | None:
        """Where the agent is that is to be forwarded; None if none is."""
        if not self.forward_agent:
            return None
        return self.agent_path() if self.forward_agent_path is None else self._socket(self.forward_agent_path)

    def _socket(self, text: str) -> str | None:
        if text == "SSH_AUTH_SOCK":
            text = "$SSH_AUTH_SOCK"
        if text.startswith("$"):
            return self.world.environment.get(text[1:])
        return None if text == "none" else text

    def proxy_command_line(self) -> str | None:
        """:attr:`proxy_command` with its tokens put in; None if there is none.

        Raises:
            ConfigError: A token is not known there.
        """
        return None if self.proxy_command is None else self._for_proxy(self.proxy_command)

    def jumps(self) -> tuple[Jump, ...]:
        """:attr:`proxy_jump` with its tokens put in.

        Raises:
            ConfigError: A token is not known there.
        """
        return tuple(
            attrs.evolve(jump, host=self._for_proxy(jump.host), user=jump.user and self._for_proxy(jump.user))
            for jump in self.proxy_jump
        )

    def _for_proxy(self, text: str) -> str:
        tokens = {letter: value for letter, value in self.tokens.items() if letter in PROXY}
        try:
            return expand(text, tokens)
        except LineError as error:
            raise ConfigError([Problem(Place(COMMAND_LINE, 0), str(error))]) from None

    def algorithms(self, field: str, catalogue: Catalogue) -> tuple[str, ...]:
        """The names that one of the lists of algorithms stands for.

        Args:
            field: ``"ciphers"``, ``"macs"``, ``"kex_algorithms"`` or another of the attributes that are such lists.
            catalogue: What there is to choose from.
        """
        return catalogue.choose(_CATEGORIES[field], getattr(self, field))

    def lacking(self, field: str, catalogue: Catalogue) -> tuple[str, ...]:
        """The names in one of the lists of algorithms that a catalogue does not have.

        Args:
            field: As for :meth:`algorithms`.
            catalogue: What there is.
        """
        wanted: AlgorithmList | None = getattr(self, field)
        if wanted is None or wanted.sign == "-":
            return ()
        known = catalogue.known[_CATEGORIES[field]]
        return tuple(name for name in wanted.names if not wanted.choose_from((name,), known))

    def sent(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The variables that the program at the host is to have: those of :attr:`send_env`, and of :attr:`set_env`.

        Args:
            environment: Variables to choose from.
        """
        from sshproto.keys.known_hosts import match_pattern

        found = {
            name: value for name, value in environment.items() if any(match_pattern(name, one) for one in self.send_env)
        }
        return {name: value for name, value in found.items() if name not in dict(self.set_env)} | dict(self.set_env)

    def shown(self, catalogue: Catalogue = ANYBODYS) -> list[str]:
        """All of it in the lines that ``ssh -G`` has, without their ends.

        Args:
            catalogue: What lists of algorithms are chosen from.
        """
        lines = [f"host {self.host}"]
        for key in SHOWN:
            lines += self._shown(BY_NAME[key], catalogue)
        return lines

    def _shown(self, keyword: Keyword, catalogue: Catalogue) -> Iterable[str]:
        special: Callable[[], Iterable[str]] | None = getattr(self, f"_shown_{keyword.key}", None)
        if special is not None:
            return special()
        if keyword.slot in _CATEGORIES:
            return [f"{keyword.key} {','.join(self.algorithms(keyword.slot, catalogue))}"]
        if not keyword.field:
            value: Any = self.other.get(keyword.key)
            if value is None and keyword.default is not None:
                value = keyword.kind.show(keyword.default)
            return [] if value is None or value == NOTHING else [f"{keyword.key} {value}"]
        value = getattr(self, keyword.field)
        if value is None:
            return []
        if keyword.field in _MANY:
            return [f"{keyword.key} {keyword.kind.show(item)}" for item in value]
        return [f"{keyword.key} {keyword.kind.show(value)}"]

    # What is shown in a way of its own.

    def _shown_setenv(self) -> Iterable[str]:
        return [f"setenv {name}={value}" for name, value in self.set_env]

    def _shown_identityfile(self) -> Iterable[str]:
        return [f"identityfile {name}" for name in self.identity_files]

    def _shown_connecttimeout(self) -> Iterable[str]:
        return [f"connecttimeout {'none' if self.connect_timeout is None else self.connect_timeout}"]

    def _shown_canonicalizepermittedcnames(self) -> Iterable[str]:
        keyword = BY_NAME["canonicalizepermittedcnames"]
        return [f"canonicalizePermittedcnames {keyword.kind.show(self.canonicalize_permitted_cnames)}"]

    def _shown_forwardagent(self) -> Iterable[str]:
        return [f"forwardagent {self.forward_agent_path or ('yes' if self.forward_agent else 'no')}"]

    def _shown_rekeylimit(self) -> Iterable[str]:
        return [f"rekeylimit {self.rekey_limit} {self.rekey_interval}"]

    def _shown_proxyjump(self) -> Iterable[str]:
        if not self.proxy_jump:
            return []
        return ["proxyjump " + ",".join([*(jump.text for jump in self.proxy_jump[:-1]), self.proxy_jump[-1].shown()])]


_MANY = frozenset(("dynamic_forwards", "local_forwards", "remote_forwards", "certificate_files", "send_env"))
