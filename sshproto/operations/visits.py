"""What sessions offer to a server, a display or an agent, and the channels that it brings for that.

A channel doesn't say for which session it is.  So all sessions of a connection that have offered things of one sort
share one :class:`Visits`, which takes the channels as long as there is such a session, and refuses them before and
after.  How many there may be is the connection's bound (``Limits.opens_pending``, ``Limits.channels_from_peer``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sshproto.errors import InternalError, SSHError
from sshproto.operations.pending import Offer
from sshproto.operations.steps import Operation, Sleep, Wait, hand_over

if TYPE_CHECKING:
    from sshproto.client import ClientConnection
    from sshproto.events import ChannelOpenRequested
    from sshproto.operations.channel import Channel
    from sshproto.operations.hub import Hub


MAXIMUM_WARNINGS = 20
"""How often a session tells of visits that have failed: a server can bring any number of them."""


class Host:
    """A session that has offered something.

    Args:
        channel: The session's.
        warn: Told of what went wrong; None if nobody wants to know.

    Attributes:
        over: It takes no more visits: the time is up, or there was the one that it wanted.
        left: Fires when the session has ended.
    """

    def __init__(self, channel: Channel, warn: Callable[[str], object] | None) -> None:
        self.channel = channel
        self.over = False
        self.left = Wait()
        self._warn = warn
        self._warnings = 0

    def tell(self, words: str) -> None:
        """Tell who wants to know, as long as it is not too often."""
        if self._warn is not None and self._warnings < MAXIMUM_WARNINGS:
            self._warnings += 1
            self._warn(words if self._warnings < MAXIMUM_WARNINGS else f"{words}; no more of this session is told")


H = TypeVar("H", bound=Host)


class Visits(Offer, Generic[H]):
    """Takes the channels of one sort that a server brings.

    Args:
        hub: The connection's.
        kinds: The classes of such channels.
        carry: Serves one; it is given this and the question, and what it leaves unanswered is refused.

    Attributes:
        hosts: The sessions that have offered it, oldest first.
        strangers: For ``carry`` to count those of which it does not know yet whether they may.
    """

    def __init__(
        self,
        hub: Hub[ClientConnection],
        kinds: tuple[type, ...],
        carry: Callable[[Visits[H], ChannelOpenRequested], Operation[None]],
    ) -> None:
        super().__init__()
        self.hub = hub
        self.hosts: list[H] = []
        self.strangers = 0
        self._kinds = kinds
        self._carry = carry

    def join(self, host: H, seconds: float | None = None) -> Operation[None]:
        """Take visits for a session until it ends.

        Args:
            host: The session.
            seconds: After how long it is to take no more; None for never.
        """
        self.hosts.append(host)
        try:
            if len(self.hosts) == 1:
                self.hub.offers = {**self.hub.offers, **dict.fromkeys(self._kinds, self)}
                yield from hand_over(self._receive(), self.close)
            yield from hand_over(self._until_end(host), partial(self.leave, host))
            if seconds is not None:
                yield from hand_over(_expire(host, seconds), partial(self.leave, host))
        except BaseException:
            self.leave(host)
            raise

    def leave(self, host: H) -> None:
        """A session offers no more. Repeated calls do nothing."""
        host.left.fire()
        if host in self.hosts:
            self.hosts.remove(host)
            if not self.hosts:
                self.close()

    def close(self) -> None:
        """Take no more. Repeated calls do nothing."""
        self.closed = True
        self.hub.offers = {kind: offer for kind, offer in self.hub.offers.items() if offer is not self}
        while self.waiting:
            self.hub.refuse(self.waiting.popleft())
        self.came.fire()

    def _receive(self) -> Operation[None]:
        try:
            while not self.closed and self.hub.lost is None:
                if self.waiting:
                    question = self.waiting.popleft()
                    yield from hand_over(self._visit(question), partial(self.hub.refuse, question))
                else:
                    yield self.came
        finally:
            self.close()

    def _visit(self, question: ChannelOpenRequested) -> Operation[None]:
        try:
            yield from self._carry(self, question)
        except InternalError:
            raise
        except (SSHError, OSError):  # there is nobody to tell
            pass
        finally:
            self.hub.refuse(question)

    def _until_end(self, host: H) -> Operation[None]:
        try:
            yield from host.channel.until_closed()
        finally:
            self.leave(host)


def _expire(host: Host, seconds: float) -> Operation[None]:
    yield Sleep(seconds, host.left)
    host.over = True


def visits_of(
    hub: Hub[ClientConnection],
    kinds: tuple[type, ...],
    carry: Callable[[Visits[Any], ChannelOpenRequested], Operation[None]],
) -> Visits[Any]:
    """The one that takes the channels of these kinds now, or a new one."""
    found: Any = hub.offers.get(kinds[0])
    return Visits(hub, kinds, carry) if found is None else found
