"""Check for what no store can keep: fields of wrong types, reserved metadata keys, values that are not JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qwen3vl.documents import FORMER_KEYS, RESERVED, Document, has_former_keys
from qwen3vl.errors import InputError
from qwen3vl.inputs import check_text, type_name

MAX_METADATA_DEPTH = 64
"""Maximum depth of nested metadata. Servers refuse JSON of more than about 100 levels, and some clients crash."""
_STRING_FIELDS = ("source", "kind", "content_hash", "locator", "text")
_REFERENCE_FIELDS = ("image", "video")
_INTEGERS = range(-(2**63), 2**63)
"""What databases keep as an integer."""


def check_storable(document: Any) -> None:
    """Check that a document can be stored by every database, as it is.

    Args:
        document: An object of a caller's stream.

    Raises:
        InputError: It is no `Document`, or one of its fields or metadata cannot be stored.
    """
    if not isinstance(document, Document):
        raise InputError(f"it is of type {type_name(document)}; a stream has objects of type Document")
    for name in _STRING_FIELDS:
        _check_string(name, getattr(document, name), "a str")
    for name in _REFERENCE_FIELDS:
        if (value := getattr(document, name)) is not None:
            _check_string(name, value, "a str or None")
    _check_value("its fused", document.fused, 0)
    check_metadata(document.metadata)


def _check_string(name: str, value: Any, expected: str) -> None:
    if not isinstance(value, str):
        raise InputError(f"its {name} is of type {type_name(value)}; it must be {expected}")
    check_text(value, f"its {name}")


def check_metadata(metadata: Any) -> None:
    """Check that metadata of a document can be stored by every database.

    Args:
        metadata: The metadata.

    Raises:
        InputError: They are no mapping, use a reserved key, are nested too deep, or have a value that is not JSON.
    """
    if not isinstance(metadata, Mapping):
        raise InputError(f"its metadata are of type {type_name(metadata)}; they must be a mapping")
    reserved_keys = RESERVED.union(FORMER_KEYS.values()) if has_former_keys(metadata) else RESERVED
    if reserved := sorted(reserved_keys & metadata.keys()):
        raise InputError(
            f"its metadata use {', '.join(reserved)}, reserved for the document's own fields; use other names"
        )
    if invalid := [key for key in metadata if not isinstance(key, str) or not key]:
        raise InputError(f"its metadata have keys that are empty or not strings: {invalid}; use other names")
    for key, value in metadata.items():
        check_text(key, f"its metadata key {key!r}")
        _check_value(f"its metadata {key!r}", value, 1)


def _check_value(name: str, value: Any, depth: int) -> None:
    """Check a value that is to be stored as JSON."""
    match value:
        case None | bool():
            return
        case str():
            check_text(value, name)
        case int():
            if value not in _INTEGERS:
                raise InputError(f"{name} is an integer of more than 64 bits; store it as a str")
        case float():
            if not math.isfinite(value):
                raise InputError(f"{name} is {value}, which JSON cannot hold; leave it out")
        case dict() | list() | tuple():
            if depth == MAX_METADATA_DEPTH:
                raise InputError(
                    f"{name[:60]}… is nested more than {MAX_METADATA_DEPTH} levels deep or contains itself; store it "
                    "as a str of JSON"
                )
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(value, dict) and not isinstance(key, str):
                    raise InputError(f"{name} has the key {key!r} of type {type_name(key)}; JSON has only str")
                check_text(str(key), f"a key of {name}")
                _check_value(f"{name}[{key!r}]", item, depth + 1)
        case _:
            raise InputError(f"{name} is of type {type_name(value)}, which JSON cannot hold; convert it")
