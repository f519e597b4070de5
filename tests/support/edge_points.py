"""A collection of points for tests of clients, and what it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

SIZE = 8
NAME = "points"
VECTORS = np.random.default_rng(0).standard_normal((60, SIZE)).astype(np.float32)
QUERY = VECTORS[-1].tolist()
LOW = models.Filter(must=[models.FieldCondition(key="number", range=models.Range(lt=30))])
ODD = models.Filter(must=[models.FieldCondition(key="odd", match=models.MatchValue(value=True))])
PLAIN = models.VectorParams(size=SIZE, distance=models.Distance.COSINE)


def point(number: int) -> models.PointStruct:
    payload = {"number": number, "odd": number % 2 == 1, "group": f"g{number % 5}", "deep": {"a": [number], "b": 1}}
    return models.PointStruct(id=number, vector=VECTORS[number].tolist(), payload=payload)


def fill(client: QdrantClient) -> None:
    client.create_collection(NAME, PLAIN)
    client.upsert(NAME, [point(number) for number in range(50)])
    client.create_payload_index(NAME, "number", models.PayloadSchemaType.INTEGER)
    client.create_payload_index(NAME, "group", models.PayloadSchemaType.KEYWORD)


def contents(client: QdrantClient) -> dict[Any, Any]:
    """All points of all collections, with numbers that may differ in the last digits rounded."""
    return {
        (collection.name, record.id): (record.payload or {}, rounded(record.vector))
        for collection in client.get_collections().collections
        for record in client.scroll(collection.name, limit=1000, with_vectors=True)[0]
    }


def rounded(vector: Any) -> Any:
    if isinstance(vector, dict):
        return {name: rounded(value) for name, value in vector.items()}
    return np.round(vector, 4).tolist() if isinstance(vector, list) else vector
