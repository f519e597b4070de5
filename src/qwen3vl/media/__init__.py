"""Opens media references under a policy. An image's or video's header is read and checked before it is decoded."""

from qwen3vl.media.policy import DEFAULT_POLICY, UNTRUSTED_POLICY, MediaPolicy, policy_for_documents

__all__ = ["DEFAULT_POLICY", "UNTRUSTED_POLICY", "MediaPolicy", "policy_for_documents"]
