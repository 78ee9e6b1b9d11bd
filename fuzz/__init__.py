"""Fuzz targets: each module has ``fuzz(data)``, which raises only if something is wrong, and ``seeds()``.

``python -m fuzz.NAME`` mutates the seeds for a while; see :mod:`fuzz.running`.
"""
