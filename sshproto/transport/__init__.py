"""Identification, packets and key exchange (RFC 4253 and what extends it)."""
