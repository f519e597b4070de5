"""Trains the tiny reranker: pairs of query and document, from random mismatches to near-misses.

Beside the answer, throw-away heads are asked about the parts: does this cell of the document's picture agree
with the query; and, half way up, which colour, shape and place stand in a cell or in a phrase of a caption.
One head reads both, so that pictures and words come to share a code by which attention can compare them.  A
layer before the last, cells and phrases are asked what the query has at their place: what is to be compared.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

from qwen3vl.demo.scenes import Clip, Scene, near_miss, near_miss_clip, random_clip, random_scene
from qwen3vl.model import Qwen3VL
from qwen3vl.processing.encoded_prompt import EncodedPrompt
from qwen3vl.processing.templates import RERANK_INSTRUCTION, PromptContent, VisionPart, rerank_prompt
from qwen3vl.processing.tokenizer import Tokenizer
from tools.tiny.checkpoint import new_model, prepare, save
from tools.tiny.data import Seen, States, draw_until, forward, see
from tools.tiny.reading import UNKNOWN, Label, Reader, label, moving, place_in, shown, told

log = logging.getLogger("train")
GROUPS = {"picture": 22, "caption": 14, "clip": 4, "pictures": 3}
"""Queries a step: words for pictures, a picture for captions, words for clips, a picture for pictures."""
DOCUMENTS = {"picture": 4, "caption": 4, "clip": 2, "pictures": 4}
"""Documents a query: the match, then near-misses or strangers."""
SHARED_LAYER = 2
"""After this layer pictures and words are read by one set of heads."""
FETCH_LAYER = 4
"""After this layer a document's cells and phrases are to know what the query has at their place."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A query and a document as a prompt, and whether they match.

    `document` labels places of the prompt where the document shows or tells something, `wanted` says what the
    query has there; `asked` labels the words of the query.
    """

    prompt: EncodedPrompt
    match: bool
    kind: str
    query: int
    document: dict[int, Label]
    wanted: tuple[Label, ...]
    asked: dict[int, Label]


def start(folder: Path, base: Path, seed: int) -> tuple[Qwen3VL, bool]:
    """A model two layers deeper than the embedding model that it starts from; or a reranker, and True, to go on."""
    prepare(folder, layers=6, append_endoftext=False)
    model = new_model(folder, seed)
    known = {
        name.removeprefix("model."): value.float() for name, value in load_file(base / "model.safetensors").items()
    }
    missing, unexpected = model.load_state_dict(known, strict=False)
    if unexpected or not all("layers.4" in name or "layers.5" in name for name in missing):
        raise ValueError(f"{base} is not a tiny model: {missing} {unexpected}")
    for name, parameter in model.named_parameters():
        if name in missing and name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.normal_(parameter, std=0.01)
    return model, not missing


def at(asked: Scene | Clip, there: Label) -> Label:
    """What the query has where a document shows or tells `there`: at its place, or on the move as it is."""
    if isinstance(asked, Clip) and there.course != UNKNOWN:
        return moving(asked)
    standing = asked.things if isinstance(asked, Scene) else (asked.still,) if asked.still else ()
    return next((label(thing) for thing in standing if thing.place == there.place), Label())


def agreement(there: Label, wanted: Label) -> int:
    """0 nothing asked nor there, 1 as asked, 2 not as asked; at one place, or wherever a thing moves."""
    there, wanted = there._replace(place=UNKNOWN), wanted._replace(place=UNKNOWN)
    return 2 if there != wanted else 0 if there == Label() else 1


def alike(asked: Scene | Clip, random: Random) -> Scene | Clip:
    return near_miss(asked, random) if isinstance(asked, Scene) else near_miss_clip(asked, random)


def batch(tokenizer: Tokenizer, random: Random, near: float) -> tuple[list[Pair], list[Seen]]:
    """Queries of each kind with their documents; those that do not match are near-misses with probability `near`."""
    pairs: list[Pair] = []
    seen: list[Seen] = []
    query = 0
    for kind, count in GROUPS.items():
        make: Callable[[Random], Scene | Clip] = random_clip if kind == "clip" else random_scene
        for _ in range(count):
            made: list[Scene | Clip] = [draw_until(make, random, held=False)]
            while len(made) < DOCUMENTS[kind]:
                other = alike(made[0], random) if random.random() < near else draw_until(make, random, held=False)
                if other.key not in [known.key for known in made]:
                    made.append(other)
            pairs += group(tokenizer, random, kind, query, made, seen)
            query += 1
    return pairs, seen


def group(
    tokenizer: Tokenizer, random: Random, kind: str, number: int, made: list[Scene | Clip], seen: list[Seen]
) -> list[Pair]:
    """The pairs of one query, which describes or shows the first of `made`; what is drawn is appended to `seen`."""

    def show(drawn: Scene | Clip) -> PromptContent[VisionPart]:
        seen.append(see(drawn, random))
        vision = (seen[-1].vision,)
        return PromptContent(images=vision) if isinstance(drawn, Scene) else PromptContent(videos=vision)

    def tell(drawn: Scene | Clip) -> tuple[Scene | Clip, int, PromptContent[VisionPart]]:
        said, style = drawn, random.randrange(3 if isinstance(drawn, Scene) else 2)
        if isinstance(drawn, Scene):
            said = Scene(tuple(random.sample(drawn.things, len(drawn.things))))
        return said, style, PromptContent(texts=(said.caption(style),))

    said, style, words = tell(made[0])
    in_words = kind in ("picture", "clip")
    query = words if in_words else show(made[0])
    pairs = []
    for index, each in enumerate(made):
        if kind == "caption":
            said, style, content = tell(each)
        else:
            content = show(each)
        prompt = tokenizer.write(rerank_prompt(query, content, RERANK_INSTRUCTION), 8192).prompt
        if kind == "caption":
            document = told(tokenizer, prompt, said, style)
        else:
            key = seen[-1].vision.key
            document = {place_in(prompt, key, token): known for token, known in shown(each).items()}
        wanted = tuple(at(made[0], known) for known in document.values())
        # The query stands once for all its documents: its words are read once.
        asked = told(tokenizer, prompt, said, style) if in_words and index == 0 else {}
        pairs.append(Pair(prompt, index == 0, kind, number, document, wanted, asked))
    return pairs


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Places in the row where something is read, with labels (n, 4): `middle` queries and documents, `parts` documents.

    `wanted` (parts, 4) is what the query has there, `agree` (parts,) whether that is the same.
    """

    middle: Tensor
    labels: Tensor
    parts: Tensor
    wanted: Tensor
    agree: Tensor


def reading(pairs: list[Pair], states: States) -> Read:
    middle: list[int] = []
    labels: list[Label] = []
    parts: list[int] = []
    wanted: list[Label] = []
    agree: list[int] = []
    for index, pair in enumerate(pairs):
        row = states.pack.token_indices(index)
        middle += row[[*pair.document, *pair.asked]].tolist()
        labels += [*pair.document.values(), *pair.asked.values()]
        parts += row[list(pair.document)].tolist()
        wanted += pair.wanted
        agree += map(agreement, pair.document.values(), pair.wanted)
    return Read(*(torch.tensor(part) for part in (middle, labels, parts, wanted, agree)))


def train(folder: Path, base: Path, steps: int, seed: int = 11) -> None:
    """Writes a trained checkpoint to `folder`, starting from an embedding model's or going on from a reranker's."""
    model, further = start(folder, base, seed)
    random = Random(seed + further)
    tokenizer = Tokenizer(folder / "tokenizer.json")
    yes, no = tokenizer.control("yes"), tokenizer.control("no")
    average = copy.deepcopy(model)
    width = model.config.text.hidden_size
    probe = nn.Linear(width, 3)
    reader, fetcher = Reader(width), Reader(width, ("colour", "shape", "course"), nothing=True)
    heads = [*probe.parameters(), *reader.parameters(), *fetcher.parameters()]
    peak = 7e-4 if further else 1e-3
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            {"params": heads, "weight_decay": 0.0},
        ],
        lr=peak,
        betas=(0.9, 0.98),
    )
    for step in range(steps):
        spent = step / steps
        near = 0.75 if further else min(0.75, 0.1 + 1.2 * spent)
        pairs, seen = batch(tokenizer, random, near)
        states = forward(model, [pair.prompt for pair in pairs], seen, [SHARED_LAYER, FETCH_LAYER])
        head = model.language_model.embed_tokens.weight
        logits = states.last @ (head[yes] - head[no])
        match = torch.tensor([float(pair.match) for pair in pairs])
        # One match stands against several others: weighted, so that both answers count alike.
        weight = torch.where(match > 0, 2.0, 1.0)
        loss = (binary_cross_entropy_with_logits(logits, match, reduction="none") * weight).mean()
        query = torch.tensor([pair.query for pair in pairs])
        positive = logits[match > 0][query]
        loss = loss + 0.5 * (softplus(logits - positive) * (1 - match)).mean()
        read = reading(pairs, states)
        middle, late = states.layers
        read_loss = reader(middle[read.middle], read.labels)
        fetch_loss = fetcher(late[read.parts], read.wanted)
        # Most cells are empty and not asked for: they count less.
        judged = probe(states.row[read.parts])
        part_loss = cross_entropy(judged, read.agree, weight=torch.tensor([0.2, 1.0, 1.0]))
        aid = max(0.1, 1 - spent / 0.8)
        loss = loss + aid * (part_loss + read_loss + 2.0 * fetch_loss)
        rate = min(1.0, (step + 1) / 50)
        if spent > 0.5:
            rate *= 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * (spent - 0.5) / 0.5))
        for group in optimiser.param_groups:
            group["lr"] = peak * rate
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        keep = min(0.99, (step + 1) / (step + 10))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), parameters, strict=True):
                slow.lerp_(fast, 1 - keep)
        if step % 20 == 0:
            with torch.no_grad():
                right = ((logits > 0) == (match > 0)).float()
                better = (positive > logits).float()
                clips = torch.tensor([pair.kind == "clip" for pair in pairs])
                wrong = (judged.argmax(-1) == read.agree)[read.agree == 2].float().mean()
            log.info(
                "rerank %d (%.0f %%): loss %.3f, read %.3f, fetch %.3f, parts %.3f (wrong seen %.2f), "
                "yes %.2f, no %.2f, order %.2f, of clips %.2f, near %.2f",
                *(step, 100 * spent, loss.item(), read_loss.item(), fetch_loss.item(), part_loss.item(), wrong.item()),
                *(right[match > 0].mean().item(), right[match == 0].mean().item()),
                *(better[(match == 0) & ~clips].mean().item(), better[(match == 0) & clips].mean().item(), near),
            )
        if step % 100 == 99:
            save(average, folder)
    save(average, folder)
