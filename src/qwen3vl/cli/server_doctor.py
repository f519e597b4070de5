"""`qwen3vl doctor --url`: whether a server is reached, what it serves, and whether its models give sensible values."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter
from typing import Any

import httpx
import numpy as np

from qwen3vl.cli.findings import Finding
from qwen3vl.embedder import Embedder
from qwen3vl.errors import Qwen3VLError
from qwen3vl.recipe import Recipe
from qwen3vl.reranker import Reranker
from qwen3vl.settings import API_KEY_VARIABLE, VLLM_PREFIX, ClientSettings, server_urls

TIMEOUT_S = 60.0
_REPETITIONS = 5
_MIN_COSINE = 0.999
_MAX_DIFFERENCE = 0.01
"""Between values of equal inputs: in bfloat16, the other requests of a batch change the last digits."""
_MIB = 2**20


class _StopError(Exception):
    """Nothing further can be checked."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.details)
        self.finding = finding


def check_server(url: str) -> list[Finding]:
    """Check a server.

    Args:
        url: Its address.

    Returns:
        The findings, up to the first that makes further checks impossible.

    Raises:
        ValueError: It is no URL of one server.
    """
    urls = server_urls(url)
    if len(urls) != 1 or urls[0].startswith(VLLM_PREFIX):
        raise ValueError(f"{url!r} is not the URL of one server of `qwen3vl serve`; write http://HOST:PORT")
    findings: list[Finding] = []
    try:
        _Check(urls[0], findings.append).run()
    except _StopError as stop:
        findings.append(stop.finding)
    except httpx.HTTPError as error:
        details = f"{urls[0]} cannot be reached: {str(error) or type(error).__name__}"
        findings.append(Finding("server", "wrong", f"{details}. Check the address, and that the server runs"))
    return findings


@dataclass(frozen=True, slots=True)
class _Check:
    """The checks of one server."""

    url: str
    report: Callable[[Finding], None]

    def run(self) -> None:
        with httpx.Client(timeout=TIMEOUT_S) as http:
            self._check_reachable(http)
            described = self._check_key(http)
        self._check_version(described)
        self._check_models(described)

    def _check_reachable(self, http: httpx.Client) -> None:
        http.get(f"{self.url}/health")  # connects
        seconds = [_seconds(lambda: http.get(f"{self.url}/health")) for _ in range(_REPETITIONS)]
        ready = http.get(f"{self.url}/ready")
        self.report(Finding("server", "ok", f"{self.url} answers in {_milliseconds(seconds)}"))
        if ready.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            self.report(Finding("ready", "wrong", f"/ready has status 503: {ready.text}"))

    def _check_key(self, http: httpx.Client) -> Mapping[str, Any]:
        """Return the description of the models, for which a key is needed if the server has any."""
        path = f"{self.url}/qwen3vl/models"
        key = ClientSettings().api_key
        response = http.get(path)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            response = http.get(path, headers={"Authorization": f"Bearer {key}"} if key else {})
            if response.status_code == httpx.codes.UNAUTHORIZED:
                reason = f"it refuses the one in {API_KEY_VARIABLE}" if key else f"{API_KEY_VARIABLE} has none"
                details = f"the server asks for a key, and {reason}; set the variable to a key of the server"
                raise _StopError(Finding("API key", "wrong", details))
            self.report(Finding("API key", "ok", f"the server asks for one, and accepts that in {API_KEY_VARIABLE}"))
        else:
            details = "the server asks for none: everybody who reaches this address may use it"
            self.report(Finding("API key", "note", details))
        try:
            described: Any = response.json()
        except ValueError:
            described = None
        if response.status_code != httpx.codes.OK or not isinstance(described, dict):
            details = (
                f"{path} has status {response.status_code}: this is no server of qwen3vl. Give the address that "
                "`qwen3vl serve` prints, without /v1"
            )
            raise _StopError(Finding("description", "wrong", details))
        return described

    def _check_version(self, described: Mapping[str, Any]) -> None:
        here, there = version("qwen3vl"), described.get("version", "unknown")
        details = f"{there} in the server, {here} here"
        self.report(Finding("version of qwen3vl", "ok" if here == there else "note", details))

    def _check_models(self, described: Mapping[str, Any]) -> None:
        try:
            limits = described["limits"]
            details = (
                f"{limits['max_items']} inputs, {limits['max_body_bytes'] // _MIB} MiB and {limits['timeout_s']:g} s "
                f"for a request, {limits['max_media_bytes'] // _MIB} MiB for an image or video"
            )
            recipes = {
                kind: (described[kind]["name"], Recipe.from_dict(described[kind]["recipe"]))
                for kind in ("embedder", "reranker")
                if kind in described
            }
        except (KeyError, TypeError, Qwen3VLError) as error:
            details = f"not that of this version ({type(error).__name__}: {error}); use the same one on both sides"
            raise _StopError(Finding("description", "wrong", details)) from error
        self.report(Finding("limits", "ok", details))
        for kind, noun, test in (
            ("embedder", "embedding model", self._test_embedder),
            ("reranker", "reranker", self._test_reranker),
        ):
            if kind not in recipes:
                self.report(Finding(noun, "note", f"none; `qwen3vl serve --{kind} MODEL` serves one"))
                continue
            name, recipe = recipes[kind]
            details = (
                f"{name}: prompts of up to {recipe.max_length} tokens, images of up to {recipe.max_pixels} pixels, "
                f"recipe {recipe.digest}"
            )
            self.report(Finding(noun, "ok", details))
            try:
                self.report(test())
            except Qwen3VLError as error:
                self.report(Finding(f"test of the {noun}", "wrong", str(error)))

    def _test_embedder(self) -> Finding:
        with Embedder(self.url, timeout_s=TIMEOUT_S, max_retries=0) as embedder:
            first = embedder.embed("a red circle on the left")[0]
            vectors = []
            seconds = [
                _seconds(lambda: vectors.append(embedder.embed("a red circle on the left")[0]))
                for _ in range(_REPETITIONS)
            ]
        lengths = np.linalg.norm([first, *vectors], axis=1)
        valid = bool(np.all(abs(lengths - 1) < _MAX_DIFFERENCE)) and min(vectors @ first) > _MIN_COSINE
        details = (
            f"a text has the same vector of {len(first)} values each time, in {_milliseconds(seconds)}"
            if valid
            else f"one text has different vectors, or none of length 1: lengths {lengths.round(3).tolist()}, cosines "
            f"{(vectors @ first).round(3).tolist()}. Do the servers at this address have different models?"
        )
        return Finding("test of the embedding model", "ok" if valid else "wrong", details)

    def _test_reranker(self) -> Finding:
        query, documents = "a red circle", ["a round red shape", "a blue star"]
        with Reranker(self.url, timeout_s=TIMEOUT_S, max_retries=0) as reranker:
            scores = reranker.score(query, documents)
            others = []
            seconds = [
                _seconds(lambda: others.append(reranker.score(query, documents[::-1])[::-1]))
                for _ in range(_REPETITIONS)
            ]
        differences = abs(np.array(others) - scores)
        valid = bool(np.all((scores >= 0) & (scores <= 1))) and float(differences.max()) < _MAX_DIFFERENCE
        details = (
            f"two documents have the same scores in either order, in {_milliseconds(seconds)}"
            if valid
            else f"two documents have the scores {scores.round(3).tolist()}, and in the other order "
            f"{np.round(others, 3).tolist()}; they should be equal, and from 0 to 1"
        )
        return Finding("test of the reranker", "ok" if valid else "wrong", details)


def _seconds(call: Callable[[], Any]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


def _milliseconds(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.1f} ms (median of {len(seconds)})"
