"""Items as they are sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from qwen3vl.client.contents import Content, open_content
from qwen3vl.errors import PolicyError, error_source
from qwen3vl.inputs import ImageReference, Item, VideoReference
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.media.source import check_frame_list
from qwen3vl.processing.geometry import sample_frame_list
from qwen3vl.wire import media_name


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingRules:
    """What decides how items are encoded.

    Attributes:
        policy: What the references of the caller's media may reach.
        max_frames: Maximum number of frames that the server takes from a list, where the item does not say it.
        exif: Whether the server rotates images by their EXIF orientation.
        max_content_bytes: Maximum size of a content that the server takes.
        max_item_bytes: Maximum size of an item with its contents.
    """

    policy: MediaPolicy
    max_frames: int
    exif: bool
    max_content_bytes: int
    max_item_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class EncodedItem:
    """An item as it is sent.

    Attributes:
        name: Its name in errors.
        body: JSON.
        contents: The contents to which the JSON refers, by their digests.
        names: The names of its media in errors, by those that the server uses.
    """

    name: str
    body: str
    contents: dict[str, Content]
    names: dict[str, str]

    @property
    def size(self) -> int:
        """Number of bytes of the JSON and the contents."""
        return len(self.body) + sum(content.size for content in self.contents.values())


def encode_item(item: Item, rules: EncodingRules, role: str = "") -> EncodedItem:
    """Encode an item. If it has media this blocks, since files are read.

    Args:
        item: The item.
        rules: What decides it.
        role: What the server puts before the names of its media; see `QUERY_ROLE`.

    Returns:
        The encoded item.

    Raises:
        InputError: An image or video cannot be read, or the item is too large. The first one that fails is named in
            `InputError.source`.
    """
    encoder = _Encoder(item, rules, role)
    body = encoder.encode()
    # Contents are referred to by their digests, and equal ones are sent once.
    encoded = EncodedItem(item.name, json.dumps(body), encoder.contents, encoder.names)
    check_size(encoded.size, rules)
    return encoded


def check_size(size: int, rules: EncodingRules) -> None:
    """Check that an item can be sent.

    Args:
        size: Number of bytes of the item, its media and the query, if there is one.
        rules: What the server takes.

    Raises:
        PolicyError: It cannot.
    """
    if size > rules.max_item_bytes:
        raise PolicyError(
            f"a request with it alone has {size} bytes, and the server takes {rules.max_item_bytes}; make its media "
            "smaller, or raise --max-body of `qwen3vl serve`"
        )


class _Encoder:
    """Encodes one item, and collects its contents."""

    def __init__(self, item: Item, rules: EncodingRules, role: str) -> None:
        self.contents: dict[str, Content] = {}
        self.names = {media_name(role, "video", index): video.name for index, video in enumerate(item.videos)}
        self.names |= {media_name(role, "image", index): image.name for index, image in enumerate(item.images)}
        self._item = item
        self._rules = rules

    def encode(self) -> str | dict[str, Any]:
        item = self._item
        fields: dict[str, Any] = {
            "text": list(item.texts),
            "video": [self._video(video) for video in item.videos],
            "image": [self._image(image) for image in item.images],
            "instruction": item.instruction,
            "fps": item.fps,
            "max_frames": item.max_frames,
        }
        fields = {name: value for name, value in fields.items() if value not in (None, [])}
        return item.texts[0] if fields.keys() == {"text"} and len(item.texts) == 1 else fields

    def _video(self, video: VideoReference) -> Any:
        with error_source(video.name):
            if not video.frames:
                times = {"start": video.start, "end": video.end}
                return self._reference(video) | {name: time for name, time in times.items() if time is not None}
            check_frame_list(len(video.frames), self._rules.policy)
            max_frames = self._item.max_frames or self._rules.max_frames
            # Only what the server would sample; it repeats a last frame without a partner itself.
            indices = sample_frame_list(len(video.frames), max_frames)[: min(len(video.frames), max_frames)]
            return [self._image(video.frames[index]) for index in indices]

    def _image(self, image: ImageReference) -> dict[str, Any]:
        with error_source(image.name):
            return self._reference(image) | ({} if image.page is None else {"page": image.page})

    def _reference(self, reference: ImageReference | VideoReference) -> dict[str, Any]:
        content = open_content(reference, self._rules.policy, exif=self._rules.exif)
        if content.size > self._rules.max_content_bytes:
            raise PolicyError(
                f"it has {content.size} bytes, and the server takes {self._rules.max_content_bytes} for an image or "
                "video; make it smaller, or raise --max-media of `qwen3vl serve`"
            )
        self.contents[content.digest] = content
        return {"content": content.digest}
