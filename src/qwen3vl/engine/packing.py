"""Packing of prompts into forward passes: rows of tokens without padding, in which shared prefixes occur once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qwen3vl.engine.prefix_tree import PrefixTree, common_prefix_length
from qwen3vl.model.attention.layout import AttentionLayout
from qwen3vl.processing.encoded_prompt import EncodedPrompt, Ints, VisionSpan
from qwen3vl.processing.geometry import num_tokens
from qwen3vl.types import Grid


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """The inputs of one forward pass.

    Attributes:
        prompt_indices: Indices of the packed prompts.
        input_ids: Token ids, (num_tokens,) int64.
        position_ids: Positions for time, height and width, (3, num_tokens) int64.
        layout: Segments of the row, and which prefixes they attend to.
        prefix_lengths: Number of tokens that each prompt shares with the one before it in `prompt_indices`.
        output_indices: Index in the row of each prompt's last token, (num_prompts,) int64, in the order of
            `prompt_indices`. Equal prompts have the same one.
        media_keys: Distinct keys of the images and videos in the row, whether their features are cached or not.
        grids: Grid of patches of each of these.
        vision_token_indices: Indices in the row of vision tokens, (num_vision_tokens,) int64.
        vision_feature_indices: For each vision token, the index of its row in the concatenated features of all
            `media_keys`, (num_vision_tokens,) int64.
    """

    prompt_indices: tuple[int, ...]
    input_ids: Ints
    position_ids: Ints
    layout: AttentionLayout
    prefix_lengths: tuple[int, ...]
    output_indices: Ints
    media_keys: tuple[Hashable, ...]
    grids: tuple[Grid, ...]
    vision_token_indices: Ints
    vision_feature_indices: Ints

    @property
    def num_tokens(self) -> int:
        """Number of tokens in the row."""
        return len(self.input_ids)

    @property
    def shows_whole_media(self) -> bool:
        """Whether the vision tokens are those of all media, each once and in their order."""
        num_features = sum(num_tokens(grid) for grid in self.grids)
        return np.array_equal(self.vision_feature_indices, np.arange(num_features))

    def token_indices(self, prompt_index: int) -> Ints:
        """Return the positions of a prompt's tokens in the row.

        Args:
            prompt_index: One of `prompt_indices`.

        Returns:
            Indices from the prompt's first token to its last, (length,) int64.
        """
        last = int(self.output_indices[self.prompt_indices.index(prompt_index)])
        links = [link for link in self.layout.links if link.query_start <= last < link.query_stop]
        prefixes = sorted((link.key_start, link.key_stop) for link in links)
        segment_starts = np.cumsum((0, *self.layout.segment_lengths))
        start = int(segment_starts[np.searchsorted(segment_starts, last, side="right") - 1])
        return np.concatenate([np.arange(*token_range) for token_range in (*prefixes, (start, last + 1))])


def pack_prompts(prompts: Sequence[EncodedPrompt], max_tokens: int) -> Iterator[Pack]:
    """Pack prompts into forward passes.

    Prompts with a common prefix are packed together, and the prefix is computed once. Prefixes are compared by token,
    not by string, since the tokenizer may join characters at the end of one string with those of the next.

    Args:
        prompts: The prompts.
        max_tokens: Maximum number of tokens of a pack. A single prompt that is longer gets a pack of its own.

    Yields:
        Packs that contain each prompt once.
    """
    media_numbers: dict[Hashable, int] = {}
    codes = [_token_codes(prompt, media_numbers) for prompt in prompts]
    # Sorted by their bytes, codes of fixed width with a common prefix are neighbours.
    order = sorted(range(len(prompts)), key=lambda index: codes[index].tobytes())
    packed: list[int] = []
    prefix_lengths: list[int] = []
    total = 0
    for index in order:
        prefix_length = common_prefix_length(codes[packed[-1]], codes[index]) if packed else 0
        if packed and total + len(codes[index]) - prefix_length > max_tokens:
            yield _build_pack(prompts, packed, prefix_lengths)
            packed, prefix_lengths, total, prefix_length = [], [], 0, 0
        packed.append(index)
        prefix_lengths.append(prefix_length)
        total += len(codes[index]) - prefix_length
    if packed:
        yield _build_pack(prompts, packed, prefix_lengths)


def _token_codes(prompt: EncodedPrompt, media_numbers: dict[Hashable, int]) -> Ints:
    """Return the token ids, with each vision token replaced by a negative code of its media and its offset there.

    Codes are equal only where the pixels are, while the ids of all vision tokens are the same.
    """
    codes = prompt.ids.copy()
    for span in prompt.spans:
        first = (media_numbers.setdefault(span.key, len(media_numbers)) << 32) + span.offset
        codes[span.start : span.stop] = -1 - np.arange(first, first + span.stop - span.start)
    return codes


def _build_pack(prompts: Sequence[EncodedPrompt], indices: Sequence[int], prefix_lengths: Sequence[int]) -> Pack:
    """Arrange prompts, sorted by token, in one row and find the features of every vision token."""
    tree = PrefixTree([len(prompts[index]) for index in indices], prefix_lengths)
    input_ids, position_ids, vision_token_indices = [], [], []
    visible_spans: list[tuple[VisionSpan, int, int]] = []  # span, offset of its first token in the media, tokens
    row_start = 0
    for sequence, start, stop in tree.segments:
        prompt = prompts[indices[sequence]]
        input_ids.append(prompt.ids[start:stop])
        position_ids.append(prompt.positions[:, start:stop])
        for span in prompt.spans:
            first, last = max(span.start, start), min(span.stop, stop)
            if first < last:
                vision_token_indices.append(np.arange(row_start + first - start, row_start + last - start))
                visible_spans.append((span, span.offset + first - span.start, last - first))
        row_start += stop - start
    feature_starts: dict[Hashable, int] = {}
    grids: list[Grid] = []
    vision_feature_indices, num_features = [], 0
    for span, offset, count in visible_spans:
        if span.key not in feature_starts:
            feature_starts[span.key] = num_features
            grids.append(span.grid)
            num_features += num_tokens(span.grid)
        first = feature_starts[span.key] + offset
        vision_feature_indices.append(np.arange(first, first + count))
    empty = np.zeros(0, dtype=np.int64)
    return Pack(
        prompt_indices=tuple(indices),
        input_ids=np.concatenate(input_ids),
        position_ids=np.concatenate(position_ids, axis=1),
        layout=AttentionLayout(tuple(stop - start for _, start, stop in tree.segments), tuple(tree.links)),
        prefix_lengths=tuple(prefix_lengths),
        output_indices=np.array(tree.last_token_indices, dtype=np.int64),
        media_keys=tuple(feature_starts),
        grids=tuple(grids),
        vision_token_indices=np.concatenate(vision_token_indices) if vision_token_indices else empty,
        vision_feature_indices=np.concatenate(vision_feature_indices) if vision_feature_indices else empty,
    )
