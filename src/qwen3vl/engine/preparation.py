"""Preparation of requests: from an input to a prompt of token ids that fits the model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen3vl.engine.cancellation import Cancelled
from qwen3vl.engine.requests import PromptParts, Request, failed_request
from qwen3vl.processing.fitting import FittedPrompt, fit
from qwen3vl.processing.tokenizer import Tokenizer
from qwen3vl.results import ItemOutput

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRequest:
    """A request whose media have their size and whose prompt is tokenized.

    Attributes:
        request: The request.
        fitted: Its prompt, its media, and a notice if something was shrunk or truncated.
    """

    request: Request
    fitted: FittedPrompt

    def to_output(self, state: NDArray[np.float32]) -> ItemOutput:
        """Return the output of the request.

        Args:
            state: Final hidden state of the prompt's last token, (hidden_size,) float32.

        Returns:
            The output, with the prompt's notice and length.
        """
        return ItemOutput(self.request.index, state, notice=self.fitted.notice, num_tokens=len(self.fitted.prompt))


class RequestPreparer:
    """Reads the headers of requests' media and tokenizes their prompts. Thread-safe.

    Args:
        tokenizer: The model's tokenizer.
        max_length: Maximum number of tokens of a prompt.
        fit: Shrinks media and truncates text so that a prompt fits.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        fit: Callable[[PromptParts, Tokenizer, int], FittedPrompt] = fit,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._fit = fit

    def prepare(self, request: Request) -> PreparedRequest | ItemOutput:
        """Prepare a request. What was shrunk or truncated to fit is logged as a warning.

        Args:
            request: The request.

        Returns:
            The prepared request, or an output with an error if it cannot be run.

        Raises:
            Cancelled: It is no longer needed; see `cancellation_scope`.
        """
        try:
            fitted = self._fit(request.to_prompt(), self.tokenizer, self.max_length)
        except Cancelled:
            raise
        except Exception as error:  # whatever fails in one item must not stop the others
            return failed_request(request, error, getattr(error, "source", None))
        if fitted.notice:
            log.warning("item %d (%s): %s", request.index, request.source, fitted.notice)
        return PreparedRequest(request, fitted)
