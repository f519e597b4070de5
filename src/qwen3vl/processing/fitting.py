"""Makes prompts fit into `max_length`: media are shrunk first, then the caller's text is truncated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qwen3vl.processing.encoded_prompt import EncodedPrompt
from qwen3vl.processing.sizing import SizedMedia, UnsizedMedia
from qwen3vl.processing.templates import ControlToken, PromptPart, TextPart
from qwen3vl.processing.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class FittedPrompt:
    """A prompt that fits into `max_length`.

    Attributes:
        prompt: Token ids, positions and vision spans.
        media: The images and videos it shows, at their final sizes.
        notice: What was shrunk or truncated to make it fit; empty if nothing was.
        num_truncated_tokens: Number of tokens of the caller's text that were cut; fewer than that for very long texts.
    """

    prompt: EncodedPrompt
    media: tuple[SizedMedia, ...]
    notice: str = ""
    num_truncated_tokens: int = 0


def fit(parts: Sequence[ControlToken | TextPart | UnsizedMedia], tokenizer: Tokenizer, max_length: int) -> FittedPrompt:
    """Resolve the sizes of all media and tokenize a prompt.

    A prompt that is too long is made to fit in two steps. First its media are shrunk, all by the same factor, to the
    tokens that the text leaves them, but not below half of the tokens that the template leaves. Then the caller's
    text is truncated at its end.

    Args:
        parts: The prompt, as `embed_prompt` and `rerank_prompt` return it.
        tokenizer: The model's tokenizer.
        max_length: Maximum number of tokens.

    Returns:
        The prompt that fits.

    Raises:
        InputError: The prompt is too long even with shrunk media and without text: media have least sizes.
    """
    sized_parts = _resolve_sizes(parts, None)
    draft = tokenizer.draft_prompt(_to_prompt_parts(sized_parts), max_length)
    notices = []
    num_vision_tokens = draft.num_vision_tokens
    if len(draft) > max_length and num_vision_tokens:
        num_template_tokens = len(draft) - num_vision_tokens - draft.num_text_tokens
        available = max_length - num_template_tokens
        max_vision_tokens = max(available - draft.num_text_tokens, available // 2)
        if num_vision_tokens > max_vision_tokens > 0:
            sized_parts = _resolve_sizes(parts, max_vision_tokens / num_vision_tokens)
            draft = tokenizer.draft_prompt(_to_prompt_parts(sized_parts), max_length)
            notices.append(f"its media were shrunk from {num_vision_tokens} to {draft.num_vision_tokens} tokens")
    tokenized = draft.build()
    if tokenized.num_truncated_tokens:
        num_all = tokenized.num_text_tokens + tokenized.num_truncated_tokens
        at_least = "" if tokenized.is_count_complete else "more than "
        notices.append(f"its text was cut from {at_least}{num_all} to {tokenized.num_text_tokens} tokens")
    media = tuple(part for part in sized_parts if isinstance(part, SizedMedia))
    notice = f"{' and '.join(notices)} to fit max_length {max_length}" if notices else ""
    return FittedPrompt(tokenized.prompt, media, notice, tokenized.num_truncated_tokens)


def _resolve_sizes(
    parts: Sequence[ControlToken | TextPart | UnsizedMedia], factor: float | None
) -> list[ControlToken | TextPart | SizedMedia]:
    """Resolve all media at their natural size, or at `factor` times their natural number of tokens."""
    sized_parts: list[ControlToken | TextPart | SizedMedia] = []
    for part in parts:
        if isinstance(part, (ControlToken, TextPart)):
            sized_parts.append(part)
            continue
        sized = part.resolve_size()
        if factor is not None:
            sized = part.resolve_size(max(int(sized.num_tokens * factor), 1))
        sized_parts.append(sized)
    return sized_parts


def _to_prompt_parts(parts: Sequence[ControlToken | TextPart | SizedMedia]) -> list[PromptPart]:
    return [part.vision if isinstance(part, SizedMedia) else part for part in parts]
