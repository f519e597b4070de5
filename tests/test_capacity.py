"""`benchmarks.capacity`: the tables in docs/scale.md are what the commands there print."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from benchmarks import capacity
from tests.test_docs import blocks, read

COMMANDS = [line for line in blocks("docs/scale.md", "sh")[0].splitlines() if "benchmarks.capacity" in line]


@pytest.mark.parametrize("command", COMMANDS)
def test_tables_of_the_guide(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", shlex.split(command)[2:])
    capacity.main()
    assert capsys.readouterr().out in read("docs/scale.md")


def values(inputs: capacity.Inputs) -> dict[str, str]:
    return {row.quantity: row.value for row in capacity.rows_of(inputs)}


def test_quantities_follow_the_inputs() -> None:
    inputs = capacity.Inputs(pages=1e6, gpus=10, gpu_pages_per_s=10)
    assert values(inputs)["pages a second"] == "100"
    assert values(inputs)["GPU hours"] == "28"
    fewer = values(replace(inputs, dimensions=1024))
    assert float(fewer["MB/s of vectors to the store"]) == pytest.approx(0.4)
