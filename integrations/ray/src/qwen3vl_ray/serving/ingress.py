"""The ingress: the application of `qwen3vl-server`, whose models are deployments."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI
from qwen3vl_server.app import create_app
from qwen3vl_server.settings import ServerSettings
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from qwen3vl.recipe import Recipe
from qwen3vl.settings import API_KEY_VARIABLE
from qwen3vl_ray.serving.backends import DeployedEmbedder, DeployedReranker, HandleEmbedder, HandleReranker
from qwen3vl_ray.serving.replicas import ModelChoice

log = logging.getLogger(__name__)
_DESCRIBE_PAUSE_S = 0.5
"""Seconds before replicas are asked again, while those of another version of the application answer."""


@dataclass(frozen=True, slots=True)
class ServedDeployment:
    """A deployment of a model.

    Attributes:
        handle: The deployment.
        choice: What its replicas load.
    """

    handle: DeploymentHandle[Any]
    choice: ModelChoice

    async def recipe(self) -> Recipe:
        """Return the recipe of its replicas, once one of this version of the application is there."""
        while True:
            try:
                recipe: Recipe | None = await self.handle.describe.remote(self.choice)
            except RayActorError:
                recipe = None
            if recipe is not None:
                return recipe
            await asyncio.sleep(_DESCRIBE_PAUSE_S)


class Ingress:
    """Parses requests and encodes answers; it loads no model, and needs no torch.

    Args:
        settings: Names and limits. Keys are in the environment variable QWEN3VL_API_KEY.
        embedder: The embedding model.
        reranker: The reranker.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self,
        settings: ServerSettings,
        *,
        embedder: ServedDeployment | None = None,
        reranker: ServedDeployment | None = None,
    ) -> None:
        self._settings = replace(settings, api_keys=os.environ.get(API_KEY_VARIABLE, "").split())
        if not self._settings.api_keys:
            log.warning(
                "everybody who reaches this deployment may use it: the environment variable %s of the nodes that run "
                "the ingress restricts it",
                API_KEY_VARIABLE,
            )
        self._embedder = self._reranker = None
        if embedder is not None:
            recipe = await embedder.recipe()
            self._embedder = DeployedEmbedder(HandleEmbedder(embedder.handle, recipe, embedder.choice.policy))
        if reranker is not None:
            recipe = await reranker.recipe()
            self._reranker = DeployedReranker(HandleReranker(reranker.handle, recipe, reranker.choice.policy))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Make the application; Ray Serve calls this after the constructor."""
        return create_app(embedder=self._embedder, reranker=self._reranker, settings=self._settings)
