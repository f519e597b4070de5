"""Linear layers and elementwise functions of the model."""
