"""``python -m sshproto_cli``: the ``sshproto`` command where no script is installed, or another Python is meant."""

from __future__ import annotations

import sys

from sshproto_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
