"""`StoreSearch`: a vector store, its index, quantization and search by words, as mteb's `SearchProtocol`."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import numpy as np
from mteb._create_dataloaders import create_dataloader
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta, SearchCrossEncoderWrapper
from mteb.types import PromptType
from numpy.typing import NDArray

from qwen3vl.documents import Document
from qwen3vl.stores import Hit, Mode, Point, Search, Store, open_store, parse_location
from qwen3vl.stores.registry import INTEGRATIONS
from qwen3vl_mteb.cross_encoder import Qwen3VLCrossEncoder
from qwen3vl_mteb.encoder import Qwen3VLEncoder

_CHUNK_DOCUMENTS = 4096
"""Documents whose vectors are in memory at once."""
_SEARCHES_PER_REQUEST = 32
Results = dict[str, dict[str, float]]
"""The scores of documents by query and document."""


class StoreSearch:
    """Searches a vector store, so that what it does to the ranking is measured too.

    The documents of a task are embedded and written into a collection of their own, which is deleted when the next task
    begins, and by `close`.

    Args:
        encoder: Embeds documents and queries.
        store: `"qdrant"` or `"chroma"` for a temporary folder; else a location as `open_store` takes it, such as
            `"http://localhost:6333"` or `"chroma:http://localhost:8000"`.
        layout: What a Qdrant collection stores beside full vectors: a `Layout`, or its fields as a mapping such as
            `{"short": 512, "quantization": "scalar", "hybrid": True}`.
        mode: Whether to search by vectors, by words, or by both; None searches by both if the layout is hybrid. A query
            without text is searched by its vector.
        alpha: Share of the vectors in a search by both, from 0 to 1.
        exact: Whether to compare all full vectors, instead of using the index, quantized and short vectors.
        reranker: Scores the best documents of each query; None keeps the store's order.
        candidates: Number of documents of each query that the reranker scores. The others come after them.

    Attributes:
        encoder: The encoder.
        reranker: The reranker.
        store: The open store; None before the first task.
        mteb_model_meta: That of the encoder, with the settings of the search.

    Raises:
        ValueError: `candidates` is less than 1, or a setting of the layout is not supported.

    Example:
        ```python
        search = StoreSearch(Qwen3VLEncoder(), layout={"short": 512, "quantization": "scalar"})
        results = mteb.evaluate(search, mteb.get_task("VidoreDocVQARetrieval"))
        ```
    """

    def __init__(
        self,
        encoder: Qwen3VLEncoder,
        store: str = "qdrant",
        *,
        layout: Any = None,
        mode: Mode | None = None,
        alpha: float = 0.5,
        exact: bool = False,
        reranker: Qwen3VLCrossEncoder | None = None,
        candidates: int = 100,
    ) -> None:
        if candidates < 1:
            raise ValueError(f"candidates is {candidates}; it must be at least 1")
        self.encoder = encoder
        self.reranker = reranker
        self.candidates = candidates
        self.store: Store | None = None
        self._location = store
        self._layout = layout
        # Checked before anything is embedded.
        self._search = Search(np.zeros(1, dtype=np.float32), mode=mode, alpha=alpha, exact=exact)
        self._corpus: Any = None
        self._release: weakref.finalize[Any, Any] | None = None
        self.mteb_model_meta: ModelMeta = self._meta()

    def index(
        self,
        corpus: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Any,
        num_proc: int | None = None,
        **kwargs: Any,  # noqa: ARG002 (the protocol's)
    ) -> None:
        """Embed documents and write them into a new collection.

        Args:
            corpus: The documents, a `Dataset` with ids.
            task_metadata: The task.
            hf_split: Its split.
            hf_subset: Its subset.
            encode_kwargs: Arguments of `Qwen3VLEncoder.encode`.
            num_proc: Number of processes that read data.
            **kwargs: Not used.

        Raises:
            BatchError: Documents cannot be embedded.
            StoreError: The store cannot be opened or written.
        """
        self.close()
        self._corpus = corpus
        self.store = store = self._open()
        recipe = self.encoder.embedder.recipe
        store.create(recipe)
        store.defer_index()
        for start in range(0, len(corpus), _CHUNK_DOCUMENTS):
            chunk = corpus.select(range(start, min(start + _CHUNK_DOCUMENTS, len(corpus))))
            loader = create_dataloader(
                chunk, task_metadata=task_metadata, prompt_type=PromptType.document, num_proc=num_proc, **encode_kwargs
            )
            vectors = self.encoder.encode(
                loader,
                task_metadata=task_metadata,
                hf_split=hf_split,
                hf_subset=hf_subset,
                prompt_type=PromptType.document,
                **encode_kwargs,
            )
            documents = [_document(name, text) for name, text in zip(chunk["id"], _texts(loader), strict=True)]
            store.upsert(
                [
                    Point(store.point_id(document, recipe), vector, document)
                    for document, vector in zip(documents, vectors, strict=True)
                ]
            )
        store.build_index()

    def search(
        self,
        queries: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Any,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        num_proc: int | None = None,
        **kwargs: Any,  # noqa: ARG002 (the protocol's)
    ) -> Results:
        """Search the collection.

        Args:
            queries: The queries, a `Dataset` with ids.
            task_metadata: The task.
            hf_split: Its split.
            hf_subset: Its subset.
            top_k: Maximum number of documents of each query.
            encode_kwargs: Arguments of `Qwen3VLEncoder.encode`.
            top_ranked: Ids of the documents to rank, by query; None ranks all.
            num_proc: Number of processes that read data.
            **kwargs: Not used.

        Returns:
            Scores by query and document. With a reranker they are its scores for the candidates, and less than 0 for
            the documents after them.

        Raises:
            BatchError: Queries cannot be embedded, or candidates cannot be scored.
            RuntimeError: `index` was not called.
            StoreError: The store fails, or cannot be searched in this mode.
        """
        if self.store is None:
            raise RuntimeError("there are no documents to search: call index first")
        loader = create_dataloader(
            queries, task_metadata=task_metadata, prompt_type=PromptType.query, num_proc=num_proc, **encode_kwargs
        )
        task: dict[str, Any] = {"task_metadata": task_metadata, "hf_split": hf_split, "hf_subset": hf_subset}
        vectors = self.encoder.encode(loader, **task, prompt_type=PromptType.query, **encode_kwargs)
        names = list(queries["id"])
        searches = self._searches(names, vectors, _texts(loader), top_k, top_ranked)
        results: Results = {name: {} for name in names}
        for name, hits in zip(searches, self._run(self.store, list(searches.values())), strict=True):
            results[name] = {hit.document.locator: hit.score for hit in hits}
        if self.reranker is None:
            return results
        return self._rerank(queries, results, task, encode_kwargs=encode_kwargs, num_proc=num_proc)

    def close(self) -> None:
        """Delete the collection and close the store; temporary files are removed."""
        if self._release is not None:
            self._release()
        self.store = self._release = self._corpus = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Store:
        folder = TemporaryDirectory(prefix="qwen3vl-mteb-") if self._location in INTEGRATIONS else None
        location = self._location if folder is None else f"{self._location}:{folder.name}"
        store = open_store(location, f"mteb-{uuid4().hex}", layout=self._layout)
        self._release = weakref.finalize(self, _remove, store, folder)
        return store

    def _searches(
        self,
        names: Sequence[str],
        vectors: NDArray[np.float32],
        texts: Sequence[str],
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None,
    ) -> dict[str, Search]:
        """Return the search of each query; none for queries without documents to rank."""
        options = self._search
        searches = {}
        for name, vector, text in zip(names, vectors, texts, strict=True):
            where = None if top_ranked is None else {"locator": list(top_ranked.get(name, ()))}
            if where is not None and not where["locator"]:
                continue
            limit = top_k if where is None else min(top_k, len(where["locator"]))
            mode = options.mode if text.strip() else "dense"
            searches[name] = Search(
                vector, limit, where=where, mode=mode, alpha=options.alpha, exact=options.exact, text=text
            )
        return searches

    def _run(self, store: Store, searches: Sequence[Search]) -> Iterator[list[Hit]]:
        for start in range(0, len(searches), _SEARCHES_PER_REQUEST):
            yield from store.search_many(searches[start : start + _SEARCHES_PER_REQUEST])

    def _rerank(self, queries: Any, results: Results, task: Any, **options: Any) -> Results:
        """Return the candidates of each query with the reranker's scores, and the others below 0 in their order."""
        candidates = {name: list(scores)[: self.candidates] for name, scores in results.items()}
        wrapper = SearchCrossEncoderWrapper(self.reranker)
        wrapper.index(self._corpus, **task, encode_kwargs=options["encode_kwargs"])
        scored: Results = wrapper.search(queries, **task, **options, top_k=self.candidates, top_ranked=candidates)
        for name, scores in results.items():
            others = list(scores)[self.candidates :]
            scored[name] |= {document: -(rank + 1) / len(others) for rank, document in enumerate(others)}
        return scored

    def _meta(self) -> ModelMeta:
        meta = self.encoder.mteb_model_meta
        settings: dict[str, Any] = {
            "store": self._location
            if self._location in INTEGRATIONS
            else parse_location(self._location)[0] or "qdrant",
            **{name: _layout_setting(self._layout, name) for name in ("short", "quantization", "hybrid")},
            "mode": self._search.mode,
            "alpha": None if self._search.alpha == 0.5 else self._search.alpha,
            "exact": self._search.exact or None,
        }
        if self.reranker is not None:
            settings |= {"reranker": self.reranker.mteb_model_meta.name, "candidates": self.candidates}
            measured_of_reranker = self.reranker.mteb_model_meta.experiment_kwargs or {}
            settings |= {
                f"reranker_{name}": value for name, value in measured_of_reranker.items() if name != "implementation"
            }
        measured = {name: value for name, value in settings.items() if value is not None}
        return meta.model_copy(update={"experiment_kwargs": {**(meta.experiment_kwargs or {}), **measured}})


def _document(name: str, text: str) -> Document:
    """Return what is stored for a document: its id, which is no word of it, and its text for a search by words."""
    return Document("", "text", locator=str(name), text=text)


def _texts(loader: Any) -> list[str]:
    """Return the texts of a dataloader's rows, which are not decoded for that; empty ones if they have none."""
    dataset = loader.dataset
    return list(dataset["text"]) if "text" in dataset.column_names else [""] * len(dataset)


def _layout_setting(layout: Any, name: str) -> Any:
    value = layout.get(name) if isinstance(layout, Mapping) else getattr(layout, name, None)
    return str(value) if name == "hybrid" and value else value or None


def _remove(store: Store, folder: TemporaryDirectory[str] | None) -> None:
    """Delete a store's collection, and its folder if it is a temporary one."""
    try:
        store.client.delete_collection(store.collection)
    finally:
        store.close()
        if folder is not None:
            folder.cleanup()
