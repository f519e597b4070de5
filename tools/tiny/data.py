"""Training and evaluation data of the tiny models: drawn scenes and clips, as samples and as packed prompts."""

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
from qwen3vl.processing.encoded_prompt import EncodedPrompt, Ints
from qwen3vl.processing.geometry import patch_grid, video_frame_size
from qwen3vl.processing.pixels import patches, resize_frames
from qwen3vl.processing.templates import EMBED_INSTRUCTION, PromptContent, VisionPart, embed_prompt
from qwen3vl.processing.tokenizer import Tokenizer
from tools.tiny.probes import CLIP_FRAMES

MAX_PROMPT_TOKENS = 8192

Drawn = TypeVar("Drawn", bound=Scene | Clip)


def is_held_out(drawn: Scene | Clip) -> bool:
    """Tell whether a combination is kept for evaluation: one in ten, by a hash of what is shown.

    Args:
        drawn: A scene or clip.

    Returns:
        The same for all scenes or clips with equal keys.
    """
    # `place` is the former name of `position`. The shipped models were trained on the split that this text gives.
    parts = sorted(repr(part).replace(", position=", ", place=") for part in drawn.key)
    return zlib.crc32(repr(parts).encode()) % 10 == 0


def draw_from_split(draw: Callable[[Random], Drawn], random: Random, *, held_out: bool) -> Drawn:
    """Draw until a scene or clip belongs to a split.

    Args:
        draw: Draws a random scene or clip.
        random: The source of randomness.
        held_out: Whether the evaluation split is meant, or the training split.

    Returns:
        The first scene or clip of the split.
    """
    while is_held_out(drawn := draw(random)) != held_out:
        pass
    return drawn


def _distinct(draw: Callable[[Random], Drawn], random: Random, count: int) -> list[Drawn]:
    """Return `count` held-out scenes or clips that differ in what they show."""
    by_key: dict[frozenset[object], Drawn] = {}
    while len(by_key) < count:
        drawn = draw_from_split(draw, random, held_out=True)
        by_key.setdefault(drawn.key, drawn)
    return list(by_key.values())


def held_out_scenes(seed: int, count: int) -> list[Scene]:
    """Draw scenes of the evaluation split.

    Args:
        seed: Seed of the drawing.
        count: How many.

    Returns:
        Scenes that differ in what they show.
    """
    return _distinct(random_scene, Random(seed), count)


def held_out_clips(seed: int, count: int) -> list[Clip]:
    """Draw clips of the evaluation split.

    Args:
        seed: Seed of the drawing.
        count: How many.

    Returns:
        Clips that differ in what they show.
    """
    return _distinct(random_clip, Random(seed), count)


@dataclass(frozen=True, slots=True, eq=False)
class VisionSample:
    """A drawn image or clip as the model reads it.

    Attributes:
        vision: Its part of a prompt.
        patches: Its patches, (num_patches, patch_size), as the vision tower takes them.
    """

    vision: VisionPart
    patches: Tensor


def image_sample(scene: Scene, random: Random) -> VisionSample:
    """Draw a scene as an image.

    Args:
        scene: What is shown.
        random: The source of randomness.

    Returns:
        The image.
    """
    pixels = torch.from_numpy(np.array(scene.draw(random)))[None]
    return VisionSample(VisionPart(object(), patch_grid(SIZE, SIZE)), patches(pixels))


def clip_sample(clip: Clip, random: Random) -> VisionSample:
    """Draw a clip as a video file of 3 to 6 seconds would be read at one frame per second, cut to four frames.

    Args:
        clip: What is shown.
        random: The source of randomness.

    Returns:
        The video.
    """
    frames = clip.frames(random, [index / (CLIP_FRAMES - 1) for index in range(CLIP_FRAMES)])
    height, width = video_frame_size(SIZE, SIZE, CLIP_FRAMES, None)
    pixels = resize_frames(torch.from_numpy(np.stack([np.array(frame) for frame in frames])), height, width)
    seconds_per_frame = random.uniform(0.5, 2.0)
    # Each pair of frames has the mean of its times.
    times = (0.5 * seconds_per_frame, 2.5 * seconds_per_frame)
    return VisionSample(VisionPart(object(), patch_grid(height, width, CLIP_FRAMES), times), patches(pixels))


def vision_sample(drawn: Scene | Clip, random: Random) -> VisionSample:
    """Draw a scene as an image, or a clip as a video.

    Args:
        drawn: What is shown.
        random: The source of randomness.

    Returns:
        The image or video.
    """
    return image_sample(drawn, random) if isinstance(drawn, Scene) else clip_sample(drawn, random)


@dataclass(frozen=True, slots=True, eq=False)
class HiddenStates:
    """Hidden states of a forward pass.

    Attributes:
        pack: The packed prompts.
        last: The last layer's states of each prompt's last token, (num_prompts, hidden_size).
        final: The last layer's states of all tokens, (num_tokens, hidden_size).
        layers: The same after each of the requested layers.
    """

    pack: Pack
    last: Tensor
    final: Tensor
    layers: tuple[Tensor, ...]

    def token_indices(self, prompt: int) -> Ints:
        """Return where the tokens of a prompt are in the packed row.

        Args:
            prompt: The prompt's index.

        Returns:
            Indices into the rows of `final` and `layers`, (length,), int64.
        """
        return self.pack.token_indices(prompt)


def forward(
    model: Qwen3VL, prompts: Sequence[EncodedPrompt], samples: Sequence[VisionSample], layers: Sequence[int] = ()
) -> HiddenStates:
    """Run all prompts in one pack with shared prefixes.

    Args:
        model: The model.
        prompts: The prompts.
        samples: The images and clips that they name.
        layers: The layers whose states are returned as well.

    Returns:
        Hidden states, with gradients.
    """
    (pack,) = pack_prompts(prompts, 1 << 60)
    patches_by_key = {sample.vision.key: sample.patches for sample in samples}
    features = model.encode_vision(torch.cat([patches_by_key[key] for key in pack.media_keys]), pack.grids)
    layer_states: list[Tensor] = []
    text_layers = model.language_model.layers
    hooks = [
        text_layers[layer].register_forward_hook(lambda _module, _inputs, output: layer_states.append(output))
        for layer in layers
    ]
    final = model(
        torch.from_numpy(pack.input_ids),
        torch.from_numpy(pack.position_ids),
        pack.layout,
        torch.arange(pack.num_tokens),
        torch.from_numpy(pack.vision_token_indices),
        features.take(torch.from_numpy(pack.vision_feature_indices)),
    )
    for hook in hooks:
        hook.remove()
    last_tokens = dict(zip(pack.prompt_indices, pack.output_indices.tolist(), strict=True))
    last = final[torch.tensor([last_tokens[index] for index in range(len(prompts))])]
    return HiddenStates(pack, last, final, tuple(layer_states))


def embed_prompts(tokenizer: Tokenizer, contents: Sequence[PromptContent[VisionPart]]) -> list[EncodedPrompt]:
    """Write the embedding model's prompts.

    Args:
        tokenizer: The tokenizer.
        contents: The contents of the prompts.

    Returns:
        One prompt per content.
    """
    return [
        tokenizer.encode_prompt(embed_prompt(content, EMBED_INSTRUCTION), MAX_PROMPT_TOKENS).prompt
        for content in contents
    ]
