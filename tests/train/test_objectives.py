import torch

from sclinguist_core.train.objectives import level_error_sum, robust_error_sum, scale_error_sum

NAN = float("nan")


def test_what_is_not_measured_has_no_loss_and_no_gradient():
    mean = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = robust_error_sum(mean, torch.tensor([[0.0, NAN], [NAN, 4.0]]))
    loss.backward()
    assert loss.item() == 0.5  # one error of 1, halved by Huber's loss, and one of 0
    assert mean.grad.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_nothing_measured_is_no_error():
    mean = torch.tensor([[1.0]], requires_grad=True)
    loss = robust_error_sum(mean, torch.tensor([[NAN]]))
    loss.backward()
    assert loss.item() == 0
    assert mean.grad.item() == 0


def test_large_errors_count_linearly():
    loss = robust_error_sum(torch.tensor([[0.0]]), torch.tensor([[100.0]]))
    assert loss.item() == 2.0 * (100.0 - 1.0)


def test_scale_error_is_least_at_the_true_spread_and_leaves_the_mean_alone():
    mean = torch.zeros(1, 20_000, requires_grad=True)
    target = 0.7 * torch.randn(1, 20_000, generator=torch.Generator().manual_seed(0))
    losses = {
        s: scale_error_sum(mean, torch.full_like(mean, s), target).item() for s in (0.5, 0.7, 0.9)
    }
    assert min(losses, key=losses.get) == 0.7
    std = torch.full((1, 20_000), 0.7, requires_grad=True)
    scale_error_sum(mean, std, target).backward()
    assert mean.grad is None
    assert std.grad.abs().sum() > 0


def test_padded_levels_have_no_loss():
    logits = torch.zeros(1, 3, 4)
    logits[0, 1, 2] = 50.0
    loss = level_error_sum(logits, torch.tensor([[0, 2, -1]]))
    torch.testing.assert_close(loss, torch.tensor(4.0).log())  # one guess among four, one certain
