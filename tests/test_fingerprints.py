import pytest
import torch
from torch import nn

from dpo.fingerprints import FIRST, digest, weights_digest


def holder(tensor: torch.Tensor, name: str = "weight") -> nn.Module:
    module = nn.Module()
    module.register_buffer(name, tensor)
    return module


def of(tensor: torch.Tensor, **more) -> str:
    return weights_digest(holder(tensor, **more))


def test_where_one_part_ends_and_the_next_begins_counts():
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("abc", ""), digest("", "abc")}) == 5
    assert digest("a", b"b") == digest(b"a", "b")


@pytest.mark.parametrize(
    "place", [(0, 0), (0, FIRST - 1), (1, 0), (299, 0)], ids=["first value", "first values", "second row", "last row"]
)
def test_one_changed_value_at_the_start_of_a_tensor_or_of_any_row_is_another_model(place):
    weight = torch.zeros(300, 80)
    before = of(weight)
    weight[place] = 1
    assert of(weight) != before


def test_of_weights_packed_into_one_column_every_value_counts():
    packed = torch.zeros(5000, 1, dtype=torch.uint8)
    before = of(packed)
    packed[4321] = 1
    assert of(packed) != before


def test_type_shape_and_name_count_where_the_bytes_are_the_same():
    zeros = torch.zeros(2, 2, dtype=torch.float16)
    found = [of(zeros), of(zeros.bfloat16()), of(zeros.view(4)), of(zeros, name="bias"), of(torch.zeros(2, 1))]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("tensor", [torch.tensor(3), torch.zeros(0, 4), torch.tensor([True, False]), torch.ones(3, 2, 2, 2)])
def test_anything_a_module_may_hold_has_a_digest(tensor):
    assert of(tensor) == of(tensor.clone())


def test_how_a_tensor_lies_in_memory_does_not_count():
    weight = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    assert of(weight.to(memory_format=torch.channels_last)) == of(weight)
