"""The observer's side: captured traffic in, events out; nothing is ever sent.

* :mod:`sshproto.replay.capture`: the packets of a capture file (pcap and pcapng, plain or compressed).
* :mod:`sshproto.replay.network`: the TCP segments in those packets.
* :mod:`sshproto.replay.reassembly`: the byte streams that those segments make up, as :mod:`sshproto.replay.flows` has
  them.

Each takes what the one before gives, in batches, and none does any I/O::

    reader, network, tcp = CaptureReader(), Network(), Reassembler()
    for packets in reader.read([data]):
        for item in tcp.feed(network.segments(packets)):
            ...
    for item in tcp.finish():
        ...

Beside it stands the replay of our own connections, which is another thing: there everything is known, and the same
bytes are sent again.  :mod:`sshproto.replay.recording` records a connection, :mod:`sshproto.replay.trace` is the file,
:mod:`sshproto.replay.verify` replays it, :mod:`sshproto.replay.minimise` cuts it down, and
:mod:`sshproto.replay.seeds` makes it food for fuzzers.
"""
