"""Files that are no adapter, or not one for this model, are refused with the reason."""

import pytest
import torch
from safetensors.torch import save_file

from dpo.adapter_files import AdapterError, check_adapter
from dpo.adapter_loading import load_adapter
from dpo.families import load_family
from dpo.sampling import Sampler
from tests.tiny import build_pipeline


def test_files_that_are_no_adapter_are_refused_with_the_reason(tmp_path):
    with pytest.raises(AdapterError, match=r"missing.safetensors is not a .safetensors file"):
        check_adapter(tmp_path / "missing.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    with pytest.raises(AdapterError, match="is damaged or not what its name says: its header is not JSON"):
        check_adapter(tmp_path / "torn.safetensors")
    save_file({"model.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(AdapterError, match="holds no LoRA"):
        check_adapter(tmp_path / "model.safetensors")
    save_file({"lora_te_text_model.lora_down.weight": torch.zeros(2)}, tmp_path / "text.safetensors")
    with pytest.raises(AdapterError, match="also changes the text encoder"):
        check_adapter(tmp_path / "text.safetensors")


def test_an_adapter_of_another_architecture_is_refused(tmp_path):
    layer = "unet.nowhere.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.zeros(2, 8), f"{layer}.lora_B.weight": torch.zeros(8, 2)}
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(AdapterError, match=r"does not fit|holds no weights"):
        Sampler(build_pipeline(), "tiny", tmp_path / "other.safetensors")


@pytest.mark.parametrize("text", ["{torn", "[1]"])
def test_a_file_whose_header_is_no_settings_is_a_sentence(tmp_path, text):
    file = tmp_path / "odd.safetensors"
    save_file({"unet.mid_block.to_q.lora_A.weight": torch.zeros(2, 8)}, file, {"lora_adapter_metadata": text})
    with pytest.raises(AdapterError, match=r"odd\.safetensors does not fit this model: .*\. Choose an adapter made for it\."):
        load_adapter(load_family(build_pipeline()), file, "it")
