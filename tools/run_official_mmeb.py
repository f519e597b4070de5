"""Runs the official evaluation of MMEB-v2, from a checkout of QwenLM/Qwen3-VL-Embedding, on a CPU in float32.

It is for the Python that has the official dependencies; `compare_mmeb.py` calls it. The scripts are run as they are,
except that they ask for CUDA, FlashAttention and bfloat16, and get the CPU, torch's attention and float32, and that
they find data sets of the hub in folders of the same names.

    python run_official_mmeb.py CHECKOUT DATA OUT --datasets A,B --embedder DIR [--reranker DIR --topk N]
"""

from __future__ import annotations

import argparse
import importlib
import os
import pickle
import sys
from pathlib import Path
from typing import Any

BATCH_SIZE = 16
"""As in `scripts/evaluation/mmeb_v2/eval_embedding.sh`."""
MODALITIES = ("image", "video", "visdoc")


def main() -> None:
    """Run the scripts for each part of the benchmark that has one of the data sets."""
    parser = argparse.ArgumentParser()
    for name in ("checkout", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--datasets", required=True)
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--reranker", type=Path)
    parser.add_argument("--topk", type=int, default=100)
    options = parser.parse_args()
    names = options.datasets.split(",")
    # load_dataset("OWNER/NAME") reads the folder OWNER/NAME of the current folder, if there is one.
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=str(options.out / "cache"))
    sys.path.insert(0, str(options.checkout))
    os.chdir(options.data / "annotation")
    use_cpu()
    for modality in MODALITIES:
        folder = options.out / modality
        scripts = options.checkout / "scripts/evaluation/mmeb_v2"
        if config := write_config(scripts / f"{modality}.yaml", names, folder / "config.yaml"):
            run("eval_embedding", options.embedder, config, options.data, folder, "--normalize", "true")
            save_vectors(folder)
        if options.reranker is None:
            continue
        if config := write_config(scripts / f"{modality}_retrieval.yaml", names, folder / "retrieval.yaml"):
            arguments = ("--rerank_output_path", str(folder), "--topk", str(options.topk))
            run("eval_reranker", options.reranker, config, options.data, folder, *arguments)


def use_cpu() -> None:
    """Let the scripts load their models on the CPU in float32."""
    torch = importlib.import_module("torch")
    torch.cuda.get_device_name = lambda *_: "CPU"
    for module, name in (("qwen3_vl_embedding", "Qwen3VLEmbedder"), ("qwen3_vl_reranker", "Qwen3VLReranker")):
        loaded_class = getattr(importlib.import_module(f"src.models.{module}"), name)
        loaded_class.__init__ = _on_cpu(loaded_class.__init__, torch.float32)


def _on_cpu(initialize: Any, dtype: Any) -> Any:
    def replaced(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **{**kwargs, "attn_implementation": "sdpa", "torch_dtype": dtype})

    return replaced


def write_config(official: Path, names: list[str], file: Path) -> Path | None:
    """Write the entries of an official YAML file that are asked for; return None if it has none of them."""
    yaml = importlib.import_module("yaml")
    entries = yaml.safe_load(official.read_text(encoding="utf-8"))
    chosen = {name: entry for name, entry in entries.items() if name in names}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(chosen, sort_keys=False), encoding="utf-8")
    return file if chosen else None


def run(script: str, model: Path, config: Path, data: Path, out: Path, *arguments: str) -> None:
    """Call the `main` of an official script."""
    sys.argv = [
        script,
        *("--model_name_or_path", str(model)),
        *("--dataset_config", str(config)),
        *("--data_basedir", str(data)),
        *("--encode_output_path", str(out)),
        *("--per_device_eval_batch_size", str(BATCH_SIZE)),
        *arguments,
    ]
    importlib.import_module(f"src.evaluation.mmeb_v2.{script}").main()


def save_vectors(folder: Path) -> None:
    """Write the vectors in the pickles that the script has written as arrays, which others can read safely."""
    numpy = importlib.import_module("numpy")
    for side in ("qry", "tgt"):
        for file in folder.glob(f"*_{side}"):
            vectors = pickle.loads(file.read_bytes())  # noqa: S301 (written above)
            numpy.save(f"{file}.npy", numpy.stack(list(vectors.values())) if side == "tgt" else vectors)


if __name__ == "__main__":
    main()
