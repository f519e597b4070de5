"""Training and evaluation of the tiny models that ship with the package."""
