"""What the video loaders read, and what they refuse."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from qwen3vl.evaluation.mmeb_v2.dataset import LoadedDataset
from qwen3vl.evaluation.mmeb_v2.frames import in_natural_order, read_frames
from qwen3vl.evaluation.mmeb_v2.loaders import load_dataset
from qwen3vl.evaluation.mmeb_v2.video_answers import MVBENCH_SUBSETS
from qwen3vl.evaluation.mmeb_v2.video_classification import read_labels
from tests.mmeb_v2.published_files import write_split
from tests.mmeb_v2.video_data import ACTIONS, CAPTIONS, QUESTIONS, WRITERS, frames_of, save_frames, write_k700

ANSWER = "Given a video and a question, select the most accurate answer from the provided candidates."
VIDEO_DATASETS = [spec for spec in DATASETS.values() if spec.group.modality == "video"]


def load(data: Path, name: str) -> LoadedDataset:
    return load_dataset(DATASETS[name], data)


def file_names(frames: Sequence[str]) -> list[str]:
    return [Path(frame).name for frame in frames]


def test_all_video_data_sets_are_drawn_and_their_frames_exist(data: Path, tmp_path: Path) -> None:
    write_k700(tmp_path)
    assert {spec.name for spec in VIDEO_DATASETS} == {*WRITERS, "K700"}
    for spec in VIDEO_DATASETS:
        loaded = load_dataset(spec, tmp_path if spec.name == "K700" else data)
        inputs = [*(query.input for query in loaded.queries), *loaded.candidates.values()]
        frames = [frame for item in inputs for frame in item.get("video", ())]
        assert frames, spec.name
        assert all(Path(frame).is_file() for frame in frames), spec.name
        for query in loaded.queries:
            assert query.input["instruction"] in spec.instructions
            assert set(query.labels) <= set(query.candidate_names), spec.name
            assert set(query.candidate_names) <= set(loaded.candidates)


def test_names_of_classes() -> None:
    sizes = {name: len(set(read_labels(name))) for name in ("HMDB51", "UCF101", "Kinetics-700", "Breakfast")}
    assert sizes == {"HMDB51": 51, "UCF101": 101, "Kinetics-700": 700, "Breakfast": 10}
    breakfast = ("pancake", "cereal", "sandwich", "scrambledegg", "friedegg")
    assert read_labels("Breakfast") == [*breakfast, "coffee", "milk", "tea", "juice", "salad"]


def test_classification_ranks_all_classes(data: Path) -> None:
    loaded = load(data, "Breakfast")
    assert [query.labels for query in loaded.queries] == [["tea"], ["cereal"], ["tea"], ["friedegg"]]
    assert loaded.queries[0].info == {"cand_names": ["tea"], "label_name": "tea"}
    assert set(loaded.queries[0].input) == {"video", "instruction"}
    assert list(loaded.candidates)[:5] == ["tea", "cereal", "friedegg", "pancake", "sandwich"]
    assert len(loaded.candidates) == 10
    assert loaded.candidates["salad"] == {"text": "salad"}


def test_choice_of_actions(data: Path) -> None:
    query = load(data, "SmthSmthV2").queries[1]
    assert query.candidate_names == [*ACTIONS[2:], ACTIONS[0], ACTIONS[1]]
    assert query.labels == [ACTIONS[1]]
    assert Path(query.input["video"][0]).parent == frames_of(data, "SmthSmthV2") / "78001"


def test_only_the_first_queries_are_used(data: Path) -> None:
    assert DATASETS["SmthSmthV2"].max_queries == 1000
    for name in ("SmthSmthV2", "MVBench", "MSVD", "MomentSeeker", "QVHighlight"):
        every = load(data, name).queries
        first = load_dataset(replace(DATASETS[name], max_queries=2), data).queries
        assert list(first) == list(every[:2])


def test_frames_are_in_the_order_of_their_numbers(data: Path) -> None:
    frames = load(data, "HMDB51").queries[1].input["video"]
    assert file_names(frames) == [f"frame_{number}.jpg" for number in (8, 9, 10)]
    assert all(frame.startswith(f"{frames_of(data, 'HMDB51')}/pour_g01/") for frame in frames)


def test_natural_order_of_names() -> None:
    names = ["a10b.jpg", "A2b.jpg", "a2a.jpg", "10.jpg", "9.jpg", "b.jpg", "010.jpg"]
    ordered = ["9.jpg", "010.jpg", "10.jpg", "a2a.jpg", "A2b.jpg", "a10b.jpg", "b.jpg"]
    assert sorted(names, key=in_natural_order) == ordered


@pytest.mark.parametrize(
    ("count", "num_frames", "numbers"),
    [
        (70, 64, [number for number in range(70) if number not in (11, 22, 34, 45, 57, 68)]),
        (100, 8, [0, 14, 28, 42, 56, 70, 84, 99]),
        (9, 8, [0, 1, 2, 3, 4, 5, 6, 8]),
        (3, 1, [0]),
        (64, 64, range(64)),
        (63, 64, range(63)),
        (66, None, range(66)),
    ],
)
def test_frames_are_sampled_as_officially(
    tmp_path: Path, count: int, num_frames: int | None, numbers: Sequence[int]
) -> None:
    spec = DATASETS["MSVD"]
    folder = tmp_path / spec.media / "clip"
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.JPEG").touch()
    (folder / "notes.txt").touch()
    expected = [f"{folder}/{number}.JPEG" for number in numbers]
    assert read_frames(spec, tmp_path, "clip", num_frames) == expected


def test_video_mme(data: Path) -> None:
    loaded = load(data, "Video-MME")
    question, _ = QUESTIONS[0]
    text = f"{question}\nA. A red box.\nB. A ladder.\nC. Two buckets of water.\n9.5"
    query = loaded.queries[0]
    assert query.input["text"] == text
    assert query.input["instruction"].startswith(ANSWER)
    assert query.info == {
        "question_id": "000-1",
        "video_id": "fFjv93ACGo0",
        "query": text,
        "cand_names": ["A. A red box.", "B. A ladder.", "C. Two buckets of water.", "9.5"],
        "answer": "B",
        "label_name": "B. A ladder.",
        "answer_idx": 1,
        "domain": "Knowledge",
        "sub_category": "Humanity & History",
    }
    assert loaded.candidates["C. Two buckets of water."] == {"text": "Two buckets of water"}
    assert loaded.candidates["9.5"] == {"text": "9.5"}


def test_nextqa(data: Path) -> None:
    query = load(data, "NExTQA").queries[0]
    lines = [QUESTIONS[0][0], "Options:", *query.candidate_names]
    assert query.input["text"] == "\n".join(str(line) for line in lines)
    assert query.candidate_names[:2] == ["(A) a red box", "(B) a ladder"]
    details = {name: query.info[name] for name in ("label_name", "answer", "answer_idx", "video_id", "question_id")}
    assert details == {
        "label_name": "(C) two buckets of water",
        "answer": "two buckets of water",
        "answer_idx": 2,
        "video_id": 4010069381,
        "question_id": 6,
    }


def test_egoschema(data: Path) -> None:
    loaded = load(data, "EgoSchema")
    query = loaded.queries[1]
    assert query.input["text"].startswith(f"{QUESTIONS[1][0]} A. to tie a shoe. B. to answer")
    assert query.labels == [query.info["answer"]] == ["E. it rains."]
    assert query.info["qry_frame_paths"] == query.input["video"]
    assert loaded.candidates["E. it rains."] == {"text": "it rains"}
    assert Path(query.input["video"][0]).parts[-3] == "egoschema"


def test_activitynetqa(data: Path) -> None:
    loaded = load(data, "ActivityNetQA")
    query = loaded.queries[1]
    assert query.input["text"] == "does the athlete wear gloves? (A) yes; (B) no."
    assert query.info["video_id"] == "1QIUV7WYKXg1"
    assert Path(query.input["video"][0]).parent.name == "v_1QIUV7WYKXg1"
    assert (query.labels, query.info["answer_idx"]) == (["no"], 1)
    assert loaded.candidates == {"yes": {"text": "yes"}, "no": {"text": "no"}}


def test_mvbench_reads_its_configurations_in_order(data: Path) -> None:
    loaded = load(data, "MVBench")
    assert [query.info["subset"] for query in loaded.queries] == list(MVBENCH_SUBSETS)
    query = loaded.queries[1]
    assert query.info["video_id"] == "00001.mp4"
    assert Path(query.input["video"][0]).parts[-3:-1] == ("action_sequence", "00001.mp4")
    assert query.labels == [query.info["answer"]] == ["(B) he is tired"]
    assert query.candidate_names == ["(A) to answer the phone", "(B) he is tired", "(C) a dog barks", "(D) it rains"]


@pytest.mark.parametrize("name", ["MSR-VTT", "MSVD", "YouCook2", "VATEX"])
def test_captions_rank_all_videos(data: Path, name: str) -> None:
    loaded = load(data, name)
    assert [query.input["text"] for query in loaded.queries] == list(CAPTIONS)
    assert [query.info for query in loaded.queries] == [
        {"cand_names": [video], "label_name": video} for video in loaded.candidates
    ]
    for video, candidate in loaded.candidates.items():
        assert Path(candidate["video"][0]).parent == frames_of(data, name) / str(video)


def test_didemo_names_videos_by_their_files(data: Path) -> None:
    loaded = load(data, "DiDeMo")
    videos = ["54322086@N00_2408598493_274c77d26a", "12090392@N02_13482799053_87ef417396", "a.b"]
    assert list(loaded.candidates) == videos
    assert [query.labels[0] for query in loaded.queries] == [*videos, videos[1]]


def test_moments_rank_the_clips_of_their_video(data: Path) -> None:
    loaded = load(data, "QVHighlight")
    query = loaded.queries[1]
    folder = frames_of(data, "QVHighlight") / "NUsG9BgSes1_210.0_360.0"
    names = ["negative_0", "negative_1", "negative_2", "positive"]
    assert query.candidate_names == [str(folder / name) for name in names]
    assert query.labels == [str(folder / "positive")]
    assert query.input["text"] == CAPTIONS[1]
    assert [Path(frame).parent.name for frame in query.input["video"]] == ["query"] * 3
    numbers = [int(Path(frame).stem[-4:]) for frame in loaded.candidates[str(folder / "positive")]["video"]]
    assert numbers == [1, 2, 3, 5, 6, 8, 9, 11]


def test_momentseeker(data: Path) -> None:
    loaded = load(data, "MomentSeeker")
    text, image, video = loaded.queries
    assert set(text.input) == {"text", "instruction"}
    media = frames_of(data, "MomentSeeker")
    assert image.input["image"] == str(media / "query_movie_12.jpg")
    assert Path(image.input["image"]).is_file()
    assert Path(video.input["video"][0]).parent == media / "video_frames" / "ego_cooking_17"
    assert [query.input["instruction"] for query in loaded.queries] == list(DATASETS["MomentSeeker"].instructions)
    clips = [str(media / "video_frames" / f"movie_film_{number // 2}_clip_{number}") for number in range(6)]
    assert image.info == {
        "cand_names": [clips[2], clips[3], clips[0], clips[1], clips[4], clips[5]],
        "label_name": [clips[2], clips[3]],
    }
    assert set(loaded.candidates) == set(clips)


def test_momentseeker_uses_all_frames_of_a_folder(tmp_path: Path) -> None:
    WRITERS["MomentSeeker"](tmp_path)
    clip = frames_of(tmp_path, "MomentSeeker") / "video_frames" / "movie_film_0_clip_0"
    for number in range(66):
        shutil.copy(clip / "frame_0001.jpg", clip / f"frame_{100 + number:04d}.jpg")
    assert len(load(tmp_path, "MomentSeeker").candidates[str(clip)]["video"]) == 68


@pytest.mark.parametrize(
    ("name", "missing", "archive"),
    [
        ("Breakfast", "cereal_g01", "video_cls.tar.gz"),
        ("NExTQA", "4010069382", "video_qa.tar.gz-0"),
        ("VATEX", "G9zN5TTuGO2_000179_000189", "video_ret.tar.gz"),
        ("QVHighlight", "NUsG9BgSes1_210.0_360.0/query", "video_mret.tar.gz"),
        ("MomentSeeker", "video_frames/movie_film_2_clip_4", "video_mret.tar.gz"),
    ],
)
def test_missing_and_empty_folders_are_named(tmp_path: Path, name: str, missing: str, archive: str) -> None:
    WRITERS[name](tmp_path)
    folder = frames_of(tmp_path, name) / missing
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="there is no folder") as absent:
        load(tmp_path, name)
    folder.mkdir()
    with pytest.raises(InputError, match="has no frames") as empty:
        load(tmp_path, name)
    for error in (absent, empty):
        assert str(folder) in str(error.value)
        assert archive in str(error.value)
        assert str(tmp_path / "video-tasks/frames") in str(error.value)


def test_the_hint_unpacks_the_archive_where_it_is_looked_for() -> None:
    for spec in VIDEO_DATASETS:
        with pytest.raises(InputError, match=r"cd data.video-tasks.frames && .*tar -xz"):
            read_frames(spec, Path("data"), "missing")


def rewrite(data: Path, name: str, row: Mapping[str, Any]) -> None:
    shutil.rmtree(data / "annotation" / DATASETS[name].source.repo)
    write_split(data, DATASETS[name].source, [row])


def test_an_answer_that_is_none_of_the_candidates(tmp_path: Path) -> None:
    WRITERS["ActivityNetQA"](tmp_path)
    row = {"video_name": "1QIUV7WYKXg0", "question": "how many", "answer": "three", "question_id": "q_7"}
    rewrite(tmp_path, "ActivityNetQA", row)
    with pytest.raises(InputError, match="question q_7: the answer 'three' is none of"):
        load(tmp_path, "ActivityNetQA")


def test_mvbench_counts_a_question_without_its_answer_as_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    WRITERS["MVBench"](tmp_path)
    row = {"video": "00003.mp4", "question": "Which?", "candidates": ["a", "b", "b"], "answer": "c"}
    source = replace(DATASETS["MVBench"].source, config=MVBENCH_SUBSETS[3])
    write_split(tmp_path, source, [row, {**row, "answer": "b"}])
    with caplog.at_level(logging.WARNING):
        wrong, last = load(tmp_path, "MVBench").queries[3:5]
    assert (wrong.info["label_name"], wrong.info["answer_idx"]) == ("(@) c", -1)  # as the official loader writes it
    assert (last.info["label_name"], last.info["answer_idx"]) == ("(C) b", 2)
    assert [record.getMessage() for record in caplog.records] == [
        "MVBench action_antonym/00003.mp4: the answer 'c' is none of ['a', 'b', 'b']; the query counts as wrong"
    ]


def test_moments_without_a_right_clip_count_as_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    WRITERS["Charades-STA"](tmp_path)
    folder = frames_of(tmp_path, "Charades-STA") / "AMT7R"
    shutil.rmtree(folder / "positive")
    save_frames(folder / "negative_10", seed=1)
    query = load(tmp_path, "Charades-STA").queries[1]
    assert query.info["label_name"] is None
    assert query.candidate_names == [str(folder / f"negative_{number}") for number in (0, 1, 2, 10)]
    assert str(folder) in caplog.text
