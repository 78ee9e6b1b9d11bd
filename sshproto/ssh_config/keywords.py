"""All keywords of ssh_config(5): what may follow each, what holds if it is not there, and what is done about it."""

from __future__ import annotations

import enum
from typing import Any

from sshproto.ssh_config import kinds
from sshproto.ssh_config.kinds import FLAG, INTEGER, STRING, TIME, Arguments, Kind, algorithms, flag_or, one_of
from sshproto.ssh_config.places import read_forward
from sshproto.ssh_config.problems import LineError
from sshproto.values import frozen


class Standing(enum.Enum):
    """What is done about a keyword."""

    OBEYED = "obeyed"
    """It has its effect."""
    KEPT = "kept"
    """It is read, checked and shown, and has no effect in sshproto."""
    IGNORED = "ignored"
    """It is passed over, as by ``ssh``."""
    NEWER = "newer"
    """OpenSSH 9.2 stops at it, later versions don't: it is kept as it stands there."""


class Rule(enum.Enum):
    """What several lines with the same keyword come to."""

    FIRST = "first"
    """The first one counts."""
    APPENDED = "appended"
    """All count; what is there already is not added again."""
    SPECIAL = "special"
    """It says something about other lines."""


@frozen
class Keyword:
    """A keyword.

    Attributes:
        name: As the manual writes it.
        field: The attribute of :class:`~sshproto.ssh_config.HostConfig` that has it; ``""`` if it stands in ``other``.
        kind: What may follow it.
        default: What holds if it does not stand there; None if nothing does.
        standing: What is done about it.
        rule: What several lines come to.
        aliases: Other names, in lower case.
    """

    name: str
    field: str
    kind: Kind
    default: Any = None
    standing: Standing = Standing.OBEYED
    rule: Rule = Rule.FIRST
    aliases: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name in lower case."""
        return self.name.lower()

    @property
    def slot(self) -> str:
        """Under which name its value is kept while it is read."""
        return self.field or self.key


def _ignored(given: Arguments) -> None:
    given.drop()


def _words(given: Arguments) -> str:
    return " ".join(iter(given.next, None))


def _environment_names(given: Arguments) -> tuple[str, ...]:
    words = [*iter(given.next, None)]
    for word in words:
        if not word or "=" in word:
            raise LineError("invalid environment name")
    return tuple(words)


def _settings(given: Arguments) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for word in iter(given.next, None):
        name, sign, value = word.partition("=")
        if not sign:
            raise LineError("invalid SetEnv; expected NAME=VALUE")
        found.setdefault(name, value)
    return tuple(found.items())


def _first_word(given: Arguments) -> str:
    return given.all()[0]


_IGNORED = Kind(_ignored)
_FIRST_WORD = Kind(_first_word)
_AS_IT_STANDS = Kind(_words)
_LOCAL = Kind(read_forward, lambda value: value.shown())
_REMOTE = Kind(lambda given: read_forward(given, remote=True), lambda value: value.shown())
_DYNAMIC = Kind(lambda given: read_forward(given, dynamic=True), lambda value: value.shown(dynamic=True))
_SEND = Kind(_environment_names)
_SET = Kind(_settings)

_KEPT, _SPECIAL, _APPENDED = Standing.KEPT, Rule.SPECIAL, Rule.APPENDED
_MOST_FILES = 100
KEYWORDS: tuple[Keyword, ...] = (
    Keyword("Host", "", STRING, rule=_SPECIAL),
    Keyword("Match", "", STRING, rule=_SPECIAL),
    Keyword("Include", "", STRING, rule=_SPECIAL),
    Keyword("IgnoreUnknown", "ignore_unknown", STRING),
    # Where to, and how it is reached.
    Keyword("User", "user", STRING),
    Keyword("HostName", "hostname", STRING),
    Keyword("Port", "port", kinds.PORT, 22),
    Keyword("AddressFamily", "address_family", one_of("any", "inet", "inet6"), "any"),
    Keyword("BindAddress", "bind_address", STRING),
    Keyword("BindInterface", "", STRING, standing=_KEPT),
    Keyword("ConnectionAttempts", "connection_attempts", INTEGER, 1),
    Keyword("ConnectTimeout", "connect_timeout", TIME),
    Keyword("ProxyCommand", "proxy_command", kinds.COMMAND, rule=_SPECIAL),
    Keyword("ProxyJump", "proxy_jump", kinds.COMMAND, (), rule=_SPECIAL),
    Keyword("ProxyUseFdpass", "proxy_use_fdpass", FLAG, False),
    Keyword("CanonicalizeHostname", "canonicalize_hostname", flag_or("always"), "no"),
    Keyword("CanonicalDomains", "canonical_domains", kinds.DOMAINS, ()),
    Keyword("CanonicalizeMaxDots", "canonicalize_max_dots", INTEGER, 1),
    Keyword("CanonicalizeFallbackLocal", "canonicalize_fallback_local", FLAG, True),
    Keyword("CanonicalizePermittedCNAMEs", "canonicalize_permitted_cnames", kinds.CNAMES, ()),
    Keyword("TCPKeepAlive", "tcp_keep_alive", FLAG, True, aliases=("keepalive",)),
    Keyword("IPQoS", "ip_qos", kinds.IP_QOS, (0x10, 0x08), standing=_KEPT),
    # Algorithms, and what else is agreed on.
    Keyword("Ciphers", "ciphers", algorithms("cipher", "bad SSH2 cipher spec")),
    Keyword("MACs", "macs", algorithms("mac", "bad SSH2 MAC spec")),
    Keyword("KexAlgorithms", "kex_algorithms", algorithms("kex", "bad SSH2 KexAlgorithms")),
    Keyword("HostKeyAlgorithms", "host_key_algorithms", algorithms("signature", "bad key types")),
    Keyword(
        "PubkeyAcceptedAlgorithms",
        "pubkey_accepted_algorithms",
        algorithms("signature", "bad key types"),
        aliases=("pubkeyacceptedkeytypes",),
    ),
    Keyword("CASignatureAlgorithms", "ca_signature_algorithms", algorithms("authority", "bad key types")),
    Keyword(
        "HostbasedAcceptedAlgorithms",
        "hostbased_accepted_algorithms",
        algorithms("signature", "bad key types"),
        standing=_KEPT,
        aliases=("hostbasedkeytypes",),
    ),
    Keyword("Compression", "compression", kinds.COMPRESSION, False),
    Keyword("RekeyLimit", "rekey_limit", kinds.REKEY_LIMIT, 0, rule=_SPECIAL),
    Keyword("RequiredRSASize", "required_rsa_size", INTEGER, 1024),
    Keyword("ServerAliveCountMax", "server_alive_count_max", INTEGER, 3),
    Keyword("ServerAliveInterval", "server_alive_interval", TIME, 0, aliases=("protocolkeepalives", "setuptimeout")),
    # Whom to believe.
    Keyword("StrictHostKeyChecking", "strict_host_key_checking", kinds.STRICT, "ask"),
    Keyword("UserKnownHostsFile", "user_known_hosts_files", kinds.FILES),
    Keyword("GlobalKnownHostsFile", "global_known_hosts_files", kinds.FILES),
    Keyword("HostKeyAlias", "host_key_alias", STRING),
    Keyword("HashKnownHosts", "hash_known_hosts", FLAG, False),
    Keyword("RevokedHostKeys", "revoked_host_keys", STRING),
    Keyword("UpdateHostKeys", "update_host_keys", flag_or("ask")),
    Keyword("CheckHostIP", "check_host_ip", FLAG, False, standing=_KEPT),
    Keyword("KnownHostsCommand", "known_hosts_command", kinds.COMMAND, standing=_KEPT),
    Keyword("NoHostAuthenticationForLocalhost", "no_host_authentication_for_localhost", FLAG, False),
    Keyword("VerifyHostKeyDNS", "verify_host_key_dns", flag_or("ask"), "no", standing=_KEPT),
    Keyword("VisualHostKey", "visual_host_key", FLAG, False, standing=_KEPT),
    Keyword("FingerprintHash", "fingerprint_hash", kinds.HASH, "SHA256", standing=_KEPT),
    # Who we are.
    Keyword("IdentityFile", "identity_files", STRING, rule=_APPENDED, aliases=("identityfile2",)),
    Keyword("CertificateFile", "certificate_files", STRING, (), rule=_APPENDED),
    Keyword("IdentitiesOnly", "identities_only", FLAG, False),
    Keyword("IdentityAgent", "identity_agent", kinds.IDENTITY_AGENT),
    Keyword("AddKeysToAgent", "add_keys_to_agent", kinds.ADD_KEYS, ("no", 0)),
    Keyword("PreferredAuthentications", "preferred_authentications", STRING),
    Keyword(
        "PubkeyAuthentication",
        "pubkey_authentication",
        flag_or("unbound", "host-bound"),
        "yes",
        aliases=("dsaauthentication",),
    ),
    Keyword("PasswordAuthentication", "password_authentication", FLAG, True),
    Keyword(
        "KbdInteractiveAuthentication",
        "kbd_interactive_authentication",
        FLAG,
        True,
        aliases=("challengeresponseauthentication", "skeyauthentication", "tisauthentication"),
    ),
    Keyword("KbdInteractiveDevices", "", STRING, standing=_KEPT),
    Keyword("NumberOfPasswordPrompts", "number_of_password_prompts", INTEGER, 3),
    Keyword("BatchMode", "batch_mode", FLAG, False),
    Keyword("HostbasedAuthentication", "", FLAG, False, standing=_KEPT),
    Keyword("EnableSSHKeysign", "", FLAG, False, standing=_KEPT),
    Keyword("PKCS11Provider", "", STRING, standing=_KEPT, aliases=("smartcarddevice",)),
    Keyword("SecurityKeyProvider", "", STRING, "internal", standing=_KEPT),
    Keyword("GSSAPIAuthentication", "", FLAG, False, standing=_KEPT),
    Keyword("GSSAPIKeyExchange", "", FLAG, False, standing=_KEPT),
    Keyword("GSSAPIDelegateCredentials", "", FLAG, False, standing=_KEPT),
    Keyword("GSSAPITrustDns", "", FLAG, False, standing=_KEPT),
    Keyword("GSSAPIRenewalForcesRekey", "", FLAG, False, standing=_KEPT),
    Keyword("GSSAPIClientIdentity", "", STRING, standing=_KEPT),
    Keyword("GSSAPIServerIdentity", "", STRING, standing=_KEPT),
    Keyword(
        "GSSAPIKexAlgorithms",
        "",
        kinds.GSS_KEX,
        "gss-group14-sha256-,gss-group16-sha512-,gss-nistp256-sha256-,gss-curve25519-sha256-,gss-group14-sha1-,"
        "gss-gex-sha1-",
        standing=_KEPT,
    ),
    # What is done there.
    Keyword("RequestTTY", "request_tty", flag_or("force", "auto"), "auto"),
    Keyword("RemoteCommand", "remote_command", kinds.COMMAND),
    Keyword("SessionType", "session_type", one_of("none", "subsystem", "default"), "default"),
    Keyword("StdinNull", "stdin_null", FLAG, False),
    Keyword("ForkAfterAuthentication", "", FLAG, False, standing=_KEPT),
    Keyword("SendEnv", "send_env", _SEND, (), rule=_SPECIAL),
    Keyword("SetEnv", "set_env", _SET, ()),
    Keyword("EscapeChar", "escape_char", kinds.ESCAPE, "~"),
    Keyword("EnableEscapeCommandline", "", FLAG, False, standing=_KEPT),
    Keyword("LocalCommand", "", kinds.COMMAND, standing=_KEPT),
    Keyword("PermitLocalCommand", "", FLAG, False, standing=_KEPT),
    Keyword("LogLevel", "log_level", kinds.LOG_LEVEL, "INFO"),
    Keyword("LogVerbose", "", _FIRST_WORD, "none", standing=_KEPT),
    Keyword("SyslogFacility", "", kinds.FACILITY, "USER", standing=_KEPT),
    # What goes through it.
    Keyword("LocalForward", "local_forwards", _LOCAL, (), rule=_APPENDED),
    Keyword("RemoteForward", "remote_forwards", _REMOTE, (), rule=_APPENDED),
    Keyword("DynamicForward", "dynamic_forwards", _DYNAMIC, (), rule=_APPENDED),
    Keyword("ClearAllForwardings", "clear_all_forwardings", FLAG, False),
    Keyword("ExitOnForwardFailure", "exit_on_forward_failure", FLAG, False),
    Keyword("GatewayPorts", "gateway_ports", FLAG, False),
    Keyword("PermitRemoteOpen", "permit_remote_open", kinds.REMOTE_OPENS, ("any",), standing=_KEPT),
    Keyword("StreamLocalBindMask", "stream_local_bind_mask", kinds.MASK, 0o177, standing=_KEPT),
    Keyword("StreamLocalBindUnlink", "stream_local_bind_unlink", FLAG, False, standing=_KEPT),
    Keyword("ForwardAgent", "forward_agent", kinds.FORWARD_AGENT, False, rule=_SPECIAL),
    Keyword("ForwardX11", "forward_x11", FLAG, False),
    Keyword("ForwardX11Trusted", "forward_x11_trusted", FLAG, True),
    Keyword("ForwardX11Timeout", "forward_x11_timeout", TIME, 1200),
    Keyword("XAuthLocation", "xauth_location", STRING, "/usr/bin/xauth"),
    Keyword("Tunnel", "", kinds.TUNNEL, "no", standing=_KEPT),
    Keyword("TunnelDevice", "", kinds.TUNNEL_DEVICE, "any:any", standing=_KEPT),
    Keyword("ControlMaster", "", flag_or("auto", "ask", "autoask"), "no", standing=_KEPT),
    Keyword("ControlPath", "control_path", STRING, standing=_KEPT),
    Keyword("ControlPersist", "", kinds.PERSIST, "no", standing=_KEPT),
    # What ssh itself passes over.
    *(
        Keyword(name, "", _IGNORED, standing=Standing.IGNORED)
        for name in (
            *("Protocol", "Cipher", "FallBackToRsh", "GlobalKnownHostsFile2", "RhostsAuthentication"),
            *("UseBlacklistedKeys", "UserKnownHostsFile2", "UseRoaming", "UseRsh", "UsePrivilegedPort"),
            *("AFSTokenPassing", "KerberosAuthentication", "KerberosTgtPassing", "RSAAuthentication"),
            *("RhostsRSAAuthentication", "CompressionLevel"),
        )
    ),
    # What OpenSSH has learned since 9.2.
    Keyword("Tag", "tag", STRING, standing=Standing.NEWER),
    *(
        Keyword(name, "", _AS_IT_STANDS, standing=Standing.NEWER)
        for name in (
            "ChannelTimeout",
            "ObscureKeystrokeTiming",
            "RefuseConnection",
            "VersionAddendum",
            "WarnWeakCrypto",
        )
    ),
)
"""All keywords, by what they are about."""

BY_NAME: dict[str, Keyword] = {name: keyword for keyword in KEYWORDS for name in (keyword.key, *keyword.aliases)}
"""Keywords by their name, or another, in lower case."""

SHOWN: tuple[str, ...] = tuple(
    (
        "user hostname port addressfamily batchmode canonicalizefallbacklocal canonicalizehostname checkhostip "
        "compression controlmaster enablesshkeysign clearallforwardings exitonforwardfailure fingerprinthash "
        "forwardx11 forwardx11trusted gatewayports gssapiauthentication gssapikeyexchange gssapidelegatecredentials "
        "gssapitrustdns gssapirenewalforcesrekey gssapikexalgorithms hashknownhosts hostbasedauthentication "
        "identitiesonly kbdinteractiveauthentication nohostauthenticationforlocalhost passwordauthentication "
        "permitlocalcommand proxyusefdpass pubkeyauthentication requesttty sessiontype stdinnull "
        "forkafterauthentication streamlocalbindunlink stricthostkeychecking tcpkeepalive tunnel verifyhostkeydns "
        "visualhostkey updatehostkeys enableescapecommandline canonicalizemaxdots connectionattempts "
        "forwardx11timeout numberofpasswordprompts serveralivecountmax serveraliveinterval requiredrsasize "
        "bindaddress bindinterface ciphers controlpath hostkeyalgorithms hostkeyalias hostbasedacceptedalgorithms "
        "identityagent ignoreunknown kbdinteractivedevices kexalgorithms casignaturealgorithms knownhostscommand "
        "localcommand remotecommand loglevel macs pkcs11provider securitykeyprovider preferredauthentications "
        "pubkeyacceptedalgorithms revokedhostkeys xauthlocation dynamicforward localforward remoteforward "
        "identityfile canonicaldomains certificatefile globalknownhostsfile userknownhostsfile sendenv setenv "
        "logverbose permitremoteopen addkeystoagent forwardagent connecttimeout tunneldevice "
        "canonicalizepermittedcnames controlpersist escapechar ipqos rekeylimit streamlocalbindmask syslogfacility "
        "proxycommand proxyjump gssapiclientidentity gssapiserveridentity tag"
    ).split()
)
"""Keywords in lower case, in the order in which ``ssh -G`` shows them."""
