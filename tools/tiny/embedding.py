"""Training of the tiny embedding model: the vision tower first, then captions against what they describe."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from qwen3vl.demo.scenes import COLOURS, SHAPES, Clip, Scene, random_clip, random_scene
from qwen3vl.model import Qwen3VL
from qwen3vl.processing.encoded_prompt import EncodedPrompt
from qwen3vl.processing.templates import PromptContent, VisionPart
from qwen3vl.processing.tokenizer import Tokenizer
from tools.tiny.checkpoint import new_model, save_weights, write_config_files
from tools.tiny.data import HiddenStates, draw_from_split, embed_prompts, forward, vision_sample
from tools.tiny.embedding_batches import CaptionBatch, draw_caption_batch, draw_composed_batch
from tools.tiny.optimization import learning_rate_factor, update_average
from tools.tiny.probes import (
    CLIP_TOKENS,
    NUM_COURSES,
    NUM_POSITIONS,
    Label,
    ProbeHeads,
    caption_labels,
    mover_label,
    prompt_index,
    thing_label,
    vision_labels,
)

log = logging.getLogger("train")
DIMENSIONS = (128, 64, 32)
"""The loss is computed for vectors cut to these sizes (Matryoshka representation learning, arXiv:2205.13147)."""
NUM_SCENES, NUM_CLIPS, NUM_COMPOSED = 80, 12, 6
"""Captioned scenes, captioned clips, and queries of an image and a text, in each step."""
FURTHER_SCENES, FURTHER_CLIPS = 64, 20
"""The same for training that continues from a checkpoint: clips take longer to learn than scenes."""
VISION_SCENES, VISION_CLIPS = 80, 5
"""Scenes and clips in each step of the vision tower's training."""
PROBE_LAYER = 1
"""After this layer one set of probe heads reads images and texts."""
LOG_STEPS, SAVE_STEPS = 20, 100


def label_vision_tokens(drawn: Sequence[Scene | Clip]) -> tuple[Tensor, Tensor]:
    """Label the merged vision tokens of several scenes and clips.

    Args:
        drawn: What is shown, in the order in which it is encoded.

    Returns:
        Rows of the encoded features that show something known, (n,), and their labels, (n, 4); both int64.
    """
    rows: list[int] = []
    labels: list[Label] = []
    first = 0
    for item in drawn:
        item_labels = vision_labels(item)
        rows += [first + token for token in item_labels]
        labels += item_labels.values()
        first += NUM_POSITIONS if isinstance(item, Scene) else CLIP_TOKENS
    return torch.tensor(rows), torch.tensor(labels)


def train_vision(model: Qwen3VL, steps: int, random: Random) -> None:
    """Train the vision tower alone: probe heads predict what each merged token shows, where it is, and its course.

    Without the position, positions would stay at chance for as long as colours and shapes alone tell images apart.

    Args:
        model: The model; its vision tower is trained.
        steps: Number of steps.
        random: The source of randomness.
    """
    probes = [ProbeHeads(model.config.vision.out_hidden_size, predict_unknown=True) for _ in range(3)]
    parameters = [*model.visual.parameters(), *nn.ModuleList(probes).parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    for step in range(steps):
        drawn: list[Scene | Clip] = [
            draw_from_split(random_scene, random, held_out=False) for _ in range(VISION_SCENES)
        ]
        drawn += [draw_from_split(random_clip, random, held_out=False) for _ in range(VISION_CLIPS)]
        samples = [vision_sample(item, random) for item in drawn]
        features = model.encode_vision(
            torch.cat([sample.patches for sample in samples]), [sample.vision.grid for sample in samples]
        )
        rows, labels = label_vision_tokens(drawn)
        outputs = (features.tokens, *features.deepstack)
        losses = [probe(tokens[rows], labels) for probe, tokens in zip(probes, outputs, strict=True)]
        loss = torch.stack(losses).mean()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 30) * (0.55 + 0.45 * math.cos(math.pi * (step / steps)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % LOG_STEPS == 0:
            log.info(
                "vision step %d: loss %.3f, accuracy of colour %.2f, shape %.2f, position %.2f, course %.2f",
                step,
                loss.item(),
                *probes[0].accuracy(features.tokens[rows], labels),
            )


def contrastive_loss(queries: Tensor, targets: Tensor, masked: Tensor, scale: Tensor) -> Tensor:
    """Compute the symmetric InfoNCE loss (arXiv:2103.00020) at every size of `DIMENSIONS`.

    Args:
        queries: Vectors, (n, hidden_size).
        targets: Vectors, (n, hidden_size); row i belongs to query i.
        masked: Pairs that match although they are no partners, (n, n), bool. They count for nothing.
        scale: Inverse temperature, a scalar.

    Returns:
        The mean loss, a scalar.
    """
    losses = []
    partners = torch.arange(len(queries))
    for dimension in DIMENSIONS:
        scores = scale * normalize(queries[:, :dimension], dim=-1) @ normalize(targets[:, :dimension], dim=-1).T
        scores = scores.masked_fill(masked, -1e4)
        losses += [cross_entropy(scores, partners), cross_entropy(scores.T, partners)]
    return torch.stack(losses).mean()


def content_targets(drawn: Sequence[Scene | Clip]) -> Tensor:
    """Return what each scene or clip shows, as targets of binary classification.

    Args:
        drawn: Scenes and clips.

    Returns:
        (n, 9 * 14 + 26), float32, of 0 and 1: colour and shape at each position; then colour, shape and course of
        what moves.
    """
    num_colours, num_attributes = len(COLOURS), len(COLOURS) + len(SHAPES)
    targets = torch.zeros(len(drawn), NUM_POSITIONS * num_attributes + num_attributes + NUM_COURSES)
    for row, item in zip(targets, drawn, strict=True):
        standing = item.things if isinstance(item, Scene) else (item.still,) if item.still else ()
        for colour, shape, position, _ in map(thing_label, standing):
            row[position * num_attributes + colour] = row[position * num_attributes + num_colours + shape] = 1
        if isinstance(item, Clip):
            colour, shape, _, course = mover_label(item)
            mover = row[NUM_POSITIONS * num_attributes :]
            mover[colour] = mover[num_colours + shape] = mover[num_attributes + course] = 1
    return targets


def train(folder: Path, steps: int, vision_steps: int, seed: int = 7, base: Path | None = None) -> None:
    """Train an embedding model and write its checkpoint.

    Args:
        folder: Where the checkpoint is written, also every `SAVE_STEPS` steps.
        steps: Number of steps of the whole model.
        vision_steps: Number of steps of the vision tower before that; not used with `base`.
        seed: Seed of weights and data.
        base: The checkpoint to continue from, with near-misses from the first step on. None starts from nothing.
    """
    random = Random(seed if base is None else seed + 1)
    write_config_files(folder, num_layers=4, append_endoftext=True)
    model = new_model(folder, seed)
    tokenizer = Tokenizer(folder / "tokenizer.json")
    if base is None:
        train_vision(model, vision_steps, random)
    else:
        stored = load_file(base / "model.safetensors")
        model.load_state_dict({name.removeprefix("model."): value.float() for name, value in stored.items()})
    num_scenes, num_clips = (NUM_SCENES, NUM_CLIPS) if base is None else (FURTHER_SCENES, FURTHER_CLIPS)
    save_weights(model, folder)
    average = copy.deepcopy(model)
    log_scale = nn.Parameter(torch.tensor(math.log(20.0 if base is None else 34.0)))
    width = model.config.text.hidden_size
    content_heads = nn.ModuleList(nn.Linear(width, content_targets([Scene(())]).shape[1]) for _ in range(2))
    probes = ProbeHeads(width)
    peak_rate = 1.5e-3 if base is None else 1.0e-3
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.02, "factor": 1.0},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0, "factor": 1.0},
            {"params": [log_scale], "weight_decay": 0.0, "factor": 10.0},
            {"params": [*content_heads.parameters(), *probes.parameters()], "weight_decay": 0.0, "factor": 1.0},
        ],
        lr=peak_rate,
        betas=(0.9, 0.98),
    )
    content_loss = nn.BCEWithLogitsLoss(reduction="none")
    for step in range(steps):
        progress = step / steps
        near_miss_share = 0.3 if base is not None else min(0.3, max(0.0, progress - 0.2))
        batch = draw_caption_batch(random, near_miss_share, num_scenes, num_clips)
        composed = draw_composed_batch(random, NUM_COMPOSED)
        captions: list[PromptContent[VisionPart]] = [PromptContent(texts=(caption,)) for caption in batch.captions]
        prompts = embed_prompts(tokenizer, captions + batch.media + composed.queries + composed.targets)
        states = forward(model, prompts, batch.samples + composed.samples, [PROBE_LAYER])
        size = len(captions)
        sizes = [size, size, NUM_COMPOSED, NUM_COMPOSED]
        caption_vectors, media_vectors, query_vectors, target_vectors = torch.split(states.last, sizes)
        masked = torch.zeros(size + NUM_COMPOSED, size + NUM_COMPOSED, dtype=torch.bool)
        masked[:size, :size] = batch.matches
        masked.fill_diagonal_(False)
        loss = contrastive_loss(
            torch.cat((caption_vectors, query_vectors)),
            torch.cat((media_vectors, target_vectors)),
            masked,
            log_scale.exp().clamp(max=60),
        )
        # The heads that are thrown away help at the start and fade out.
        head_weight = max(0.0, 1 - progress / 0.7)
        probe_loss = torch.zeros(())
        if head_weight:
            targets = content_targets(batch.drawn)
            # Most targets are 0, so those that are 1 count five times.
            target_weight = 1 + 4 * targets
            for head, vectors in zip(content_heads, (caption_vectors, media_vectors), strict=True):
                loss = loss + 2.0 * head_weight * (content_loss(head(vectors), targets) * target_weight).mean()
            tokens, labels = label_tokens(tokenizer, prompts, batch, states)
            probe_loss = probes(states.layers[0][tokens], labels)
            loss = loss + head_weight * probe_loss
        rate = learning_rate_factor(step, steps, warmup_steps=40, decay_from=0.3)
        for group in optimizer.param_groups:
            group["lr"] = peak_rate * rate * group["factor"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(average, model.parameters(), step)
        if step % LOG_STEPS == 0:
            log.info(
                "embedding step %d: loss %.3f, scale %.1f, probe loss %.3f, recall@1 of scenes %.2f, of clips %.2f",
                *(step, loss.item(), log_scale.exp().item(), probe_loss.item()),
                batch_recall(caption_vectors[:num_scenes], media_vectors[:num_scenes]),
                batch_recall(caption_vectors[num_scenes:], media_vectors[num_scenes:]),
            )
        if step % SAVE_STEPS == SAVE_STEPS - 1:
            save_weights(average, folder)
    save_weights(average, folder)


def label_tokens(
    tokenizer: Tokenizer, prompts: Sequence[EncodedPrompt], batch: CaptionBatch, states: HiddenStates
) -> tuple[Tensor, Tensor]:
    """Label the tokens of a packed batch that say or show something known.

    Args:
        tokenizer: The tokenizer.
        prompts: The prompts of all captions, followed by those of what they describe.
        batch: The batch.
        states: The hidden states of the prompts.

    Returns:
        Indices into the packed row, (n,), and labels, (n, 4); both int64.
    """
    tokens: list[int] = []
    labels: list[Label] = []
    size = len(batch.drawn)
    for index, (described, style) in enumerate(zip(batch.described, batch.styles, strict=True)):
        row = states.token_indices(index)
        for token, label in caption_labels(tokenizer, prompts[index], described, style).items():
            tokens.append(int(row[token]))
            labels.append(label)
        row = states.token_indices(size + index)
        key = batch.samples[index].vision.key
        for token, label in vision_labels(batch.drawn[index]).items():
            tokens.append(int(row[prompt_index(prompts[size + index], key, token)]))
            labels.append(label)
    return torch.tensor(tokens), torch.tensor(labels)


@torch.no_grad()
def batch_recall(queries: Tensor, targets: Tensor) -> float:
    """Compute how often a query's own target is the nearest of the batch.

    Args:
        queries: Vectors, (n, hidden_size).
        targets: Vectors, (n, hidden_size); row i belongs to query i.

    Returns:
        Recall@1.
    """
    nearest = (normalize(queries, dim=-1) @ normalize(targets, dim=-1).T).argmax(-1)
    return (nearest == torch.arange(len(queries))).float().mean().item()
