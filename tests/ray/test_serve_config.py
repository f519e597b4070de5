"""Arguments of `build_app`, and the configuration for KubeRay."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from qwen3vl_ray.serve import ModelArguments, ServeArguments, build_app
from qwen3vl_ray.serving.ingress import Ingress
from qwen3vl_server import ServerSettings
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from tests.test_docs import ROOT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "name a model to serve"),
        ({"embedder": {"model": "tiny", "settings": {"device_": "cpu"}}}, "unknown|unexpected"),
        ({"embedder": {"model": "tiny", "settings": {"policy": None}}}, "media_urls"),
        ({"embedder": "tiny", "server": {"max_item": 1}}, "max_item"),
        ({"embedder": "tiny", "server": {"max_items": 0}}, "more than 0"),
        ({"embedder": "tiny", "server": {"api_keys": ["key"]}}, "QWEN3VL_API_KEY"),
        ({"embedder": "tiny", "embeder": "tiny"}, "embeder"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServeArguments(**arguments)
    assert ServeArguments(embedder="tiny").embedder == ModelArguments(model="tiny")  # type: ignore[arg-type]


def test_configuration_for_kuberay() -> None:
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load((ROOT / "deploy/kuberay.yaml").read_text(encoding="utf-8"))
    (config,) = ServeDeploySchema(**yaml.safe_load(service["spec"]["serveConfigV2"])).applications
    assert config.import_path == f"{build_app.__module__}:{build_app.__name__}"
    app: Any = build_app(ServeArguments(**config.args))
    names = {app._bound_deployment.name, *(served.name for served in models_of(app))}
    assert names == {deployment.name for deployment in config.deployments} == {"Ingress", "Embedder", "Reranker"}
    for deployment in config.deployments:
        assert isinstance(AutoscalingConfig(**deployment.autoscaling_config), AutoscalingConfig)  # type: ignore[arg-type]
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["spec"]["containers"]


def models_of(app: Any) -> list[Any]:
    return [served.handle._bound_deployment for served in app._bound_deployment.init_kwargs.values()]


def test_ingress_is_imported_without_torch() -> None:
    script = "import sys\nimport qwen3vl_ray.serving.ingress\nassert 'torch' not in sys.modules, sorted(sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("key", "warns"), [("", True), ("a-key", False)])
async def test_ingress_without_a_key_warns(
    key: str, warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("QWEN3VL_API_KEY", key)
    ingress: Any = Ingress.__new__(Ingress)
    await ingress.__init__(ServerSettings())
    assert ("everybody who reaches this deployment may use it" in caplog.text) == warns
