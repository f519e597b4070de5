"""torch modules that skip their random initialisation on the meta device.

`load_model` builds the model on the meta device, where tensors have a shape but no values, and then assigns the
checkpoint's tensors. Initialising such tensors has no effect, but torch's meta implementation of `normal_` imports
`torch._dynamo`, `torch._inductor` and sympy, which takes seconds. On any other device these modules initialise
themselves as torch's own do, which training from random weights relies on.
"""

from __future__ import annotations

from torch import nn


class Embedding(nn.Embedding):
    """`torch.nn.Embedding` without initialisation on the meta device."""

    def reset_parameters(self) -> None:
        """Draw the weights as `torch.nn.Embedding` does, except on the meta device."""
        if not self.weight.is_meta:
            super().reset_parameters()


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` without initialisation on the meta device."""

    def reset_parameters(self) -> None:
        """Set the weights to 1 and the biases to 0, except on the meta device."""
        if not self.weight.is_meta:
            super().reset_parameters()


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` without initialisation on the meta device."""

    def reset_parameters(self) -> None:
        """Draw the weights as `torch.nn.Conv3d` does, except on the meta device."""
        if not self.weight.is_meta:
            super().reset_parameters()


class DenseLinear(nn.Linear):
    """`torch.nn.Linear` without initialisation on the meta device."""

    def reset_parameters(self) -> None:
        """Draw the weights as `torch.nn.Linear` does, except on the meta device."""
        if not self.weight.is_meta:
            super().reset_parameters()
