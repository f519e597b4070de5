"""Whether a checkpoint is an embedding model or a reranker, by what its files say."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from qwen3vl.errors import ModelError
from qwen3vl.model.hub import Adapter, Checkpoint
from qwen3vl.model.lora.config import read_raw_config

log = logging.getLogger(__name__)

ModelKind = Literal["embedding", "reranker"]
Evidence = tuple[ModelKind, str]
"""A kind of model, and what says so."""

_CLASSES: dict[ModelKind, str] = {"embedding": "Embedder", "reranker": "Reranker"}
_NOUNS: dict[ModelKind, str] = {"embedding": "an embedding model", "reranker": "a reranker"}
_MODEL_TYPES: dict[Any, ModelKind] = {"SentenceTransformer": "embedding", "CrossEncoder": "reranker"}
_MODULES: dict[str, ModelKind] = {"Pooling": "embedding", "LogitScore": "reranker", "CausalScoreHead": "reranker"}
"""Modules of sentence-transformers that only one kind of model has. Their folders are named 1_Pooling and so on."""
_NAME = re.compile(r"Qwen3-VL-(Embedding|Reranker)", re.IGNORECASE)


def check_model_kind(checkpoint: Checkpoint, expected: ModelKind, *, refuse: bool) -> None:
    """Check that the files of a checkpoint and its adapter do not say that they are of the other kind.

    An embedding model used as a reranker gives scores without meaning, and a reranker such vectors.

    Args:
        checkpoint: The checkpoint.
        expected: What it is used as.
        refuse: Whether a model of the other kind is an error; otherwise it is a warning in the log.

    Raises:
        ModelError: The files say that it is the other kind, and `refuse` is set; or the adapter has no settings.
    """
    found = [(checkpoint.name, find_evidence(checkpoint))]
    if checkpoint.adapter is not None:
        found.append((f"the adapter {checkpoint.adapter.name}", _from_base_of_adapter(checkpoint.adapter)))
    for name, evidence in found:
        if evidence is not None and evidence[0] != expected:
            _report(name, *evidence, expected, refuse=refuse)


def check_kind_of_base(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint is not of the other kind than the one that its adapter was trained on.

    Args:
        checkpoint: A checkpoint with an adapter.

    Raises:
        ModelError: The files say that one is an embedding model and the other a reranker, or the adapter has no
            settings.
    """
    if checkpoint.adapter is None:
        return
    base, trained_on = find_evidence(checkpoint), _from_base_of_adapter(checkpoint.adapter)
    if base is not None and trained_on is not None and base[0] != trained_on[0]:
        raise ModelError(
            f"the adapter {checkpoint.adapter.name} is of {_NOUNS[trained_on[0]]}: {trained_on[1]}; and "
            f"{checkpoint.name} is {_NOUNS[base[0]]}: {base[1]}. Name the model that the adapter was trained on; if "
            "its adapter_config.json is wrong, correct base_model_name_or_path there"
        )


def _report(name: str, kind: ModelKind, reason: str, expected: ModelKind, *, refuse: bool) -> None:
    message = f"{name} is {_NOUNS[kind]}, not {_NOUNS[expected]}: {reason}. "
    if refuse:
        raise ModelError(
            f"{message}Load it as {_CLASSES[kind]}, or name {_NOUNS[expected]}, such as "
            f"Qwen/Qwen3-VL-{expected.capitalize()}-2B. If its files are wrong, check_model=False loads it all the same"
        )
    log.warning("%sIt is used all the same, because check_model is False", message)


def find_evidence(checkpoint: Checkpoint) -> Evidence | None:
    """Return the kind of a model by the most reliable of its files that names one.

    The files of sentence-transformers come first, then the tokenizer (that of the embedding models ends every sequence
    with a token of its own), then names: of the model card, and of the model itself.

    Args:
        checkpoint: The checkpoint.

    Returns:
        The kind and what says so; None if no file says it, as for a model that was fine-tuned without these files.
    """
    sources: tuple[Callable[[Path], Evidence | None], ...] = (
        _from_sentence_transformers_config,
        _from_modules,
        _from_tokenizer,
        _from_model_card,
    )
    for source in sources:
        if (evidence := source(checkpoint.folder)) is not None:
            return evidence
    name = Path(checkpoint.name).name
    return _from_names([name], f"it is named {name}")


def _from_sentence_transformers_config(folder: Path) -> Evidence | None:
    config = _read_json(folder / "config_sentence_transformers.json")
    model_type = config.get("model_type") if isinstance(config, dict) else None
    kind = _MODEL_TYPES.get(model_type) if isinstance(model_type, str) else None
    return None if kind is None else (kind, f"its config_sentence_transformers.json says {model_type}")


def _from_modules(folder: Path) -> Evidence | None:
    modules = _read_json(folder / "modules.json")
    names: set[str] = set()
    for module in modules if isinstance(modules, list) else ():
        if isinstance(module, dict):
            names.add(str(module.get("type")).rpartition(".")[2])
    names |= {name for name in _MODULES if (folder / f"1_{name}").is_dir()}
    names &= _MODULES.keys()
    kinds = {_MODULES[name] for name in names}
    return (kinds.pop(), f"it has the module {min(names)} of sentence-transformers") if len(kinds) == 1 else None


def _from_tokenizer(folder: Path) -> Evidence | None:
    if _appends_token(_read_post_processor(folder / "tokenizer.json")):
        return "embedding", "its tokenizer ends every sequence with a token, as only that of an embedding model does"
    return None


def _read_post_processor(path: Path) -> Any:
    """Return the post-processor of a `tokenizer.json`, without parsing the vocabulary, which would take a second."""
    try:
        text = path.read_text(encoding="utf-8")
        start = re.search(r'"post_processor"\s*:\s*', text)
        return json.JSONDecoder().raw_decode(text, start.end())[0] if start else None
    except (OSError, ValueError, RecursionError):  # reported when the tokenizer is loaded
        return None


def _appends_token(processor: Any) -> bool:
    """Return whether a post-processor of a `tokenizer.json` appends a token to a sequence."""
    if not isinstance(processor, dict):
        return False
    if processor.get("type") == "Sequence":
        return any(map(_appends_token, processor.get("processors") or ()))
    template = processor.get("single") or [{}] if processor.get("type") == "TemplateProcessing" else [{}]
    return "SpecialToken" in template[-1]


def _from_model_card(folder: Path) -> Evidence | None:
    """Read the title and the base model. The text does not tell: the official cards name both kinds in it."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    title = re.search(r"^# .*$", text, re.MULTILINE)
    header = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    base = re.search(r"^base_model:.*(?:\n\s*- .*)*", header[1], re.MULTILINE) if header else None
    lines = [match[0] for match in (title, base) if match is not None]
    return _from_names(lines, "its model card names {}")


def _from_base_of_adapter(adapter: Adapter) -> Evidence | None:
    base = Path(str(read_raw_config(adapter.folder).get("base_model_name_or_path"))).name
    return _from_names([base], f"it was trained on {base}")


def _from_names(texts: list[str], reason: str) -> Evidence | None:
    """Return the kind that the first of these texts names, unless it names both."""
    for text in texts:
        names = {match[0].lower(): match for match in _NAME.finditer(text)}
        if len(names) == 1:
            (match,) = names.values()
            kind: ModelKind = "embedding" if match[1].lower() == "embedding" else "reranker"
            return kind, reason.format(match[0])
    return None


def _read_json(path: Path) -> Any:
    """Return the content of a JSON file; None if it is missing or damaged, which is then no evidence."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
