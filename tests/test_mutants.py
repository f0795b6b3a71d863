import pytest

from tests.mutants import MUTANTS, find_problem


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_listed_mutant_still_applies(mutant):
    """That each is killed is shown by `python -m tests.mutants`, which takes minutes."""
    assert find_problem(mutant) == ""
    assert mutant.old != mutant.new
