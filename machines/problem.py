"""A sentence that says what is wrong, and names the field or setting that it is about.

Policies and providers answer `(False, sentence)`. A plain sentence is about the request as a whole: nobody guesses a name from
its words. An answer about one field is a `FieldProblem`.
"""

from typing import Self


class FieldProblem(str):
    """What is wrong, as a sentence; `field` is the argument, or the environment variable, that has to change.

    It is the sentence itself, so it goes wherever a `str` does; text that is made of it has no field any more.
    """

    __slots__ = ("field",)

    field: str

    def __new__(cls, sentence: str, *, field: str) -> Self:
        """The sentence, with its field."""
        made = super().__new__(cls, sentence)
        made.field = field
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, str]]:
        """Copied and pickled with its field."""
        return (str(self),), {"field": self.field}


def field_of(problem: object) -> str | None:
    """The field that `problem` names, None for a plain sentence."""
    return problem.field if isinstance(problem, FieldProblem) else None
