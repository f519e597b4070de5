"""Reading queries of an evaluation, and what their relevant names mean in a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen3vl import Document, InputError, Point, Store, open_store
from qwen3vl.evaluation import EvalQuery, find_relevant, read_queries, resolve_relevance
from qwen3vl.evaluation.queries import MAX_GRADE, check_queries
from qwen3vl.stores import Hit
from tests.support.fake_embedder import fake_recipe, fake_vector
from tests.test_docs import blocks

DOCUMENTS = [
    *(Document("/data/a/report.pdf", "page", locator=f"page={page}", text=f"page {page}") for page in (1, 2, 3)),
    Document("/data/a/1.png", "picture", image="/data/a/1.png"),
    Document("/data/b/1.png", "picture", image="/data/b/1.png"),
    Document("MED-10", "text", text="a passage"),
]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    store = open_store(":memory:")
    recipe = fake_recipe()
    store.create(recipe)
    store.upsert([Point(store.point_id(each, recipe), fake_vector(each.id), each) for each in DOCUMENTS])
    yield store
    store.close()


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("\n\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


def write_beir(folder: Path, *, splits: tuple[str, ...] = ("dev", "test"), qrels: str = "") -> Path:
    (folder / "qrels").mkdir(parents=True)
    queries = [{"_id": f"q{number}", "text": f"query {number}", "metadata": {}} for number in range(3)]
    write_lines(folder / "queries.jsonl", *queries)
    qrels = qrels or "query-id\tcorpus-id\tscore\nq0\tMED-10\t2\nq0\tMED-11\t0\nq2\treport.pdf#page=2\t1\nq1\tx\t0\n"
    for split in splits:
        (folder / "qrels" / f"{split}.tsv").write_text(qrels, encoding="utf-8")
    return folder


def hits_of(*documents: Document) -> list[Hit]:
    return [Hit(f"id-{document.id}", document, 0.5) for document in documents]


def test_json_lines(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "queries.jsonl",
        {"id": 1, "text": "a red circle", "relevant": ["1.png", "2.png"]},
        {"id": "b", "image": "q/sketch.png", "text": "at night", "relevant": {"x": 2, "y": 0}, "kind": "picture"},
        {"id": "c", "video": "https://example.org/clip.mp4", "relevant": ["x"], "kind": ["page", "clip"]},
        {"id": "d", "image": ["/abs/1.png", "data:image/png;base64,AA=="], "relevant": ["x"]},
    )
    text, both, video, images = read_queries(path)
    assert text == EvalQuery("1", {"text": "a red circle"}, {"1.png": 1, "2.png": 1})
    assert both == EvalQuery("b", {"text": "at night", "image": str(tmp_path / "q/sketch.png")}, {"x": 2}, ("picture",))
    assert (video.input, video.kinds) == ({"video": "https://example.org/clip.mp4"}, ("page", "clip"))
    assert images.input == {"image": ["/abs/1.png", "data:image/png;base64,AA=="]}
    assert [each.kind for each in (text, both, video, images)] == ["text", "text + image", "video", "image"]


def test_separators_in_strings_and_byte_order_marks(tmp_path: Path) -> None:
    """JSON may have U+2028 and U+0085 in its strings; editors on Windows write a mark before the first line."""
    path = tmp_path / "queries.jsonl"
    text = "two\u2028lines\u0085and more"
    line = json.dumps({"id": "1", "text": text, "relevant": ["a.png"]}, ensure_ascii=False)
    path.write_text(f"{line}\r\n\r\n", encoding="utf-8-sig", newline="")
    (query,) = read_queries(path)
    assert query.input == {"text": text}


def test_documented_lines(tmp_path: Path) -> None:
    (block,) = blocks("docs/evaluation.md", "json")
    path = tmp_path / "queries.jsonl"
    path.write_text(block, encoding="utf-8")
    assert [query.kind for query in read_queries(path)] == ["text", "text + image", "video"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1]", "line 2: it is not a JSON object"),
        ("{", "line 2: it is not JSON"),
        ("[" * 100_000, "line 2: it is not JSON that can be read: maximum recursion depth"),
        ('{"id": "2", "text": "x"}', "'relevant' must be a list of names"),
        ('{"id": "2", "text": "x", "relevant": {"a": 0.5}}', "'relevant' must be a list of names, or whole numbers"),
        ('{"id": "2", "text": "x", "relevant": {"a": 0}}', "no name with a grade of 1 or more"),
        ('{"id": "2", "relevant": ["a"]}', "line 2: it is empty"),
        ('{"text": "x", "relevant": ["a"]}', "'id' must be the name of the query"),
        ('{"id": "2", "text": "x", "relevant": ["a"], "kind": "photo"}', "'kind' is .*'photo'.*picture, page"),
        ('{"id": "2", "txt": "x", "relevant": ["a"]}', "unknown key 'txt'"),
        ('{"id": "1", "text": "x", "relevant": ["a"]}', "two queries with the id '1'"),
    ],
)
def test_wrong_lines_are_named(line: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text('{"id": "1", "text": "x", "relevant": ["a"]}\n' + line)
    with pytest.raises(InputError, match=reason):
        read_queries(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"q0\t\xff\xfe\t1\n", r"test\.tsv is not text in UTF-8: invalid start byte"),
        (b"q0\t" + b"a" * 140_000 + b"\t1\n", r"test\.tsv, line 2: it cannot be read: field larger than field limit"),
    ],
)
def test_tables_that_cannot_be_read_are_named(line: bytes, reason: str, tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "data")
    (folder / "qrels/test.tsv").write_bytes(b"query-id\tcorpus-id\tscore\n" + line)
    with pytest.raises(InputError, match=reason):
        read_queries(folder)


@pytest.mark.parametrize("grade", [MAX_GRADE + 1, 2**31, 10**20])
def test_grades_that_would_end_the_process_are_errors(grade: int, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "queries.jsonl", {"id": "big", "text": "x", "relevant": {"a": grade, "b": 1}})
    with pytest.raises(
        InputError, match=rf"the query 'big' has the grade {grade} for 'a'; grades may be up to 1000000"
    ):
        read_queries(path)
    with pytest.raises(InputError, match=rf"the query 'q0' has the grade {grade} for 'x'"):
        read_queries(write_beir(tmp_path / "beir", qrels=f"q0\tx\t{grade}\n"))
    with pytest.raises(InputError, match=r"the query 'mine' has the grade"):
        check_queries([EvalQuery("mine", {"text": "x"}, {"a": grade})], "mine")
    check_queries([EvalQuery("mine", {"text": "x"}, {"a": MAX_GRADE})], "mine")


def test_beir_layout(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "data")
    expected = [
        EvalQuery("q0", {"text": "query 0"}, {"MED-10": 2}),
        EvalQuery("q2", {"text": "query 2"}, {"report.pdf#page=2": 1}),
    ]
    assert read_queries(folder) == read_queries(folder, "dev") == expected
    assert read_queries(write_beir(tmp_path / "one", splits=("train",))) == expected


def test_wrong_beir_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no split 'train'; it has dev, test"):
        read_queries(write_beir(tmp_path / "a"), "train")
    with pytest.raises(InputError, match="no split 'test'; it has dev, train"):
        read_queries(write_beir(tmp_path / "b", splits=("dev", "train")))
    with pytest.raises(InputError, match=r"test\.tsv has the query 'q9'"):
        read_queries(write_beir(tmp_path / "c", qrels="q9\tx\t1\n"))
    with pytest.raises(InputError, match=r"line 2: it is not a query, a document"):
        read_queries(write_beir(tmp_path / "d", qrels="q0\tx\t1\nq0\tx\tgood\n"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no qrels/\*\.tsv"):
        read_queries(tmp_path / "empty")
    with pytest.raises(InputError, match="there are no queries at"):
        read_queries(tmp_path / "nothing")


def test_names_mean_sources_parts_and_ids(store: Store) -> None:
    passage = store.point_id(DOCUMENTS[5], fake_recipe())
    query = EvalQuery("1", {"text": "x"}, {"report.pdf": 1, "a/report.pdf#page=3": 2, "b/1.png": 1, passage: 3})
    relevance = resolve_relevance([query, EvalQuery("2", {"text": "x"}, {"/data/a/1.png": 1})], store)
    assert relevance.grades == [
        {"/data/a/report.pdf": 1, "/data/a/report.pdf#page=3": 2, "/data/b/1.png": 1, passage: 3},
        {"/data/a/1.png": 1},
    ]
    assert [relevance.document_kind(index) for index in (0, 1)] == ["page + picture + text", "picture"]
    assert relevance.documents["/data/a/report.pdf#page=3"].page == 3
    assert not relevance.missing


def test_names_of_no_document_are_errors_or_counted(store: Store) -> None:
    queries = [EvalQuery("1", {"text": "x"}, {"MED-10": 1, "report.pdf#page=4": 1}), EvalQuery("2", {}, {"g.png": 1})]
    with pytest.raises(InputError, match=r"2 of 3 .* 'report.pdf#page=4' \(query '1'\), 'g.png' .*--allow-missing"):
        resolve_relevance(queries, store)
    relevance = resolve_relevance(queries, store, allow_missing=True)
    assert relevance.missing == {"report.pdf#page=4": "1", "g.png": "2"}
    assert relevance.grades == [{"MED-10": 1, "report.pdf#page=4": 1}, {"g.png": 1}]
    assert relevance.document_kind(1) == "missing"
    with pytest.raises(InputError, match="1 of 1 relevant names"):
        resolve_relevance(queries[1:], store, allow_missing=True)


def test_names_of_two_sources_are_errors(store: Store) -> None:
    with pytest.raises(InputError, match=r"'1.png' means 2 sources of the store, such as /data/a/1.png and /data/b"):
        resolve_relevance([EvalQuery("1", {}, {"1.png": 1})], store)


def test_only_the_first_page_of_a_relevant_file_finds_it() -> None:
    first, second, third, picture, *_ = DOCUMENTS
    hits = hits_of(picture, second, third, first)
    assert find_relevant(hits, {first.source: 1}) == [None, first.source, None, None]
    # The page of the higher grade is found by its own hit, and the file by the next one.
    grades = {first.source: 1, third.name: 2}
    assert find_relevant(hits, grades) == [None, first.source, third.name, None]
    assert find_relevant(hits_of(third, second), grades) == [third.name, first.source]
    assert find_relevant(hits, {hits[0].id: 1}) == [hits[0].id, None, None, None]
