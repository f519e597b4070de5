"""Training batches of the tiny reranker: queries with their documents, from random mismatches to near-misses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Literal

from qwen3vl.demo.scenes import Clip, Scene, near_miss, near_miss_clip, other_shape, random_clip, random_scene
from qwen3vl.processing.encoded_prompt import EncodedPrompt
from qwen3vl.processing.templates import RERANK_INSTRUCTION, PromptContent, VisionPart, rerank_prompt
from qwen3vl.processing.tokenizer import Tokenizer
from tools.tiny.data import MAX_PROMPT_TOKENS, VisionSample, draw_from_split, vision_sample
from tools.tiny.probes import (
    UNKNOWN,
    Label,
    caption_labels,
    mover_label,
    prompt_index,
    thing_label,
    vision_labels,
)

Mix = Literal["images", "clips"]
NUM_QUERIES: dict[Mix, dict[str, int]] = {
    "images": {"text to image": 22, "image to text": 14, "text to clip": 4, "image to image": 3},
    "clips": {"text to image": 9, "image to text": 6, "image to image": 1},
}
"""Queries of each task in a step."""
NUM_DOCUMENTS = {"text to image": 4, "image to text": 4, "text to clip": 2, "image to image": 4}
"""Documents of a query: the match, then near-misses or random ones."""
NUM_CLIP_GROUPS: dict[Mix, int] = {"images": 0, "clips": 3}
CLIPS_PER_GROUP = 3
"""The caption of each clip of a group is a query, and all clips of the group are its documents. A clip has 32 times as
many tokens as an image; this way the vision tower reads it once for several pairs."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A query and a document in a prompt.

    Attributes:
        prompt: The prompt.
        is_match: Whether the document matches the query.
        task: A key of `NUM_DOCUMENTS`; `"text to clip"` for the groups of clips as well.
        query: The query's number in the batch.
        document_labels: What the document shows or says, by the token's index in the prompt.
        expected_labels: What the query has at the same positions, in the same order.
        query_labels: What the query says, by the token's index in the prompt.
    """

    prompt: EncodedPrompt
    is_match: bool
    task: str
    query: int
    document_labels: dict[int, Label]
    expected_labels: tuple[Label, ...]
    query_labels: dict[int, Label]


def expected_label(query: Scene | Clip, document: Label) -> Label:
    """Return what a query has where a document shows or says something.

    Args:
        query: What the query describes or shows.
        document: A label of the document.

    Returns:
        The query's label at the document's position, or that of its moving thing if the document's one moves. Empty
        if the query has nothing there.
    """
    if isinstance(query, Clip) and document.course != UNKNOWN:
        return mover_label(query)
    standing = query.things if isinstance(query, Scene) else (query.still,) if query.still else ()
    return next((thing_label(thing) for thing in standing if thing.position == document.position), Label())


def agreement(document: Label, expected: Label) -> int:
    """Compare a label of a document with what the query has there, whatever the position.

    Args:
        document: A label of the document.
        expected: The query's label, as `expected_label` returns it.

    Returns:
        0 if both have nothing there, 1 if they are equal, 2 if they differ.
    """
    document, expected = document._replace(position=UNKNOWN), expected._replace(position=UNKNOWN)
    return 2 if document != expected else 0 if document == Label() else 1


def draw_pairs(
    tokenizer: Tokenizer, random: Random, near_miss_share: float, mix: Mix
) -> tuple[list[Pair], list[VisionSample]]:
    """Draw the queries of a step with their documents.

    Args:
        tokenizer: The tokenizer.
        random: The source of randomness.
        near_miss_share: The probability that a document that does not match is a near-miss.
        mix: How many queries of each task to draw.

    Returns:
        The pairs, and the images and clips that their prompts name.
    """
    pairs: list[Pair] = []
    samples: list[VisionSample] = []
    query = 0
    for task, num_queries in NUM_QUERIES[mix].items():
        draw: Callable[[Random], Scene | Clip] = random_clip if task == "text to clip" else random_scene
        for _ in range(num_queries):
            documents: list[Scene | Clip] = [draw_from_split(draw, random, held_out=False)]
            while len(documents) < NUM_DOCUMENTS[task]:
                if random.random() < near_miss_share:
                    other = _near_miss(documents[0], random)
                else:
                    other = draw_from_split(draw, random, held_out=False)
                if other.key not in [document.key for document in documents]:
                    documents.append(other)
            pairs += _pairs_of_query(tokenizer, random, task, query, documents, samples)
            query += 1
    for _ in range(NUM_CLIP_GROUPS[mix]):
        pairs += _pairs_of_clip_group(tokenizer, random, query, samples)
        query += CLIPS_PER_GROUP
    return pairs, samples


def _near_miss(drawn: Scene | Clip, random: Random) -> Scene | Clip:
    return near_miss(drawn, random) if isinstance(drawn, Scene) else near_miss_clip(drawn, random)


def _pairs_of_query(
    tokenizer: Tokenizer,
    random: Random,
    task: str,
    number: int,
    documents: list[Scene | Clip],
    samples: list[VisionSample],
) -> list[Pair]:
    """Return the pairs of a query that describes or shows the first document; drawn images go to `samples`."""

    def draw(drawn: Scene | Clip) -> PromptContent[VisionPart]:
        samples.append(vision_sample(drawn, random))
        vision = (samples[-1].vision,)
        return PromptContent(images=vision) if isinstance(drawn, Scene) else PromptContent(videos=vision)

    def describe(drawn: Scene | Clip) -> tuple[Scene | Clip, int, PromptContent[VisionPart]]:
        style = random.randrange(3 if isinstance(drawn, Scene) else 2)
        described = drawn
        if isinstance(drawn, Scene):
            described = Scene(tuple(random.sample(drawn.things, len(drawn.things))))
        return described, style, PromptContent(texts=(described.caption(style),))

    described, style, caption = describe(documents[0])
    is_text_query = task in ("text to image", "text to clip")
    query = caption if is_text_query else draw(documents[0])
    pairs = []
    for index, document in enumerate(documents):
        if task == "image to text":
            described, style, content = describe(document)
        else:
            content = draw(document)
        prompt = tokenizer.encode_prompt(rerank_prompt(query, content, RERANK_INSTRUCTION), MAX_PROMPT_TOKENS).prompt
        if task == "image to text":
            labels = caption_labels(tokenizer, prompt, described, style)
        else:
            labels = _document_labels(prompt, document, samples[-1])
        expected = tuple(expected_label(documents[0], label) for label in labels.values())
        # All documents share the query's tokens in the pack, so the query is labelled once.
        is_labelled = is_text_query and index == 0
        query_labels = caption_labels(tokenizer, prompt, described, style) if is_labelled else {}
        pairs.append(Pair(prompt, index == 0, task, number, labels, expected, query_labels))
    return pairs


def _document_labels(prompt: EncodedPrompt, document: Scene | Clip, sample: VisionSample) -> dict[int, Label]:
    key = sample.vision.key
    return {prompt_index(prompt, key, token): label for token, label in vision_labels(document).items()}


def _pairs_of_clip_group(tokenizer: Tokenizer, random: Random, first: int, samples: list[VisionSample]) -> list[Pair]:
    """Return the pairs of clips that resemble each other with their captions; the drawn clips go to `samples`."""
    # The shape is drawn once more by itself, because it is the last thing that a model learns to read.
    misses = (other_shape, near_miss_clip, other_course, resembling_clip)
    group = [draw_from_split(random_clip, random, held_out=False)]
    while len(group) < CLIPS_PER_GROUP:
        miss = random.choice(misses)
        # Each clip is also a match, so none may belong to the evaluation split.
        other = draw_from_split(partial(miss, random.choice(group)), random, held_out=False)
        if other.key not in [clip.key for clip in group]:
            group.append(other)
    drawn = [vision_sample(clip, random) for clip in group]
    samples += drawn
    pairs = []
    for match, described in enumerate(group):
        style = random.randrange(2)
        query = PromptContent[VisionPart](texts=(described.caption(style),))
        for index, (document, sample) in enumerate(zip(group, drawn, strict=True)):
            parts = rerank_prompt(query, PromptContent(videos=(sample.vision,)), RERANK_INSTRUCTION)
            prompt = tokenizer.encode_prompt(parts, MAX_PROMPT_TOKENS).prompt
            labels = _document_labels(prompt, document, sample)
            expected = tuple(expected_label(described, label) for label in labels.values())
            query_labels = caption_labels(tokenizer, prompt, described, style) if index == 0 else {}
            pairs.append(Pair(prompt, index == match, "text to clip", first + match, labels, expected, query_labels))
    return pairs


def other_course(clip: Clip, random: Random) -> Clip:
    """Change where a clip's moving thing moves; everything else stays.

    Args:
        clip: The clip.
        random: The source of randomness.

    Returns:
        A copy with another direction or track, which does not cross the still thing.
    """
    courses = [
        (direction, track)
        for direction in range(4)
        for track in range(3)
        if (direction, track) != (clip.direction, clip.track)
        and (clip.still is None or divmod(clip.still.position, 3)[direction // 2] != track)
    ]
    direction, track = random.choice(courses)
    return replace(clip, direction=direction, track=track)


def resembling_clip(clip: Clip, random: Random) -> Clip:
    """Change some of a clip's colour, shape, and course with the still thing, to those of a random clip.

    Args:
        clip: The clip.
        random: The source of randomness.

    Returns:
        The changed clip; by chance it may be equal to `clip`.
    """
    other = random_clip(random)
    if random.random() < 0.5:
        other = replace(other, colour=clip.colour)
    if random.random() < 0.5:
        other = replace(other, shape=clip.shape)
    if random.random() < 0.5:
        # The still thing stands beside the track, so both stay together.
        other = replace(other, direction=clip.direction, track=clip.track, still=clip.still)
    return other
