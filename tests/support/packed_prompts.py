"""Encoded prompts of made-up tokens, for tests of packing and attention."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from qwen3vl.processing.encoded_prompt import EncodedPrompt, VisionSpan
from qwen3vl.processing.mrope import mrope_positions

GRID = (1, 4, 6)
"""Grid of patches of every image."""
IMAGE_TOKENS = 6
"""Vision tokens of every image: 4 * 6 patches, merged by 2 x 2."""
UNLIMITED = 1 << 30
"""A token budget that no pack reaches."""


def encode(parts: list[tuple[int, int] | str]) -> EncodedPrompt:
    """Return a prompt of ranges of token ids, (first id, count), and of images, which are named by a str."""
    ids: list[int] = []
    spans = []
    for part in parts:
        if isinstance(part, str):
            spans.append(VisionSpan(len(ids), len(ids) + IMAGE_TOKENS, part, GRID))
            ids += [7] * IMAGE_TOKENS
        else:
            ids += range(part[0], part[0] + part[1])
    return EncodedPrompt(np.array(ids, dtype=np.int64), mrope_positions(len(ids), spans), tuple(spans))


_token_ranges = st.tuples(st.sampled_from([100, 200, 300]), st.integers(1, 24))
_images = st.sampled_from(["a", "b"])
prompts = st.lists(st.one_of(_token_ranges, _images), min_size=1, max_size=4).map(
    lambda parts: encode([*parts, (400, 1)])
)
"""Strategy of prompts that often share prefixes. The last token is text, as in the models' prompts."""
