"""A decorated plain function, as `@trace`, `@guard` and bare `@retrieve` leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmops_sdk.decorators.wrapper import Wrapper, check_target

if TYPE_CHECKING:
    from llmops_sdk.decorators.call import Layer


class Function(Wrapper):
    """The user's function with layers around it; to its callers and type checkers, the function itself."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function through its layers."""
        if self._mode in ("sync", "async") and len(self._layers) == 1:
            direct = getattr(self._layers[0], "direct", None)
            if direct is not None:
                return direct(self._target, self._mode, args, kwargs)
        return super().__call__(*args, **kwargs)


def decorated(decorator: str, target: Any, layer: Layer) -> Any:
    """`target` with one more layer. Raises `DecoratorError` for what cannot be decorated."""
    if isinstance(target, classmethod | staticmethod) and isinstance(target.__func__, Wrapper):
        inner = target.__func__
        target = inner._on(type(target)(inner._target))  # noqa: SLF001 - the same room
    if isinstance(target, Wrapper):
        return target._with_layer(layer)  # noqa: SLF001 - the same room
    check_target(decorator, target)
    return Function(target, (layer,))
