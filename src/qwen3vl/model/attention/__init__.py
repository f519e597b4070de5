"""Attention over packed rows of tokens, in which shared prefixes stand once."""
