"""Documents of a stream with equal content, so that each content is embedded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from qwen3vl.documents import Document
from qwen3vl.stores import Point, Store, Vector

MAX_WAITING = 256
"""Maximum number of documents that wait for one content. Further ones are deferred, which bounds memory."""
MAX_WRITTEN_CONTENTS = 65_536
"""Maximum number of contents whose point is remembered after it was written, about 15 MB."""


@dataclass(slots=True, eq=False)
class Claim:
    """What is to be done for a batch of documents.

    Attributes:
        to_embed: Point ids and documents to embed.
        ready: Points whose vector is known already.
        deferred: Documents to claim again after `wait`, by point id.
    """

    to_embed: list[tuple[str, Document]] = field(default_factory=list)
    ready: list[Point] = field(default_factory=list)
    deferred: dict[str, Document] = field(default_factory=dict)


class ContentDeduplicator:
    """Contents (`Document.content_key`) that are being embedded, are embedded, or are written.

    One thread claims, one embeds, and one writes.

    Args:
        store: Where vectors of written contents are read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._embedding: dict[str, dict[str, Document]] = {}
        """By content: the documents that wait for its vector, by point id."""
        self._embedded: dict[str, dict[str, Vector]] = {}
        """By content: the vector, by ids of points that are not written yet."""
        self._written: OrderedDict[str, bytes] = OrderedDict()
        """By content: a written point's UUID, least recently used first."""

    def find_repeated(self, documents: Mapping[str, Document]) -> set[str]:
        """Find documents that were claimed before. Later, their points may be written, and not be known here any more.

        Args:
            documents: Documents, by point id.

        Returns:
            Ids of points that are being embedded, are embedded, or are known to be written.
        """
        with self._changed:
            return {
                point_id
                for point_id, document in documents.items()
                if point_id in self._embedding.get(document.content_key, ())
                or point_id in self._embedded.get(document.content_key, ())
                or self._written.get(document.content_key) == UUID(point_id).bytes
            }

    def claim(self, documents: Mapping[str, Document]) -> Claim:
        """Decide for each document whether to embed it, to wait for another one, or to reuse a vector.

        Args:
            documents: Documents that are not repeated and not stored, by point id.

        Returns:
            What is to be done. Documents that wait are returned by `add_vector` or `remove_content` later.
        """
        claim = Claim()
        written_copies: dict[str, str] = {}
        with self._changed:
            for point_id, document in documents.items():
                self._assign(point_id, document, claim, written_copies)
        vectors = self._store.vectors(list(written_copies.values()))
        with self._changed:
            for point_id, written_id in written_copies.items():
                document = documents[point_id]
                if written_id in vectors:
                    self._embedded.setdefault(document.content_key, {})[point_id] = vectors[written_id]
                    claim.ready.append(Point(point_id, vectors[written_id], document))
                else:
                    # The written point has been deleted since, not by this ingestion.
                    self._written.pop(document.content_key, None)
                    self._assign(point_id, document, claim, {})
        return claim

    def _assign(self, point_id: str, document: Document, claim: Claim, written_copies: dict[str, str]) -> None:
        """Add a document to one of the collections of a claim, or to the copies of written points."""
        key = document.content_key
        waiting, embedded, written = self._embedding.get(key), self._embedded.get(key), self._written.get(key)
        if embedded:
            embedded[point_id] = vector = next(iter(embedded.values()))
            claim.ready.append(Point(point_id, vector, document))
        elif waiting is not None and len(waiting) < MAX_WAITING:
            waiting[point_id] = document
        elif waiting is not None:
            claim.deferred[point_id] = document
        elif written is not None:
            written_copies[point_id] = str(UUID(bytes=written))
        else:
            self._embedding[key] = {point_id: document}
            claim.to_embed.append((point_id, document))

    def wait(self, documents: Mapping[str, Document], timeout_s: float) -> bool:
        """Wait until no content of deferred documents is being embedded.

        Args:
            documents: The documents, by point id.
            timeout_s: Maximum duration in seconds.

        Returns:
            Whether that is so.
        """
        keys = {document.content_key for document in documents.values()}
        with self._changed:
            return self._changed.wait_for(lambda: keys.isdisjoint(self._embedding), timeout_s)

    def add_vector(self, point_id: str, document: Document, vector: Vector) -> list[Point]:
        """Record the vector of a document.

        Args:
            point_id: The document's point id.
            document: The document.
            vector: (dimensions,) float32.

        Returns:
            The document's point, and those of the documents that waited for its content.
        """
        with self._changed:
            documents = self._embedding.pop(document.content_key, {})
            documents.setdefault(point_id, document)
            self._embedded.setdefault(document.content_key, {}).update(dict.fromkeys(documents, vector))
            self._changed.notify_all()
        return [Point(waiting_id, vector, waiting) for waiting_id, waiting in documents.items()]

    def remove_content(self, document: Document) -> list[Document]:
        """Forget a content that cannot be embedded.

        Args:
            document: The document that failed.

        Returns:
            The document, and those that waited for its content.
        """
        with self._changed:
            waiting = self._embedding.pop(document.content_key, {})
            self._changed.notify_all()
        return [document, *(other for other in waiting.values() if other is not document)]

    def add_stored(self, documents: Mapping[str, Document]) -> None:
        """Record points that an earlier run wrote.

        Args:
            documents: The documents, by point id.
        """
        with self._changed:
            for point_id, document in documents.items():
                self._remember(document.content_key, point_id)

    def mark_written(self, points: Sequence[Point]) -> None:
        """Record that points are durable.

        Args:
            points: The points.
        """
        with self._changed:
            for point in points:
                self._remove_unwritten(point)
                self._remember(point.document.content_key, point.id)

    def remove_points(self, points: Sequence[Point]) -> None:
        """Forget points that could not be written.

        Args:
            points: The points.
        """
        with self._changed:
            for point in points:
                self._remove_unwritten(point)

    def _remember(self, key: str, point_id: str) -> None:
        self._written[key] = UUID(point_id).bytes
        self._written.move_to_end(key)
        while len(self._written) > MAX_WRITTEN_CONTENTS:
            self._written.popitem(last=False)

    def _remove_unwritten(self, point: Point) -> None:
        key = point.document.content_key
        vectors = self._embedded.get(key, {})
        vectors.pop(point.id, None)
        if not vectors:
            self._embedded.pop(key, None)
