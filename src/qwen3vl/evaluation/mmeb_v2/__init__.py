"""MMEB-v2: 78 data sets of images, videos and document pages, evaluated as the official scripts do.

The official scripts are those in `src/evaluation/mmeb_v2` of QwenLM/Qwen3-VL-Embedding.
"""
