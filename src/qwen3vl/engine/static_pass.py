"""The language model on padded rows of a few sizes, whose inputs always have the same place in memory.

This is what a CUDA graph can hold; see `qwen3vl.engine.cuda_graphs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from qwen3vl.engine.packing import Pack
from qwen3vl.model import Qwen3VL
from qwen3vl.model.attention.varlen import StaticVarlenAttention
from qwen3vl.model.attention.varlen_kernels import VarlenKernel
from qwen3vl.model.transfer import copy_into
from qwen3vl.processing.encoded_prompt import Ints

CAPTURE_SIZES = (32, 64, 128, 256)
"""Numbers of tokens of the rows. For as few, a GPU takes longer to read the weights than to compute with them."""
MAX_PROMPTS = 16
"""Maximum number of prompts in a row."""


@dataclass(frozen=True, slots=True, eq=False)
class WholePrompts:
    """Prompts in a row, each from its first token to its last: a prefix that they share is repeated.

    Attributes:
        input_ids: Token ids, (num_tokens,) int64.
        position_ids: Positions for time, height and width, (3, num_tokens) int64.
        lengths: Number of tokens of each distinct prompt.
        output_indices: Index in the row of each prompt's last token, (num_prompts,) int64. Equal prompts have the same
            one.
    """

    input_ids: Ints
    position_ids: Ints
    lengths: tuple[int, ...]
    output_indices: Ints

    @property
    def num_tokens(self) -> int:
        """Number of tokens in the row, without padding."""
        return len(self.input_ids)

    @property
    def capture_size(self) -> int:
        """The smallest of `CAPTURE_SIZES` that holds the row."""
        return next(size for size in CAPTURE_SIZES if size >= self.num_tokens)


def whole_prompts(pack: Pack) -> WholePrompts | None:
    """Return the prompts of a pack without its links, which a row of fixed size cannot have.

    Args:
        pack: The pack.

    Returns:
        Its prompts, in the order of `pack.prompt_indices`; None if there are more than `MAX_PROMPTS`, if they have more
        tokens than the largest of `CAPTURE_SIZES`, or if they show images or videos.
    """
    if pack.media_keys or len(pack.prompt_indices) > MAX_PROMPTS or pack.num_tokens > CAPTURE_SIZES[-1]:
        return None
    last_indices = cast("list[int]", pack.output_indices.tolist())
    distinct = dict(zip(last_indices, pack.prompt_indices, strict=True))  # equal prompts end at the same token
    token_indices = [pack.token_indices(prompt_index) for prompt_index in distinct.values()]
    lengths = tuple(map(len, token_indices))
    if sum(lengths) > CAPTURE_SIZES[-1]:
        return None
    row = np.concatenate(token_indices)
    new_last_indices = dict(zip(distinct, np.cumsum(lengths) - 1, strict=True))
    return WholePrompts(
        input_ids=pack.input_ids[row],
        position_ids=pack.position_ids[:, row],
        lengths=lengths,
        output_indices=np.array([new_last_indices[last] for last in last_indices], dtype=np.int64),
    )


class StaticPass:
    """The forward pass over rows of one size.

    A row is padded by tokens that are a segment of their own. Everything that changes from row to row is in one buffer,
    so that a pass needs one copy from the host; `run` itself waits for nothing, and neither its operations nor the
    shapes of its tensors depend on values.

    Args:
        model: The model.
        num_tokens: Number of tokens of a row, with padding.
        kernel: The kernel of attention.

    Attributes:
        model: The model.
        num_tokens: Number of tokens of a row, with padding.
    """

    def __init__(self, model: Qwen3VL, num_tokens: int, kernel: VarlenKernel) -> None:
        self.model = model
        self.num_tokens = num_tokens
        num_ends = MAX_PROMPTS + 2  # 0, the end of each prompt, and the end of the padding, all int32
        self._sections = [num_tokens, 3 * num_tokens, MAX_PROMPTS, (num_ends + 1) // 2]
        self._buffer = torch.zeros(sum(self._sections), dtype=torch.int64, device=model.device)
        self._input_ids, position_ids, self._output_indices, ends = torch.split(self._buffer, self._sections)
        self._position_ids = position_ids.view(3, num_tokens)
        self._attention = StaticVarlenAttention(kernel, ends.view(torch.int32)[:num_ends], num_tokens)

    def load(self, prompts: WholePrompts) -> None:
        """Copy prompts into the buffer.

        Args:
            prompts: At most `num_tokens` tokens.
        """
        host = np.zeros(sum(self._sections), dtype=np.int64)
        input_ids, position_ids, output_indices, ends = np.split(host, np.cumsum(self._sections)[:-1])
        input_ids[: prompts.num_tokens] = prompts.input_ids
        position_ids.reshape(3, -1)[:, : prompts.num_tokens] = prompts.position_ids
        output_indices[: len(prompts.output_indices)] = prompts.output_indices
        cu_seqlens = ends.view(np.int32)
        num_prompts = len(prompts.lengths)
        cu_seqlens[1 : num_prompts + 1] = np.cumsum(prompts.lengths)
        cu_seqlens[num_prompts + 1 :] = self.num_tokens  # the padding, then segments without tokens
        copy_into(self._buffer, torch.from_numpy(host))

    def run(self) -> Tensor:
        """Run the model on what the buffer holds.

        Returns:
            Final hidden states, (MAX_PROMPTS, hidden_size); those beyond the number of prompts have no meaning.
        """
        text = self.model.language_model
        hidden = text.embed_tokens(self._input_ids)
        states: Tensor = text(hidden, self._position_ids, self._attention, None, (), self._output_indices)
        return states

    def __call__(self, prompts: WholePrompts) -> Tensor:
        """Run the model on prompts.

        Args:
            prompts: At most `num_tokens` tokens.

        Returns:
            Final hidden states, (num_prompts, hidden_size).
        """
        self.load(prompts)
        return self.run()[: len(prompts.output_indices)]
