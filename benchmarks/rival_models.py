"""Other implementations of the same models, as `benchmarks.rivals` and `benchmarks.gpu_rivals` load them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any


def official(checkout: Path, name: str) -> Any:
    """Import a module of the official repository.

    Args:
        checkout: The repository's folder.
        name: The module's name.

    Returns:
        The module.
    """
    spec = importlib.util.spec_from_file_location(name, checkout / "src" / "models" / f"{name}.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{checkout} is no checkout of the official repository")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def message(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an input of sentence-transformers in the chat format of the embedding models.

    Args:
        content: A text or an image, as transformers' processors accept it.

    Returns:
        Messages of the system and the user.
    """
    instruction = {"type": "text", "text": "Represent the user's input."}
    return [{"role": "system", "content": [instruction]}, {"role": "user", "content": [content]}]


def sentence_transformer(folder: Path, **options: Any) -> Any:
    """Load a checkpoint with sentence-transformers' own modules.

    Args:
        folder: The checkpoint.
        **options: Arguments of `SentenceTransformer`.

    Returns:
        A `SentenceTransformer`.
    """
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as parts

    transformer = parts.Transformer(str(folder), processing_kwargs={"chat_template": {"add_generation_prompt": True}})
    # Its own limit is that of the checkpoint's files; the official scripts' is higher.
    transformer.processor.image_processor.size = {"shortest_edge": 4096, "longest_edge": 1_843_200}
    # On transformers 4.57 it leaves all weights random without an error: the checkpoint's names have a prefix.
    weights = load_file(folder / "model.safetensors")
    transformer.auto_model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in weights.items()})
    hidden_size = transformer.auto_model.config.text_config.hidden_size
    modules = [transformer, parts.Pooling(hidden_size, pooling_mode="lasttoken"), parts.Normalize()]
    return SentenceTransformer(modules=modules, **{"device": "cpu", **options})
