"""Training of the tiny reranker on pairs of a query and a document.

Beside the answer, heads that are thrown away predict parts of it. At the end: whether each position of the document
agrees with the query. Half way up: which colour, shape and position a vision token shows or a phrase says. One set of
heads reads both, so that images and texts learn to share a code that attention can compare. A layer before the last:
what the query has at the position of each token of the document, which is what the last layer compares.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

from qwen3vl.model import Qwen3VL
from qwen3vl.processing.tokenizer import Tokenizer
from tools.tiny.checkpoint import new_model, save_weights, write_config_files
from tools.tiny.data import HiddenStates, forward
from tools.tiny.optimization import learning_rate_factor, update_average
from tools.tiny.probes import UNKNOWN, Label, ProbeHeads
from tools.tiny.reranker_batches import Mix, Pair, agreement, draw_pairs

log = logging.getLogger("train")
MAX_NEAR_MISS_SHARE = 0.75
SHARED_LAYER = 2
"""After this layer one set of probe heads reads images and texts."""
FETCH_LAYER = 4
"""After this layer the document's tokens are asked what the query has at their position."""
LOG_STEPS, SAVE_STEPS = 20, 100


def load_start(folder: Path, base: Path, seed: int) -> tuple[Qwen3VL, bool]:
    """Build the model that training starts from.

    Args:
        folder: Where the files of the new checkpoint are written.
        base: An embedding model's checkpoint, to which two layers are added, or a reranker's to continue from.
        seed: Seed of the weights of added layers.

    Returns:
        The model, and whether the base is a reranker.

    Raises:
        ValueError: If the base is not a tiny model.
    """
    write_config_files(folder, num_layers=6, append_endoftext=False)
    model = new_model(folder, seed)
    stored = {
        name.removeprefix("model."): value.float() for name, value in load_file(base / "model.safetensors").items()
    }
    missing, unexpected = model.load_state_dict(stored, strict=False)
    if unexpected or not all("layers.4" in name or "layers.5" in name for name in missing):
        raise ValueError(f"{base} is not a tiny model: weights missing {missing}, not expected {unexpected}")
    for name, parameter in model.named_parameters():
        # Added layers change little at first, so that what the base has learnt still works.
        if name in missing and name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.normal_(parameter, std=0.01)
    return model, not missing


@dataclass(frozen=True, slots=True, eq=False)
class ProbeTargets:
    """What the probe heads are asked, by index into the packed row; all int64.

    Attributes:
        tokens: Tokens of queries and documents, (n,).
        labels: Their labels, (n, 4).
        document_tokens: Tokens of documents, (m,).
        expected: Labels of the query at their positions, (m, 4).
        agreements: Whether both agree, as `agreement` returns it, (m,).
    """

    tokens: Tensor
    labels: Tensor
    document_tokens: Tensor
    expected: Tensor
    agreements: Tensor


def probe_targets(pairs: Sequence[Pair], states: HiddenStates) -> ProbeTargets:
    """Collect the labels of all pairs of a batch.

    Args:
        pairs: The pairs, in the order of the prompts.
        states: The hidden states of the prompts.

    Returns:
        The targets of the probe heads.
    """
    tokens: list[int] = []
    labels: list[Label] = []
    document_tokens: list[int] = []
    expected: list[Label] = []
    agreements: list[int] = []
    for index, pair in enumerate(pairs):
        row = states.token_indices(index)
        tokens += row[[*pair.document_labels, *pair.query_labels]].tolist()
        labels += [*pair.document_labels.values(), *pair.query_labels.values()]
        document_tokens += row[list(pair.document_labels)].tolist()
        expected += pair.expected_labels
        agreements += map(agreement, pair.document_labels.values(), pair.expected_labels)
    return ProbeTargets(*(torch.tensor(column) for column in (tokens, labels, document_tokens, expected, agreements)))


def train(folder: Path, base: Path, steps: int, seed: int = 11, mix: Mix = "images") -> None:
    """Train a reranker and write its checkpoint.

    Args:
        folder: Where the checkpoint is written, also every `SAVE_STEPS` steps.
        base: The checkpoint to start from: an embedding model's, or a reranker's to continue from.
        steps: Number of steps.
        seed: Seed of weights and data.
        mix: What the steps ask for.
    """
    model, continues = load_start(folder, base, seed)
    random = Random(seed + continues)
    tokenizer = Tokenizer(folder / "tokenizer.json")
    yes, no = tokenizer.token_id("yes"), tokenizer.token_id("no")
    average = copy.deepcopy(model)
    width = model.config.text.hidden_size
    agreement_head = nn.Linear(width, 3)
    shared_probes = ProbeHeads(width)
    fetch_probes = ProbeHeads(width, ("colour", "shape", "course"), predict_unknown=True)
    head_parameters = [
        *agreement_head.parameters(),
        *shared_probes.parameters(),
        *fetch_probes.parameters(),
    ]
    peak_rate = 7e-4 if continues else 1e-3
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            {"params": head_parameters, "weight_decay": 0.0},
        ],
        lr=peak_rate,
        betas=(0.9, 0.98),
    )
    for step in range(steps):
        progress = step / steps
        near_miss_share = MAX_NEAR_MISS_SHARE if continues else min(MAX_NEAR_MISS_SHARE, 0.1 + 1.2 * progress)
        pairs, samples = draw_pairs(tokenizer, random, near_miss_share, mix)
        states = forward(model, [pair.prompt for pair in pairs], samples, [SHARED_LAYER, FETCH_LAYER])
        embeddings = model.language_model.embed_tokens.weight
        # The score is the difference of the logits of "yes" and "no": `qwen3_vl_reranker.py` of the official
        # repository takes the sigmoid of it.
        logits = states.last @ (embeddings[yes] - embeddings[no])
        is_match = torch.tensor([float(pair.is_match) for pair in pairs])
        # A query has one match among several documents: both answers count alike.
        weight = torch.where(is_match > 0, 2.0, 1.0)
        answer_loss = (binary_cross_entropy_with_logits(logits, is_match, reduction="none") * weight).mean()
        match_logits = logits[is_match > 0][torch.tensor([pair.query for pair in pairs])]
        order_loss = (softplus(logits - match_logits) * (1 - is_match)).mean()
        targets = probe_targets(pairs, states)
        shared_states, fetch_states = states.layers
        shared_loss = shared_probes(shared_states[targets.tokens], targets.labels)
        if mix == "clips":
            # Few tokens show what moves, and most of the probes' loss comes from the others.
            moving = targets.labels[:, Label._fields.index("course")] != UNKNOWN
            shared_loss = shared_loss + shared_probes(shared_states[targets.tokens[moving]], targets.labels[moving])
        fetch_loss = fetch_probes(fetch_states[targets.document_tokens], targets.expected)
        agreement_logits = agreement_head(states.final[targets.document_tokens])
        # Most positions are empty in both: they count less.
        class_weight = torch.tensor([0.2, 1.0, 1.0])
        agreement_loss = cross_entropy(agreement_logits, targets.agreements, weight=class_weight)
        head_weight = max(0.1, 1 - progress / 0.8)
        loss = answer_loss + 0.5 * order_loss
        loss = loss + head_weight * (agreement_loss + shared_loss + 2.0 * fetch_loss)
        rate = learning_rate_factor(step, steps, warmup_steps=50, decay_from=0.5)
        for group in optimizer.param_groups:
            group["lr"] = peak_rate * rate
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        update_average(average, parameters, step)
        if step % LOG_STEPS == 0:
            log.info(
                "reranker step %d: loss %.3f, shared probes %.3f, fetch probes %.3f, agreement %.3f; %s",
                *(step, loss.item(), shared_loss.item(), fetch_loss.item(), agreement_loss.item()),
                describe_accuracy(pairs, logits, match_logits),
            )
        if step % SAVE_STEPS == SAVE_STEPS - 1:
            save_weights(average, folder)
    save_weights(average, folder)


@torch.no_grad()
def describe_accuracy(pairs: Sequence[Pair], logits: Tensor, match_logits: Tensor) -> str:
    """Describe how good the answers of a batch are, for the log.

    Args:
        pairs: The pairs.
        logits: The score of each pair, (n,).
        match_logits: The score of the match of each pair's query, (n,).

    Returns:
        The shares of right answers, and of mismatches that score below the match, of clips separately.
    """
    is_match = torch.tensor([pair.is_match for pair in pairs])
    is_clip = torch.tensor([pair.task == "text to clip" for pair in pairs])
    correct = ((logits > 0) == is_match).float()
    below_match = (match_logits > logits).float()
    return (
        f"yes to matches {correct[is_match].mean():.2f}, no to others {correct[~is_match].mean():.2f}, "
        f"others below the match {below_match[~is_match & ~is_clip].mean():.2f}, "
        f"of clips {below_match[~is_match & is_clip].mean():.2f}"
    )
