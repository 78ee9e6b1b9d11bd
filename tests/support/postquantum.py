"""What of post-quantum algorithms the installed `cryptography` has not got: tests of these are skipped, and say why."""

from __future__ import annotations

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import mldsa

NO_MLDSA44 = "cryptography has no ML-DSA-44 here (pip install 'cryptography>=48')"


def _has_mldsa44() -> bool:
    try:
        mldsa.MLDSA44PrivateKey.generate()
    except UnsupportedAlgorithm:
        return False
    return True


HAS_MLDSA44 = _has_mldsa44()
needs_mldsa44 = pytest.mark.skipif(not HAS_MLDSA44, reason=NO_MLDSA44)
"""Marks tests of ``ssh-mldsa44-ed25519@openssh.com``."""
