"""`Qwen3VLEncoder`: an `Embedder` as mteb's `EncoderProtocol`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.similarity_functions import cos_sim, pairwise_cos_sim
from mteb.types import PromptType
from numpy.typing import NDArray

from qwen3vl.embedder import Embedder
from qwen3vl.settings import BackendArguments, ModelName
from qwen3vl_mteb.inputs import read_rows, to_input
from qwen3vl_mteb.instructions import find_instruction_or_type
from qwen3vl_mteb.meta import measured_dtype, model_meta


class Qwen3VLEncoder:
    """Embeds texts, images, videos and mixtures of them for mteb.

    Queries have the instruction of the official evaluation where that has the same data, else the one of mteb for the
    task or for its type; documents have the model's. Videos are sampled from their files as the official script does.

    Args:
        model: As for `Embedder`: a hub id, a folder, `"tiny"`, or URLs of servers; or an `Embedder`, with no further
            settings.
        dimensions: Truncate vectors to this many values.
        instruction: The model's instruction; None is that of the official script.
        instructions: Instructions of tasks, by their name or type, such as `{"SciFact": "…", "STS": "…"}`; for
            documents with `-document` at the end, or for all documents under `"document"`.
        name: The model's name in results, as owner and name; None is its hub id, or made of the folder's name.
        **settings: As for `Embedder`.

    Attributes:
        embedder: The embedder.
        instructions: Instructions of tasks.
        mteb_model_meta: What is known of the model, and the settings that are measured.

    Raises:
        TypeError: There are settings beside an `Embedder`.

    Example:
        ```python
        encoder = Qwen3VLEncoder("Qwen/Qwen3-VL-Embedding-2B", dimensions=512)
        results = mteb.evaluate(encoder, mteb.get_task("VidoreDocVQARetrieval"))
        ```
    """

    def __init__(
        self,
        model: ModelName | Embedder = "Qwen/Qwen3-VL-Embedding-2B",
        *,
        dimensions: int | None = None,
        instruction: str | None = None,
        instructions: Mapping[str, str] | None = None,
        name: str | None = None,
        **settings: Unpack[BackendArguments],
    ) -> None:
        if isinstance(model, Embedder):
            if settings or dimensions is not None or instruction is not None:
                raise TypeError("an Embedder has its settings already: leave the others out, or pass its model")
            self.embedder = model
        else:
            self.embedder = Embedder(model, dimensions=dimensions, instruction=instruction, **settings)
        self.instructions = dict(instructions or {})
        measured = {"dtype": measured_dtype(self.embedder), "instructions": self.instructions or None}
        self.mteb_model_meta: ModelMeta = model_meta(
            self.embedder.recipe, "dense", loader=type(self), name=name, settings=measured
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,  # noqa: ARG002 (the protocol's)
        hf_subset: str,  # noqa: ARG002 (the protocol's)
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Embed the rows of a dataloader.

        Args:
            inputs: A `DataLoader` of `BatchedInput`. Its batches are packed anew, so that their size does not matter.
            task_metadata: The task.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: Whether the rows are queries or documents; None for tasks that have neither.
            **kwargs: `show_progress_bar`; `batch_size` is the dataloader's.

        Returns:
            Vectors of length 1, (n, dimension) float32.

        Raises:
            BatchError: Rows cannot be embedded. It has the vectors of the others.
            ValueError: Another `precision` than float32 is asked for.
        """
        if kwargs.get("precision") not in (None, "float32"):
            raise ValueError(
                f"precision is {kwargs['precision']!r}, and vectors are float32: use StoreSearch with a quantization, "
                "or CompressionWrapper of mteb"
            )
        if prompt_type is None and _are_labels(inputs, task_metadata):
            prompt_type = PromptType.document
        return self.embedder.embed(
            map(to_input, read_rows(inputs)),
            instruction=find_instruction_or_type(task_metadata, prompt_type, self.instructions),
            progress=bool(kwargs.get("show_progress_bar", False)),
        )

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosines of each vector with each other one.

        Args:
            embeddings1: (n, dimension), or one vector, an array or a tensor.
            embeddings2: (m, dimension), or one vector.

        Returns:
            A tensor, (n, m).
        """
        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosines of pairs of vectors.

        Args:
            embeddings1: (n, dimension), an array or a tensor.
            embeddings2: (n, dimension).

        Returns:
            A tensor, (n,).
        """
        return pairwise_cos_sim(embeddings1, embeddings2)


def _are_labels(loader: Any, metadata: TaskMetadata) -> bool:
    """Return whether rows are the names of classes, which mteb does not tell from the images and videos to classify.

    In the official evaluation they are documents.
    """
    is_text = getattr(loader.dataset, "column_names", None) == ["text"]
    return is_text and "zeroshot" in str(metadata.type).lower() and list(metadata.modalities) != ["text"]
