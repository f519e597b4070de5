"""Embedding models given as rerankers, and the reverse, are refused by what their files say."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from qwen3vl import Embedder, ModelError, Reranker
from qwen3vl.model.hub import Checkpoint, resolve_checkpoint
from qwen3vl.model.kind import find_evidence

MODULES = "sentence_transformers.{}"
EMBEDDING_CARD = """---
license: apache-2.0
base_model:
  - Qwen/Qwen3-VL-2B-Instruct
---
# Qwen3-VL-Embedding-2B

The **Qwen3-VL-Embedding** and **Qwen3-VL-Reranker** model series.
"""
FINE_TUNED_RERANKER_CARD = """---
base_model: Qwen/Qwen3-VL-Reranker-8B
---
# Judge of receipts
"""


def modules(*types: str) -> str:
    return json.dumps(
        [{"idx": index, "type": f"sentence_transformers.models.{name}"} for index, name in enumerate(types)]
    )


def pipeline(model_type: str) -> str:
    return json.dumps({"model_type": model_type, "prompts": {"default": "Represent the user's input."}})


SAYS_EMBEDDING: list[dict[str, str]] = [
    {"config_sentence_transformers.json": pipeline("SentenceTransformer")},
    {"modules.json": modules("Transformer", "Pooling", "Normalize")},
    {"1_Pooling/config.json": '{"pooling_mode": "lasttoken"}'},
    {"README.md": EMBEDDING_CARD},
]
SAYS_RERANKER: list[dict[str, str]] = [
    {"config_sentence_transformers.json": pipeline("CrossEncoder")},
    {"modules.json": modules("Transformer", "LogitScore")},
    {"modules.json": modules("Transformer", "CausalScoreHead")},
    {"1_LogitScore/config.json": '{"true_token_id": 9693, "false_token_id": 2152}'},
    {"1_CausalScoreHead/config.json": "{}"},
    {"README.md": FINE_TUNED_RERANKER_CARD},
    # A reranker with a pooling layer, and one that was made from an embedding model.
    {"config_sentence_transformers.json": pipeline("CrossEncoder"), "modules.json": modules("Transformer", "Pooling")},
    {"modules.json": modules("LogitScore"), "README.md": EMBEDDING_CARD},
]
SAYS_NOTHING: list[dict[str, str]] = [
    {},
    {"config_sentence_transformers.json": '{"prompts": {}}'},
    {"config_sentence_transformers.json": '{"model_type": ["CrossEncoder"]}', "modules.json": '{"type": "LogitScore"}'},
    {"modules.json": '[1, {}, {"type": null}]', "README.md": "# A model\n"},
    {"modules.json": "{torn", "config_sentence_transformers.json": "\x00"},
    {"README.md": "# Qwen3-VL-Embedding and Qwen3-VL-Reranker, merged\n"},
    {"README.md": "A fine-tune that was compared with Qwen3-VL-Embedding-2B.\n"},
]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def link_checkpoint(source: Path, folder: Path) -> Path:
    """A copy of a checkpoint; the large files are links."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


@pytest.mark.parametrize("files", SAYS_EMBEDDING)
def test_files_of_an_embedding_model_say_so(files: dict[str, str], tmp_path: Path) -> None:
    evidence = find_evidence(Checkpoint(write(tmp_path, files), "model"))
    assert evidence is not None
    assert evidence[0] == "embedding"


@pytest.mark.parametrize("files", SAYS_RERANKER)
def test_files_of_a_reranker_say_so(files: dict[str, str], tmp_path: Path) -> None:
    evidence = find_evidence(Checkpoint(write(tmp_path, files), "model"))
    assert evidence is not None
    assert evidence[0] == "reranker"


@pytest.mark.parametrize("files", SAYS_NOTHING)
def test_files_that_name_no_kind_or_are_damaged_say_nothing(files: dict[str, str], tmp_path: Path) -> None:
    assert find_evidence(Checkpoint(write(tmp_path, files), "model")) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Qwen/Qwen3-VL-Embedding-2B", "embedding"),
        ("/models/Qwen3-VL-Reranker-8B", "reranker"),
        ("someone/qwen3-vl-reranker-2b-receipts", "reranker"),
        ("/models/Qwen3-VL-Reranker-8B/checkpoint-100", None),
        ("someone/my-embedding", None),
    ],
)
def test_names_of_the_official_models_say_the_kind(name: str, kind: str | None, tmp_path: Path) -> None:
    evidence = find_evidence(Checkpoint(tmp_path, name))
    assert (evidence and evidence[0]) == kind


def test_golden_and_tiny_models_are_recognised_by_their_tokenizers(checkpoints: Path) -> None:
    for folder in (checkpoints / "embedding", resolve_checkpoint("tiny", "embedding").folder):
        evidence = find_evidence(Checkpoint(folder, "model"))
        assert evidence is not None
        assert evidence[0] == "embedding"
        with pytest.raises(ModelError, match="an embedding model, not a reranker: its tokenizer ends every sequence"):
            Reranker(folder, device="cpu")
    for folder in (checkpoints / "reranker", resolve_checkpoint("tiny", "reranker").folder):
        assert find_evidence(Checkpoint(folder, "model")) is None  # its tokenizer is that of every Qwen3-VL


def test_refusal_names_the_model_the_evidence_and_the_fix_before_weights_are_read(tmp_path: Path) -> None:
    """The folders have no weights at all."""
    embedding = write(tmp_path / "embedding", {"modules.json": modules("Transformer", "Pooling")})
    reranker = write(tmp_path / "reranker", {"modules.json": modules("Transformer", "LogitScore")})
    cases: list[tuple[Any, Path, str]] = [
        (
            Reranker,
            embedding,
            "is an embedding model, not a reranker: it has the module Pooling .* Load it as Embedder",
        ),
        (
            Embedder,
            reranker,
            "is a reranker, not an embedding model: it has the module LogitScore .* Load it as Reranker",
        ),
    ]
    for model_class, folder, message in cases:
        with pytest.raises(ModelError, match=f"^{folder} {message}, or name .*Qwen/Qwen3-VL-.*check_model=False"):
            model_class(folder, device="cpu")


def test_check_model_false_loads_it_with_a_warning(
    checkpoints: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reranker = write(link_checkpoint(checkpoints / "reranker", tmp_path / "model"), SAYS_RERANKER[1])
    with pytest.raises(ModelError, match="is a reranker"):
        Embedder(reranker, device="cpu")
    with caplog.at_level(logging.WARNING):
        with Embedder(reranker, device="cpu", check_model=False) as embedder:
            assert embedder.embed("a").shape == (1, 96)
        with Reranker(checkpoints / "embedding", device="cpu", check_model=False) as insisted:
            assert insisted.score("a", ["b"]).shape == (1,)
    assert "is a reranker, not an embedding model" in caplog.text
    assert "is an embedding model, not a reranker" in caplog.text


def test_fine_tuned_model_without_these_files_loads_as_either(checkpoints: Path, tmp_path: Path) -> None:
    folder = link_checkpoint(checkpoints / "reranker", tmp_path / "fine-tune")
    with Embedder(folder, device="cpu") as embedder, Reranker(folder, device="cpu") as reranker:
        assert embedder.embed("a").shape == (1, 96)
        assert reranker.score("a", ["b"]).shape == (1,)


def test_files_that_say_the_kind_are_downloaded(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client is replaced by a function that copies what is asked for, since tests have no network."""
    published = write(tmp_path / "published", {**SAYS_RERANKER[1], **SAYS_RERANKER[3], "pytorch_model.bin": ""})
    shutil.copy(checkpoints / "reranker" / "config.json", published)

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        for pattern in allow_patterns:
            for file in published.glob(pattern):
                write(tmp_path / "commit", {file.relative_to(published).as_posix(): file.read_text(encoding="utf-8")})
        return str(tmp_path / "commit")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ModelError, match="someone/judge is a reranker, not an embedding model: it has the module"):
        Embedder("someone/judge", device="cpu")
    assert sorted(path.name for path in (tmp_path / "commit").iterdir()) == [
        "1_LogitScore",
        "config.json",
        "modules.json",
    ]
