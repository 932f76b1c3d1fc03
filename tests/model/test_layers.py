import pytest
import torch

from sclinguist_core.model.layers import attention, attention_reference, merge_heads, split_heads


@pytest.mark.parametrize("masked", [False, True])
def test_attention_agrees_with_its_definition(masked):
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    mask = torch.rand(2, 1, 5, 7) > 0.4 if masked else None
    torch.testing.assert_close(attention(q, k, v, mask), attention_reference(q, k, v, mask))


def test_a_query_that_sees_nothing_gets_zeros_and_no_nan_gradient():
    q = torch.randn(1, 1, 2, 4, requires_grad=True)
    mask = torch.tensor([[[[True, False], [False, False]]]])
    out = attention(q, torch.randn(1, 1, 2, 4), torch.randn(1, 1, 2, 4), mask)
    assert (out[0, 0, 1] == 0).all()
    out.sum().backward()
    assert torch.isfinite(q.grad).all()


def test_heads_split_and_merge_to_the_same():
    x = torch.randn(2, 5, 12)
    assert split_heads(x, 3).shape == (2, 3, 5, 4)
    torch.testing.assert_close(merge_heads(split_heads(x, 3)), x)
