"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) as peft saves them, merged into a model's weights."""
