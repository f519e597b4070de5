"""What the tiny models are trained on and judged by: drawn scenes and clips as packed prompts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from qwen3vl.demo.scenes import SIZE, Clip, Scene, random_clip, random_scene
from qwen3vl.engine.packing import Pack, pack_prompts
from qwen3vl.model import Qwen3VL
from qwen3vl.processing.encoded_prompt import EncodedPrompt
from qwen3vl.processing.geometry import patch_grid, video_frame_size
from qwen3vl.processing.pixels import patches, resize_frames
from qwen3vl.processing.templates import EMBED_INSTRUCTION, PromptContent, VisionPart, embed_prompt
from qwen3vl.processing.tokenizer import Tokenizer
from tools.tiny.reading import CLIP_FRAMES

Shown = TypeVar("Shown", bound=Scene | Clip)


def held_out(shown: Scene | Clip) -> bool:
    """Whether a combination is kept for judging: one in ten, by its key, whatever the order of telling."""
    return zlib.crc32(repr(sorted(map(repr, shown.key))).encode()) % 10 == 0


def draw_until(make: Callable[[Random], Shown], random: Random, *, held: bool) -> Shown:
    """The next random scene or clip that is, or is not, held out."""
    while held_out(made := make(random)) != held:
        pass
    return made


def distinct(make: Callable[[Random], Shown], random: Random, count: int) -> list[Shown]:
    """`count` held-out scenes or clips, no two of one key."""
    found: dict[frozenset[object], Shown] = {}
    while len(found) < count:
        made = draw_until(make, random, held=True)
        found.setdefault(made.key, made)
    return list(found.values())


def held_out_scenes(seed: int, count: int) -> list[Scene]:
    return distinct(random_scene, Random(seed), count)


def held_out_clips(seed: int, count: int) -> list[Clip]:
    return distinct(random_clip, Random(seed), count)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A drawn picture or clip: its part of a prompt, and its patches."""

    vision: VisionPart
    patches: Tensor


def picture(scene: Scene, random: Random) -> Seen:
    pixels = torch.from_numpy(np.array(scene.draw(random)))[None]
    return Seen(VisionPart(object(), patch_grid(SIZE, SIZE)), patches(pixels))


def clip(shown: Clip, random: Random) -> Seen:
    """A clip as a file of 3 to 6 seconds at one frame a second would be seen, cut to four frames."""
    pictures = shown.frames(random, [index / (CLIP_FRAMES - 1) for index in range(CLIP_FRAMES)])
    height, width = video_frame_size(SIZE, SIZE, CLIP_FRAMES, None)
    pixels = resize_frames(torch.from_numpy(np.stack([np.array(frame) for frame in pictures])), height, width)
    step = random.uniform(0.5, 2.0)
    times = (0.5 * step, 2.5 * step)
    return Seen(VisionPart(object(), patch_grid(height, width, CLIP_FRAMES), times), patches(pixels))


def see(made: Scene | Clip, random: Random) -> Seen:
    return picture(made, random) if isinstance(made, Scene) else clip(made, random)


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """Hidden states of a pack: `last` (prompts, hidden); `layers` the whole row after each layer asked for.

    `pack.token_indices(index)` says where a prompt's tokens lie in the row.
    """

    pack: Pack
    last: Tensor
    row: Tensor
    layers: tuple[Tensor, ...]


def forward(
    model: Qwen3VL, prompts: Sequence[EncodedPrompt], seen: Sequence[Seen], layers: Sequence[int] = ()
) -> States:
    """All prompts in one shared-prefix pack."""
    (pack,) = pack_prompts(prompts, 1 << 60)
    pixels = {each.vision.key: each.patches for each in seen}
    features = model.encode_vision(torch.cat([pixels[key] for key in pack.media_keys]), pack.grids)
    kept: list[Tensor] = []
    text = model.language_model.layers
    hooks = [
        text[layer].register_forward_hook(lambda _module, _inputs, output: kept.append(output)) for layer in layers
    ]
    row = model(
        torch.from_numpy(pack.input_ids),
        torch.from_numpy(pack.position_ids),
        pack.layout,
        torch.arange(pack.num_tokens),
        torch.from_numpy(pack.vision_token_indices),
        features.take(torch.from_numpy(pack.vision_feature_indices)),
    )
    for hook in hooks:
        hook.remove()
    ends = dict(zip(pack.prompt_indices, pack.output_indices.tolist(), strict=True))
    return States(pack, row[torch.tensor([ends[index] for index in range(len(prompts))])], row, tuple(kept))


def embed_prompts(tokenizer: Tokenizer, contents: Sequence[PromptContent[VisionPart]]) -> list[EncodedPrompt]:
    return [tokenizer.write(embed_prompt(content, EMBED_INSTRUCTION), 8192).prompt for content in contents]
