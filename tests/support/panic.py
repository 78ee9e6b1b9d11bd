"""A backend that gives up."""

from __future__ import annotations


class PanicException(BaseException):
    """As PyO3 makes it when the backend's Rust panics."""

    __module__ = "pyo3_runtime"
