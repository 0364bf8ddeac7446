"""Exports against torch, in onnxruntime on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from timm.layers.conv2d_same import Conv2dSame
from torch import nn
from torch.export import Dim
from typer.testing import CliRunner

import tagmask
from tagmask.api import onnx as onnx_export_of_runs
from tagmask.cli import app
from tagmask.engine import onnx as onnx_export
from tagmask.engine.checkpoint import save_model
from tagmask.engine.onnx import LabelScores, OnnxExport, _fix_padding, _without_norms, check_free, write_onnx
from tagmask.engine.run import create_run
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.methods.registry import build_method
from tagmask.recipes.load import load_recipe
from tests.conftest import tiny_recipe

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CLASSES = ("cat", "dog é", "cow")
OPTIONS = "{img_size: 48, patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}"
EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_predict.py"


@pytest.fixture(scope="module")
def vit() -> Method:
    torch.manual_seed(1)
    return build_method(tiny_recipe("cam", f"backbone.options={OPTIONS}"), len(CLASSES)).eval()


@pytest.fixture(scope="module")
def free(vit: Method, tmp_path_factory: pytest.TempPathFactory) -> OnnxExport:
    """A ViT with a size that is free."""
    return write_onnx(vit, tmp_path_factory.mktemp("onnx") / "model.onnx", classes=CLASSES, size=None)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Method, OnnxExport]:
    """A convolutional network of a fixed size that ends in labels, of data without background."""
    torch.manual_seed(2)
    values = {
        "method": "full",
        "data": {"background": False},
        "backbone": {"name": "resnet10t", "options": {"channels": (8, 8, 16, 16)}},
    }
    method = build_method(load_recipe(values), len(CLASSES)).eval()
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return method, write_onnx(method, path, classes=CLASSES, size=(70, 65), labels=True)


def scores_of(method: Method, images: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(images)
    with torch.no_grad():
        scores = method.scores(method.network.backbone.normalise(pixels))
        return F.interpolate(scores, size=pixels.shape[-2:], mode="bilinear").numpy()


def run(export: OnnxExport, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(export.path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


@pytest.mark.parametrize("shape", [(1, 3, 48, 48), (2, 3, 24, 80), (5, 3, 16, 16)])
def test_scores_of_any_size_are_those_of_torch(vit: Method, free: OnnxExport, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    expected, found = scores_of(vit, images), run(free, images)
    assert found.shape == (shape[0], len(CLASSES) + 1, *shape[2:])
    assert np.abs(found - expected).max() < 1e-3
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.999


def test_decoder_with_skip_connections_at_any_size(tmp_path: Path) -> None:
    torch.manual_seed(3)
    backbone = "backbone={name: resnet10t, options: {channels: [8, 8, 16, 16]}}"
    method = build_method(tiny_recipe("full", backbone, "method.decoder=skip"), len(CLASSES)).eval()
    torch.nn.init.normal_(method.network.decoder.correction.weight)
    export = write_onnx(method, tmp_path / "model.onnx", classes=CLASSES, size=None)
    for shape in ((1, 3, 64, 64), (2, 3, 96, 160)):
        images = np.random.default_rng(0).random(shape, dtype=np.float32)
        expected, found = scores_of(method, images), run(export, images)
        assert np.abs(found - expected).max() < 1e-3
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.999


def test_labels_without_background_begin_at_one(fixed: tuple[Method, OnnxExport]) -> None:
    method, export = fixed
    images = np.random.default_rng(0).random((3, 3, 70, 65), dtype=np.float32)
    found = run(export, images)
    assert found.dtype == np.uint8
    assert found.min() >= 1
    assert (found == scores_of(method, images).argmax(axis=1) + 1).mean() >= 0.999


def test_report_of_the_check(free: OnnxExport, fixed: tuple[Method, OnnxExport]) -> None:
    assert free.size is None
    assert free.multiple == 8
    assert free.difference is not None
    assert free.difference < 1e-3
    assert free.agreement >= 0.999
    assert fixed[1].size == (70, 65)
    assert fixed[1].difference is None


def test_metadata_and_no_paths(free: OnnxExport, fixed: tuple[Method, OnnxExport]) -> None:
    session = onnxruntime.InferenceSession(str(free.path), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(CLASSES)
    assert (about["background"], about["size"], about["multiple"]) == ("true", "null", "8")
    session = onnxruntime.InferenceSession(str(fixed[1].path), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert (about["background"], about["size"]) == ("false", "[70, 65]")
    for export in (free, fixed[1]):
        assert b"site-packages" not in export.path.read_bytes()
        assert [file.name for file in export.path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("kind", ["free", "fixed"])
def test_example_without_torch(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    export = request.getfixturevalue(kind)
    export = export if isinstance(export, OnnxExport) else export[1]
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (50, 61, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    blocked = "import sys; sys.modules['torch'] = sys.modules['tagmask'] = None; sys.argv = sys.argv[1:]; "
    code = blocked + f"exec(compile(open({str(EXAMPLE)!r}).read(), 'example', 'exec'))"
    done = subprocess.run(
        [sys.executable, "-c", code, "x", str(export.path), str(tmp_path / "a.png")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    mask = np.asarray(Image.open(tmp_path / "a.mask.png"))
    assert mask.shape == (50, 61)
    assert mask.max() <= len(CLASSES)


def test_a_file_that_computes_something_else_is_not_kept(
    vit: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_trace", lambda *_: None)
    monkeypatch.setattr(onnx_export, "_compare", lambda *_: (0.1, 1.0))
    with pytest.raises(TagmaskError, match="something else than torch"):
        write_onnx(vit, tmp_path / "model.onnx", classes=CLASSES, size=None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "size"),
    [([], (48, 48)), (["--size", "40"], (40, 40)), (["--dynamic", "--labels"], None)],
)
def test_command_line(
    arguments: list[str], size: tuple[int, int] | None, vit: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("cam", f"backbone.options={OPTIONS}")
    save_model(create_run(tmp_path / "run", recipe, CLASSES).folder, vit.network)
    asked: dict[str, Any] = {}

    def write(method: Method, output: Path, **options: Any) -> OnnxExport:
        asked.update(options)
        return OnnxExport(output, options["size"], 8, None if options["labels"] else 1e-6, 1.0)

    monkeypatch.setattr(onnx_export_of_runs, "write_onnx", write)
    done = CliRunner().invoke(
        app, ["export", "onnx", str(tmp_path / "run"), "-o", str(tmp_path / "m.onnx"), *arguments]
    )
    assert done.exit_code == 0, done.output
    assert asked == {"classes": CLASSES, "size": size, "labels": "--labels" in arguments, "long_side": None}
    assert "100.00% of labels equal" in done.output
    with pytest.raises(TagmaskError, match="either a size or --dynamic"):
        tagmask.export_onnx(tmp_path / "run", size=48, dynamic=True)


def test_a_file_of_a_free_size_says_how_long_images_should_be(vit: Method, tmp_path: Path) -> None:
    sizes = ("inference.size=null", "inference.long_side=64", "inference.scales=[0.5,0.75]")
    recipe = tiny_recipe("cam", f"backbone.options={OPTIONS}", *sizes)
    save_model(create_run(tmp_path / "run", recipe, CLASSES).folder, vit.network)
    export = tagmask.export_onnx(tmp_path / "run", tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(export.path), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["long_side"] == "40"
    # The example brings a photograph to that length before the network sees it, however large it is.
    pixels = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    subprocess.run([sys.executable, str(EXAMPLE), str(export.path), str(tmp_path / "a.png")], check=True)
    small = Image.fromarray(pixels).resize((40, 24), Image.Resampling.BILINEAR)
    (scores,) = run(export, np.asarray(small, dtype=np.float32).transpose(2, 0, 1)[None] / 255)
    planes = [Image.fromarray(plane).resize((200, 120), Image.Resampling.BILINEAR) for plane in scores]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.mask.png")), np.argmax(planes, axis=0))


def test_a_network_that_does_not_trace_is_an_error(
    vit: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("constraints violated\nmore")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(TagmaskError, match=r"a size that is free \(constraints violated\); give a fixed size"):
        write_onnx(vit, tmp_path / "model.onnx", classes=CLASSES, size=None)


@pytest.mark.parametrize("sizes", [(3, 1), (5, 1), (1, 1), (3, 2)])  # kernel and dilation
def test_padding_that_follows_the_size_becomes_a_fixed_one(sizes: tuple[int, int]) -> None:
    kernel, dilation = sizes
    layers = [Conv2dSame(3, 4, kernel, stride=2, dilation=dilation), Conv2dSame(4, 4, 3, stride=2), nn.Conv2d(4, 2, 1)]
    network = nn.Sequential(*layers)
    images = [torch.rand(2, 3, 4 * height, 4 * width) for height, width in ((2, 3), (7, 4))]
    expected = [network(each) for each in images]
    _fix_padding(network, 4)
    assert all(torch.equal(network(each), known) for each, known in zip(images, expected, strict=True))
    # As a formula of the size it would stand in the graph as a maximum.
    program = torch.export.export(
        network.eval(), (images[0],), dynamic_shapes=({2: 4 * Dim("high", min=2), 3: 4 * Dim("wide", min=2)},)
    )
    assert "sym_max" not in str(program.graph)
    assert "Max(" not in str(program.graph_module.print_readable(print_output=False))


def test_padding_is_left_as_it_is_where_it_differs_from_size_to_size() -> None:
    network = nn.Sequential(Conv2dSame(3, 2, 3, stride=2), Conv2dSame(2, 2, 3, stride=2))
    images = torch.rand(1, 3, 10, 14)  # sides that are no multiples of both strides
    expected = network(images)
    _fix_padding(network, 2)
    assert torch.equal(network(images), expected)


def with_learnt_norms() -> Method:
    """A MobileNetV2 whose batch norms have statistics of their own."""
    torch.manual_seed(3)
    recipe = load_recipe({"method": "full", "backbone": {"name": "mobilenetv2_035"}})
    method = build_method(recipe, len(CLASSES)).eval()
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return method


def test_batch_norms_become_part_of_the_convolutions_before_them() -> None:
    network = LabelScores(with_learnt_norms(), labels=False).requires_grad_(False)
    fused = _without_norms(network, 32)
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    images = torch.rand(2, 3, 64, 96)
    assert torch.allclose(fused(images), network(images), atol=1e-5)


def test_batch_norms_that_do_not_follow_their_convolution_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    network = LabelScores(with_learnt_norms(), labels=True).requires_grad_(False)
    monkeypatch.setattr(onnx_export, "fuse_conv_bn_eval", lambda convolution, norm: convolution)
    assert _without_norms(network, 32) is network


def test_only_ones_own_unchanged_export_is_replaced(free: OnnxExport, tmp_path: Path) -> None:
    import onnx

    for content in (b"mine", b"", Path(free.path).read_bytes()[:500]):
        (tmp_path / "mine.onnx").write_bytes(content)
        with pytest.raises(TagmaskError, match=r"mine\.onnx: is there already"):
            check_free(tmp_path / "mine.onnx")
    with pytest.raises(TagmaskError, match="is there already"):
        check_free(tmp_path)
    check_free(tmp_path / "new.onnx")
    check_free(free.path)
    model = onnx.load_model(str(free.path))
    model.graph.node[0].name = "changed"
    onnx.save_model(model, str(tmp_path / "changed.onnx"))
    with pytest.raises(TagmaskError, match=r"changed\.onnx: is there already, and is not as"):
        check_free(tmp_path / "changed.onnx")


def test_wrong_arguments(vit: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TagmaskError, match=r"ends in \.onnx"):
        write_onnx(vit, tmp_path / "model.pt", classes=CLASSES, size=None)
    with pytest.raises(TagmaskError, match="4 x 48: smaller than"):
        write_onnx(vit, tmp_path / "model.onnx", classes=CLASSES, size=(4, 48))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(TagmaskError, match=r"pip install 'tagmask\[onnx\]'"):
        write_onnx(vit, tmp_path / "model.onnx", classes=CLASSES, size=None)
