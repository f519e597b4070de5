"""What both backends have in common: vLLM's servers of one model, which are probed, and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

from qwen3vl.client.chunks import arun_chunks, run_chunks
from qwen3vl.client.threads import in_thread
from qwen3vl.client.transport import Program, Transport
from qwen3vl.errors import RecipeError
from qwen3vl.inputs import Input, Item
from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy
from qwen3vl.processing.geometry import Limits
from qwen3vl.processing.sizing import UnsizedMedia, read_headers
from qwen3vl.processing.templates import PROMPT_VERSION, PromptContent
from qwen3vl.recipe import Recipe
from qwen3vl.results import ItemOutput
from qwen3vl.settings import SERVER_SETTINGS, ClientSettings, EngineSettings
from qwen3vl.vllm.checkpoint import ServedCheckpoint, open_checkpoint
from qwen3vl.vllm.probe import Probe, ServedModel, read_model
from qwen3vl.vllm.prompts import Call, PromptMaker, PromptParts, Refusals
from qwen3vl.vllm.requests import PromptSender, Task

if TYPE_CHECKING:
    from qwen3vl.engine import Engine

_VLLM = Program("vLLM server", "vllm serve")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of model.

    Attributes:
        task: What vLLM is asked for.
        max_length: Maximum number of tokens of a prompt, where the caller sets none.
        suffix_length: Number of tokens that a prompt may have beyond it.
        check: Checks what a server answers; returns the number of values of an answer.
        to_parts: Makes a prompt, for the comparison with vLLM's.
    """

    task: Task
    max_length: int
    suffix_length: int
    check: Callable[[Probe, EngineSettings], Coroutine[Any, Any, int]]
    to_parts: Callable[[PromptContent[UnsizedMedia]], PromptParts]


class VllmBackend:
    """Asks vLLM's servers for the values of items.

    Args:
        urls: The servers.
        settings: Key, time limits, media policy, tokenizer.
        arguments: What the caller has set; limits, `revision` and `check_model` among it count.
        kind: The kind of model.
        instruction: Instruction where neither an input nor a call has one.

    Attributes:
        recipe: Everything that decides the values, as far as vLLM tells it.

    Raises:
        ModelError: A server has another kind of model, or there is no tokenizer for it.
        RecipeError: The servers have different models.
        ServerError: A server cannot be reached, or refuses the key.
        ValueError: A limit is out of range, or more than a server takes.
    """

    def __init__(
        self,
        urls: Sequence[str],
        settings: ClientSettings,
        arguments: Mapping[str, Any],
        kind: Kind,
        instruction: str,
    ) -> None:
        names = (*SERVER_SETTINGS, "revision", "check_model")
        self._engine_settings = EngineSettings(
            **{name: arguments[name] for name in names if arguments.get(name) is not None}
        )
        self._settings = settings
        self._kind = kind
        limits = self._engine_settings.limits(max_length=kind.max_length, max_pixels=Limits.max_pixels)
        self._limits = replace(limits, max_length=limits.max_length + kind.suffix_length)
        connected = [self._connect(url) for url in urls]
        first = connected[0]
        for other in connected[1:]:
            if other.identity != first.identity:
                raise RecipeError(
                    f"{other.url} serves {other.identity}, and {first.url} {first.identity} (name, hub id or folder, "
                    "number of values of an answer); the servers of one object must have the same model under the same "
                    "name"
                )
        refusals = reduce(Refusals.combine, (each.refusals for each in connected))
        self._maker = PromptMaker(first.checkpoint.tokenizer, self._limits.max_length, refusals)
        self._transport = self._open_transport(urls)
        self._sender = PromptSender(self._transport, first.model.name, kind.task, self._maker)
        self.recipe = Recipe(
            model=first.model.root,
            revision=None,  # vLLM does not tell it
            weights=first.checkpoint.weights,
            prompt_version=PROMPT_VERSION,
            instruction=instruction,
            max_length=limits.max_length,
            min_pixels=limits.min_pixels,
            max_pixels=limits.max_pixels,
            total_pixels=limits.total_pixels,
            fps=limits.fps,
            max_frames=limits.max_frames,
            exif=self._engine_settings.exif,
            dimensions=first.num_values,
        )

    @property
    def policy(self) -> MediaPolicy:
        """Which files and addresses media references may reach."""
        return self._settings.policy

    @property
    def engine(self) -> Engine:
        """There is none."""
        raise AttributeError(f"the engine is vLLM, {', '.join(self._transport.urls)}; its /metrics has the statistics")

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._transport.closed

    def close(self) -> None:
        """Cancel running calls and close the connections."""
        self._transport.close()

    def read_headers(self, item: Item) -> PromptContent[UnsizedMedia]:
        """Read the headers of an item's media, under the caller's policy; see `sizing.read_headers`."""
        return read_headers(item, self._limits, self.policy, exif=self._engine_settings.exif)

    def _run(self, call: Call, inputs: Iterator[Input]) -> Generator[ItemOutput]:
        return run_chunks(self._transport, inputs, partial(self._sender.send_chunk, call))

    def _arun(self, call: Call, inputs: Iterator[Input]) -> AsyncGenerator[ItemOutput]:
        return arun_chunks(self._transport, inputs, partial(self._sender.send_chunk, call))

    def _open_transport(self, urls: Sequence[str]) -> Transport:
        transport = Transport(urls, self._settings, _VLLM)
        transport.answer_timeout_s = self._settings.timeout_s
        return transport

    def _connect(self, url: str) -> _Connected:
        """Probe a server."""
        transport = self._open_transport([url])
        try:
            return transport.submit(self._probe, transport).result()
        finally:
            transport.close()

    async def _probe(self, transport: Transport) -> _Connected:
        url = transport.urls[0]
        model = await read_model(transport)
        if model.max_length < self._limits.max_length:
            raise ValueError(
                f"max_length is {self._limits.max_length - self._kind.suffix_length}, for which vLLM has to take "
                f"{self._limits.max_length} tokens, and {url} takes {model.max_length}: pass a smaller max_length, or "
                f"start vLLM with --max-model-len {self._limits.max_length}"
            )
        tokenizer, revision = self._settings.tokenizer, self._engine_settings.revision
        checkpoint = await in_thread(open_checkpoint, model.root, tokenizer, revision)
        probe = Probe(transport, model, checkpoint.tokenizer)
        await probe.check_tokenizer()
        num_values = await self._kind.check(probe, self._engine_settings)
        refusals = await probe.find_refusals(self._parts_of_probe)
        return _Connected(url, model, checkpoint, num_values, refusals)

    def _parts_of_probe(self, item: Item) -> PromptParts:
        return self._kind.to_parts(read_headers(item, self._limits, DEFAULT_POLICY, exif=False))


@dataclass(frozen=True, slots=True, eq=False)
class _Connected:
    """What the probe of a server has found.

    Attributes:
        url: The server.
        model: Its model.
        checkpoint: The model's files.
        num_values: Number of values of an answer.
        refusals: What it cannot be sent.
    """

    url: str
    model: ServedModel
    checkpoint: ServedCheckpoint
    num_values: int
    refusals: Refusals

    @property
    def identity(self) -> tuple[str, str, int]:
        """What has to be equal for servers of one object."""
        return self.model.name, self.model.root, self.num_values
