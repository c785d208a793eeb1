"""Server-sent events out of bytes (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from typing import Final, NamedTuple

_BOM: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its data, lines joined, and its name where it has one."""

    data: str
    name: str = ""


class EventDecoder:
    """Takes chunks, cut anywhere, and gives the events that they complete.

    Lines end in LF, CR or CRLF; comments and fields that carry nothing here (`id`, `retry`) are passed over.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._after_cr = False
        self._data: list[bytes] = []
        self._name = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end in this chunk."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        text = self._rest + chunk
        if not self._begun:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._rest = text
                return []
            text, self._begun = text.removeprefix(_BOM), True
        lines = text.splitlines()
        self._rest = b"" if text.endswith((b"\n", b"\r")) else lines.pop() if lines else b""
        return [event for line in lines if (event := self._line(line)) is not None]

    def finish(self) -> list[Event]:
        """What stood before the end of the stream without the empty line that ends an event."""
        rest, self._rest = self._rest, b""
        events = [self._line(rest), self._line(b"")] if rest else [self._line(b"")]
        return [event for event in events if event is not None]

    def _line(self, line: bytes) -> Event | None:
        """Take one line; an empty one ends the event."""
        if not line:
            data, name = self._data, self._name
            self._data, self._name = [], b""
            if not data:
                return None
            return Event(b"\n".join(data).decode("utf-8", "replace"), name.decode("utf-8", "replace"))
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None
