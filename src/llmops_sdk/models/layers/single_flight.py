"""Single flight: of all equal calls under way in a process, one is made and the others take its answer."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

from llmops_sdk.errors import DeadlineExceededError, StreamInterruptedError
from llmops_sdk.flow.run import caller

T = TypeVar("T")


class Landed(NamedTuple, Generic[T]):
    """How a flight ended: with a value, with an error, or with neither, when its leader has gone."""

    value: T | None = None
    error: BaseException | None = None


class Flight(Generic[T]):
    """One call under way. Its leader ends it by `land`, `fail` or `abandon`; only the first of these counts."""

    def __init__(self, flights: Flights[T], key: str) -> None:
        self.future: Future[Landed[T]] = Future()
        self.leader = caller()
        self._flights = flights
        self._key = key

    def is_of_caller(self) -> bool:
        """Whether the caller leads this flight itself, in a stream that it has half read."""
        return self.leader is not None and self.leader == caller()

    def land(self, value: T) -> None:
        """Give every follower the answer."""
        self._end(Landed(value=value))

    def fail(self, error: Exception) -> None:
        """Give every follower the error, unless it is about the leader's own time or stream."""
        own = isinstance(error, DeadlineExceededError | StreamInterruptedError)
        self._end(Landed() if own else Landed(error=error))

    def abandon(self) -> None:
        """Tell the followers that the leader has gone: one of them takes over."""
        self._end(Landed())

    def _end(self, landed: Landed[T]) -> None:
        if self._flights.remove(self._key, self):
            self.future.set_result(landed)


class Flights(Generic[T]):
    """The flights of one process, by key."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collected leader ends its flight, and may be collected while this is held
        self._by_key: dict[str, Flight[T]] = {}

    def join(self, key: str) -> tuple[Flight[T], bool]:
        """The flight of `key`, and whether the caller leads it."""
        with self._lock:
            flight = self._by_key.get(key)
            if flight is not None:
                return flight, False
            flight = self._by_key[key] = Flight(self, key)
            return flight, True

    def remove(self, key: str, flight: Flight[T]) -> bool:
        """Take a flight off; False when it was not there any more."""
        with self._lock:
            if self._by_key.get(key) is not flight:
                return False
            del self._by_key[key]
            return True

    def reset(self) -> None:
        """Forget all flights: in a forked child their leaders do not exist."""
        self._lock = threading.RLock()
        self._by_key = {}
