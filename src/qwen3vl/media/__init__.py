"""References to pixels, guarded: a reference's header is read and judged before anything is decoded."""

from qwen3vl.media.policy import DEFAULT_POLICY, UNTRUSTED_POLICY, MediaPolicy, require_folders

__all__ = ["DEFAULT_POLICY", "UNTRUSTED_POLICY", "MediaPolicy", "require_folders"]
