"""Building blocks of the model: linear layers in several weight formats, and elementwise functions."""
