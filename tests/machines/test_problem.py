"""A problem names its field by itself; nobody reads it out of a sentence."""

import copy
import pickle

import pytest

from machines.problem import FieldProblem, field_of

PROBLEM = FieldProblem("project_id must be text", field="project_id")


def test_a_field_problem_is_its_sentence_and_names_its_field() -> None:
    assert PROBLEM == "project_id must be text"
    assert isinstance(PROBLEM, str)
    assert field_of(PROBLEM) == "project_id"


@pytest.mark.parametrize("plain", ["Only projects of the allow list may call", "project_id must be text", "", None])
def test_a_plain_sentence_names_no_field(plain: object) -> None:
    assert field_of(plain) is None


def test_text_made_of_a_problem_has_no_field() -> None:
    assert field_of(f"{PROBLEM}, says the policy") is None
    assert field_of(PROBLEM.upper()) is None


def test_it_is_copied_and_pickled_with_its_field() -> None:
    for again in (copy.copy(PROBLEM), copy.deepcopy(PROBLEM), pickle.loads(pickle.dumps(PROBLEM))):
        assert (again, field_of(again)) == (PROBLEM, "project_id")
