"""Login, both sides (RFC 4252, RFC 4256)."""
