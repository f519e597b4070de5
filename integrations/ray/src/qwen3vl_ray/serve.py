"""`build_app`: the server of `qwen3vl-server` as an application of Ray Serve.

Needs the extra `serve`: `pip install "qwen3vl-ray[serve]"`.

Example:
    ```sh
    serve run qwen3vl_ray.serve:build_app embedder=tiny reranker=tiny
    ```
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from qwen3vl_server.settings import SERVER_POLICY, ServerSettings
from ray import serve
from ray.serve import Application

from qwen3vl.settings import engine_settings
from qwen3vl_ray.serving.ingress import Ingress, ServedDeployment
from qwen3vl_ray.serving.replicas import EmbedderReplica, ModelChoice, RerankerReplica

__all__ = ["ModelArguments", "ServeArguments", "build_app"]

MAX_ONGOING_CALLS = 64
"""Calls that a replica of a model has at a time: several batches. What exceeds it goes to the next replica."""
MAX_ONGOING_REQUESTS = 1024
"""Requests that a replica of the ingress has at a time. Its own limits are reached before."""
_SHUTDOWN_MARGIN_S = 10.0
"""Seconds beyond the longest request that a replica which is replaced may take to finish its requests."""
ROUTER = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"


class ModelArguments(BaseModel):
    """A model and its deployment.

    Attributes:
        model: Hub id, folder or `"tiny"`.
        settings: Further keyword arguments of `Embedder` or `Reranker`, such as `dtype` and `revision`; no `policy`.
        deployment: Options of the deployment, as `serve.deployment` has them: `num_replicas`, `autoscaling_config`,
            `ray_actor_options`.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    settings: dict[str, Any] = Field(default_factory=dict)
    deployment: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @field_validator("settings")
    @classmethod
    def _check_settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        others = {name: value for name, value in settings.items() if name not in ("instruction", "dimensions")}
        try:
            engine_settings("the model", others)
        except TypeError as error:
            raise ValueError(str(error)) from error
        if "policy" in settings:
            raise ValueError("the policy is that of the server; see media_urls and max_media_bytes")
        return settings


class ServeArguments(BaseModel):
    """What is served.

    Attributes:
        embedder: The embedding model, or its name alone.
        reranker: The reranker, or its name alone.
        server: Fields of `ServerSettings`, but for `api_keys`: those are in the environment variable QWEN3VL_API_KEY of
            the ingress.
        media_urls: Whether replicas fetch http(s) URLs of images and videos, from public addresses.
        max_media_bytes: Maximum size of an image or video in bytes.
        ingress: Options of the ingress' deployment.
    """

    model_config = ConfigDict(extra="forbid")

    embedder: ModelArguments | None = None
    reranker: ModelArguments | None = None
    server: dict[str, Any] = Field(default_factory=dict)
    media_urls: bool = False
    max_media_bytes: int = SERVER_POLICY.max_bytes
    ingress: dict[str, Any] = Field(default_factory=dict)

    @field_validator("server")
    @classmethod
    def _check_server(cls, server: dict[str, Any]) -> dict[str, Any]:
        if server.get("api_keys"):
            raise ValueError(
                "api_keys would be in the configuration, which Ray's dashboard shows: set the environment variable "
                "QWEN3VL_API_KEY of the nodes that run the ingress"
            )
        try:
            ServerSettings(**server)
        except TypeError as error:
            raise ValueError(str(error)) from error
        return server

    @model_validator(mode="after")
    def _check_models(self) -> ServeArguments:
        if self.embedder is None and self.reranker is None:
            raise ValueError("name a model to serve: embedder=MODEL, reranker=MODEL, or both")
        return self


def build_app(args: ServeArguments) -> Application:
    """Build the application, for `serve run`, `serve deploy` and `serve.run`.

    It has the deployments Ingress, Embedder and Reranker. The options of each can be overridden by those of the same
    name in a `serveConfigV2`.

    Args:
        args: What is served. Ray Serve parses it from the command line or the `args` of a configuration.

    Returns:
        The application.

    Example:
        ```python
        from ray import serve

        from qwen3vl_ray.serve import ModelArguments, ServeArguments, build_app

        serve.run(build_app(ServeArguments(embedder=ModelArguments(model="tiny"))), name="qwen3vl")
        ```
    """
    settings = ServerSettings(**args.server)
    policy = replace(SERVER_POLICY, urls=args.media_urls, max_bytes=args.max_media_bytes)
    models: dict[str, Any] = {}
    kinds = (("embedder", args.embedder, EmbedderReplica), ("reranker", args.reranker, RerankerReplica))
    for kind, arguments, replica in kinds:
        if arguments is None:
            continue
        choice = ModelChoice(arguments.model, policy, arguments.settings)
        options = {
            "max_ongoing_requests": MAX_ONGOING_CALLS,
            "request_router_config": {"request_router_class": ROUTER},
            "graceful_shutdown_timeout_s": settings.timeout_s + _SHUTDOWN_MARGIN_S,
            **arguments.deployment,
        }
        deployment: Any = serve.deployment(replica, name=kind.capitalize(), **options)
        # Ray Serve puts a handle in place of what `bind` returns.
        models[kind] = ServedDeployment(deployment.bind(choice), choice)
    options = {
        "max_ongoing_requests": MAX_ONGOING_REQUESTS,
        "graceful_shutdown_timeout_s": settings.timeout_s + _SHUTDOWN_MARGIN_S,
        **args.ingress,
    }
    ingress: Any = serve.deployment(serve.ingress()(Ingress), name="Ingress", **options)
    application: Application = ingress.bind(settings, **models)
    return application
