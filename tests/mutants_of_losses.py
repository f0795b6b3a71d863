# ruff: noqa: E501  (a mutation is easier to read on one line)
"""Mistakes in losses and the safeguard, for `python -m tests.mutants`: (name, file, old, new, tests that must fail)."""

LOSSES = [
    # ---- losses
    (
        "sign of the log-ratio", "dpo/losses.py",
        "return reference_error - policy_error", "return policy_error - reference_error",
        "tests/test_losses.py",
    ),
    (
        "batch mean before the loss", "dpo/losses.py",
        "rejected = logratios(rejected_error, reference_error[comparisons.rejected])\n",
        "rejected = logratios(rejected_error, reference_error[comparisons.rejected])\n"
        "        chosen, rejected = chosen.mean().expand_as(chosen), rejected.mean().expand_as(rejected)\n",
        "tests/test_loss_of_a_batch.py",
    ),
    (
        "a hidden factor of one half on beta", "dpo/losses.py",
        "margin = beta * (chosen_logratios - rejected_logratios)\n    return -(1 - label_smoothing) * logsigmoid(margin) - label",
        "margin = 0.5 * beta * (chosen_logratios - rejected_logratios)\n    return -(1 - label_smoothing) * logsigmoid(margin) - label",
        "tests/test_losses.py",
    ),
    (
        "a tie counts as a win", "dpo/losses.py",
        "(margins > 0)", "(margins >= 0)",
        "tests/test_loss_of_a_batch.py",
    ),
    (
        "an error is a sum over the image", "dpo/losses.py",
        ".pow(2).flatten(1).mean(1)", ".pow(2).flatten(1).sum(1)",
        "tests/test_losses.py",
    ),
    (
        "label smoothing rewards the flipped label twice", "dpo/losses.py",
        "comparisons.smoothing * (1 - recipe.label_smoothing) + recipe.label_smoothing * (1 - comparisons.smoothing)",
        "comparisons.smoothing + recipe.label_smoothing",
        "tests/test_loss_of_a_batch.py",
    ),
    (
        "how sure a pick was is forgotten", "dpo/cache.py",
        "weight, 1 - item.confidence)", "weight, 0.0)",
        "tests/test_cache.py",
    ),
    (
        "ipo aims at twice its margin", "dpo/losses.py",
        "(beta * (chosen_logratios - rejected_logratios) - 0.5).square()", "(beta * (chosen_logratios - rejected_logratios) - 1.0).square()",
        "tests/test_losses.py",
    ),
    (
        "exo has the divergence the other way round", "dpo/losses.py",
        "return right.exp() * (right - torch.log1p(-smoothing)) + wrong.exp() * (wrong - torch.log(smoothing))",
        "return (1 - smoothing) * (torch.log1p(-smoothing) - right) + smoothing * (torch.log(smoothing) - wrong)",
        "tests/test_losses.py",
    ),
    (
        "mapo prefers the rejected image", "dpo/losses.py",
        "(_closeness(chosen_error) - _closeness(rejected_error))", "(_closeness(rejected_error) - _closeness(chosen_error))",
        "tests/test_losses.py",
    ),
    (
        "kto pulls disliked images up", "dpo/losses.py",
        "torch.where(liked, -reward, reward)", "torch.where(liked, -reward, -reward)",
        "tests/test_losses.py",
    ),
    (
        "all mistakes in a ranking count alike", "dpo/losses.py",
        "return (weights / weights.sum()).float()", "return torch.full_like(weights, 1 / len(weights)).float()",
        "tests/test_losses.py",
    ),
    (
        "the supervised mix learns from rejected images too", "dpo/losses.py",
        "recipe.sft_weight * sft(chosen_error)", "recipe.sft_weight * sft((chosen_error + rejected_error) / 2)",
        "tests/test_loss_of_a_batch.py",
    ),
    # ---- safeguard
    (
        "the safeguard is of the batch, not of the pair", "dpo/losses.py",
        "return torch.where(along > 0, (allowed / along.clamp(min=torch.finfo(dtype).tiny)).clamp(max=1), 1.0)",
        "along, allowed = along.sum().expand_as(along), allowed.sum().expand_as(allowed)\n"
        "    return torch.where(along > 0, (allowed / along.clamp(min=torch.finfo(dtype).tiny)).clamp(max=1), 1.0)",
        "tests/test_loss_of_a_batch.py",
    ),
    (
        "the safeguard holds the chosen image back", "dpo/losses.py",
        "rejected_error = value + rejected_scale * (rejected_error - value)",
        "chosen_error = chosen_error.detach() + rejected_scale * (chosen_error - chosen_error.detach())",
        "tests/test_loss_of_a_batch.py",
    ),
    (
        "the safeguard changes the loss itself", "dpo/losses.py",
        "rejected_error = value + rejected_scale * (rejected_error - value)", "rejected_error = rejected_scale * rejected_error",
        "tests/test_loss_of_a_batch.py",
    ),
    (
        "the safeguard is switched on and does nothing", "dpo/scoring.py",
        "if not config.safeguard_mu:", "if True:",
        "tests/test_scoring.py",
    ),
]  # fmt: skip
