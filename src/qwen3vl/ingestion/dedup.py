"""Which documents of a stream show the same, so that each content is embedded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from qwen3vl.documents import Document
from qwen3vl.stores import Point, Store, Vector

MAX_WAITING = 256
"""Documents that wait for one content to be embedded; further ones are embedded with it, so that memory is bounded."""
MAX_REMEMBERED = 65_536
"""ContentDeduplicator whose points are remembered, so that an equal one takes their vector: some 15 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Claimed:
    """Documents to embed by point id, points whose vector is known already, and how many points are under way."""

    fresh: tuple[tuple[str, Document], ...]
    ready: list[Point]
    repeated: int


class ContentDeduplicator:
    """ContentDeduplicator under way, embedded and written.  One thread claims, one embeds, one writes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._under_way: dict[str, dict[str, Document]] = {}
        self._embedded: dict[str, dict[str, Vector]] = {}
        self._written: OrderedDict[str, bytes] = OrderedDict()

    def claim(self, documents: Mapping[str, Document]) -> Claimed:
        """Decides for each document, by point id, whether it is to be embedded, waits for another, or is ready."""
        fresh: list[tuple[str, Document]] = []
        ready: list[Point] = []
        elsewhere: dict[str, str] = {}
        with self._lock:
            repeated = sum(self._place(*each, fresh, ready, elsewhere) for each in documents.items())
        vectors = self._store.vectors(list(elsewhere.values()))
        with self._lock:
            for point_id, twin in elsewhere.items():
                document = documents[point_id]
                if twin in vectors:
                    self._embedded.setdefault(document.content_key, {})[point_id] = vectors[twin]
                    ready.append(Point(point_id, vectors[twin], document))
                else:
                    # It was removed meanwhile.
                    self._written.pop(document.content_key, None)
                    self._place(point_id, document, fresh, ready, {})
        return Claimed(tuple(fresh), ready, repeated)

    def _place(
        self,
        point_id: str,
        document: Document,
        fresh: list[tuple[str, Document]],
        ready: list[Point],
        elsewhere: dict[str, str],
    ) -> bool:
        """Puts a document where it belongs; whether its point is under way or written already."""
        key = document.content_key
        waiting, known = self._under_way.get(key), self._embedded.get(key)
        written = self._written.get(key)
        if point_id in (waiting or ()) or point_id in (known or ()) or written == UUID(point_id).bytes:
            return True
        if known:
            known[point_id] = vector = next(iter(known.values()))
            ready.append(Point(point_id, vector, document))
        elif waiting is not None and len(waiting) < MAX_WAITING:
            waiting[point_id] = document
        elif waiting is not None:
            fresh.append((point_id, document))
        elif written is not None:
            elsewhere[point_id] = str(UUID(bytes=written))
        else:
            self._under_way[key] = {point_id: document}
            fresh.append((point_id, document))
        return False

    def embedded(self, point_id: str, document: Document, vector: Vector) -> list[Point]:
        """Notes a vector; returns the point, and those of the documents that waited for it."""
        with self._lock:
            twins = self._under_way.pop(document.content_key, {})
            twins.setdefault(point_id, document)
            self._embedded.setdefault(document.content_key, {}).update(dict.fromkeys(twins, vector))
        return [Point(each, vector, twin) for each, twin in twins.items()]

    def failed(self, document: Document) -> list[Document]:
        """Forgets a content that cannot be embedded; returns the document, and those that waited for it."""
        with self._lock:
            waiting = self._under_way.pop(document.content_key, {})
        return [document, *(each for each in waiting.values() if each is not document)]

    def stored(self, documents: Mapping[str, Document]) -> None:
        """Notes points that an earlier run wrote."""
        with self._lock:
            for point_id, document in documents.items():
                self._remember(document.content_key, point_id)

    def written(self, points: Sequence[Point]) -> None:
        """Notes points that are durable."""
        with self._lock:
            for point in points:
                self._remember(self._forget(point), point.id)

    def dropped(self, points: Sequence[Point]) -> None:
        """Forgets points that could not be written."""
        with self._lock:
            for point in points:
                self._forget(point)

    def _remember(self, key: str, point_id: str) -> None:
        self._written[key] = UUID(point_id).bytes
        self._written.move_to_end(key)
        while len(self._written) > MAX_REMEMBERED:
            self._written.popitem(last=False)

    def _forget(self, point: Point) -> str:
        key = point.document.content_key
        known = self._embedded.get(key, {})
        known.pop(point.id, None)
        if not known:
            self._embedded.pop(key, None)
        return key
