"""SDXL and FLUX.1 at full size with random weights on a GPU: seconds a pair, over the plain recipe, and the presets' peak memory.

For every preset of the two: a few steps of the live trainer with the allocator capped at the memory in the preset's name (or it
says what ran out), and without a cap beside the plain recipe: encode every step, no caches, same batch, execution as the script
has it. Needs a GPU with room for the largest, and some 60 GB of the computer's memory for FLUX.

    seconds_per_pair        of a step, optimizer and all
    ratio_to_plain          the plain recipe's seconds over ours
    peak_gb                 that PyTorch reserved under the cap
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from dpo.config_files import preset_names, read_preset

STEPS = 4
MODELS = ("sdxl", "flux-")


def measure(tiny: bool = False) -> dict:
    """tiny: the same on tiny models, without a cap, to see on any machine that this works."""
    import torch

    if not tiny and not torch.cuda.is_available():
        raise SystemExit("gpu needs a GPU that PyTorch can use, and there is none.")
    found = {}
    for name in [name for name in preset_names() if name.startswith(MODELS)]:
        memory = read_preset(name).memory_gb
        ours, plain = (_run(name, way, 0, tiny) for way in ("ours", "plain"))
        capped = _run(name, "ours", 0 if tiny else memory, tiny)
        found[name] = {"memory_gb": memory, "capped": capped, "ours": ours, "plain": plain}
        if "failed" not in ours and "failed" not in plain:
            found[name]["ratio_to_plain"] = round(plain["seconds_per_pair"] / ours["seconds_per_pair"], 3)
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"benchmark": "gpu", "device": device, "steps": STEPS, "presets": found}


def _run(preset: str, way: str, cap_gb: float, tiny: bool) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        spec = {"preset": preset, "way": way, "cap_gb": cap_gb, "steps": STEPS, "folder": folder, "tiny": tiny}
        command = [sys.executable, "-m", "tests.benchmarks._gpu_worker", json.dumps(spec)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        raise SystemExit(f"{preset}, {way}: the process ended with {ended.returncode}; its output is above.")
    return json.loads(ended.stdout.splitlines()[-1])
