"""Evaluates models on data sets: the embedding model on all of them, the reranker on those of retrieval."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from qwen3vl.embedder import Embedder
from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2.dataset import InputMapping, LoadedDataset, Query
from qwen3vl.evaluation.mmeb_v2.files import ResultFiles, Side, to_json
from qwen3vl.evaluation.mmeb_v2.loaders import load_dataset
from qwen3vl.evaluation.mmeb_v2.metrics import Prediction, measure
from qwen3vl.evaluation.mmeb_v2.ranking import rank
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec
from qwen3vl.inputs import Item
from qwen3vl.processing.templates import EMBED_INSTRUCTION
from qwen3vl.reranker import Reranker
from qwen3vl.results import Batch

TOP_K = 100
"""How many candidates of a query the official script reranks."""
RERANK = "_rerank"
"""In the names of the reranker's result files."""


def evaluate_dataset(
    spec: DatasetSpec,
    data: Path,
    embedder: Embedder,
    files: ResultFiles,
    *,
    pickles: bool = False,
    progress: bool = False,
) -> Mapping[str, Any]:
    """Embed the queries and candidates of a data set, rank, and write the results.

    Args:
        spec: The data set.
        data: The folder of all data.
        embedder: The embedding model.
        files: Where the results are written. Vectors that are there from an earlier run are used.
        pickles: Whether to write vectors as the official scripts do as well.
        progress: Whether to show progress bars.

    Returns:
        The measures, from the files if the data set is done.

    Raises:
        InputError: Files of the data set are missing or broken, or an input cannot be embedded.
    """
    scores = files.read_scores()
    if scores is not None:
        return scores
    dataset = load_dataset(spec, data)
    files.write_info(query.info for query in dataset.queries)
    queries = _vectors(embedder, files, "qry", [query.input for query in dataset.queries], progress=progress)
    candidates = _vectors(embedder, files, "tgt", list(dataset.candidates.values()), progress=progress)
    if pickles:
        files.write_pickles(queries, list(dataset.candidates), candidates)
    predictions = list(rank(dataset, queries, candidates))
    scores = {**measure(predictions), "num_pred": len(predictions), "num_data": len(dataset.queries)}
    files.write_results(scores, map(to_json, predictions))
    return scores


def rerank_dataset(
    spec: DatasetSpec,
    data: Path,
    reranker: Reranker,
    retrieved: ResultFiles,
    files: ResultFiles,
    *,
    top_k: int = TOP_K,
    progress: bool = False,
) -> Mapping[str, Any]:
    """Rerank the first candidates of each query of a data set, and write the results.

    Args:
        spec: The data set.
        data: The folder of all data.
        reranker: The reranker.
        retrieved: Results of the embedding model.
        files: Where the results are written.
        top_k: How many candidates of each query are reranked.
        progress: Whether to show a progress bar.

    Returns:
        The measures, from the files if the data set is done.

    Raises:
        InputError: Results of the embedding model are missing or are of other files, those of the reranker are with
            another `top_k`, or an input cannot be scored.
    """
    scores = files.read_scores(RERANK)
    if scores is not None:
        if scores.get("topk") != top_k:
            raise InputError(
                f"{files.folder} has results of {spec.name} with {scores.get('topk')} reranked candidates, not "
                f"{top_k}: name another folder for the results, or rerank as many"
            )
        return scores
    dataset = load_dataset(spec, data)
    rankings = retrieved.read_rankings(top_k)
    if len(rankings) != len(dataset.queries):
        raise InputError(
            f"{spec.name} has {len(dataset.queries)} queries, and the results in {retrieved.folder} are of "
            f"{len(rankings)}: evaluate the embedding model on it again, into another folder"
        )
    queries = tqdm(dataset.queries, desc=f"{spec.name}: reranking", leave=False, disable=not progress)
    lines = [_rerank(dataset, reranker, query, names) for query, names in zip(queries, rankings, strict=True)]
    predictions = [Prediction(line["prediction"], line["label"], line["rel_scores"]) for line in lines]
    counts = {"num_pred": len(lines), "num_data": len(lines), "topk": top_k}
    scores = {**measure(predictions), **counts, "reranker_model": reranker.recipe.model}
    files.write_results(scores, lines, RERANK)
    return scores


def _rerank(dataset: LoadedDataset, reranker: Reranker, query: Query, names: list[Any]) -> dict[str, Any]:
    """Return the line of a query in the file of predictions."""
    unknown = [name for name in names if name not in dataset.candidates]
    if unknown:
        raise InputError(
            f"the results of {dataset.spec.name} name the candidate {unknown[0]!r}, which it does not have: evaluate "
            "the embedding model on it again, into another folder"
        )
    documents = [_to_input(dataset.candidates[name]) for name in names]
    batch = reranker.score(_to_input(query.input), documents, on_error="collect")
    if batch.errors:
        raise _failure(dataset.spec.name, "candidates", batch)
    scores = batch.values
    order = np.argsort(-scores, kind="stable")
    return {
        "label": query.labels,
        "rel_scores": query.rel_scores,
        "retrieved": names,
        "prediction": [names[index] for index in order],
        "rerank_scores": [float(scores[index]) for index in order],
    }


def _vectors(
    embedder: Embedder, files: ResultFiles, side: Side, inputs: list[InputMapping], *, progress: bool
) -> NDArray[np.float32]:
    digest = _digest(embedder, inputs)
    vectors = files.read_vectors(side, digest)
    if vectors is not None:
        return vectors
    # Candidates have no instruction of their own, and the official script uses its default, whatever a server's is.
    batch = embedder.embed(
        [_to_input(entry) for entry in inputs], instruction=EMBED_INSTRUCTION, progress=progress, on_error="collect"
    )
    if batch.errors:
        raise _failure(files.name, "queries" if side == "qry" else "candidates", batch)
    vectors = batch.values
    files.write_vectors(side, vectors, digest)
    return vectors


def _failure(name: str, what: str, batch: Batch) -> InputError:
    first = batch.errors[0]
    return InputError(
        f"of {len(batch.values)} {what} of {name}, {len(batch.errors)} cannot be used; the first is {first.source}: "
        f"{first.reason}"
    )


def _to_input(entry: InputMapping) -> InputMapping | Item:
    """Return an input as models accept it.

    A mapping with nothing but an empty text is refused, as it is a mistake elsewhere. Here it is an answer like any
    other, and the official script embeds it: an `Item` is taken as it is.
    """
    if set(entry) <= {"text", "instruction"} and not entry.get("text"):
        return Item(texts=("",), instruction=entry.get("instruction"))
    return entry


def _digest(embedder: Embedder, inputs: Iterable[InputMapping]) -> str:
    """Return a digest of what decides vectors."""
    digest = hashlib.sha256(embedder.recipe.digest.encode())
    for entry in inputs:
        digest.update(json.dumps(entry, sort_keys=True).encode())
    return digest.hexdigest()
