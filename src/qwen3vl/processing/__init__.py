"""Turns parsed inputs into prompts: sizes of images and videos, templates, token ids, positions and pixels."""
