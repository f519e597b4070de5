"""Attention over packed rows of tokens, in which a shared prefix occurs once.

A row is divided into consecutive segments, without padding (`AttentionLayout`). Every segment attends to
itself. A `PrefixLink` lets the queries of segments attend to keys of an earlier segment as well: to the prefix that
their prompts share. Attention to each set of keys is computed on its own, and the results are merged by their
log-sum-exps, which is exact up to rounding. The method is known as cascade attention (FlashInfer, Ye et al. 2025,
arXiv 2501.01005) and as Hydragen (Juravsky et al. 2024, arXiv 2402.05099).

`prepare_attention` chooses between the two implementations: `BatchedAttention`, which runs everywhere, and
`VarlenAttention`, which needs a FlashAttention kernel for sequences of varying lengths (Dao et al. 2022,
arXiv 2205.14135).
"""
