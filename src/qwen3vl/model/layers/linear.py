"""Linear layers, each with the operation that follows it in the model."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from qwen3vl.model.layers.initialization import DenseLinear


class LinearBase(nn.Module):
    """A linear layer, independent of the format of its weights.

    Subclasses implement `dense_weight`, and may override the other methods with fused kernels.

    Attributes:
        in_features: Size of an input row.
        out_features: Size of an output row.
        bias: (out_features,), or None.
        overwrites_residual: Whether `add_residual` may write its result into the residual.
    """

    in_features: int
    out_features: int
    bias: Tensor | None
    overwrites_residual: bool = False

    def dense_weight(self) -> Tensor:
        """Return the weight matrix as an ordinary tensor.

        Returns:
            (out_features, in_features), in the dtype of the activations.

        Raises:
            NotImplementedError: The subclass does not implement this method.
        """
        raise NotImplementedError

    def forward(self, rows: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            rows: (num_rows, in_features).

        Returns:
            (num_rows, out_features), in the dtype of `rows`.
        """
        return linear(rows, self.dense_weight(), self.bias)

    def gelu(self, rows: Tensor, approximate: str = "none") -> Tensor:
        """Apply the layer, then GELU.

        Args:
            rows: (num_rows, in_features).
            approximate: `"none"` or `"tanh"`, as in `torch.nn.functional.gelu`.

        Returns:
            (num_rows, out_features).
        """
        return gelu(self(rows), approximate=approximate)

    def silu_mul(self, rows: Tensor, up_proj: LinearBase, swiglu: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Apply this layer as the gate of a SwiGLU unit (Shazeer 2020, arXiv 2002.05202).

        Args:
            rows: (num_rows, in_features).
            up_proj: The layer whose output is multiplied by the gate.
            swiglu: Computes `silu(gate) * up`. Kernels that fuse this into the matrix product do not call it.

        Returns:
            `silu(self(rows)) * up_proj(rows)`, (num_rows, out_features).
        """
        return swiglu(self(rows), up_proj(rows))

    def add_residual(self, rows: Tensor, residual: Tensor) -> Tensor:
        """Apply the layer and add the residual.

        Args:
            rows: (num_rows, in_features).
            residual: (num_rows, out_features); see `overwrites_residual`.

        Returns:
            `residual + self(rows)`, (num_rows, out_features).
        """
        return self(rows).add_(residual)  # type: ignore[no-any-return]


class Linear(LinearBase):
    """A linear layer whose parameters have the names and shapes of `torch.nn.Linear`, as in checkpoints.

    Args:
        in_features: Size of an input row.
        out_features: Size of an output row.
        bias: Whether the layer has a bias.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        dense = DenseLinear(in_features, out_features, bias=bias)
        self.weight = dense.weight
        self.bias = dense.bias

    def dense_weight(self) -> Tensor:
        """Return the weights.

        Returns:
            (out_features, in_features).
        """
        return self.weight

    def add_residual(self, rows: Tensor, residual: Tensor) -> Tensor:
        """Apply the layer and add the residual; see `LinearBase.add_residual`.

        Args:
            rows: (num_rows, in_features).
            residual: (num_rows, out_features).

        Returns:
            (num_rows, out_features); `residual` itself if the layer has no bias and may overwrite it.
        """
        if self.overwrites_residual and self.bias is None:
            return residual.addmm_(rows, self.weight.t())
        return super().add_residual(rows, residual)
