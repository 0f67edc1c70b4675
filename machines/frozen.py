"""Values that can't change: a read-only dict for JSON objects, and a map that is cheap to copy with one change."""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, NoReturn, TypeVar, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

K = TypeVar("K")
V = TypeVar("V")

SHARDS = 64  # a change copies one shard: at 10,000 entries about 160 of them, 2 us


class FrozenDict(dict[str, V]):
    """A dict that refuses to be changed, so that one snapshot can be handed to many readers. It is still plain JSON.

    A pydantic model may have fields of this type: any dict is taken, and frozen.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this is a frozen snapshot; copy it with dict(...) to change it")

    __setitem__ = __delitem__ = _refuse
    clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type["FrozenDict[V]"], tuple[dict[str, V]]]:
        return (FrozenDict, (dict(self),))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Have pydantic validate a plain dict, and freeze it afterwards."""
        (of,) = get_args(source) or (Any,)
        return core_schema.no_info_after_validator_function(frozen, handler.generate_schema(dict[str, of]))  # type: ignore[valid-type]


def frozen(value: Any) -> Any:
    """A deep read-only copy of a JSON value: dicts become `FrozenDict`, lists and tuples become tuples."""
    if isinstance(value, Mapping):
        return FrozenDict({str(key): frozen(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    return value


class FrozenMap(Generic[K, V]):
    """An immutable map whose `with_item` and `without` cost a copy of one shard, not of the whole.

    For actor state that grows with the number of sessions. A step that fails would leave its changes in a plain dict, and
    copying a whole dict costs 50 us at 10,000 entries.
    """

    __slots__ = ("_length", "_shards")

    def __init__(self) -> None:
        self._shards: tuple[dict[K, V], ...] = ({},) * SHARDS
        self._length = 0

    def with_item(self, key: K, value: V) -> "FrozenMap[K, V]":
        """This map with `key` set to `value`."""
        at = hash(key) % SHARDS
        shard = {**self._shards[at], key: value}
        return self._with_shard(at, shard)

    def without(self, key: K) -> "FrozenMap[K, V]":
        """This map without `key`; the same map if it has no such key."""
        at = hash(key) % SHARDS
        if key not in self._shards[at]:
            return self
        shard = dict(self._shards[at])
        del shard[key]
        return self._with_shard(at, shard)

    def get(self, key: K) -> V | None:
        """The value at `key`, or None."""
        return self._shards[hash(key) % SHARDS].get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """Every pair; the order is that of the shards, so sort where order matters."""
        for shard in self._shards:
            yield from shard.items()

    def __contains__(self, key: K) -> bool:
        return key in self._shards[hash(key) % SHARDS]

    def __len__(self) -> int:
        return self._length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrozenMap) and dict(self.items()) == dict(other.items())

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def __repr__(self) -> str:
        return f"FrozenMap({dict(self.items())!r})"

    def _with_shard(self, at: int, shard: dict[K, V]) -> "FrozenMap[K, V]":
        changed: FrozenMap[K, V] = FrozenMap()  # unsubscripted: subscripting at run time costs more than all the rest
        changed._shards = (*self._shards[:at], shard, *self._shards[at + 1 :])
        changed._length = self._length + len(shard) - len(self._shards[at])
        return changed
