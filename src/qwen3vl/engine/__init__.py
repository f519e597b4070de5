"""The engine: runs prompts through a model, on any number of devices and for any number of threads.

`Engine` owns a `Scheduler`. Requests of all its callers go through one `RequestQueue` (`calls`, `request_queue`,
`fairness`). They are prepared and their media decoded (`input_pipeline`, `preparation`, `media_decoder`), packed
(`batches`, `packing`, `prefix_tree`) and run on replicas of the model (`replica`, `replica_pool`, `executor`), each on
its device's `worker`.
"""

from qwen3vl.engine.devices import choose_devices, choose_dtype
from qwen3vl.engine.engine import Engine
from qwen3vl.engine.requests import UnparsedRequest
from qwen3vl.engine.stats import Stats

__all__ = [
    "Engine",
    "Stats",
    "UnparsedRequest",
    "choose_devices",
    "choose_dtype",
]
