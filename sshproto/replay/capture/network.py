"""From captured packets to TCP segments: link layers, tags, tunnels, IP and its fragments.

A :class:`Network` is given the packets that a :class:`~sshproto.replay.capture.CaptureReader` reads and gives the TCP
segments in them, in the same order.  What is no TCP is counted and dropped, so is what is malformed: nothing here
raises.  Checksums are not verified: a machine that captures its own packets sees them before its network card has put
the checksums in.

* Links: Ethernet, raw IP, BSD loopback, Linux "cooked" (both versions), PPP in its forms, Cisco HDLC, NFLOG, IPsec and
  packet filter logs of OpenBSD, macOS's PKTAP.
* Between link and IP: VLAN tags in any number, LLC/SNAP, MPLS, PPPoE.
* IPv4 (RFC 791) and IPv6 (RFC 8200) with options, extension headers, fragments.
* Tunnels that mirrored traffic comes in: IP in IP, GRE and ERSPAN, VXLAN, GENEVE.

Tags and tunnels do not count when flows are told apart: the same packet is often captured at both ends of one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from typing import Any, ClassVar, TypeAlias

import attrs

from sshproto.replay.capture.reader import Packet
from sshproto.values import frozen

Segment: TypeAlias = tuple[int, int, bytes, int, int, int, bytes, int, int, int]
"""A TCP segment: ``(frame, time, flow, seq, ack, flags, data, start, stop, missing)``. A plain tuple, for speed.

* ``frame``, ``time``: of the packet that brought it, or made it whole.
* ``flow``: the sender's address, the receiver's, the sender's port, the receiver's, as they stand in the packet: 12
  bytes for IPv4, 36 for IPv6.
* ``seq``, ``ack``, ``flags``: from the TCP header (RFC 9293 section 3.1); ``flags`` are its lower eight.
* ``data[start:stop]``: the payload as far as it was captured.
* ``missing``: so many more bytes of payload there were, which were not captured (the capture's "snaplen").
"""

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

MAX_HEADERS = 16
"""Most extension headers of one IPv6 packet, and most tunnels in one another."""

_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN = frozenset({0x8100, 0x88A8, 0x9100, 0x9200, 0x9300})
_MPLS = frozenset({0x8847, 0x8848})
_PPPOE, _BRIDGED, _ERSPAN_2, _ERSPAN_3 = 0x8864, 0x6558, 0x88BE, 0x22EB
_TCP, _UDP = 6, 17
_VXLAN, _GENEVE = 4789, 6081
_AUTHENTICATION = frozenset({51})  # RFC 4302
_EXTENSIONS = frozenset({0, 43, 44, 51, 60, 135, 139, 140})

_CUT = "cut before the end of the headers"
_MALFORMED = "malformed"
_NOT_IP = "not IP"
_NOT_TCP = "not TCP"
_WAITING = "fragment"
_BAD_FRAGMENT = "malformed or conflicting fragment"

_FAMILIES = frozenset(family.to_bytes(4, order) for family in (2, 10, 24, 28, 30) for order in ("little", "big"))
"""AF_INET, and AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS: in the byte order of whoever captured."""

_U16 = struct.Struct(">H").unpack_from
_IP4 = struct.Struct(">BxHHHxB2x8s").unpack_from
_IP6 = struct.Struct(">B3xHBx32s").unpack_from
_TCP_HEADER = struct.Struct(">4s2I2B").unpack_from


_Unpack: TypeAlias = Callable[[bytes, int], tuple[Any, ...]]


def _fast(link_size: int, type_at: int) -> tuple[int, _Unpack, _Unpack]:
    """Size of a link header, and readers from it to the flags of TCP over IPv4 without options, and over IPv6."""
    link = f">{type_at}xH{link_size - type_at - 2}x"
    ipv4 = struct.Struct(f"{link}BxH2xHxB2x12s2I2B").unpack_from
    ipv6 = struct.Struct(f"{link}B3xHBx36s2I2B").unpack_from
    return link_size, ipv4, ipv6


_FAST = {1: _fast(14, 12), 113: _fast(16, 14), 276: _fast(20, 0)}


def _positive(default: int) -> int:
    value: int = attrs.field(default=default, validator=attrs.validators.ge(1))
    return value


@frozen
class NetworkLimits:
    """Bounds on what fragments of IP packets may cost.

    Attributes:
        datagrams: Most packets of which some fragments are still to come; the oldest gives way.
        fragment_bytes: Most bytes of their fragments in all.
        fragment_seconds: A packet whose fragments are further apart is two.
    """

    datagrams: int = _positive(1024)
    fragment_bytes: int = _positive(4 << 20)
    fragment_seconds: int = _positive(60)


class _Datagram:
    """The fragments of one IP packet."""

    __slots__ = ("charge", "pieces", "protocol", "size", "time", "total")

    def __init__(self, time: int) -> None:
        self.time = time
        self.pieces: dict[int, bytes] = {}
        self.size = 0
        self.charge = 0
        self.total = -1  # known from the last fragment
        self.protocol = 0  # known from the first


_Key: TypeAlias = tuple[bytes, int, int]
_Frame: TypeAlias = tuple[int, int]


class Network:
    """Finds TCP segments in packets.

    Args:
        limits: Bounds.

    Attributes:
        packets: How many packets there were.
        segments_found: How many of them brought a segment.
        cut: How many segments had been cut short by the capture's "snaplen".
        skipped: How many packets brought none, by reason.
        incomplete: IP packets that were given up since fragments of them did not come.
    """

    def __init__(self, limits: NetworkLimits | None = None) -> None:
        self.packets = 0
        self.segments_found = 0
        self.cut = 0
        self.skipped: dict[str, int] = {}
        self.incomplete = 0
        self._limits = limits or NetworkLimits()
        self._datagrams: dict[_Key, _Datagram] = {}  # the oldest first
        self._fragment_bytes = 0

    def segments(self, packets: Collection[Packet]) -> list[Segment]:
        """The TCP segments in ``packets``."""
        found: list[Segment] = []
        append, current, fast = found.append, -1, None
        for frame, time, link_type, data, start, stop, _ in packets:
            if link_type != current:
                current, fast = link_type, _FAST.get(link_type)
            if fast is not None and stop - start >= 54:  # what unpack needs
                ip, unpack, unpack6 = fast
                kind, version, total, fragment, protocol, flow, seq, ack, offset, flags = unpack(data, start)
                if kind == 0x0800 and version == 0x45 and protocol == 6 and not fragment & 0x3FFF:
                    ip += start
                    end = ip + total
                    payload = ip + 20 + (offset >> 2 & 0x3C)
                    if payload <= end <= stop and offset >= 0x50:
                        append((frame, time, flow, seq, ack, flags, data, payload, end, 0))
                        continue
                elif kind == 0x86DD and stop - start >= 74:
                    kind, version, total, protocol, flow, seq, ack, offset, flags = unpack6(data, start)
                    if protocol == 6 and version >> 4 == 6:
                        ip += start + 40
                        end = ip + total
                        payload = ip + (offset >> 2 & 0x3C)
                        if payload <= end <= stop and offset >= 0x50:
                            append((frame, time, flow, seq, ack, flags, data, payload, end, 0))
                            continue
            result = self._packet((frame, time), link_type, data, start, stop)
            if isinstance(result, str):
                self.skipped[result] = self.skipped.get(result, 0) + 1
            else:
                if result[-1]:
                    self.cut += 1
                append(result)
        self.packets += len(packets)
        self.segments_found += len(found)
        return found

    # ------------------------------------------------------------------------------------------------------------ links
    #
    # Each step gets the packet that it is in (frame and time), and where in data it begins and the captured bytes end.
    # It gives a segment, or why there is none.

    def _packet(self, at: _Frame, link_type: int, data: bytes, start: int, stop: int) -> Segment | str:
        handler = self._LINKS.get(link_type)
        if handler is None:
            return f"link type {link_type}"
        return handler(self, at, data, start, stop)

    def _ethernet(self, at: _Frame, data: bytes, start: int, stop: int, depth: int = 0) -> Segment | str:
        return self._typed(at, data, start + 12, stop, depth)

    def _cooked(self, at: _Frame, data: bytes, start: int, stop: int) -> Segment | str:
        return self._typed(at, data, start + 14, stop)

    def _cooked2(self, at: _Frame, data: bytes, start: int, stop: int) -> Segment | str:
        if stop - start < 20:
            return _CUT
        return self._type(at, _U16(data, start)[0], data, start + 20, stop, 0)

    def _cisco(self, at: _Frame, data: bytes, start: int, stop: int) -> Segment | str:
        return self._typed(at, data, start + 2, stop)

    def _loopback(self, at: _Frame, data: bytes, start: int, stop: int) -> Segment | str:
        if data[start : min(start + 4, stop)] not in _FAMILIES:
            return _NOT_IP
        return self._ip(at, data, start + 4, stop)

    def _encapsulated(self, at: _Frame, data: bytes, start: int, stop: int) -> Segment | str:
        return self._ip(at, data, start + 12, stop)

    def _filter_log(self, at: _Frame, data: bytes, start: int, stop: int) -> Segment | str:
        if start >= stop:
            return _CUT
        return self._ip(at, data, start + (data[start] + 3 & ~3), stop)

    def _netfilter_log(self, at: _Frame, data: bytes, start: int, stop: int) -> Segment | str:
        # Its attributes are in the byte order of whoever captured, and nothing says which: the one that fits is right.
        for order in ("<HH", ">HH"):
            place = start + 4
            while stop - place >= 4:
                size, kind = struct.unpack_from(order, data, place)
                if not 4 <= size <= stop - place:
                    break
                if kind & 0x7FFF == 9:  # NFULNL_PAYLOAD
                    return self._ip(at, data, place + 4, place + size)
                place += size + (-size & 3)
        return _MALFORMED

    def _pktap(self, at: _Frame, data: bytes, start: int, stop: int) -> Segment | str:
        if stop - start < 12:
            return _CUT
        size, _, inner = struct.unpack_from("<III", data, start)
        handler = self._LINKS.get(inner)
        if handler is None or size < 12 or handler == Network._pktap:
            return _MALFORMED
        return handler(self, at, data, start + size, stop)

    def _ppp_direction(self, at: _Frame, data: bytes, start: int, stop: int) -> Segment | str:
        return self._ppp(at, data, start + 1, stop)

    def _pppoe(self, at: _Frame, data: bytes, start: int, stop: int) -> Segment | str:
        return self._ppp(at, data, start + 6, stop)

    def _ppp(self, at: _Frame, data: bytes, start: int, stop: int, depth: int = 0) -> Segment | str:
        """RFC 1661 section 2, with or without the bytes of RFC 1662 before it."""
        if stop - start >= 2 and data[start] == 0xFF and data[start + 1] == 3:
            start += 2
        if stop - start < 2:
            return _CUT
        protocol, size = (data[start], 1) if data[start] & 1 else (_U16(data, start)[0], 2)
        if protocol not in {0x21, 0x57}:
            return _NOT_IP
        return self._ip(at, data, start + size, stop, depth)

    # ---------------------------------------------------------------------------------------------- between link and IP

    def _typed(self, at: _Frame, data: bytes, start: int, stop: int, depth: int = 0) -> Segment | str:
        """What begins with an EtherType."""
        if stop - start < 2:
            return _CUT
        return self._type(at, _U16(data, start)[0], data, start + 2, stop, depth)

    def _type(self, at: _Frame, kind: int, data: bytes, start: int, stop: int, depth: int) -> Segment | str:
        """What an EtherType says it is; IEEE 802.1Q, 802.2, RFC 3032, RFC 2516."""
        if depth > MAX_HEADERS:
            return _MALFORMED
        while kind not in {_IPV4, _IPV6}:
            if stop - start < 8:
                return _CUT if kind in _VLAN or kind in _MPLS or kind <= 1500 else _NOT_IP
            if kind in _VLAN:
                kind = _U16(data, start + 2)[0]
                start += 4
            elif kind <= 1500:  # a length: LLC follows, and a type only with SNAP
                if data[start : start + 6] != b"\xaa\xaa\x03\0\0\0":
                    return _NOT_IP
                kind = max(1501, _U16(data, start + 6)[0])
                start += 8
            elif kind in _MPLS:
                while not data[start + 2] & 1:  # until the bottom of the stack
                    start += 4
                    if stop - start < 8:
                        return _CUT
                start += 4
                break
            elif kind == _PPPOE:
                return self._ppp(at, data, start + 6, stop, depth)
            elif kind == _BRIDGED:
                return self._ethernet(at, data, start, stop, depth + 1)
            else:
                return _NOT_IP
        return self._ip(at, data, start, stop, depth)

    # --------------------------------------------------------------------------------------------------------------- IP

    def _ip(self, at: _Frame, data: bytes, start: int, stop: int, depth: int = 0) -> Segment | str:
        if start >= stop:
            return _CUT
        if depth > MAX_HEADERS:
            return _MALFORMED
        version = data[start] >> 4
        if version == 4:
            return self._ip4(at, data, start, stop, depth)
        return self._ip6(at, data, start, stop, depth) if version == 6 else _NOT_IP

    def _ip4(self, at: _Frame, data: bytes, start: int, stop: int, depth: int) -> Segment | str:
        if stop - start < 20:
            return _CUT
        version, total, ident, fragment, protocol, addresses = _IP4(data, start)
        header = version << 2 & 0x3C
        # A length of 0: the network card will cut this into several packets and set their lengths.
        end = start + total if total else stop
        if header < 20 or end < start + header:
            return _MALFORMED
        stop = min(stop, end)
        start += header
        if start > stop:
            return _CUT
        if fragment & 0x3FFF:
            key = (addresses, ident, protocol)
            return self._fragment(at, key, fragment, protocol, data[start:stop], depth, whole=stop == end)
        return self._extended(at, protocol, addresses, data, start, stop, end, depth)

    def _ip6(self, at: _Frame, data: bytes, start: int, stop: int, depth: int) -> Segment | str:
        if stop - start < 40:
            return _CUT
        _, total, protocol, addresses = _IP6(data, start)
        start += 40
        end = start + total if total else stop  # 0: as in IPv4, or a jumbogram (RFC 2675)
        return self._extended(at, protocol, addresses, data, start, min(stop, end), end, depth)

    def _extended(
        self, at: _Frame, protocol: int, addresses: bytes, data: bytes, start: int, stop: int, end: int, depth: int
    ) -> Segment | str:
        """What follows the header of an IP packet: extension headers, of IPv4 only authentication, or the transport."""
        if depth > MAX_HEADERS:
            return _MALFORMED
        known = _EXTENSIONS if len(addresses) == 32 else _AUTHENTICATION
        for _ in range(MAX_HEADERS):
            if protocol not in known:
                return self._transport(at, protocol, addresses, data, start, stop, end, depth)
            if stop - start < 8:
                return _CUT if end - start >= 8 else _MALFORMED
            header, protocol = protocol, data[start]
            if header == 44:
                fragment, ident = struct.unpack_from(">HI", data, start + 2)
                start += 8
                if fragment & 0xFFF9:  # otherwise it is the only one (RFC 6946)
                    # As in IPv4: the offset in units of 8 bytes, and the flag that more follow.
                    fragment = fragment >> 3 | (fragment & 1) << 13
                    key = (addresses, ident, -1)
                    return self._fragment(at, key, fragment, protocol, data[start:stop], depth, whole=stop == end)
            else:
                start += (data[start + 1] + 2) * 4 if header == 51 else (data[start + 1] + 1) * 8
                if start > stop:
                    return _CUT if start <= end else _MALFORMED
        return _MALFORMED

    def _fragment(
        self, at: _Frame, key: _Key, fragment: int, protocol: int, data: bytes, depth: int, *, whole: bool
    ) -> Segment | str:
        """One more fragment: ``fragment`` has the offset in units of 8 bytes in 13 bits, and then a bit for more."""
        offset, more = (fragment & 0x1FFF) * 8, fragment & 0x2000
        if not whole:
            return _CUT
        if offset + len(data) > 0xFFFF or (more and (len(data) & 7 or not data)):
            return _BAD_FRAGMENT
        datagram = self._datagrams.get(key)
        if datagram is not None and abs(at[1] - datagram.time) > self._limits.fragment_seconds * 1_000_000_000:
            self._give_up(key)
            datagram = None
        if datagram is None:
            datagram = self._datagrams[key] = _Datagram(at[1])
        known = datagram.pieces.get(offset)
        if known is not None and known == data:
            return _WAITING
        if known is not None or (not more and datagram.total not in {-1, offset + len(data)}):
            self._give_up(key)
            return _BAD_FRAGMENT
        datagram.pieces[offset] = data
        datagram.size += len(data)
        charge = len(data) + 256
        datagram.charge += charge
        self._fragment_bytes += charge
        if not more:
            datagram.total = offset + len(data)
        if not offset:
            datagram.protocol = protocol
        if datagram.total >= 0 and datagram.size >= datagram.total and 0 in datagram.pieces:
            return self._join(at, key, datagram, depth)
        while len(self._datagrams) > self._limits.datagrams or self._fragment_bytes > self._limits.fragment_bytes:
            self._give_up(next(iter(self._datagrams)))
        return _WAITING

    def _join(self, at: _Frame, key: _Key, datagram: _Datagram, depth: int) -> Segment | str:
        """All bytes have come, unless some came twice: then nobody knows which the receiver took."""
        pieces: list[bytes] = []
        place = 0
        for offset, piece in sorted(datagram.pieces.items()):
            if offset != place:
                self._give_up(key)
                return _BAD_FRAGMENT
            pieces.append(piece)
            place += len(piece)
        self._remove(key)
        # Fragments within fragments end by their depth.
        return self._extended(at, datagram.protocol, key[0], b"".join(pieces), 0, place, place, depth + 1)

    def _give_up(self, key: _Key) -> None:
        self._remove(key)
        self.incomplete += 1

    def _remove(self, key: _Key) -> None:
        self._fragment_bytes -= self._datagrams.pop(key).charge

    # -------------------------------------------------------------------------------------------------------- above IP

    def _transport(
        self, at: _Frame, protocol: int, addresses: bytes, data: bytes, start: int, stop: int, end: int, depth: int
    ) -> Segment | str:
        """What an IP packet carries: of its payload, from ``start`` to ``end``, ``start`` to ``stop`` was captured."""
        if protocol == _TCP:
            if stop - start < 14:
                return _CUT if end - start >= 20 else _MALFORMED
            ports, seq, ack, offset, flags = _TCP_HEADER(data, start)
            header = offset >> 2 & 0x3C
            if header < 20 or start + header > end:
                return _MALFORMED
            start += header
            missing = end - max(start, stop)
            return (*at, addresses + ports, seq, ack, flags, data, min(start, stop), stop, missing)
        if protocol in {4, 41}:
            return self._ip(at, data, start, stop, depth + 1)
        if protocol == 47:
            return self._gre(at, data, start, stop, depth + 1)
        if protocol == _UDP and stop - start >= 16:
            port = _U16(data, start + 2)[0]
            if port == _VXLAN and data[start + 8] & 8:
                return self._ethernet(at, data, start + 16, stop, depth + 1)
            if port == _GENEVE and not data[start + 8] & 0xC0:
                options = (data[start + 8] & 0x3F) * 4
                return self._type(at, _U16(data, start + 10)[0], data, start + 16 + options, stop, depth + 1)
        return _NOT_TCP

    def _gre(self, at: _Frame, data: bytes, start: int, stop: int, depth: int) -> Segment | str:
        """RFC 2784 with the key and sequence number of RFC 2890; ERSPAN (draft-foschiano-erspan)."""
        if stop - start < 4:
            return _CUT
        flags, kind = struct.unpack_from(">HH", data, start)
        if flags & 0x4007:  # routing, or a version that is not 0
            return _NOT_IP
        start += 4 + sum(4 for bit in (0x8000, 0x2000, 0x1000) if flags & bit)
        if kind == _ERSPAN_2:
            return self._ethernet(at, data, start + (8 if flags & 0x1000 else 0), stop, depth)
        if kind == _ERSPAN_3:
            if stop - start < 12:
                return _CUT
            return self._ethernet(at, data, start + (20 if data[start + 11] & 1 else 12), stop, depth)
        return self._type(at, kind, data, start, stop, depth)

    _LINKS: ClassVar[dict[int, Callable[[Network, _Frame, bytes, int, int], Segment | str]]] = {
        0: _loopback,
        1: _ethernet,
        9: _ppp,
        12: _ip,
        14: _ip,
        50: _ppp,
        51: _pppoe,
        101: _ip,
        104: _cisco,
        108: _loopback,
        109: _encapsulated,
        113: _cooked,
        117: _filter_log,
        149: _pktap,
        204: _ppp_direction,
        228: _ip,
        229: _ip,
        239: _netfilter_log,
        258: _pktap,
        276: _cooked2,
    }
    """What packets begin with, by LINKTYPE."""


LINK_TYPES = frozenset(Network._LINKS)
"""Those that are known; packets that begin with anything else bring nothing."""
