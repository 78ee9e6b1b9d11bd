"""The bytes of SSH: data types (codec), every message (messages), and who may send which when (table)."""
