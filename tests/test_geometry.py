"""Sizes, sampled frames and resizing equal those of qwen-vl-utils."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from qwen3vl.errors import MediaError
from qwen3vl.processing.geometry import FACTOR, Limits, sample_frame_list, sample_video_frames, smart_resize
from qwen3vl.processing.pixels import patches, resize_frames

vision_process = pytest.importorskip("qwen_vl_utils.vision_process")
sides = st.integers(1, 6000)


@settings(max_examples=500, deadline=None)
@given(sides, sides, st.integers(1, 200_000), st.integers(100_000, 3_000_000))
def test_picture_size(width: int, height: int, least: int, most: int) -> None:
    assume(max(width, height) / min(width, height) <= 200)
    expected = vision_process.smart_resize(height, width, factor=FACTOR, min_pixels=least, max_pixels=max(least, most))
    assume(min(expected) > 0)
    assert smart_resize(width, height, least, max(least, most)) == expected


@settings(max_examples=200, deadline=None)
@given(sides, sides, st.integers(4096, 20_000))
def test_every_size_is_whole_patches(width: int, height: int, most: int) -> None:
    assume(max(width, height) / min(width, height) <= 200)
    made = smart_resize(width, height, 4096, most)
    assert all(side >= FACTOR and side % FACTOR == 0 for side in made)


def test_long_strips_are_refused() -> None:
    with pytest.raises(MediaError, match="201 times"):
        smart_resize(2010, 10, 4096, 100_000)


@settings(max_examples=500, deadline=None)
@given(st.integers(2, 20_000), st.floats(0.5, 120), st.floats(0.05, 60), st.integers(2, 800), st.integers(0, 500))
def test_sampled_frames(count: int, rate: float, fps: float, most: int, first: int) -> None:
    expected = vision_process.smart_nframes({"fps": fps, "max_frames": most}, total_frames=count, video_fps=rate)
    places = sample_video_frames(first, count, rate, fps, most)
    assert places == torch.linspace(first, first + count - 1, expected).round().long().tolist()
    assert len(places) % 2 == 0


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(2, 200))
def test_sampled_lists(total: int, most: int) -> None:
    """The official scripts take frames by NumPy's linspace, cut to whole numbers."""
    places = sample_frame_list(total, most)
    expected = list(range(total)) if total <= most else np.linspace(0, total - 1, most, dtype=int).tolist()
    assert places == expected + expected[-1:] * (len(expected) % 2)


def test_clip_frames_are_resized_as_torchvision_does() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    frames = torch.randint(0, 256, (3, 57, 83, 3), dtype=torch.uint8)
    expected = functional.resize(
        frames.permute(0, 3, 1, 2), [96, 160], interpolation=functional.InterpolationMode.BICUBIC, antialias=True
    )
    torch.testing.assert_close(resize_frames(frames, 96, 160).permute(0, 3, 1, 2), expected, atol=0, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_patches_equal_the_installed_processor(frames: int) -> None:
    """A picture as transformers' own processor cuts it; a clip pair by pair."""
    qwen2_vl = pytest.importorskip("transformers").Qwen2VLImageProcessor
    pixels = torch.randint(0, 256, (frames, 96, 64, 3), dtype=torch.uint8)
    made = patches(pixels)
    assert made.shape == (max(frames // 2, 1) * 6 * 4, 3 * 2 * 16 * 16)
    if frames == 1:
        processor = qwen2_vl(patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3)
        expected = processor(Image.fromarray(pixels[0].numpy()), do_resize=False, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)
    else:
        first = patches(pixels[:2])
        torch.testing.assert_close(made[: len(first)], first, atol=0, rtol=0)


def test_limits_are_checked() -> None:
    for wrong in ({"min_pixels": 5000, "max_pixels": 4096}, {"max_length": 10}, {"fps": 0.0}, {"max_frames": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Limits(**wrong)
