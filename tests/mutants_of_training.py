# ruff: noqa: E501  (a mutation is easier to read on one line)
"""Mistakes in training, for `python -m tests.mutants`: (name, file, old, new, tests that must fail).

Every invariant of training has at least one here that breaks it; most are mistakes that published trainers have shipped.
"""

TRAINING = [
    # ---- draws
    (
        "noise is not shared within a pair", "dpo/draws.py",
        "_send(noise, device).to(batch.latents.dtype)[index]", "torch.randn_like(batch.latents)",
        "tests/test_draws.py tests/test_scoring.py",
    ),
    (
        "timesteps are not shared within a pair", "dpo/draws.py",
        "u = _send(u, device)[index]", "u = torch.rand(len(index))",
        "tests/test_draws.py tests/test_scoring.py",
    ),
    (
        "randomness follows the place in the batch, not the pair", "dpo/draws.py",
        'f"{config.seed} row {row}", batch.numbers[group]', 'f"{config.seed} row {row}", group',
        "tests/test_draws.py",
    ),
    (
        "the seed decides draws that should return in every run", "dpo/draws.py",
        'name, number = f"{batch.keys[group]} row {row}", batch.visits', 'name, number = f"{config.seed} {batch.keys[group]} row {row}", batch.visits',
        "tests/test_draws.py",
    ),
    (
        "the K draws of a pair are not spread over the schedule", "dpo/draws.py",
        "v = (strata[number].item() + _uniform(name, number)) / config.reference_draws", "v = _uniform(name, number)",
        "tests/test_draws.py",
    ),
    (
        "a remembered error serves another draw", "dpo/draws.py",
        "draw {batch.visits[group] % count} of", "draw {0} of",
        "tests/test_draws.py",
    ),
    (
        "the range of timesteps is ignored", "dpo/draws.py",
        "u = low + (high - low) * v", "u = v",
        "tests/test_draws.py",
    ),
    # ---- reference
    (
        "the reference is the policy", "dpo/adapters.py",
        "self._activate(REFERENCE if self._has_reference else None)", "self._activate(POLICY)",
        "tests/test_adapters.py",
    ),
    (
        "the reference is always the base", "dpo/adapters.py",
        "self._activate(REFERENCE if self._has_reference else None)", "self._activate(None)",
        "tests/test_adapters.py",
    ),
    (
        "the reference trains too", "dpo/adapters.py",
        "is_policy = is_of(POLICY, name)", "is_policy = is_of(POLICY, name) or is_of(REFERENCE, name)",
        "tests/test_adapters.py",
    ),
    (
        "an exception in a reference pass leaves the reference in place", "dpo/adapters.py",
        "        try:\n            yield\n        finally:\n            self._activate(POLICY)", "        yield\n        self._activate(POLICY)",
        "tests/test_adapters.py",
    ),
    (
        "a changed reference is taken on resume", "dpo/training.py",
        "_sha256(run.reference) != record_file.read_text()", "False",
        "tests/test_training.py",
    ),
    (
        "a fresh adapter does not start at the base", "dpo/adapter_types.py",
        'init_lora_weights="gaussian"', "init_lora_weights=False",
        "tests/test_scoring.py",
    ),
    (
        "a moving reference goes the wrong share", "dpo/adapters.py",
        "reference.lerp_(policy, alpha)", "reference.lerp_(policy, 1 - alpha)",
        "tests/test_adapters.py",
    ),
    (
        "a moving reference is forgotten by checkpoints", "dpo/adapters.py",
        "if self._moving and state:", "if False:",
        "tests/test_adapters.py",
    ),
    (
        "errors of a moving reference are remembered", "dpo/combinations.py",
        "if config.ref_model_sync_steps and config.reference_draws:", "if False:",
        "tests/test_combinations.py",
    ),
    (
        "remembered errors of one model serve another", "dpo/remembered.py",
        "default=str), weights_digest(denoiser))", "default=str))",
        "tests/test_remembered.py",
    ),
    (
        "errors computed in other batches are taken for these", "dpo/remembered.py",
        'config.batch_size if config.execution == "full_concurrent" else 0', "0",
        "tests/test_remembered.py",
    ),
    (
        "half of a batch's errors is remembered and the rest invented", "dpo/remembered.py",
        "return None if None in found else found", "return [value or 0.0 for value in found]",
        "tests/test_remembered.py",
    ),
    (
        "what is remembered is computed again", "dpo/scoring.py",
        "if known is not None:", "if False:",
        "tests/test_scoring.py",
    ),
    (
        "dropout of a starting adapter stays on", "dpo/adapters.py",
        "layer.lora_dropout[name] = nn.Identity()", "pass",
        "tests/test_adapters.py",
    ),
    (
        "the average stays in the adapter", "dpo/adapters.py",
        "            self._put(own)", "            pass",
        "tests/test_adapters.py",
    ),
    # ---- execution modes
    (
        "sequential drops the coefficient", "dpo/scoring.py",
        "(coefficient * errors(", "(coefficient.sign() * errors(",
        "tests/test_scoring.py",
    ),
    (
        "sequential holds all activations", "dpo/scoring.py",
        "        (coefficient * errors(family, row)[0]).backward()",
        "        kept = [*(kept if row is not rows[0] else []), coefficient * errors(family, row)[0]]\n    sum(kept).backward()",
        "tests/test_scoring.py",
    ),
    (
        "the reference builds a graph", "dpo/scoring.py",
        "    @torch.no_grad()\n    def errors(self", "    def errors(self",
        "tests/test_scoring.py",
    ),
    # ---- data
    (
        "each image of a pair has its own crop", "dpo/cache.py",
        "images = [tensors.image(*image, bucket) for image in", "images = [tensors.image(*image, choose_bucket(*image[2], resolution, family.pixel_multiple)) for image in",
        "tests/test_cache.py",
    ),
    (
        "latents of another encoder are used", "dpo/cache.py",
        "return _Source(digest(ENCODING, prompt, self._text), prompt)", "return _Source(digest(ENCODING, prompt), prompt)",
        "tests/test_cache.py",
    ),
    (
        "the split is by pair, not by prompt", "dpo/pairs.py",
        "if item.prompt not in held_out]", "if id(item) % 2]",
        "tests/test_pairs.py",
    ),
    (
        "every image has the caption of the first", "dpo/cache.py",
        "torch.stack([one[name] for one in told])", "torch.stack([told[0][name] for _ in told])",
        "tests/test_cache.py",
    ),
    # ---- the families
    (
        "the target of v-prediction is the noise", "dpo/families/noising.py",
        "return noisy, self.scheduler.get_velocity(latents, noise, timesteps)", "return noisy, noise",
        "tests/test_families.py",
    ),
    (
        "latents are a sample of the posterior", "dpo/families/shared.py",
        "encoded.latent_dist.mode()", "encoded.latent_dist.sample()",
        "tests/test_families.py",
    ),
    (
        "alpha is lost on export", "dpo/adapter_loading.py",
        "LORA_ADAPTER_METADATA_KEY: settings_text(", '"nothing": settings_text(',
        "tests/test_adapters.py",
    ),
    # ---- validation and guards
    (
        "validation draws anew every time", "dpo/draws.py",
        'pair_generator(f"validation {seed}", number * draws + draw)', 'pair_generator(f"validation {seed}", int(torch.randint(9**9, ())))',
        "tests/test_validation.py",
    ),
    (
        "validation draws are not stratified", "dpo/draws.py",
        "v = torch.cat([(draw + torch.rand(1, generator=generator)) / draws for", "v = torch.cat([torch.rand(1, generator=generator) for",
        "tests/test_draws.py",
    ),
    (
        "intervals take images for independent", "dpo/validation.py",
        "ends = interval(columns[name], prompts[name])", "ends = interval(columns[name], list(map(str, range(len(columns[name])))))",
        "tests/test_validation.py",
    ),
    (
        "damage goes unnoticed", "dpo/guards.py",
        'if passed == 2 and self._config.on_damage == "stop":', "if False:",
        "tests/test_guards.py",
    ),
    (
        "one bad step counts as damage", "dpo/guards.py",
        "return mean, mean - STANDARD_ERRORS * math.sqrt(variance / WINDOW)", "return max(self._drifts), max(self._drifts)",
        "tests/test_guards.py",
    ),
    (
        "patience counts the same value as progress", "dpo/patience.py",
        "is_better = value > top", "is_better = value >= top",
        "tests/test_patience.py",
    ),
    (
        "bests begin at zero", "dpo/patience.py",
        "dict.fromkeys(config.patience_watches, -math.inf)", "dict.fromkeys(config.patience_watches, 0.0)",
        "tests/test_patience.py",
    ),
    (
        "patience does not start again after an improvement", "dpo/patience.py",
        "0 if is_better else self._stalled[name] + 1", "self._stalled[name] + (not is_better)",
        "tests/test_patience.py",
    ),
    (
        "either and both are mixed up", "dpo/patience.py",
        'config.patience_rule == "both"', 'config.patience_rule == "either"',
        "tests/test_patience.py",
    ),
    (
        "accuracy alone says which step is best", "dpo/patience.py",
        "if not drift <= limit or math.isnan(accuracy):", "if math.isnan(accuracy):",
        "tests/test_patience.py",
    ),
    (
        "a step that makes images suffer competes with one that does not", "dpo/patience.py",
        "ABOVE if drift <= WARNING_SHARE * limit else SUFFERS", "ABOVE",
        "tests/test_patience.py",
    ),
    (
        "beta runs away with adaption", "dpo/guards.py",
        "math.tanh(beta * (gaps.newest - gaps.value))", "(beta * (gaps.newest - gaps.value))",
        "tests/test_guards.py",
    ),
]  # fmt: skip
