"""Which models a command uses: the ones that the user names, else the ones that go with the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy
from qwen3vl.recipe import Recipe
from qwen3vl.settings import server_urls

if TYPE_CHECKING:
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker

DEFAULT_EMBEDDER = "Qwen/Qwen3-VL-Embedding-2B"
DEFAULT_RERANKER = "Qwen/Qwen3-VL-Reranker-2B"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model options of a command.

    Attributes:
        model: Hub id, folder, `"tiny"` or the URL of a server; None means the model that the store was built with.
        device: As `Embedder` accepts it.
        dtype: As `Embedder` accepts it.
        policy: Limits on the media that are opened.
        adapter: LoRA adapter of the model, folder or hub id; None means the one of the store, if its model is used.
    """

    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    policy: MediaPolicy = DEFAULT_POLICY
    adapter: str | None = None


def media_policy(*, isolated: bool, max_media: int) -> MediaPolicy:
    """Return the media policy of a command.

    Args:
        isolated: The option `--isolated`.
        max_media: The option `--max-media`, in MiB.

    Returns:
        The policy.
    """
    return MediaPolicy(isolated=isolated, max_bytes=max_media * 2**20)


def open_embedder(choice: ModelChoice, stored: Recipe | None, **settings: Any) -> Embedder:
    """Load the embedding model of a command.

    Args:
        choice: The model options of the command.
        stored: The recipe of the store's collection, which supplies the model and the settings that are not given.
        **settings: Further arguments of `Embedder`.

    Returns:
        The model.
    """
    from qwen3vl.embedder import Embedder

    return Embedder(**embedder_arguments(choice, stored, **settings))


def embedder_arguments(choice: ModelChoice, stored: Recipe | None, **settings: Any) -> dict[str, Any]:
    """Return the arguments of the `Embedder` of a command.

    Args:
        choice: As for `open_embedder`.
        stored: As for `open_embedder`.
        **settings: As for `open_embedder`.

    Returns:
        Keyword arguments.
    """
    if stored is not None:
        origin = {"revision": stored.revision, "adapter": stored.adapter} if choice.model is None else {}
        settings = {**stored.settings, "revision": None, "adapter": None, **origin, **settings}
    if choice.adapter is not None:
        settings["adapter"] = choice.adapter
    name = choice.model or (stored.model if stored else DEFAULT_EMBEDDER)
    return {"model": name, "device": choice.device, "dtype": choice.dtype, "policy": choice.policy, **settings}


def open_reranker(name: str | None, choice: ModelChoice, stored: Recipe, *, adapter: str | None = None) -> Reranker:
    """Load the reranker of a command.

    Args:
        name: Hub id, folder, `"tiny"` or the URL of a server; None means that of the server if the command's model is
            one, else the reranker that matches the store's model: tiny for tiny; for a folder, the folder with
            "Reranker" in place of "Embedding" if it exists; 8B for 8B; otherwise 2B.
        choice: The model options of the command, of which device, dtype and policy are used.
        stored: The recipe of the store's collection.
        adapter: The reranker's LoRA adapter, folder or hub id.

    Returns:
        The model.
    """
    from qwen3vl.reranker import Reranker

    if name is None:
        model = choice.model or ""
        name = model if server_urls(model) else _matching_reranker(stored.model)
    return Reranker(name, device=choice.device, dtype=choice.dtype, policy=choice.policy, adapter=adapter)


def _matching_reranker(embedder: str) -> str:
    if embedder == "tiny":
        return "tiny"
    reranker_folder = Path(embedder.replace("Embedding", "Reranker").replace("embedding", "reranker"))
    if str(reranker_folder) != embedder and reranker_folder.is_dir():
        return str(reranker_folder)
    return DEFAULT_RERANKER.replace("2B", "8B") if "8B" in embedder else DEFAULT_RERANKER
