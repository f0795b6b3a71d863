# ruff: noqa: E501  (a mutation is easier to read on one line)
"""Mistakes in exports, for `python -m tests.mutants`: (name, file, old, new, tests that must fail)."""

WHERE = "tests/families/test_exports.py tests/test_formats.py"

EXPORTS = [
    (
        "alpha is taken for the rank in Kohya's files", "dpo/formats/factors.py",
        "f\"{name}.lora_up.weight\": up} | _alpha(name, part.alpha)", "f\"{name}.lora_up.weight\": up} | _alpha(name, float(part.rank))",
        WHERE,
    ),
    (
        "alpha is dropped where a file has none", "dpo/formats/factors.py",
        "f\"{name}.lora_B.weight\": up * part.scale", "f\"{name}.lora_B.weight\": up",
        WHERE,
    ),
    (
        "alpha is folded twice", "dpo/formats/factors.py",
        "f\"{name}.lora_B.weight\": up * part.scale", "f\"{name}.lora_B.weight\": up * part.scale**2",
        WHERE,
    ),
    (
        "FLUX has the prefix that its loaders do not look for", "dpo/formats/__init__.py",
        '"FluxPipeline": "transformer."', '"FluxPipeline": "diffusion_model."',
        WHERE,
    ),
    (
        "Z-Image has the prefix that older ComfyUI does not look for", "dpo/formats/__init__.py",
        '"ZImagePipeline": "diffusion_model."', '"ZImagePipeline": "transformer."',
        WHERE,
    ),
    (
        "SDXL's blocks are numbered from 0", "dpo/formats/naming.py",
        "(int(index) + 1 if what", "(int(index) if what",
        WHERE,
    ),
    (
        "a DoRA's scale is its magnitude", "dpo/formats/factors.py",
        "return magnitude * row_norms(base) / row_norms(changed)", "return magnitude",
        WHERE,
    ),
    (
        "a LoKr's scale is in no factor", "dpo/formats/factors.py",
        "first.tensors[scaled] * first.scale", "first.tensors[scaled]",
        WHERE,
    ),
    (
        "the factors of Lumina's q, k and v are mixed", "dpo/formats/factors.py",
        "torch.block_diag(*ups)", "torch.block_diag(*ups[::-1])",
        WHERE,
    ),
    (
        "an export is not looked at", "dpo/formats/writing.py",
        "    if is_wrong:", "    if False:",
        WHERE,
    ),
    (
        "a foreign file loses its alpha", "dpo/formats/reading.py",
        'scale = group["alpha"].item() / len(down) if "alpha" in group else 1.0', "scale = 1.0",
        "tests/families/test_starting_adapters.py",
    ),
    (
        "the second adapter's weight is the first's", "dpo/formats/merging.py",
        "ups = [weight * part.up", "ups = [weights[0] * part.up",
        "tests/test_formats.py",
    ),
    (
        "the path of a machine goes into the file", "dpo/formats/origin.py",
        "return path.name if text and", "return text if text and",
        "tests/test_formats.py",
    ),
]  # fmt: skip
