"""References to pixels, guarded: a reference's header is read and judged before anything is decoded."""

from qwen3vl.media.policy import DEFAULT_POLICY, UNTRUSTED_POLICY, MediaPolicy, check_named

__all__ = ["DEFAULT_POLICY", "UNTRUSTED_POLICY", "MediaPolicy", "check_named"]
