"""The replicas of a process: each checkpoint is loaded once per device while any engine uses it."""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from qwen3vl.concurrency.fork_safety import ForkSafeLock
from qwen3vl.engine.replica import LoadSpec, Replica
from qwen3vl.engine.worker import DeviceWorker, device_workers
from qwen3vl.model.layers.onednn import use_onednn_linears
from qwen3vl.model.layers.quantized import WeightFormat

_Weights = tuple[str, torch.dtype, WeightFormat | None, bool]
"""What identifies weights in memory: the checkpoint's digest, dtype and weight format, and whether it is compiled."""


class ReplicaPool:
    """Loads replicas, each at most once at a time, and shares them between engines.

    The pool refers to replicas weakly. Engines keep them alive: a replica's weights are freed when the last engine
    that uses them is closed or garbage collected, and while one of its forward passes still runs, after that. A vision
    tower that is shared by two models lives as long as either. Workers belong to devices, not to models, and live as
    long as the process.

    Thread-safe. Threads that ask for a checkpoint that is loading wait for it; others do not.
    """

    def __init__(self) -> None:
        # By weights, worker, and whether it runs CUDA graphs: replicas that differ in the latter share the weights.
        self._replicas: weakref.WeakValueDictionary[tuple[_Weights, DeviceWorker, bool], Replica] = (
            weakref.WeakValueDictionary()
        )
        self._loading: dict[_Weights, ForkSafeLock] = {}
        self._lock = ForkSafeLock()

    def get(self, load_spec: LoadSpec, devices: Sequence[torch.device]) -> list[Replica]:
        """Return a replica for each device, loading those that no engine uses.

        Args:
            load_spec: What to load, and how.
            devices: The devices. One that is named again gets a further worker, on the same weights.

        Returns:
            One replica for each entry of `devices`. The caller keeps them alive.

        Raises:
            ModelError: The checkpoint is incomplete, damaged or of another architecture.
        """
        # The folder is no part of the key: equal files in two folders are loaded once.
        weights = (load_spec.digest, load_spec.dtype, load_spec.weight_format, load_spec.compiled)
        with self._lock:
            loading = self._loading.setdefault(weights, ForkSafeLock())
        replicas: list[Replica] = []
        with loading:
            for worker in device_workers(devices):
                key = (weights, worker, load_spec.cuda_graphs)
                replica = self._replicas.get(key)
                if replica is None:
                    replica = self._create(load_spec, weights, worker)
                    with self._lock:
                        self._replicas[key] = replica
                replicas.append(replica)
        return replicas

    def _create(self, load_spec: LoadSpec, weights: _Weights, worker: DeviceWorker) -> Replica:
        """Load a replica, or build one from weights that another one on the same device uses.

        A loaded one takes over an equal vision tower, and stores its linear layers as oneDNN needs them.
        """
        with self._lock:
            loaded = [replica for (key, _, _), replica in self._replicas.items() if key == weights]
        for other in loaded:
            if other.device == worker.device:
                return Replica(load_spec, other.model, other.tokenizer, other.vision_cache, worker)
        replica = Replica.load(load_spec, worker)
        with self._lock:
            _share_vision_tower(replica, list(self._replicas.values()))
        use_onednn_linears(replica.model)
        _return_freed_memory()
        return replica


def _return_freed_memory() -> None:
    """Let glibc return to the system what loading has freed: quantized weights were in memory in full precision."""
    if sys.platform == "linux":
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if malloc_trim is not None:
            malloc_trim(0)


def _share_vision_tower(replica: Replica, others: Iterable[Replica]) -> None:
    """Replace a replica's vision tower by that of another model, if one is equal: weights, device and compilation.

    An embedding model and a reranker may have the same tower. If they share it, they also share its cache: an image
    that was embedded need not be encoded again to be reranked.
    """
    for other in others:
        if (
            replica.model.config.vision == other.model.config.vision
            and replica.load_spec.compiled == other.load_spec.compiled
            and _weights_equal(replica.model.visual.state_dict(), other.model.visual.state_dict())
        ):
            replica.model.visual, replica.vision_cache = other.model.visual, other.vision_cache
            return


def _weights_equal(weights: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return all(
        name in others
        and weight.device == others[name].device
        and weight.dtype == others[name].dtype
        and torch.equal(weight, _to_strided(others[name]))
        for name, weight in weights.items()
    )


def _to_strided(weight: Tensor) -> Tensor:
    """Convert a weight from oneDNN's blocked format, if it is in it, to a plain tensor."""
    return weight.to_dense() if weight.is_mkldnn else weight


REPLICAS = ReplicaPool()
"""The pool of this process."""
