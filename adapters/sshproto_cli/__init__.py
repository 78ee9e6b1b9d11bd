"""The `sshproto` command: a terminal and files around :mod:`sshproto_io`."""
