"""Weights are safetensors or GGUF, whatever door they come in through: a crafted header, a pickle and code that comes along with
a model are refused before anything is loaded."""

import ast
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dpo import StudioError
from dpo.adapter_files import check_adapter
from dpo.adapter_loading import load_adapter
from dpo.cache import _Source, _Tensors
from dpo.candidates import CandidatesRequest, check_candidates
from dpo.families import load_family
from dpo.formats.merging import merge_adapters
from dpo.formats.origin import Origin
from dpo.models import describe_model, load_pipeline
from dpo.scorer_choice import ScorerChoice
from dpo.scorers import load_scorer
from tests.headers import write_raw
from tests.tiny import build_pipeline

ROOT = Path(__file__).resolve().parent.parent
SOURCE = [ROOT / "app.py", *sorted(ROOT.glob("dpo/**/*.py")), *sorted(ROOT.glob("ui/**/*.py"))]
PICKLING = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def in_folder(path: Path) -> Path:
    """A diffusers folder that has the file as its denoiser."""
    folder = path.parent / "folder"
    if not folder.exists():
        build_pipeline().save_pretrained(folder)
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(path.read_bytes())
    return folder


def clip_folder(path: Path) -> Path:
    folder = path.parent / "clip"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(path.read_bytes())
    return folder


DOORS = {
    "model": lambda path: describe_model(str(path)),
    "model that is loaded": lambda path: load_pipeline(str(path)),
    "model folder": lambda path: load_pipeline(str(in_folder(path))),
    "adapter": check_adapter,
    "adapter that is loaded": lambda path: load_adapter(load_family(build_pipeline()), path, "it"),
    "adapter of candidates": lambda path: check_candidates(CandidatesRequest("a", adapter=path, prompts=("a cat",))),
    "adapter to merge": lambda path: merge_adapters(path, path, (1.0, 1.0), path.with_name("out.safetensors")),
    "adapter to export": lambda path: Origin.of_file(path),
    "head of a scorer": lambda path: load_scorer(ScorerChoice("aesthetic", str(path)), path.parent),
    "scorer's folder": lambda path: load_scorer(ScorerChoice("clip", str(clip_folder(path))), path.parent),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_crafted_header_is_refused_at_every_door(tmp_path, door):
    """It claims twenty gigabytes that are not there."""
    size = 20 << 30
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    path = write_raw(tmp_path / "crafted.safetensors", json.dumps({"a.lora_A.weight": entry}).encode(), 16)
    with pytest.raises(StudioError, match=r"is damaged or not what its name says: the weights of .* lie over others or outside"):
        DOORS[door](path)


@pytest.mark.parametrize("door", [name for name in DOORS if "folder" not in name])
@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".bin"])
def test_a_pickle_is_refused_at_every_door_with_what_to_do_and_is_not_opened(tmp_path, door, ending):
    path = tmp_path / f"weights{ending}"
    path.write_bytes(b"cos\nsystem\n(S'touch harmed'\ntR.")
    with pytest.raises(StudioError, match=r"is a pickle|is no checkpoint of a run|safetensors"):
        DOORS[door](path)
    assert not (ROOT / "harmed").exists()


def test_a_cached_file_with_a_crafted_header_is_made_anew(tmp_path):
    tensors = _Tensors(load_family(build_pipeline()), tmp_path)
    source = _Source("prompt", "a cat")
    with tensors._family.encoders():
        whole = tensors.make(source, None)
    write_raw(tmp_path / "prompt.safetensors", b"{}", 0, length=20 << 30)
    tensors._hot.clear()
    assert tensors.load(source).key == whole.key


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    folder = tmp_path / "model"
    build_pipeline().save_pretrained(folder)
    (folder / "own.py").write_text("from pathlib import Path\nPath(__file__).with_name('harmed').touch()\n")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": ["own", "Own"]}))
    with pytest.raises(StudioError, match="cannot be loaded"):
        load_pipeline(str(folder))
    assert not (folder / "harmed").exists()


def test_a_model_folder_of_pickles_is_not_loaded(tmp_path):
    folder = tmp_path / "model"
    build_pipeline().save_pretrained(folder)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    torch.save({"a": torch.zeros(2)}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(StudioError, match="cannot be loaded"):
        load_pipeline(str(folder))


def test_a_file_that_is_what_it_says_goes_through(tmp_path):
    save_file({"unet.a.lora_A.weight": torch.zeros(2, 8)}, tmp_path / "adapter.safetensors")
    check_adapter(tmp_path / "adapter.safetensors")


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_here_unpickles_or_runs_what_comes_with_a_model(path):
    """torch.load is for this program's own checkpoints, and with weights_only=True, which builds tensors and plain values."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] not in PICKLING, node.lineno
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & (PICKLING - {"pickle"}), node.lineno
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle":
            assert node.attr == "UnpicklingError", node.lineno
        if isinstance(node, ast.keyword):
            said = getattr(node.value, "value", None)
            assert node.arg not in ("trust_remote_code", "allow_pickle", "custom_pipeline"), node.value.lineno
            assert (node.arg, said) not in (("weights_only", False), ("use_safetensors", False)), node.value.lineno
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "torch.hub.load", "torch.jit.load"), node.lineno
            if called == "torch.load":
                assert "weights_only=True" in ast.unparse(node), node.lineno
            if called in ("DiffusionPipeline.from_pretrained", "CLIPModel.from_pretrained", "pipeline_class.from_pretrained"):
                assert "use_safetensors=True" in ast.unparse(node), node.lineno
