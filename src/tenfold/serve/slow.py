"""The protocol of a connection that gives its client only so long.

It must not know what is asked: uvicorn itself waits for ever for the head of a request.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

GRACE = 5.0


class TimedProtocol(H11Protocol):
    """A connection that ends when a head, what the application leaves unread, or room for an answer does not come."""

    header_seconds = 10.0
    body_seconds = 120.0
    _timer: asyncio.TimerHandle | None = None
    _full: asyncio.TimerHandle | None = None
    _waits_for: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Wait on, for the same part or for the next."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request, or until the client has read this answer; uvicorn ends a silent connection."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._stop()
            self._waits_for = None
            self._timer = self.loop.call_later(self.body_seconds, self.transport.abort)
        else:
            self._watch()

    def shutdown(self) -> None:
        """End once what was asked is answered; a request that is still arriving was not asked."""
        super().shutdown()
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()

    def pause_writing(self) -> None:
        """Give the client so long to read on."""
        super().pause_writing()
        self._full = self.loop.call_later(self.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        self._read_on()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        self._read_on()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Give each part of a request one span of time, however many pieces it comes in."""
        state = self.conn.their_state
        if state is self._waits_for:
            return
        self._stop()
        self._waits_for = state
        if state is h11.IDLE:
            self._timer = self.loop.call_later(self.header_seconds, self.transport.abort)
        elif state is h11.SEND_BODY:
            # the application answers 408 first; this ends what it never reads
            self._timer = self.loop.call_later(self.body_seconds + GRACE, self.transport.abort)

    def _read_on(self) -> None:
        if self._full is not None:
            self._full.cancel()
            self._full = None

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def timed(header_seconds: float, body_seconds: float) -> type[TimedProtocol]:
    """The protocol with its times set.

    Args:
        header_seconds: Until the head of a request has arrived.
        body_seconds: Until its body has.

    Returns:
        A class for uvicorn's `http`.
    """
    return type("TimedProtocol", (TimedProtocol,), {"header_seconds": header_seconds, "body_seconds": body_seconds})
