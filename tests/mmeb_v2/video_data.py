"""Small video data sets in the published format: annotations, and folders of frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from qwen3vl.evaluation.mmeb_v2.video_answers import MVBENCH_SUBSETS
from tests.golden.inputs import scene
from tests.mmeb_v2.published_files import draw, write_split

WIDTH, HEIGHT = 64, 48
ACTIONS = ("Pouring something into something", "Folding something", "Holding something", "Closing something")
QUESTIONS = (
    (
        "What is carried across the yard?",
        ("a red box", "a ladder", "two buckets of water", "nothing", "a sleeping cat"),
    ),
    ("Why does the man stop?", ("to tie a shoe", "to answer the phone", "he is tired", "a dog barks", "it rains")),
    ("What happens after the door opens?", ("she leaves", "the light goes out", "children run in", "snow", "music")),
)
CAPTIONS = (
    "a man cuts an onion on a wooden board",
    "two children race their bicycles down a hill",
    "waves break against a lighthouse at dusk",
    "a robot arm sorts coloured blocks",
)


def save_frames(folder: Path, seed: int, count: int = 3, pattern: str = "frame_{:04d}.jpg", first: int = 1) -> None:
    """Draw the frames of a video: a scene that moves to the side. The files have PNG content, without loss."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = scene(WIDTH, HEIGHT, seed)
    for number in range(count):
        Image.fromarray(np.roll(pixels, 7 * number, axis=1)).save(folder / pattern.format(number + first), "PNG")


def frames_of(data: Path, name: str) -> Path:
    """Return the folder of a data set's frames."""
    return data / DATASETS[name].media


def _write(data: Path, name: str, rows: Sequence[Mapping[str, Any]], config: str | None = None) -> None:
    source = DATASETS[name].source
    write_split(data, source if config is None else replace(source, config=config), rows)


def write_ssv2(data: Path) -> None:
    """Write SmthSmthV2: videos with numbers for names, each with candidates of its own."""
    rows = []
    for number, action in enumerate(ACTIONS):
        save_frames(frames_of(data, "SmthSmthV2") / str(78000 + number), seed=300 + number, count=2 + number)
        choice = [*ACTIONS[number:], *ACTIONS[:number]]
        rows.append({"video_id": 78000 + number, "pos_text": action, "neg_text": choice[1:] + choice[:1]})
    _write(data, "SmthSmthV2", rows)


def _write_classification(
    data: Path, name: str, labels: Sequence[str], seed: int, pattern: str = "frame_{:04d}.jpg", first: int = 1
) -> None:
    rows = []
    for number, label in enumerate(labels):
        video = f"{label}_g{number:02d}"
        save_frames(frames_of(data, name) / video, seed + number, 2 + number % 2, pattern, first)
        rows.append({"video_id": video, "pos_text": label})
    _write(data, name, rows)


def write_hmdb51(data: Path) -> None:
    """Write HMDB51, with frames whose numbers are not filled up with zeros."""
    _write_classification(data, "HMDB51", ("climb_stairs", "pour", "ride_bike"), 310, "frame_{}.jpg", first=8)


def write_ucf101(data: Path) -> None:
    """Write UCF101."""
    _write_classification(data, "UCF101", ("Kayaking", "YoYo", "PlayingTabla"), 320)


def write_k700(data: Path) -> None:
    """Write Kinetics-700. Among 700 classes some are nearly tied, so that its ranks are not compared."""
    _write_classification(data, "K700", ("tiptoeing", "cooking_sausages_(not_on_barbeque)", "luge"), 330)


def write_breakfast(data: Path) -> None:
    """Write Breakfast; two of its videos are of one class."""
    _write_classification(data, "Breakfast", ("tea", "cereal", "tea", "friedegg"), 325)


def write_videomme(data: Path) -> None:
    """Write Video-MME: answers with letters, and one that has none."""
    rows = []
    for number, (question, answers) in enumerate(QUESTIONS):
        video = f"fFjv93ACGo{number}"
        save_frames(frames_of(data, "Video-MME") / video, seed=330 + number, pattern="{:04d}.jpeg")
        options = [f"{letter}. {answer.capitalize()}." for letter, answer in zip("ABCD", answers, strict=False)]
        rows.append({
            "video_id": f"{number:03d}",
            "videoID": video,
            "question_id": f"{number:03d}-1",
            "domain": "Knowledge",
            "sub_category": "Humanity & History",
            "question": question,
            "options": options if number else [*options[:3], "9.5"],
            "answer": "BDA"[number],
        })  # fmt: skip
    _write(data, "Video-MME", rows)


def write_nextqa(data: Path) -> None:
    """Write NExTQA: five columns of answers and the number of the right one; names of videos are numbers."""
    rows = []
    for number, (question, answers) in enumerate(QUESTIONS):
        video = 4010069381 + number
        save_frames(frames_of(data, "NExTQA") / str(video), seed=340 + number, pattern="{:04d}.jpeg")
        rows.append({
            "video": video,
            "question": question,
            "answer": (2, 0, 4)[number],
            "qid": number + 6,
            "type": "CW",
            **{f"a{index}": answer for index, answer in enumerate(answers)},
        })  # fmt: skip
    _write(data, "NExTQA", rows)


def write_egoschema(data: Path) -> None:
    """Write EgoSchema: the number of the right answer is a text."""
    rows = []
    for number, (question, answers) in enumerate(QUESTIONS):
        video = f"001934bb-81bd-4cd8-a574-0472ef3f678{number}"
        save_frames(frames_of(data, "EgoSchema") / video, seed=350 + number, pattern="{:04d}.jpeg")
        rows.append({
            "question_idx": str(number),
            "question": question,
            "video_idx": video,
            "option": [f"{letter}. {answer}." for letter, answer in zip("ABCDE", answers, strict=True)],
            "answer": "241"[number],
        })  # fmt: skip
    _write(data, "EgoSchema", rows)


def write_mvbench(data: Path) -> None:
    """Write MVBench: twenty configurations, whose folders of frames have the names of video files."""
    for number, subset in enumerate(MVBENCH_SUBSETS):
        question, answers = QUESTIONS[number % 3]
        candidates = [*answers[number % 5 :], *answers[: number % 5]][:4]
        video = f"{number:05d}.mp4" if number else "castle_s01e01_clip_03"  # the first one has frames and no videos
        save_frames(
            frames_of(data, "MVBench") / subset / video, seed=360 + number, count=2 + number % 2, pattern="{:04d}.jpeg"
        )
        times = {"start": 1.5, "end": 4.0} if subset == "action_sequence" else {}
        row = {
            "video": video,
            "question": question,
            "candidates": candidates,
            "answer": candidates[number % 4],
            **times,
        }
        _write(data, "MVBench", [row], subset)


def write_activitynetqa(data: Path) -> None:
    """Write ActivityNetQA: questions that are answered by yes or no."""
    rows = []
    for number, question in enumerate(("is the person outdoors", "does the athlete wear gloves", "is it raining")):
        video = f"1QIUV7WYKXg{number}"
        save_frames(frames_of(data, "ActivityNetQA") / f"v_{video}", seed=390 + number, pattern="{:04d}.jpeg")
        rows.append({
            "video_name": video,
            "question": question,
            "question_id": f"{video}_9",
            "answer": "no" if number == 1 else "yes",
            "type": "3",
        })  # fmt: skip
    _write(data, "ActivityNetQA", rows)


def write_msrvtt(data: Path) -> None:
    """Write MSR-VTT."""
    rows = []
    for number, caption in enumerate(CAPTIONS):
        video = f"video{9770 + number}"
        save_frames(frames_of(data, "MSR-VTT") / video, seed=400 + number, count=2 + number % 3)
        rows.append({"video_id": video, "video": f"{video}.mp4", "caption": caption})
    _write(data, "MSR-VTT", rows)


def write_msvd(data: Path) -> None:
    """Write MSVD: several captions of a video, of which the first is used."""
    rows = []
    for number, caption in enumerate(CAPTIONS):
        video = f"-4wsuPCjDBc_{5 * number}_{5 * number + 10}"
        save_frames(frames_of(data, "MSVD") / video, seed=410 + number)
        rows.append({"video_id": video, "video": f"{video}.avi", "caption": [caption, "something moves"]})
    _write(data, "MSVD", rows)


def write_didemo(data: Path) -> None:
    """Write DiDeMo: videos are named by paths of files; one of them has two captions."""
    rows = []
    videos = ("54322086@N00_2408598493_274c77d26a.avi", "12090392@N02_13482799053_87ef417396.mov", "a.b.mp4")
    for number, file in enumerate(videos):
        save_frames(frames_of(data, "DiDeMo") / file.rpartition(".")[0], seed=420 + number, count=3)
        rows.append({"video": f"videos/test/{file}", "caption": CAPTIONS[number]})
    _write(data, "DiDeMo", [*rows, {**rows[1], "caption": CAPTIONS[3]}])


def write_youcook2(data: Path) -> None:
    """Write YouCook2: segments of videos with names of their own."""
    rows = []
    for number, caption in enumerate(CAPTIONS):
        segment = f"xHr8X2Wpmno_{number}"
        save_frames(frames_of(data, "YouCook2") / segment, seed=430 + number, count=2 + number % 2)
        rows.append({
            "id": segment,
            "youtube_id": "xHr8X2Wpmno",
            "video_path": f"YouCookIIVideos/val/113/{segment}.mp4",
            "sentence": caption,
            "segment": [10, 20],
        })  # fmt: skip
    _write(data, "YouCook2", rows)


def write_vatex(data: Path) -> None:
    """Write VATEX: captions in two languages, of which the first English one is used."""
    rows = []
    for number, caption in enumerate(CAPTIONS):
        video = f"G9zN5TTuGO{number}_000179_000189"
        save_frames(frames_of(data, "VATEX") / video, seed=440 + number)
        rows.append({"videoID": video, "enCap": [caption, "something moves"], "chCap": ["有东西在动"]})
    _write(data, "VATEX", rows)


def _write_moments(data: Path, name: str, seed: int, videos: Sequence[str]) -> None:
    """Write folders of videos with those of the query and of its clips, and a file beside them."""
    rows = []
    for number, video in enumerate(videos):
        folder = frames_of(data, name) / video
        first = seed + 10 * number
        save_frames(folder / "query", first)
        save_frames(folder / "positive", first + 1, count=11 if number == 1 else 2)  # at most eight are used
        for clip in range(3):
            save_frames(folder / f"negative_{clip}", first + 2 + clip, count=2 + clip % 2)
        (folder / "clips.json").write_text("{}")
        rows.append({"query": CAPTIONS[number], "video_path": f"videos/{video}.mp4"})
    _write(data, name, rows)


def write_qvhighlight(data: Path) -> None:
    """Write QVHighlight, whose names of videos have dots."""
    _write_moments(data, "QVHighlight", 450, [f"NUsG9BgSes{number}_210.0_360.0" for number in range(3)])


def write_charades(data: Path) -> None:
    """Write Charades-STA."""
    _write_moments(data, "Charades-STA", 500, ["3MSZA", "AMT7R"])


def write_momentseeker(data: Path) -> None:
    """Write MomentSeeker: queries of text, of text and image, and of text and video; clips shared between queries."""
    media = frames_of(data, "MomentSeeker")
    clips = [f"movie/film_{number // 2}/clip_{number}.mp4" for number in range(6)]
    for number, clip in enumerate(clips):
        save_frames(media / "video_frames" / clip[:-4].replace("/", "_"), seed=480 + number, count=2 + number % 3)
    save_frames(media / "video_frames" / "ego_cooking_17", seed=490)
    draw(491, WIDTH, HEIGHT).save(media / "query_movie_12.jpg", "PNG")
    inputs = ("", "movie_12.jpg", "ego/cooking_17.mp4")
    positives = ((0,), (2, 3), (5,))
    rows = []
    for text, medium, right in zip(CAPTIONS, inputs, positives, strict=False):
        wrong = [number for number in range(6) if number not in right][:4]
        rows.append({
            "query": text,
            "input_frames": medium,
            "positive_frames": [{"output_path": clips[number], "start": 2.0 * number} for number in right],
            "negative_frames": [{"output_path": clips[number], "start": 2.0 * number} for number in wrong],
        })  # fmt: skip
    _write(data, "MomentSeeker", rows)


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "SmthSmthV2": write_ssv2,
    "HMDB51": write_hmdb51,
    "UCF101": write_ucf101,
    "Breakfast": write_breakfast,
    "Video-MME": write_videomme,
    "NExTQA": write_nextqa,
    "EgoSchema": write_egoschema,
    "MVBench": write_mvbench,
    "ActivityNetQA": write_activitynetqa,
    "MSR-VTT": write_msrvtt,
    "MSVD": write_msvd,
    "DiDeMo": write_didemo,
    "YouCook2": write_youcook2,
    "VATEX": write_vatex,
    "QVHighlight": write_qvhighlight,
    "Charades-STA": write_charades,
    "MomentSeeker": write_momentseeker,
}
"""By name of the data set: the function that writes it, except for `write_k700`."""
