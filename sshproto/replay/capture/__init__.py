"""The byte streams in a capture.

* :mod:`~sshproto.replay.capture.reader`: the packets of a file (pcap and pcapng, plain or compressed);
* :mod:`~sshproto.replay.capture.network`: the TCP segments in those packets;
* :mod:`~sshproto.replay.capture.reassembly`: the byte streams that those segments make up, as
  :mod:`~sshproto.replay.capture.flows` has them.

Each takes what the one before gives, in batches, and none does any I/O::

    reader, network, tcp = CaptureReader(), Network(), Reassembler()
    for packets in reader.read([data]):
        for item in tcp.feed(network.segments(packets)):
            ...
    for item in tcp.finish():
        ...

:mod:`~sshproto.replay.capture.pcapng` writes.
"""

from __future__ import annotations

from sshproto.replay.capture.network import Network, NetworkLimits
from sshproto.replay.capture.reader import CaptureError, CaptureLimits, CaptureReader
from sshproto.replay.capture.reassembly import Reassembler, ReassemblyLimits

__all__ = [
    "CaptureError",
    "CaptureLimits",
    "CaptureReader",
    "Network",
    "NetworkLimits",
    "Reassembler",
    "ReassemblyLimits",
]
