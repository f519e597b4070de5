"""The scripts in `examples/`, run with the tiny models: metrics against chance, and output as it is documented."""

from __future__ import annotations

import importlib
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
BY_VECTORS = (
    *("text_classification", "text_qa", "text_retrieval"),
    *("image_classification", "visual_qa", "image_retrieval"),
)
NAMES = (*BY_VECTORS, "reranking", "multimodal_rag")
_METRIC = re.compile(r"^(\d+) \w+.*(?:accuracy|recall@1) ([\d.]+),.* by chance ([\d.]+)$", re.MULTILINE)
_DECIMAL = re.compile(r"\d+\.\d\d")


def run(name: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a script in this process and return what it prints."""
    capsys.readouterr()
    importlib.import_module(f"examples.{name}").main(list(arguments))
    return capsys.readouterr().out


def beats_chance(output: str) -> bool:
    """Whether a printed metric is five standard deviations above that of guesses."""
    match = _METRIC.search(output)
    assert match is not None, output
    count, metric, chance = int(match[1]), float(match[2]), float(match[3])
    return metric > chance + 5 * math.sqrt(chance * (1 - chance) / count)


def test_every_script_is_tested_and_documented() -> None:
    assert sorted(path.stem for path in (ROOT / "examples").glob("*.py")) == sorted(NAMES)
    assert re.findall(r"^python examples/(\w+)\.py$", PAGE, re.MULTILINE) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_output_is_the_documented_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines may change places, and decimals may differ a little, where two scores are nearly equal."""
    documented = re.search(rf"python examples/{name}\.py\n```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert documented is not None
    output = run(name, capsys)
    words, numbers = words_and_decimals(output)
    documented_words, documented_numbers = words_and_decimals(documented[1])
    assert words == documented_words
    assert numbers == pytest.approx(documented_numbers, abs=0.05)
    assert name not in BY_VECTORS or beats_chance(output)


def words_and_decimals(text: str) -> tuple[list[str], list[float]]:
    """The lines of a text without their decimals, in alphabetical order, and the decimals in the order of the lines."""
    lines = sorted((_DECIMAL.sub("#", line), _DECIMAL.findall(line)) for line in text.splitlines())
    return [words for words, _ in lines], [float(number) for _, numbers in lines for number in numbers]


@pytest.mark.parametrize("name", ["image_classification", "visual_qa", "image_retrieval"])
def test_random_weights_do_not_beat_chance(name: str, checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not beats_chance(run(name, capsys, "--model", str(checkpoints / "embedding")))


def test_reranking_improves_what_the_vectors_find(capsys: pytest.CaptureFixture[str]) -> None:
    """In both searches: recall@1 and MRR rise, and recall@5 does not fall."""
    cells = re.findall(r"(?:by vectors|reranked) +([\d.]+) +([\d.]+) +([\d.]+)\n", run("reranking", capsys))
    rows = [tuple(map(float, row)) for row in cells]
    assert len(rows) == 4
    for before, after in (rows[:2], rows[2:]):
        assert after[0] > before[0]
        assert after[1] >= before[1]
        assert after[2] > before[2]


def test_a_script_runs_as_a_process() -> None:
    process = subprocess.run(
        [sys.executable, "examples/text_qa.py"], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert process.returncode == 0, process.stderr
    assert beats_chance(process.stdout)
