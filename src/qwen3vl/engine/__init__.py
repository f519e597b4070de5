"""What runs inputs through a model: on any number of devices, for any number of threads."""

from qwen3vl.engine.devices import choose_devices, choose_dtype
from qwen3vl.engine.engine import Engine
from qwen3vl.engine.requests import Request, RequestOutput, make_request

__all__ = ["Engine", "Request", "RequestOutput", "choose_devices", "choose_dtype", "make_request"]
