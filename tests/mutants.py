# ruff: noqa: E501  (a mutation is easier to read on one line)
"""`python -m tests.mutants`: break the source in ways the field has shipped, one at a time, and see a test fail for each.

Works on a copy of the repository. Exit status 1 if a mutant survives, or no longer applies because its line has changed.
`--only WORD` runs those whose name holds the word; `--json` prints one object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutant:
    """Replacing `old`, which occurs once in `file`, by `new` must make one of `tests` fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "sign of the log-ratio", "dpo/losses.py",
        "return reference_error - policy_error", "return policy_error - reference_error",
        "tests/test_losses.py",
    ),
    Mutant(
        "batch mean before the loss", "dpo/losses.py",
        "ratios = logratios(policy_error, reference_error)\n    smoothing",
        "ratios = logratios(policy_error, reference_error)\n"
        "    ratios = ratios.reshape(2, -1).mean(1).repeat_interleave(len(ratios) // 2)\n    smoothing",
        "tests/test_losses.py",
    ),
    Mutant(
        "a hidden factor of one half on beta", "dpo/losses.py",
        "margin = beta * (chosen_logratios - rejected_logratios)", "margin = 0.5 * beta * (chosen_logratios - rejected_logratios)",
        "tests/test_losses.py",
    ),
    Mutant(
        "a tie counts as a win", "dpo/losses.py",
        "(chosen > rejected).float()", "(chosen >= rejected).float()",
        "tests/test_losses.py",
    ),
    Mutant(
        "noise is not shared within a pair", "dpo/scoring.py",
        "noise.to(device, batch.latents.dtype)[batch.groups]", "torch.randn_like(batch.latents)",
        "tests/test_scoring.py",
    ),
    Mutant(
        "timesteps are not shared within a pair", "dpo/scoring.py",
        "family.timesteps(u).to(device)[batch.groups]", "family.timesteps(torch.rand(len(batch.groups))).to(device)",
        "tests/test_scoring.py",
    ),
    Mutant(
        "the reference is the policy", "dpo/adapters.py",
        "self._activate(REFERENCE if self._has_reference else None)", "self._activate(POLICY)",
        "tests/test_adapters.py",
    ),
    Mutant(
        "the reference is always the base", "dpo/adapters.py",
        "self._activate(REFERENCE if self._has_reference else None)", "self._activate(None)",
        "tests/test_adapters.py",
    ),
    Mutant(
        "the reference trains too", "dpo/adapters.py",
        'f".{POLICY}." in name', '"lora_" in name',
        "tests/test_adapters.py",
    ),
    Mutant(
        "a changed reference is taken on resume", "dpo/training.py",
        "elif _sha256(run.reference) != record_file.read_text():", "elif False:",
        "tests/test_trainer.py",
    ),
    Mutant(
        "alpha is lost on export", "dpo/adapters.py",
        "unet_lora_adapter_metadata=self._family.denoiser.peft_config[POLICY].to_dict(),", "unet_lora_adapter_metadata=None,",
        "tests/test_adapters.py",
    ),
    Mutant(
        "sequential drops the coefficient", "dpo/scoring.py",
        "(coefficient * errors(", "(coefficient.sign() * errors(",
        "tests/test_scoring.py",
    ),
    Mutant(
        "randomness follows the micro-batch, not the pair", "dpo/trainer.py",
        "pair_generator(seed, number)) for number in batch.numbers", "pair_generator(seed, row)) for row in range(len(batch.numbers))",
        "tests/test_scoring.py",
    ),
    Mutant(
        "a resumed run starts from the first pair again", "dpo/trainer.py",
        "first = (step * config.accumulation + micro_batch) * config.batch_size", "first = micro_batch * config.batch_size",
        "tests/test_trainer.py",
    ),
    Mutant(
        "the optimizer is not resumed", "dpo/trainer.py",
        'optimizer.load_state_dict(state["optimizer"])', "pass",
        "tests/test_trainer.py",
    ),
    Mutant(
        "the split is by pair, not by prompt", "dpo/pairs.py",
        "held_out = set(prompts[: round(share * len(prompts))])\n    training = [pair for pair in pairs if normalise_prompt(pair.prompt) not in held_out]",
        "held_out = set(prompts[: round(share * len(prompts))])\n    training = pairs[: len(pairs) // 2]",
        "tests/test_trainer.py",
    ),
    Mutant(
        "validation draws anew every time", "dpo/validation.py",
        "policy_error = errors(self._family, noised)", "policy_error = errors(self._family, _fixed_draw(self._family, batch, 0, int(torch.randint(9**9, ())))) ",
        "tests/test_trainer.py",
    ),
    Mutant(
        "damage goes unnoticed", "dpo/trainer.py",
        "drift > config.max_chosen_drift", "drift > float('inf')",
        "tests/test_trainer.py",
    ),
    Mutant(
        "the target of v-prediction is the noise", "dpo/families/noising.py",
        "return noisy, self.scheduler.get_velocity(latents, noise, timesteps)", "return noisy, noise",
        "tests/test_families.py",
    ),
    Mutant(
        "an undone pick still makes a pair", "dpo/picks.py",
        "SELECT * FROM live_picks WHERE op != 'skip'", "SELECT * FROM picks WHERE op IN ('best_worst', 'duel')",
        "tests/test_picks.py",
    ),
    Mutant(
        "a picked copy leaves its other copies unpicked", "dpo/progress.py",
        "all(self._seen[key] <= 0 for key in copies)", "self._seen[copies[-1]] <= 0",
        "tests/test_picks.py",
    ),
    Mutant(
        "copies count as images", "dpo/catalogue.py",
        "count(*) - count(DISTINCT content)", "0 * count(content)",
        "tests/test_catalogue.py",
    ),
    Mutant(
        "any two shapes may be compared", "dpo/groups.py",
        "if high <= low * (1 + ASPECT_TOLERANCE):", "if high <= low * 100:",
        "tests/test_catalogue.py",
    ),
    Mutant(
        "pixels are searched again at every scan", "dpo/scan.py",
        "return fingerprint == plain + SEARCHED or (", "return (",
        "tests/test_library.py",
    ),
    Mutant(
        "a silenced conditioning speaks", "dpo/metadata/comfytext.py",
        'if "ZeroOut" in kind:', "if False:",
        "tests/metadata/test_comfyui.py",
    ),
    Mutant(
        "a placeholder is a prompt", "dpo/metadata/a1111.py",
        'prompt = "" if prompt == "unknown" else prompt', "prompt = prompt",
        "tests/metadata/test_a1111.py",
    ),
    Mutant(
        "a turned picture keeps its sides", "dpo/metadata/containers.py",
        "reversed(walk.picture) if walk.is_turned else walk.picture", "walk.picture",
        "tests/metadata/test_containers.py",
    ),
]  # fmt: skip


def find_problem(mutant: Mutant) -> str:
    """Why the mutant cannot be applied, or an empty text."""
    count = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old)
    return "" if count == 1 else f"{mutant.file} holds its line {count} times"


def run(mutant: Mutant) -> bool:
    """Whether a test fails on a copy of the repository with this mutation."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "repository"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", "docs", "candidates.zip"))
        target = copy / mutant.file
        target.write_text(target.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", *mutant.tests.split()]
        result = subprocess.run(
            command, cwd=copy, capture_output=True, text=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        )
    if result.returncode not in (0, 1):
        raise RuntimeError(
            f"{mutant.name}: pytest ended with {result.returncode}\n{result.stdout[-2000:]}{result.stderr[-2000:]}"
        )
    return result.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    outcomes = []
    for mutant in (mutant for mutant in MUTANTS if args.only in mutant.name):
        outcome = find_problem(mutant) or ("killed" if run(mutant) else "SURVIVED")
        outcomes.append({"mutant": mutant.name, "outcome": outcome, "tests": mutant.tests})
        if not args.json:
            print(f"{outcome:>9}  {mutant.name}  ({mutant.tests})", flush=True)
    if args.json:
        print(json.dumps({"mutants": outcomes}))
    return int(any(outcome["outcome"] != "killed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
