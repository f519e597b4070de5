"""Conversion of filters from qdrant-client's models to Qdrant Edge's classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import qdrant_edge as edge
from qdrant_client import models


def to_edge_filter(query_filter: models.Filter | None) -> edge.Filter | None:
    """Convert a filter.

    Args:
        query_filter: A filter; None for no restriction.

    Returns:
        The filter in Edge's form; None for None.

    Raises:
        NotImplementedError: The filter has a condition that Edge does not have.
    """
    if query_filter is None:
        return None
    return edge.Filter(
        must=_conditions(query_filter.must),
        should=_conditions(query_filter.should),
        must_not=_conditions(query_filter.must_not),
        min_should=_optional(
            query_filter.min_should,
            lambda clause: edge.MinShould(_conditions(clause.conditions) or [], clause.min_count),
        ),
    )


def _conditions(clause: Any) -> list[Any] | None:
    if clause is None:
        return None
    return [_condition(condition) for condition in (clause if isinstance(clause, list) else [clause])]


def _condition(condition: Any) -> Any:
    match condition:
        case models.FieldCondition():
            return _field_condition(condition)
        case models.Filter():
            return to_edge_filter(condition)
        case models.HasIdCondition():
            return edge.HasIdCondition(set(condition.has_id))
        case models.IsEmptyCondition():
            return edge.IsEmptyCondition(condition.is_empty.key)
        case models.IsNullCondition():
            return edge.IsNullCondition(condition.is_null.key)
        case models.HasVectorCondition():
            return edge.HasVectorCondition(condition.has_vector)
        case models.NestedCondition():
            return edge.NestedCondition(condition.nested.key, to_edge_filter(condition.nested.filter) or edge.Filter())
    raise _unsupported(condition)


def _field_condition(condition: models.FieldCondition) -> edge.FieldCondition:
    return edge.FieldCondition(
        key=condition.key,
        match=_optional(condition.match, _match),
        range=_optional(condition.range, _range),
        geo_bounding_box=_optional(
            condition.geo_bounding_box,
            lambda box: edge.GeoBoundingBox(_geo_point(box.top_left), _geo_point(box.bottom_right)),
        ),
        geo_radius=_optional(
            condition.geo_radius, lambda circle: edge.GeoRadius(_geo_point(circle.center), circle.radius)
        ),
        geo_polygon=_optional(
            condition.geo_polygon,
            lambda polygon: edge.GeoPolygon(
                _line(polygon.exterior), [_line(interior) for interior in polygon.interiors or []]
            ),
        ),
        values_count=_optional(
            condition.values_count,
            lambda count: edge.ValuesCount(lt=count.lt, gt=count.gt, lte=count.lte, gte=count.gte),
        ),
        is_empty=condition.is_empty,
        is_null=condition.is_null,
    )


def _optional(value: Any, convert: Callable[[Any], Any]) -> Any:
    return None if value is None else convert(value)


def _match(condition: Any) -> Any:
    match condition:
        case models.MatchValue():
            # Edge 0.9 takes Python's True for the integer 1, but NumPy's for a boolean.
            value: Any = condition.value
            if isinstance(value, bool):
                value = np.bool_(value)
            return edge.MatchValue(value)
        case models.MatchAny():
            return edge.MatchAny(condition.any)
        case models.MatchExcept():
            return edge.MatchExcept(condition.except_)
        case models.MatchText():
            return edge.MatchText(condition.text)
        case models.MatchTextAny():
            return edge.MatchTextAny(condition.text_any)
        case models.MatchPhrase():
            return edge.MatchPhrase(condition.phrase)
    raise _unsupported(condition)


def _range(bounds: Any) -> Any:
    limits = {name: getattr(bounds, name) for name in ("gte", "gt", "lte", "lt")}
    if isinstance(bounds, models.DatetimeRange):
        return edge.RangeDateTime(**{name: limit and limit.isoformat() for name, limit in limits.items()})
    return edge.RangeFloat(**limits)


def _geo_point(point: models.GeoPoint) -> edge.GeoPoint:
    return edge.GeoPoint(lon=point.lon, lat=point.lat)


def _line(line: models.GeoLineString) -> list[edge.GeoPoint]:
    return [_geo_point(point) for point in line.points]


def _unsupported(condition: Any) -> NotImplementedError:
    return NotImplementedError(
        f"Qdrant Edge has no filter condition of type {type(condition).__name__}; a Qdrant server may have it"
    )
