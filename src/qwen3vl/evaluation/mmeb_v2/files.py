"""The result files of a data set, in the official names and formats. Each is complete, or not there."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from qwen3vl.durable import make_folder, write_file
from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2.dataset import Name
from qwen3vl.evaluation.mmeb_v2.metrics import Prediction

log = logging.getLogger(__name__)

Side = str
"""`qry` for the vectors of queries, `tgt` for those of candidates, as in the names of files."""


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """The files of a data set.

    Attributes:
        folder: The folder of the data set's part of the benchmark.
        name: The data set's name.
    """

    folder: Path
    name: str

    def read_scores(self, suffix: str = "") -> Mapping[str, Any] | None:
        """Read the measures of a data set that is done.

        Args:
            suffix: `"_rerank"` for those of the reranked candidates.

        Returns:
            The measures; None if the data set is not done.

        Raises:
            InputError: The file is no JSON.
        """
        file = self._path(f"{suffix}_score.json")
        if not file.is_file() or not self._path(f"{suffix}_pred.jsonl").is_file():
            return None
        try:
            scores = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file} is no JSON: {error}. Delete it, to evaluate {self.name} again.") from error
        # Earlier versions wrote measures of 0 for annotations without queries.
        return scores if isinstance(scores, dict) and scores.get("num_pred") else None

    def write_results(
        self, scores: Mapping[str, Any], predictions: Iterable[Mapping[str, Any]], suffix: str = ""
    ) -> None:
        """Write predictions, then measures, after which the data set is done.

        Args:
            scores: The measures.
            predictions: One object for each query.
            suffix: As for `read_scores`.
        """
        self._write_lines(f"{suffix}_pred.jsonl", predictions)
        content = json.dumps(scores, indent=4, ensure_ascii=False)
        write_file(self._path(f"{suffix}_score.json"), content.encode())

    def read_rankings(self, limit: int) -> list[list[Name]]:
        """Read the first candidates of each query from the predictions.

        Args:
            limit: How many of each query.

        Returns:
            Their names.

        Raises:
            InputError: There are no predictions, or they cannot be read.
        """
        file = self._path("_pred.jsonl")
        try:
            with file.open(encoding="utf-8") as stream:
                return [json.loads(line)["prediction"][:limit] for line in stream]
        except FileNotFoundError as error:
            raise InputError(f"there is no {file}: evaluate the embedding model on {self.name} first") from error
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{file} has another form: {error!r}. Delete it, to evaluate {self.name} again."
            ) from error

    def write_info(self, infos: Iterable[Mapping[str, Any]]) -> None:
        """Write what is known of each query: its labels, its own candidates, and details.

        Args:
            infos: One object for each query.
        """
        self._write_lines("_info.jsonl", infos)

    def read_vectors(self, side: Side, digest: str) -> NDArray[np.float32] | None:
        """Read vectors that an earlier run has written.

        Args:
            side: Whose vectors.
            digest: Digest of what they were made from.

        Returns:
            The vectors, (n, dimension); None if there are none of the same digest, or if the file is damaged.
        """
        file = self._path(f"_{side}.npz")
        if not file.is_file():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return np.asarray(arrays["vectors"]) if str(arrays["digest"]) == digest else None
        except (BadZipFile, KeyError, EOFError, ValueError) as error:
            log.warning("%s cannot be read, and what it had is embedded again: %r", file, error)
            return None

    def write_vectors(self, side: Side, vectors: NDArray[np.float32], digest: str) -> None:
        """Write vectors for a later run.

        Args:
            side: Whose vectors.
            vectors: The vectors, (n, dimension).
            digest: Digest of what they were made from.
        """
        buffer = BytesIO()
        np.savez(buffer, vectors=vectors, digest=np.array(digest))
        make_folder(self.folder)
        write_file(self._path(f"_{side}.npz"), buffer.getvalue())

    def write_pickles(
        self, queries: NDArray[np.float32], names: Sequence[Name], candidates: NDArray[np.float32]
    ) -> None:
        """Write vectors as the official scripts do: pickles of an array, and of a dict of arrays. They are never read.

        Args:
            queries: Vectors of the queries.
            names: Names of the candidates.
            candidates: Their vectors.
        """
        write_file(self._path("_qry"), pickle.dumps(queries))
        write_file(self._path("_tgt"), pickle.dumps(dict(zip(names, candidates, strict=True))))

    def _write_lines(self, ending: str, objects: Iterable[Mapping[str, Any]]) -> None:
        make_folder(self.folder)
        write_file(self._path(ending), (f"{json.dumps(line, ensure_ascii=False)}\n".encode() for line in objects))

    def _path(self, ending: str) -> Path:
        return self.folder / f"{self.name}{ending}"


def to_json(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as the file of predictions has it.

    Args:
        prediction: What a query found.

    Returns:
        The object of its line.
    """
    rel_scores = None if prediction.rel_scores is None else list(prediction.rel_scores)
    return {"prediction": list(prediction.ranking), "label": list(prediction.labels), "rel_scores": rel_scores}
