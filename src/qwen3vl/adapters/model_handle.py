"""A strong reference to the model that a framework integration's object uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # imported when a model is first used
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker

ModelT = TypeVar("ModelT", "Embedder", "Reranker")


@dataclass(slots=True)
class ModelHandle:
    """Keeps the model that was used last alive for as long as the handle lives.

    `ModelRegistry` holds models weakly, so an object that uses one must hold it. The object asks the registry for its
    model at every use, because its fields may have changed or the model may have been released:

    ```python
    return self._model.hold(MODELS.embedder(**self.engine_arguments(self.model, self.instruction)))
    ```

    Pickles and deep copies of a handle hold no model; a copy in another process loads its own. Handles compare
    equal, so that objects with equal settings are equal whether their model is loaded or not.

    Attributes:
        model: The model that was used last; None if none was used.
    """

    model: Embedder | Reranker | None = field(default=None, compare=False, repr=False)

    def hold(self, model: ModelT) -> ModelT:
        """Hold a model instead of the one held so far.

        Args:
            model: The model.

        Returns:
            The same model.
        """
        self.model = model
        return model

    def __reduce__(self) -> tuple[type[ModelHandle], tuple[()]]:
        return type(self), ()
