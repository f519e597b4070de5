"""What a data set of MMEB-v2 is: where it lies, how it is asked, and how it is ranked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Modality = Literal["image", "video", "visdoc"]
"""Part of the benchmark; the official scripts write the results of each into a folder of this name."""
Ranking = Literal["global", "local"]
"""Whether a query ranks all candidates of the data set, or only its own."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the annotations of a data set are on the hub; below the data folder they are in `annotation/REPO`.

    Attributes:
        repo: Id of the data set repository.
        split: Split that is read.
        config: Configuration of the repository; None if it has only one, or if the loader reads several.
    """

    repo: str
    split: str
    config: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A group of data sets, which is a column of the published tables.

    Attributes:
        name: Name in the official script that gathers results.
        title: Column of the tables in the official README.
        modality: Part of the benchmark that it belongs to.
        metric: The measure that is published.
    """

    name: str
    title: str
    modality: Modality
    metric: str


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A data set, as the official YAML files and loaders describe it.

    Attributes:
        name: Name in the YAML files; result files begin with it.
        group: The group that its result is averaged in.
        loader: Name of the function that reads it, the official `dataset_parser`.
        dataset_name: Name that the official loader knows it by.
        source: Where its annotations are.
        media: Folder of its images or frames, below the data folder.
        ranking: What a query ranks.
        instructions: Instructions of the queries that the loader uses; empty if the annotations have them.
        reranked: Whether the reranker is evaluated on it.
        max_queries: How many queries are used, from the first; None for all.
        num_frames: How many frames of a query's video, or of a candidate if queries have none, are used; None without
            videos.
        num_clip_frames: How many frames of a candidate are used where queries have videos as well; None otherwise.
    """

    name: str
    group: Group
    loader: str
    dataset_name: str
    source: Source
    media: str
    ranking: Ranking
    instructions: tuple[str, ...] = ()
    reranked: bool = False
    max_queries: int | None = None
    num_frames: int | None = None
    num_clip_frames: int | None = None
