"""The tests of sshproto."""
