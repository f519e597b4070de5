"""What runs inputs through a model: on any number of devices, for any number of threads."""

from qwen3vl.engine.devices import choose_devices, choose_dtype
from qwen3vl.engine.jobs import Job, Outcome, job_of
from qwen3vl.engine.loop import Engine, EngineOptions

__all__ = ["Engine", "EngineOptions", "Job", "Outcome", "choose_devices", "choose_dtype", "job_of"]
