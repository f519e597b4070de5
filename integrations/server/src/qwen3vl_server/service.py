"""The models behind the dialects: names, admission, parsing, and calls of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from qwen3vl.adapters.inputs import describe_input
from qwen3vl.backends import BackendOwner
from qwen3vl.embedder import Embedder
from qwen3vl.errors import InputError, ItemError
from qwen3vl.inputs import Input, Item, check_text
from qwen3vl.reranker import Reranker
from qwen3vl.results import Batch, truncate_vectors
from qwen3vl_server.byte_cache import ByteCache
from qwen3vl_server.errors import RequestError, items_error, query_failure
from qwen3vl_server.inputs import parse_input, parse_items_async, parse_query_async
from qwen3vl_server.quotas import Quota
from qwen3vl_server.settings import ServerSettings

Kind = Literal["embedder", "reranker"]
Role = Literal["query", "document"]
"""What a request says that its inputs are for."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model and its name in requests.

    Attributes:
        name: The name.
        model: The model.
    """

    name: str
    model: BackendOwner[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a model gave for the items of a request.

    Attributes:
        model: Name of the model.
        batch: Vectors, (n, dimensions) float32, or scores, (n,) float32. It has errors only if they were collected.
    """

    model: str
    batch: Batch


class ModelService:
    """Answers the requests of all dialects.

    Args:
        models: The models by kind.
        settings: Names and limits.
        further: Further models by kind and name: adapters of the same base.

    Attributes:
        models: The models by kind that answer requests without a name, with their names.
        settings: As above.
        waiting_items: Counts the items of the requests that are being answered.
        contents: Contents of media from earlier requests.

    Raises:
        ValueError: Two models of one kind have the same name.
    """

    def __init__(
        self,
        models: Mapping[Kind, BackendOwner[Any]],
        settings: ServerSettings,
        further: Mapping[Kind, Mapping[str, BackendOwner[Any]]],
    ) -> None:
        names = {"embedder": settings.embedder_name, "reranker": settings.reranker_name}
        self.models = {kind: ServedModel(names[kind] or public_name(model), model) for kind, model in models.items()}
        self._further = {
            kind: {name: ServedModel(name, model) for name, model in named.items()} for kind, named in further.items()
        }
        for kind, served in self.models.items():
            if served.name in further.get(kind, {}):
                raise ValueError(f"two models of the server have the name {served.name!r}; rename one")
        self.waiting_items = Quota(settings.max_waiting_items, "items waiting")
        self.contents = ByteCache(settings.max_cached_bytes)
        self.settings = settings
        self._max_items = settings.max_items
        self._instructions = {
            "query": settings.query_instruction or settings.document_instruction,
            "document": settings.document_instruction,
            None: None,
        }

    @property
    def ready(self) -> bool:
        """Whether all models can be used."""
        return not any(served.model.closed for _, served in self.all_models())

    def all_models(self) -> Iterator[tuple[Kind, ServedModel]]:
        """Return all models with their kinds, those first that answer requests without a name."""
        yield from self.models.items()
        for kind, named in self._further.items():
            for served in named.values():
                yield kind, served

    def find(self, kind: Kind, name: str | None) -> ServedModel:
        """Find the model that a request asks for.

        Args:
            kind: What it is to do.
            name: Its name; None is the one of `models`.

        Returns:
            The model.

        Raises:
            RequestError: It is not served, or closed.
        """
        served = self.models.get(kind)
        if served is None:
            raise RequestError(
                404, f"this server has no {kind}; start it with --{kind} MODEL", param="model", code="model_not_found"
            )
        if name not in (None, served.name):
            further = self._further.get(kind, {})
            if name not in further:
                names = ", ".join(repr(known) for known in (served.name, *further))
                raise RequestError(
                    404,
                    f"the model {name!r} does not exist; the {kind} of this server is {names}",
                    param="model",
                    code="model_not_found",
                )
            served = further[name]
        if served.model.closed:
            raise RequestError(503, f"the {kind} is closed; the server is shutting down")
        return served

    async def embed(
        self,
        values: Sequence[Any],
        *,
        model: str | None,
        dimensions: int | None = None,
        instruction: str | None = None,
        role: Role | None = None,
        truncate: bool = True,
        param: str = "input",
        parse: Callable[[Any], Item] = parse_input,
        collect: bool = False,
    ) -> Answer:
        """Embed inputs.

        Args:
            values: Inputs as JSON has them.
            model: Name of the model; None is the one that is served.
            dimensions: Truncate vectors to this many values, then normalize them; None keeps all.
            instruction: Instruction for inputs without one of their own; None is that of their role.
            role: What the inputs are for; None has the model's instruction.
            truncate: Whether texts are cut and media shrunk where a prompt is too long; otherwise that is an error.
            param: Field of the body that has the inputs, for errors.
            parse: Parses one input.
            collect: Whether errors of inputs are returned beside the vectors of the others.

        Returns:
            The vectors, in the order of the inputs.

        Raises:
            RequestError: The model is not served, a limit is exceeded, or inputs failed and `collect` is False.
        """
        served = self.find("embedder", model)
        embedder = cast("Embedder", served.model)
        if dimensions is not None and not 1 <= dimensions <= embedder.dimension:
            raise RequestError(
                400,
                f"dimensions is {dimensions}, and this model has vectors of 1 to {embedder.dimension} values",
                param="dimensions",
            )
        _check_instruction(instruction)
        with self.waiting_items.lease() as lease:
            lease.add(self._checked_count(values, param))
            inputs = await parse_items_async(values, parse)
            _raise_errors(inputs.errors, param, collect=collect)
            instruction = instruction or self._instructions[role]
            batch = await embedder.aembed(inputs.items, instruction=instruction, on_error="collect")
        if not truncate:
            _raise_errors(_truncation_errors(inputs.items, batch), param)
        if dimensions is not None and dimensions != embedder.dimension:
            batch = replace(batch, values=truncate_vectors(batch.values, dimensions))
        batch = replace(batch, errors=inputs.merge(batch.errors))
        _raise_errors(batch.errors, param, collect=collect)
        return Answer(served.name, batch)

    async def score(
        self,
        query: Any,
        documents: Sequence[Any],
        *,
        model: str | None,
        instruction: str | None = None,
        truncate: bool = True,
        params: tuple[str, str] = ("query", "documents"),
        collect: bool = False,
    ) -> Answer:
        """Score documents against a query.

        Args:
            query: An input as JSON has it.
            documents: Inputs as JSON has them.
            model: Name of the model; None is the one that is served.
            instruction: What makes a document relevant; None is the model's.
            truncate: As for `embed`.
            params: Fields of the body that have the query and the documents, for errors.
            collect: Whether errors of documents are returned beside the scores of the others.

        Returns:
            The scores, in the order of the documents.

        Raises:
            RequestError: As for `embed`, or the query failed.
        """
        served = self.find("reranker", model)
        _check_instruction(instruction)
        with self.waiting_items.lease() as lease:
            lease.add(self._checked_count(documents, params[1]))
            query_item = await parse_query_async(query, params[0])
            inputs = await parse_items_async(documents)
            _raise_errors(inputs.errors, params[1], collect=collect)
            batch = await _score(served.model, query_item, inputs.items, instruction, params[0])
        if not truncate:
            _raise_errors(_truncation_errors(inputs.items, batch), params[1])
        batch = replace(batch, errors=inputs.merge(batch.errors))
        _raise_errors(batch.errors, params[1], collect=collect)
        return Answer(served.name, batch)

    async def score_pairs(
        self,
        queries: Sequence[Any],
        documents: Sequence[Any],
        *,
        model: str | None,
        instruction: str | None,
        params: tuple[str, str],
    ) -> Answer:
        """Score each document against the query at the same index; the engine packs the pairs into common batches.

        Args:
            queries: Inputs as JSON has them.
            documents: As many inputs.
            model: As for `score`.
            instruction: As for `score`.
            params: As for `score`.

        Returns:
            The scores, in the order of the pairs.

        Raises:
            RequestError: As for `score`.
        """
        served = self.find("reranker", model)
        _check_instruction(instruction)
        with self.waiting_items.lease() as lease:
            lease.add(self._checked_count(documents, params[1]))
            query_inputs, inputs = await parse_items_async(queries), await parse_items_async(documents)
            for parsed, param in ((query_inputs, params[0]), (inputs, params[1])):
                _raise_errors(parsed.errors, param)
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(_score(served.model, query, [item], instruction, f"{params[0]}[{index}]"))
                        for index, (query, item) in enumerate(zip(query_inputs.items, inputs.items, strict=True))
                    ]
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors
        batches = [task.result() for task in tasks]
        _raise_errors([error.at(index) for index, batch in enumerate(batches) for error in batch.errors], params[1])
        values = np.concatenate([batch.values for batch in batches])
        return Answer(served.name, Batch(values, num_tokens=sum(batch.num_tokens for batch in batches)))

    def _checked_count(self, values: Sequence[Any], param: str) -> int:
        if not values:
            raise RequestError(400, f"{param} is empty; send at least one", param=param)
        if len(values) > self._max_items:
            raise RequestError(
                422,
                f"{param} has {len(values)} items, and at most {self._max_items} are accepted; send several requests",
                param=param,
                code="too_many_items",
            )
        return len(values)


def _truncation_errors(items: Sequence[Input], batch: Batch) -> list[ItemError]:
    errors = []
    for index, notice in sorted(batch.notices.items()):
        cause = InputError(f"it is too long: {notice}. Send less, or allow truncation")
        error = ItemError(index, describe_input(items[index]), str(cause))
        error.__cause__ = cause
        errors.append(error)
    return errors


def _check_instruction(instruction: str | None) -> None:
    try:
        check_text(instruction or "", "the instruction")
    except InputError as error:
        raise RequestError(400, str(error), param="instruction") from error


async def _score(
    model: BackendOwner[Any], query: Input, documents: Sequence[Input], instruction: str | None, query_param: str
) -> Batch:
    try:
        return await cast("Reranker", model).ascore(query, documents, instruction=instruction, on_error="collect")
    except InputError as error:
        raise query_failure(error, query_param) from error


def _raise_errors(errors: Sequence[ItemError], param: str, *, collect: bool = False) -> None:
    if errors and not collect:
        raise items_error(errors, param)


def public_name(model: BackendOwner[Any]) -> str:
    """Return the name of a model in requests, where the settings have none.

    Args:
        model: The model.

    Returns:
        A hub id as it is, and the last part of a folder's path, which is nobody else's business. A model in another
        process has the name that is in its recipe.
    """
    if not hasattr(model, "engine"):
        return model.recipe.model
    checkpoint = model.engine.checkpoint
    is_folder = checkpoint.name == str(checkpoint.folder)
    return checkpoint.folder.name if is_folder else checkpoint.name
