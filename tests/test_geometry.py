"""Sizes, sampled frames and resizing equal those of qwen-vl-utils and transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from qwen3vl.errors import MediaError
from qwen3vl.processing import geometry
from qwen3vl.processing.geometry import (
    IMAGE_FACTOR,
    IMAGE_MAX_TOKEN_NUM,
    Limits,
    sample_frame_list,
    sample_video_frames,
    smart_resize,
)
from qwen3vl.processing.pixels import patches, resize_frame_array, resize_frames

vision_process = pytest.importorskip("qwen_vl_utils.vision_process")
sides = st.integers(1, 6000)


def test_constants_equal_those_of_qwen_vl_utils() -> None:
    names = ("MAX_RATIO", "SPATIAL_MERGE_SIZE", "IMAGE_MIN_TOKEN_NUM", "VIDEO_MIN_TOKEN_NUM", "VIDEO_MAX_TOKEN_NUM")
    for name in (*names, "FRAME_FACTOR", "FPS_MIN_FRAMES"):
        assert getattr(geometry, name) == getattr(vision_process, name), name
    assert vision_process.IMAGE_MAX_TOKEN_NUM == IMAGE_MAX_TOKEN_NUM


@settings(max_examples=500, deadline=None)
@given(sides, sides, st.integers(1, 200_000), st.integers(100_000, 3_000_000))
def test_image_size_equals_smart_resize(width: int, height: int, min_pixels: int, max_pixels: int) -> None:
    assume(max(width, height) / min(width, height) <= 200)
    max_pixels = max(min_pixels, max_pixels)
    expected = vision_process.smart_resize(
        height, width, factor=IMAGE_FACTOR, min_pixels=min_pixels, max_pixels=max_pixels
    )
    assume(min(expected) > 0)
    assert smart_resize(width, height, min_pixels, max_pixels) == expected


@settings(max_examples=200, deadline=None)
@given(sides, sides, st.integers(4096, 20_000))
def test_sides_are_positive_multiples_of_the_factor(width: int, height: int, max_pixels: int) -> None:
    assume(max(width, height) / min(width, height) <= 200)
    size = smart_resize(width, height, 4096, max_pixels)
    assert all(side >= IMAGE_FACTOR and side % IMAGE_FACTOR == 0 for side in size)


def test_image_with_a_ratio_above_200_is_refused() -> None:
    with pytest.raises(MediaError, match="201 times"):
        smart_resize(2010, 10, 4096, 100_000)


@settings(max_examples=500, deadline=None)
@given(st.integers(2, 20_000), st.floats(0.5, 120), st.floats(0.05, 60), st.integers(2, 800), st.integers(0, 500))
def test_video_frames_equal_smart_nframes(
    num_frames: int, frame_rate: float, fps: float, max_frames: int, first_frame: int
) -> None:
    expected = vision_process.smart_nframes(
        {"fps": fps, "max_frames": max_frames}, total_frames=num_frames, video_fps=frame_rate
    )
    frame_indices = sample_video_frames(first_frame, num_frames, frame_rate, fps, max_frames)
    last_frame = first_frame + num_frames - 1
    assert frame_indices == torch.linspace(first_frame, last_frame, expected).round().long().tolist()
    assert len(frame_indices) % 2 == 0


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(2, 200))
def test_frame_list_is_sampled_like_numpy_linspace(num_frames: int, max_frames: int) -> None:
    """The official scripts take NumPy's linspace with dtype int; an odd number of frames is made even."""
    expected = list(range(num_frames))
    if num_frames > max_frames:
        expected = np.linspace(0, num_frames - 1, max_frames, dtype=int).tolist()
    assert sample_frame_list(num_frames, max_frames) == expected + expected[-1:] * (len(expected) % 2)


def test_video_frames_are_resized_as_torchvision_does() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    frames = torch.randint(0, 256, (3, 57, 83, 3), dtype=torch.uint8)
    expected = functional.resize(
        frames.permute(0, 3, 1, 2), [96, 160], interpolation=functional.InterpolationMode.BICUBIC, antialias=True
    )
    torch.testing.assert_close(resize_frames(frames, 96, 160).permute(0, 3, 1, 2), expected, atol=0, rtol=0)
    for frame, expected_frame in zip(frames, expected, strict=True):
        resized = resize_frame_array(frame.numpy(), 96, 160)
        np.testing.assert_array_equal(resized, expected_frame.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("num_frames", [1, 2, 4])
def test_patches_equal_those_of_the_transformers_processor(num_frames: int) -> None:
    """An image is compared with the installed processor; a video is cut frame pair by frame pair."""
    processor_class = pytest.importorskip("transformers").Qwen2VLImageProcessor
    pixels = torch.randint(0, 256, (num_frames, 96, 64, 3), dtype=torch.uint8)
    rows = patches(pixels)
    assert rows.shape == (max(num_frames // 2, 1) * 6 * 4, 3 * 2 * 16 * 16)
    if num_frames == 1:
        processor = processor_class(patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3)
        image = Image.fromarray(pixels[0].numpy())
        expected = processor(image, do_resize=False, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(rows, expected, atol=1e-6, rtol=0)
    else:
        expected = torch.cat([patches(pixels[start : start + 2]) for start in range(0, num_frames, 2)])
        torch.testing.assert_close(rows, expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    "limits",
    [{"min_pixels": 5000, "max_pixels": 4096}, {"max_length": 10}, {"fps": 0.0}, {"max_frames": 1}],
    ids=["pixels", "length", "fps", "frames"],
)
def test_limits_that_cannot_be_met_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        Limits(**limits)
