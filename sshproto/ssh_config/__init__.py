"""The client's configuration as OpenSSH writes it: ssh_config(5), read for one host.

:func:`resolve` takes the contents of the files and a :class:`World` that knows what only others can find out, and
returns a :class:`HostConfig`.  Nothing is opened, run or looked up here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.lazy import lazily

if TYPE_CHECKING:
    from sshproto.ssh_config.algorithms import ANYBODYS, OPENSSH_9_2, OURS, AlgorithmList, Catalogue
    from sshproto.ssh_config.finish import resolve
    from sshproto.ssh_config.keywords import KEYWORDS, Keyword, Standing
    from sshproto.ssh_config.places import Forward, Jump
    from sshproto.ssh_config.problems import ConfigError, Place, Problem
    from sshproto.ssh_config.reader import Unknown
    from sshproto.ssh_config.settings import HostConfig
    from sshproto.ssh_config.world import Source, World

__all__ = [
    "ANYBODYS",
    "KEYWORDS",
    "OPENSSH_9_2",
    "OURS",
    "AlgorithmList",
    "Catalogue",
    "ConfigError",
    "Forward",
    "HostConfig",
    "Jump",
    "Keyword",
    "Place",
    "Problem",
    "Source",
    "Standing",
    "Unknown",
    "World",
    "resolve",
]

_HOMES = {
    "ANYBODYS": "sshproto.ssh_config.algorithms",
    "KEYWORDS": "sshproto.ssh_config.keywords",
    "OPENSSH_9_2": "sshproto.ssh_config.algorithms",
    "OURS": "sshproto.ssh_config.algorithms",
    "AlgorithmList": "sshproto.ssh_config.algorithms",
    "Catalogue": "sshproto.ssh_config.algorithms",
    "ConfigError": "sshproto.ssh_config.problems",
    "Forward": "sshproto.ssh_config.places",
    "HostConfig": "sshproto.ssh_config.settings",
    "Jump": "sshproto.ssh_config.places",
    "Keyword": "sshproto.ssh_config.keywords",
    "Place": "sshproto.ssh_config.problems",
    "Problem": "sshproto.ssh_config.problems",
    "Source": "sshproto.ssh_config.world",
    "Standing": "sshproto.ssh_config.keywords",
    "Unknown": "sshproto.ssh_config.reader",
    "World": "sshproto.ssh_config.world",
    "resolve": "sshproto.ssh_config.finish",
}

__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
