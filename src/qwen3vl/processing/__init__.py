"""From parsed inputs to prompts: image and video sizes, prompt templates, token ids, positions and pixels."""
