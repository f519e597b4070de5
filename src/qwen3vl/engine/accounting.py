"""What a batch adds to the statistics of an engine."""

from __future__ import annotations

from collections.abc import Sequence

from qwen3vl.engine.batches import BatchResult
from qwen3vl.engine.stats import Stats
from qwen3vl.engine.timing import DeviceTimestamp


def batch_stats(result: BatchResult, active_since: DeviceTimestamp | None) -> Stats:
    """Count a batch.

    Args:
        result: The batch's result, whose forward pass has ended.
        active_since: Since when calls use the device: before that, it was not waiting for input.

    Returns:
        The counts.
    """
    requests, pack, device_result = result.requests, result.batch.pack, result.device_result
    calls = [queued.call.number for queued in requests]
    lengths = [len(queued.prepared.fitted.prompt) for queued in requests]
    num_calls = len(set(calls))
    waited_s = device_result.began.seconds_since(device_result.idle_since)
    if active_since is not None:
        waited_s = min(waited_s, device_result.began.seconds_since(active_since))
    began_s = device_result.began.host_time_s
    return Stats(
        items=len(requests),
        packs=1,
        call_packs=num_calls,
        tokens_requested=sum(lengths),
        tokens_computed=pack.num_tokens,
        tokens_shared_across_calls=(
            _tokens_of_separate_calls(calls, lengths, pack.prefix_lengths) - pack.num_tokens if num_calls > 1 else 0
        ),
        media_requested=sum(len(queued.prepared.fitted.media) for queued in requests),
        media_encoded=device_result.media_encoded,
        media_cached=device_result.media_cached,
        seconds_queued=sum(max(0.0, began_s - queued.ready_at) for queued in requests),
        seconds_waiting=max(0.0, waited_s),
        seconds_running=device_result.ended.seconds_since(device_result.began),
        flops=device_result.flops,
    )


def _tokens_of_separate_calls(calls: Sequence[int], lengths: Sequence[int], prefix_lengths: Sequence[int]) -> int:
    """Return how many tokens the prompts of a pack would take if each call had a pack of its own.

    Args:
        calls: The call of each prompt, in the order of the pack.
        lengths: The number of tokens of each prompt.
        prefix_lengths: How many tokens each prompt shares with the one before. Prompts are sorted, so two of them share
            as many as the least number between them.

    Returns:
        The number of tokens.
    """
    previous: dict[int, int] = {}
    total = 0
    for position, (call, length) in enumerate(zip(calls, lengths, strict=True)):
        shared = min(prefix_lengths[previous[call] + 1 : position + 1]) if call in previous else 0
        total += length - shared
        previous[call] = position
    return total
