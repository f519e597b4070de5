"""Methods that embed images, videos and mixtures of them with text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.schema import ImageType
from llama_index.embeddings.qwen3_vl.batching import BatchedEmbedding
from llama_index.embeddings.qwen3_vl.results import Embedding

from qwen3vl.adapters.inputs import describe_inputs
from qwen3vl.concurrency.executor import run_in_executor

dispatcher = get_dispatcher(__name__)


class MediaMethods(BatchedEmbedding):
    """Embeds documents' media; methods that begin with `a` do the same without blocking the event loop.

    Example:
        ```python
        from io import BytesIO

        from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
        from PIL import Image

        image = BytesIO()
        Image.new("RGB", (64, 64), "red").save(image, "PNG")
        embed_model = Qwen3VLEmbedding(model_name="tiny")
        vector = embed_model.get_image_embedding(image)
        with_caption = embed_model.get_multimodal_embedding({"text": "a red square", "image": image})
        assert len(vector) == len(with_caption)
        ```
    """

    def get_image_embedding(self, img_file_path: ImageType) -> Embedding:
        """Embed an image.

        Args:
            img_file_path: A path, a URL, a data URI, or a BytesIO.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The image cannot be embedded.
        """
        return self.get_image_embedding_batch([img_file_path])[0]

    async def aget_image_embedding(self, img_file_path: ImageType) -> Embedding:
        """Embed an image, asynchronously.

        Args:
            img_file_path: As for `get_image_embedding`.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The image cannot be embedded.
        """
        return (await self.aget_image_embedding_batch([img_file_path]))[0]

    def get_image_embedding_batch(
        self, img_file_paths: Sequence[ImageType], show_progress: bool = False
    ) -> list[Embedding]:
        """Embed images, in their order.

        Args:
            img_file_paths: Paths, URLs, data URIs and BytesIOs.
            show_progress: Whether to show a progress bar.

        Returns:
            One vector of length 1 for each image.

        Raises:
            BatchError: Images cannot be embedded. It has the vectors of the others.
        """
        return self.get_multimodal_embeddings([{"image": image} for image in img_file_paths], show_progress)

    async def aget_image_embedding_batch(
        self, img_file_paths: Sequence[ImageType], show_progress: bool = False
    ) -> list[Embedding]:
        """Embed images, in their order, asynchronously.

        Args:
            img_file_paths: As for `get_image_embedding_batch`.
            show_progress: Whether to show a progress bar.

        Returns:
            One vector of length 1 for each image.

        Raises:
            BatchError: Images cannot be embedded. It has the vectors of the others.
        """
        return await self.aget_multimodal_embeddings([{"image": image} for image in img_file_paths], show_progress)

    def get_video_embedding(self, video: Any) -> Embedding:
        """Embed a video.

        Args:
            video: A path or URL (with `#t=10,25` for a part, in seconds), bytes, or a list of frames.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The video cannot be embedded.
        """
        return self.get_video_embeddings([video])[0]

    async def aget_video_embedding(self, video: Any) -> Embedding:
        """Embed a video, asynchronously.

        Args:
            video: As for `get_video_embedding`.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The video cannot be embedded.
        """
        return (await self.aget_video_embeddings([video]))[0]

    def get_video_embeddings(self, videos: Sequence[Any]) -> list[Embedding]:
        """Embed videos, in their order.

        Args:
            videos: As for `get_video_embedding`.

        Returns:
            One vector of length 1 for each video.

        Raises:
            BatchError: Videos cannot be embedded. It has the vectors of the others.
        """
        return self.get_multimodal_embeddings([{"video": video} for video in videos])

    async def aget_video_embeddings(self, videos: Sequence[Any]) -> list[Embedding]:
        """Embed videos, in their order, asynchronously.

        Args:
            videos: As for `get_video_embedding`.

        Returns:
            One vector of length 1 for each video.

        Raises:
            BatchError: Videos cannot be embedded. It has the vectors of the others.
        """
        return await self.aget_multimodal_embeddings([{"video": video} for video in videos])

    def get_multimodal_embedding(self, value: Any) -> Embedding:
        """Embed text, images and videos together, as one document.

        Args:
            value: A mapping with any of the keys text, image and video; each has one value or a list.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The document cannot be embedded.
        """
        return self.get_multimodal_embeddings([value])[0]

    async def aget_multimodal_embedding(self, value: Any) -> Embedding:
        """Embed text, images and videos together, as one document, asynchronously.

        Args:
            value: As for `get_multimodal_embedding`.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The document cannot be embedded.
        """
        return (await self.aget_multimodal_embeddings([value]))[0]

    @dispatcher.span
    def get_multimodal_embeddings(self, inputs: Sequence[Any], show_progress: bool = False) -> list[Embedding]:
        """Embed documents of any kind, in their order.

        Args:
            inputs: Inputs as `qwen3vl.Embedder.embed` accepts them.
            show_progress: Whether to show a progress bar.

        Returns:
            One vector of length 1 for each input.

        Raises:
            BatchError: Inputs cannot be embedded. It has the vectors of the others.
        """
        return self._embed_or_raise(inputs, describe_inputs(inputs), "document", show_progress)

    @dispatcher.span
    async def aget_multimodal_embeddings(self, inputs: Sequence[Any], show_progress: bool = False) -> list[Embedding]:
        """Embed documents of any kind, in their order, asynchronously.

        Args:
            inputs: As for `get_multimodal_embeddings`.
            show_progress: Whether to show a progress bar.

        Returns:
            One vector of length 1 for each input.

        Raises:
            BatchError: Inputs cannot be embedded. It has the vectors of the others.
        """
        names = await run_in_executor(describe_inputs, inputs)
        return await self._aembed_or_raise(inputs, names, "document", show_progress)

    # Methods that LlamaIndex's base class requires

    def _get_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return self._embed([{"image": img_file_path}], "document").vectors_or_raise()[0]

    async def _aget_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return (await self._aembed([{"image": img_file_path}], "document")).vectors_or_raise()[0]
