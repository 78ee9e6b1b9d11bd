"""Jobs of several steps, written once for every way of doing I/O.

An operation is a generator that gives commands to a connection and yields what it waits for, see
:mod:`~sshproto.operations.steps`.  A :class:`~sshproto.operations.hub.Hub` wakes it when that has come.
"""
