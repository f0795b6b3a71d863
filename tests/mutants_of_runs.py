# ruff: noqa: E501  (a mutation is easier to read on one line)
"""Mistakes in the loop of a run and around it, for `python -m tests.mutants`: (name, file, old, new, tests that must fail)."""

RUNS = [
    # ---- the trainer
    (
        "a resumed run starts from the first pair again", "dpo/trainer.py",
        "first = (step * config.accumulation + micro_batch) * config.batch_size", "first = micro_batch * config.batch_size",
        "tests/test_trainer.py",
    ),
    (
        "every epoch has the same order", "dpo/trainer.py",
        'pair_generator(f"epoch {seed}", epoch)', 'pair_generator(f"epoch {seed}", 0)',
        "tests/test_trainer.py",
    ),
    (
        "the optimizer is not resumed", "dpo/trainer.py",
        '"optimizer": optimizer, ', "",
        "tests/test_trainer.py",
    ),
    (
        "metrics are of the last micro-batch", "dpo/trainer.py",
        "torch.stack([torch.stack(sums[name]).sum(0) for name in names])", "torch.stack([sums[name][-1] for name in names])",
        "tests/test_trainer.py",
    ),
    (
        "the loss of a step is summed over its micro-batches", "dpo/trainer.py",
        ".total.sum() / config.step_size", ".total.sum() / config.batch_size",
        "tests/test_trainer.py",
    ),
    (
        "a loss that is not finite goes unnoticed", "dpo/trainer.py",
        "if not math.isfinite(value):", "if False:",
        "tests/test_trainer.py",
    ),
    (
        "a gradient that is not finite goes unnoticed", "dpo/trainer.py",
        'metrics["grad_norm"] if is_usable else 0.0', "0.0",
        "tests/test_trainer.py",
    ),
    (
        "clipping does not clip", "dpo/trainer.py",
        "config.max_grad_norm or math.inf", "math.inf",
        "tests/test_trainer.py",
    ),
    (
        "the last step is exported, not the best", "dpo/trainer.py",
        "if config.keep_best and judge.best_step not in (None, step):", "if False:",
        "tests/test_trainer.py",
    ),
    (
        "all processes train on the same micro-batches", "dpo/trainer.py",
        "for micro_batch in range(processes.rank, config.accumulation, processes.count):", "for micro_batch in range(0, config.accumulation, processes.count):",
        "tests/test_launch.py",
    ),
    (
        "every process adapts beta to its own margins", "dpo/trainer.py",
        "in processes.sum(dict(zip(names, map(tuple, read), strict=True))).items()", "in dict(zip(names, map(tuple, read), strict=True)).items()",
        "tests/test_launch.py",
    ),
    # ---- checkpoints
    (
        "a checkpoint appears before it is whole", "dpo/checkpoints.py",
        'partial = path.with_suffix(".partial")', "partial = path",
        "tests/test_checkpoints.py",
    ),
    (
        "a torn checkpoint ends the run", "dpo/checkpoints.py",
        "except UNREADABLE as error:", "except KeyError as error:",
        "tests/test_checkpoints.py",
    ),
    (
        "going back keeps what came later", "dpo/checkpoints.py",
        "if _step_of(path) > limit:", "if False:",
        "tests/test_checkpoints.py",
    ),
    # ---- steps and processes
    (
        "the probe leaves its step in the adapter", "dpo/probe.py",
        "adapter.load_state_dict(before)", "pass",
        "tests/test_probe.py",
    ),
    (
        "the probe looks at the pairs it has stepped on", "dpo/probe.py",
        "margins, separates = _look(config, data, family, measured_against, draws, *parts)",
        "margins, separates = _look(config, data, family, measured_against, draws, parts[0], parts[0])",
        "tests/test_probe.py",
    ),
    (
        "the first step of a warm-up has no rate", "dpo/optimisation.py",
        "config.learning_rate * (step + 1) / config.warmup_steps", "config.learning_rate * step / config.warmup_steps",
        "tests/test_optimisation.py",
    ),
    (
        "a float16 step that overflowed is taken", "dpo/optimisation.py",
        "is_usable = bool(torch.stack(torch._foreach_norm(gradients, math.inf)).isfinite().all())", "is_usable = True",
        "tests/test_optimisation.py",
    ),
    (
        "gradients stay scaled", "dpo/optimisation.py",
        "torch._foreach_mul_(gradients, 1 / self._scale)", "pass",
        "tests/test_optimisation.py",
    ),
    (
        "processes keep their own gradients", "dpo/parallel.py",
        "            torch.distributed.all_reduce(flat)\n", "            pass\n",
        "tests/test_parallel.py",
    ),
    (
        "gradients are averaged over processes, though a step's share is in the loss", "dpo/parallel.py",
        "parts = flat.split([", "parts = (flat / self.count).split([",
        "tests/test_parallel.py",
    ),
    (
        "every process decides for itself when to stop", "dpo/parallel.py",
        "return self._share(int(value))", "return int(value)",
        "tests/test_parallel.py",
    ),
    # ---- samples
    (
        "painting samples moves the run's own sampler", "dpo/sampling.py",
        "    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)\n", "",
        "tests/test_strip.py",
    ),
    (
        "the base in the strip is the policy", "dpo/strip.py",
        "with self._adapter.as_reference():", "with self._family.encoders():",
        "tests/test_strip.py",
    ),
    # ---- around it
    (
        "sequential forgets the safeguard", "dpo/scoring.py",
        "loss(leaf, reference_error, scale), leaf", "loss(leaf, reference_error, None), leaf",
        "tests/test_scoring.py",
    ),
    (
        "the reference stays in half precision", "dpo/adapters.py",
        "(is_policy or is_of(REFERENCE, name)) and", "is_policy and",
        "tests/test_adapters.py",
    ),
    (
        "every step reads the disk", "dpo/cache.py",
        "        if size <= self._room:", "        if False:",
        "tests/test_cache.py",
    ),
    (
        "one changed word goes unseen", "dpo/fingerprints.py",
        "(tensor[0].flatten()[:FIRST], column)", "(tensor[0].flatten()[:FIRST],)",
        "tests/test_fingerprints.py",
    ),
    (
        "only the first problem is said", "dpo/checks.py",
        "raise ChecksError(problems)", "raise ChecksError(problems[:1])",
        "tests/test_checks.py",
    ),
    (
        "validation does not feed the guard", "dpo/guards.py",
        "self._of_training(), _of_validation(measured)", "self._of_training(), None",
        "tests/test_guards.py",
    ),
    (
        "the best step is judged by the margin", "dpo/patience.py",
        'metrics.get("errors/chosen_drift", math.nan)', '-metrics.get("rewards/margins", math.nan)',
        "tests/test_patience.py",
    ),
    (
        "the base separates the other way round", "dpo/probe.py",
        "known[comparisons.chosen] < known[comparisons.rejected]", "known[comparisons.chosen] > known[comparisons.rejected]",
        "tests/test_probe.py",
    ),
    (
        "two processes train one run", "dpo/records.py",
        "with run.held(), ExitStack() as stack:", "with ExitStack() as stack:",
        "tests/test_records.py",
    ),
    (
        "a running run is deleted", "dpo/runs.py",
        "    with run.held():\n        pass", "    if False:\n        pass",
        "tests/test_runs.py",
    ),
    (
        "raw loss with the supervised mix", "dpo/records.py",
        '"loss/preference": ("dpo/raw_loss",)', '"loss": ("dpo/raw_loss",)',
        "tests/test_records.py",
    ),
]  # fmt: skip
