"""Fuzz targets: each module has ``fuzz(data)``, which raises only if something is wrong, and ``seeds()``.

``python -m fuzz.NAME`` mutates the seeds for a while; see :mod:`fuzz.running`.  README.md says what each target does.
"""

TARGETS = (
    "ident",
    "packets",
    "negotiation",
    "kex",
    "login_server",
    "login_client",
    "channels_server",
    "channels_client",
    "pair",
    "session",
    "chunking",
    "messages",
    "keys",
    "certificates",
    "hosts",
    "trust",
    "signatures",
    "keylogs",
    "traces",
    "specs",
    "ssh_config",
    "x11",
    "agent",
    "capture",
    "observer",
)
"""The names of all."""
