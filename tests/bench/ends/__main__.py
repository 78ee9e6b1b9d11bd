"""Run one end: ``python -m tests.bench.ends NAME client|server SETTING``."""

from __future__ import annotations

import importlib
import json
import resource
import sys

from tests.bench.ends import Setting, jobs


def main() -> None:
    name, role, setting = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    end = importlib.import_module(f"tests.bench.ends.{name}")
    chosen = Setting(**json.loads(setting))
    if role == "server":
        end.serve(chosen)
    else:
        end.drive(chosen, jobs())


main()
