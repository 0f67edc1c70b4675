"""Values: frozen structs that actors pass on by the thousand, and that pydantic models of the public interface hold.

A struct costs a tenth of a pydantic model to make, can be hashed, and is compared by type and fields. Actors do not validate a
struct again; as a field of a pydantic model it is validated, written and described as a model would be.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, TypeVar

from msgspec import Struct
from msgspec.structs import asdict, fields
from pydantic import GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

V = TypeVar("V", bound="Value")


class Value(Struct, frozen=True):
    """The base class of values. Fields must be immutable themselves: `FrozenDict` and tuples, not dict and list."""

    def model_dump(self, *, mode: Literal["json", "python"] = "python") -> dict[str, Any]:
        """The fields by name, with nested values as dicts too; mode "json" gives only JSON types."""
        dumped: dict[str, Any] = _adapter(type(self)).dump_python(self, mode=mode)
        return dumped

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Have pydantic read and write this value as an object with these fields and no other."""
        shape = core_schema.typed_dict_schema(
            {
                field.name: core_schema.typed_dict_field(handler.generate_schema(field.type), required=field.required)
                for field in fields(cls)
            },
            cls_name=cls.__name__,
            extra_behavior="forbid",
        )

        def whole(given: Any, validated: Callable[[Any], dict[str, Any]]) -> Any:
            return given if isinstance(given, cls) else cls(**validated(given))

        written = core_schema.plain_serializer_function_ser_schema(asdict, return_schema=shape)
        return core_schema.no_info_wrap_validator_function(whole, shape, serialization=written)


@cache
def _adapter(kind: type[V]) -> TypeAdapter[V]:
    return TypeAdapter(kind)
