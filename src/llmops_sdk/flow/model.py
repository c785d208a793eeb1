"""`Model`: everything that answers a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from llmops_sdk.flow.drive import Stream, run_async, run_sync
from llmops_sdk.flow.run import Run
from llmops_sdk.types import EmbedRequest, Message, Request, Response

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmops_sdk.flow.effects import Flow
    from llmops_sdk.types import AnyRequest

Input: TypeAlias = str | Message | Sequence[Message] | Request


class Model:
    """A remote provider, an engine in this process, or a layer around another model.

    A subclass sets `name` and writes `flow`. The ways of calling it are written here, once:

        complete, acomplete   the whole `Response`
        stream, astream       a `Stream` of `Delta`
        embed, aembed         float32 [n, D]

    Each takes a str, a message, a list of messages or a `Request`, and parameters of `Request` as keywords, and raises
    the errors of the `ModelError` branch. `deadline_s` bounds the whole call, in seconds.
    """

    name: str
    """Stable identity, part of cache keys and prompt versions, such as `openai:gpt-5-mini`."""

    def flow(self, request: AnyRequest, run: Run) -> Flow[Any]:
        """Answer `request`: yield effects, return a response of the request's kind.

        A layer passes on what it does not know with `return (yield from self.model.flow(request, run))`; a leaf raises
        `UnsupportedError`. A leaf emits deltas only if `run.streaming`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define flow(request, run).")

    def complete(self, content: Input, /, *, deadline_s: float | None = None, **parameters: Any) -> Response:
        """The whole response; blocks."""
        request, run = Request.of(content, **parameters), Run.start(deadline_s=deadline_s)
        response: Response = run_sync(self.flow(request, run), run)
        return response

    async def acomplete(self, content: Input, /, *, deadline_s: float | None = None, **parameters: Any) -> Response:
        """The whole response."""
        request, run = Request.of(content, **parameters), Run.start(deadline_s=deadline_s)
        response: Response = await run_async(self.flow(request, run), run)
        return response

    def stream(self, content: Input, /, *, deadline_s: float | None = None, **parameters: Any) -> Stream[Response]:
        """The response as it comes. Nothing is asked before the first delta is."""
        request, run = Request.of(content, **parameters), streaming_run(deadline_s)
        return Stream(self.flow(request, run), run)

    def astream(self, content: Input, /, *, deadline_s: float | None = None, **parameters: Any) -> Stream[Response]:
        """The same as `stream`, named for those who read it with `async for`."""
        return self.stream(content, deadline_s=deadline_s, **parameters)

    def embed(self, texts: Sequence[str], /, *, deadline_s: float | None = None) -> NDArray[np.float32]:
        """One vector a text: float32 [n, D]; blocks."""
        run = Run.start(deadline_s=deadline_s)
        vectors: NDArray[np.float32] = run_sync(self.flow(EmbedRequest(texts=tuple(texts)), run), run).vectors
        return vectors

    async def aembed(self, texts: Sequence[str], /, *, deadline_s: float | None = None) -> NDArray[np.float32]:
        """One vector a text: float32 [n, D]."""
        run = Run.start(deadline_s=deadline_s)
        vectors: NDArray[np.float32] = (await run_async(self.flow(EmbedRequest(texts=tuple(texts)), run), run)).vectors
        return vectors

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self, 'name', '?')}>"


def streaming_run(deadline_s: float | None = None) -> Run:
    """The run of a stream: its spans stand under the span that is current now, wherever it is read."""
    from opentelemetry import context

    return Run.start(streaming=True, deadline_s=deadline_s, parent=context.get_current())
