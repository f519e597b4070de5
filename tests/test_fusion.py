"""The layers that CUDA devices get give the results of the ordinary ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from qwen3vl.engine.packing import pack_prompts
from qwen3vl.model import Qwen3VL, VisionFeatures
from qwen3vl.model.layers import fusion
from qwen3vl.model.layers.elementwise import swiglu
from qwen3vl.model.layers.fusion import fuse_text_layers
from qwen3vl.model.layers.quantized import WeightFormat, quantize_rows, quantize_rows_fp8
from qwen3vl.model.weights import load_model
from tests.support.packed_prompts import UNLIMITED, encode


def run(model: Qwen3VL) -> Tensor:
    """Run prompts with shared prefixes, two of which show an image."""
    prompts = [encode([(100, 40), "image", (last, 20)]) for last in (300, 330)] + [encode([(100, 30), (500, 9)])]
    (pack,) = pack_prompts(prompts, UNLIMITED)
    assert pack.layout.links
    generator = torch.Generator().manual_seed(1)
    tokens, *deepstack = torch.randn(4, 6, model.config.text.hidden_size, generator=generator).to(model.dtype)
    with torch.inference_mode():
        result: Tensor = model(
            torch.from_numpy(pack.input_ids),
            torch.from_numpy(pack.position_ids),
            pack.layout,
            torch.from_numpy(pack.output_indices),
            torch.from_numpy(pack.vision_token_indices),
            VisionFeatures(tokens, tuple(deepstack)),
        )
    return result


@pytest.mark.parametrize("weight_format", [None, "int8", "fp8"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.06)])
def test_fused_layers_equal_ordinary_ones(
    checkpoints: Path, weight_format: WeightFormat | None, dtype: torch.dtype, tolerance: float
) -> None:
    model = load_model(checkpoints / "embedding", torch.device("cpu"), dtype, weight_format)
    expected = run(model)
    num_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    fuse_text_layers(model.language_model)
    assert all(isinstance(layer.mlp, fusion.FusedTextMLP) for layer in model.language_model.layers)
    assert sum(tensor.nbytes for tensor in model.state_dict().values()) < 1.01 * num_bytes
    torch.testing.assert_close(run(model), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_quantized_to_8_bit_floats_as_weights_are(dtype: torch.dtype) -> None:
    values = (torch.randn(9, 40) * torch.logspace(-20, 20, 9)[:, None]).to(dtype)
    values[3] = 0
    quantized, scale = quantize_rows_fp8(values)
    expected, expected_scale = quantize_rows(values.float(), "fp8")
    torch.testing.assert_close(scale, expected_scale, rtol=1e-6, atol=0)
    assert quantized.float().isfinite().all()
    difference = (quantized.float() - expected.float()).abs()
    assert (difference > 0).float().mean() < 0.01  # the scales are rounded differently in the last bit


def test_swiglu_without_gradients_takes_the_memory_of_the_gate() -> None:
    gate, up = torch.randn(2, 3, 4)
    expected = torch.nn.functional.silu(gate) * up
    assert torch.equal(swiglu(gate, up), expected)
    with torch.inference_mode():
        result = swiglu(gate, up)
    assert result.data_ptr() == gate.data_ptr()
    assert torch.equal(result, expected)
