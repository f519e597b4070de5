"""Calls, and the groups of their items that go into one request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qwen3vl.client.contents import Content
from qwen3vl.client.items import EncodedItem
from qwen3vl.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """What the requests of a call have in common.

    Attributes:
        path: Where they are sent.
        items_field: Field that has the items.
        recipe: Recipe of the model that has to answer.
        fields: Further fields.
        query: An item for the field `query`, or None.
    """

    path: str
    items_field: str
    recipe: Recipe
    fields: Mapping[str, Any]
    query: EncodedItem | None = None


@dataclass(slots=True, eq=False)
class Group:
    """Items that are sent in one request, each of their contents at most once.

    Attributes:
        call: Whose items they are.
        items: The items.
        indices: Their indices in the caller's input.
        contents: Their contents and those of the query, by digest.
        size: Number of bytes of the items, the query and the contents.
    """

    call: Call
    items: list[EncodedItem] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    contents: dict[str, Content] = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        query = self.call.query
        self.contents = {} if query is None else dict(query.contents)
        self.size = 0 if query is None else query.size

    def size_with(self, item: EncodedItem) -> int:
        """Return the size that the group would have with a further item.

        Args:
            item: The item.

        Returns:
            Number of bytes; contents that are here already are not counted again.
        """
        new = (content.size for digest, content in item.contents.items() if digest not in self.contents)
        return self.size + len(item.body) + sum(new)

    def add(self, index: int, item: EncodedItem) -> None:
        """Add an item.

        Args:
            index: Its index in the caller's input.
            item: The item.
        """
        self.size = self.size_with(item)
        self.indices.append(index)
        self.items.append(item)
        self.contents |= item.contents

    def halves(self) -> tuple[Group, Group]:
        """Return a group with the first half of the items, and one with the others."""
        halves = Group(self.call), Group(self.call)
        for number, (index, item) in enumerate(zip(self.indices, self.items, strict=True)):
            halves[2 * number >= len(self.items)].add(index, item)
        return halves

    def body(self) -> str:
        """Return the JSON of the request, in one line; items are JSON already."""
        call = self.call
        fields = {**call.fields, "digest": call.recipe.digest}
        members = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in fields.items()]
        if call.query is not None:
            members.append(f'"query":{call.query.body}')
        members.append(f"{json.dumps(call.items_field)}:[{','.join(item.body for item in self.items)}]")
        return f"{{{','.join(members)}}}"
