"""Headers are read and never believed: each lie that a file can tell of itself is found out without reading a weight."""

import json
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dpo import checkpoint_header
from dpo.checkpoint_header import HeaderError, TensorInfo, read_header
from tests.headers import write_gguf, write_raw, write_safetensors

ROOT = Path(__file__).resolve().parent.parent


def refusal(path: Path) -> str:
    with pytest.raises(HeaderError) as caught:
        read_header(path)
    return str(caught.value)


def raw(path: Path, entries: object, size: int = 16) -> Path:
    return write_raw(path, json.dumps(entries).encode(), size)


def entry(first: int, last: int, dtype: str = "F32", shape: tuple = (2,)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [first, last]}


def test_a_file_of_safetensors_is_read_as_safetensors_wrote_it(tmp_path):
    tensors = {"a": torch.zeros(2, 3, dtype=torch.bfloat16), "b": torch.zeros(()), "c": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "model.safetensors", {"modelspec.architecture": "x"})
    header = read_header(tmp_path / "model.safetensors")
    assert header.tensors == {"a": TensorInfo("BF16", (2, 3)), "b": TensorInfo("F32", ()), "c": TensorInfo("F32", (0, 4))}
    assert header.metadata == {"modelspec.architecture": "x"}


@pytest.mark.parametrize(
    "entries, why",
    [
        ([], "its header is not a JSON object"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, "the weights of 'b' lie over others"),
        ({"a": entry(0, 8), "b": entry(8, 24, shape=(4,))}, "the weights of 'b' lie over others or outside"),
        ({"a": entry(0, 8), "b": entry(1 << 40, (1 << 40) + 8)}, "the weights of 'b' lie over others or outside"),
        ({"a": entry(0, 4)}, "shape and length of 'a' do not agree"),
        ({"a": entry(8, 0)}, "shape and length of 'a' do not agree"),
        ({"a": entry(0, 8, shape=(1,) * 9 + (2,))}, "shape and length of 'a' do not agree"),
        ({"a": entry(-8, 0)}, "what it says of 'a' is not understood"),
        ({"a": entry(0, 8, "F7")}, "what it says of 'a' is not understood"),
        ({"a": entry(0, 8, shape=(2.0,))}, "what it says of 'a' is not understood"),
        ({"a": entry(0, 1, "U8", (True,))}, "what it says of 'a' is not understood"),
        ({"a": {"dtype": "F32"}}, "what it says of 'a' is not understood"),
        ({"a": [1]}, "what it says of 'a' is not understood"),
        ({"a": entry(0, 4, shape=(1,)), "b": entry(8, 16)}, "4 bytes before the weights of 'b' belong to nothing"),
        ({"a": entry(0, 8)}, "8 bytes at its end belong to nothing"),
        ({"a" * 10_000: entry(0, 4)}, "aaa...' do not agree"),
        ({"__metadata__": {"a": 1}}, "its metadata are not texts"),
        ({"__metadata__": []}, "its metadata are not texts"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, entries, why):
    path = raw(tmp_path / "model.safetensors", entries)
    said = refusal(path)
    assert said.startswith(f"{path} is damaged or not what its name says: ") and why in said


def test_lengths_beyond_the_file_or_beyond_reason_are_not_read(tmp_path, monkeypatch):
    path = write_raw(tmp_path / "model.safetensors", b"{}", 0, length=1 << 60)
    assert "would be 1,152,921,504,606,846,976 bytes long, and the file has 10" in refusal(path)
    monkeypatch.setattr(checkpoint_header, "LONGEST", 5)
    assert "would be 6 bytes long" in refusal(write_raw(path, b"{    }", 0))
    assert read_header(write_raw(path, b"{   }", 0)).tensors == {}
    path.write_bytes(b"\0\0")
    assert "it has 2 bytes" in refusal(path)


@pytest.mark.parametrize(
    "header", [b"{", b"\xff", b"[" * 100_000, b'{"a":1,"a":1}', b"NaN", '{"é":1}'.encode("utf-16"), b"\xff{}"]
)
def test_what_is_not_json_is_refused(tmp_path, header):
    assert "its header is not " in refusal(write_raw(tmp_path / "model.safetensors", header, 0))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(tmp_path_factory, data):
    for name in ("a.safetensors", "a.gguf"):
        path = tmp_path_factory.mktemp("bytes") / name
        for start in (b"", struct.pack("<Q", len(data)) if name == "a.safetensors" else b"GGUF\3\0\0\0"):
            path.write_bytes(start + data)
            try:
                read_header(path)
            except HeaderError:
                pass


def test_refusing_a_file_that_claims_twenty_gigabytes_takes_next_to_no_memory(tmp_path):
    """Of the header, of one tensor, and of a header full of lists, which would be fifteen times as large in memory."""
    size = 20 << 30
    lies = {
        "header": (b"{}", 0, size),
        "tensor": (json.dumps({"a": entry(0, size, "U8", (size,))}).encode(), 0, None),
        "lists": (b"[" + b"[]," * (10 << 20) + b"[]]", 0, None),
    }
    for name, (header, length, claimed) in lies.items():
        path = write_raw(tmp_path / f"{name}.safetensors", header, length, claimed)
        tracemalloc.start()
        try:
            assert "is damaged or not what its name says" in refusal(path)
            assert tracemalloc.get_traced_memory()[1] < len(header) * 2 + (1 << 20), name
        finally:
            tracemalloc.stop()


def test_pickles_are_never_opened_and_say_what_to_do(tmp_path):
    for name in ("model.ckpt", "model.PT", "model.pth", "model.bin", "model.pkl"):
        path = tmp_path / name  # not even there
        assert "is a pickle, which can run any program when it is opened" in refusal(path)
        assert "convert_original_stable_diffusion_to_diffusers.py --checkpoint_path FILE" in refusal(path)
    assert "is neither .safetensors nor .gguf" in refusal(tmp_path / "model.onnx")
    assert "cannot be read: No such file" in refusal(tmp_path / "model.safetensors")


# ------------------------------------------------------------------------------------------------ GGUF


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def test_a_gguf_file_is_read_with_its_settings(tmp_path):
    """Settings: a text, a number, an array of numbers and one of texts, which are passed over. Q8_0: 32 values in 34 bytes."""
    said = text("general.architecture") + struct.pack("<I", 8) + text("flux")
    said += text("count") + struct.pack("<If", 6, 1.5)
    said += text("numbers") + struct.pack("<IIQ", 9, 5, 3) + struct.pack("<iii", 1, 2, 3)
    said += text("words") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    path = write_gguf(tmp_path / "model.gguf", {"a.weight": (8, (64, 128)), "b": (1, (3,))}, said, 4)
    header = read_header(path)
    assert header.metadata == {"general.architecture": "flux"}
    assert header.tensors == {"a.weight": TensorInfo("Q8_0", (64, 128)), "b": TensorInfo("F16", (3,))}


def test_a_gguf_file_of_the_package_is_read(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "flux")
    weight = torch.randn(4, 64).numpy()
    packed = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("a", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("b", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(tmp_path / "model.gguf")
    assert header.tensors == {"a": TensorInfo("Q8_0", (4, 64)), "b": TensorInfo("F32", (4, 64))}
    assert header.metadata["general.architecture"] == "flux"


@pytest.mark.parametrize(
    "start, why",
    [
        (b"GGML", "it does not begin with GGUF"),
        (b"GGUF" + struct.pack("<I", 1), "its version is 1, and 2 and 3 are known"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 50, 0), "it would hold 1,125,899,906,842,624 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 50), "and 1,125,899,906,842,624 settings"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1 << 50), "its header is longer than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("a") + struct.pack("<I", 9), "what it says of 'a' is not understood"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("a") + struct.pack("<IQIQ", 1, 64, 99, 0),
            "'a' is packed as type 99, and those that can be read are F32, F16,",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("a") + struct.pack("<IQIQ", 1, 33, 8, 0),
            "shape and type of 'a' do not agree",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + b"".join(text(name) + struct.pack("<IQIQ", 1, 2, 0, 0) for name in "ab"),
            "the weights of 'b' lie over others",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("a") + struct.pack("<IQIQ", 1, 1 << 40, 0, 0),
            "it ends before its weights do",
        ),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 77), "it has a setting of type 77"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 12,
            "it has a setting of type 9",
        ),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"\xff", "a name in it is no text"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0), "it ends within its header"),
    ],
)
def test_what_a_gguf_file_cannot_be_is_refused(tmp_path, start, why):
    path = tmp_path / "model.gguf"
    path.write_bytes(start)
    assert why in refusal(path)


def test_a_header_of_twenty_gigabytes_of_weights_is_read_at_once_and_without_torch(tmp_path):
    path = write_safetensors(tmp_path / "model.safetensors", {f"w{n}": (4096, 4096) for n in range(600)})
    program = (
        "import sys; from pathlib import Path; from dpo.checkpoint_header import read_header; import dpo.checkpoint_kinds\n"
        f"assert len(read_header(Path({str(path)!r})).tensors) == 600\n"
        "assert not {'torch', 'numpy', 'safetensors'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
