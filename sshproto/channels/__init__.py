"""Channels and global requests (RFC 4254)."""
