"""Contract 1: graphs with as many maps as they name, and what the version before wrote."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import yaml
from brightness import CELL, SIZE, THRESHOLD, brightness_model
from engine_graphs import little_padim, save
from line_rig import running, write_config
from onnx import TensorProto, helper, numpy_helper

from calibration.calibration_file import load_calibration
from calibration.cli import main as calibrate
from engine_build.bias import border, runner_of
from engine_build.cli import main as build_engine
from engine_build.graph import read_graph
from engine_build.half import halved
from engine_build.parity_frames import generated_parity_frames
from engine_build.quantise import quantised
from engine_build.reference import run_reference
from engine_runtime.engine import ANOMALY_MAP, SCORE, map_output, uncalibrated
from engine_runtime.engine_file import read_manifest, write_engine
from engine_runtime.open import open_engine
from engine_runtime.tiled_engine import TiledEngine
from foundation.errors import EngineRefused, InputError
from models.commands import efficientad
from pictures.frames import Frame, Size
from pictures.tile_merge import TileMerge
from pictures.tiles import TileGrid, Tiles

CELLS = SIZE // CELL
VERSION_1 = Path(__file__).parent / "version_1"


def model_of(names: Sequence[str], **metadata: str) -> onnx.ModelProto:
    """Make a graph whose map k is k + 1 times the brightness; that of ``whole`` the mean brightness."""

    def constant(name: str, value: object, dtype: type = np.float32) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    weights: list[onnx.TensorProto] = []
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", constant("mean", np.full((1, 3, 1, 1), 1 / 765))], ["grey"]),
        helper.make_node("AveragePool", ["grey"], ["pooled"], kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        helper.make_node("Squeeze", ["pooled", constant("channel", [1], np.int64)], ["cells"]),
        helper.make_node("ReduceMean", ["cells", constant("sides", [1, 2], np.int64)], ["one"]),
        helper.make_node("Expand", ["one", constant("size", [1, CELLS, CELLS], np.int64)], ["all"]),
        helper.make_node("Unsqueeze", ["quantiles", constant("last", [2], np.int64)], ["rows"]),
        helper.make_node("Split", ["rows"], ["q_a", "q_b"], axis=1, num_outputs=2),
        helper.make_node("Sub", ["q_b", "q_a"], ["range"]),
    ]
    for row, name in enumerate(names):
        given = "all" if name == "whole" else "cells"
        output = map_output(name)
        nodes += [
            helper.make_node("Mul", [given, constant(f"times{row}", row + 1)], [output]),
            helper.make_node("Unsqueeze", [output, "channel"], [f"plane{row}"]),
        ]
    nodes += [
        helper.make_node("Concat", [f"plane{row}" for row in range(len(names))], ["maps"], axis=1),
        helper.make_node("Sub", ["maps", "q_a"], ["above"]),
        helper.make_node("Div", ["above", "range"], ["normalised"]),
        helper.make_node("ReduceMean", ["normalised", "channel"], ["ten"], keepdims=0),
        helper.make_node("Mul", ["ten", constant("tenth", 0.1)], ["anomaly_map"]),
        helper.make_node("ReduceMax", ["anomaly_map", "sides"], ["score"], keepdims=0),
    ]
    value = helper.make_tensor_value_info
    maps = ("anomaly_map", *map(map_output, names))
    graph = helper.make_graph(
        nodes,
        "several maps",
        [
            value("frames", TensorProto.UINT8, ["N", SIZE, SIZE, 3]),
            value("quantiles", TensorProto.FLOAT, [len(names), 2]),
        ],
        [
            value("score", TensorProto.FLOAT, ["N"]),
            *(value(name, TensorProto.FLOAT, ["N", CELLS, CELLS]) for name in maps),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"contract": "2", "maps": ",".join(names)} | metadata)
    return model


def built(folder: Path, model: onnx.ModelProto, *options: str) -> Path:
    save(model, folder / "brightness.onnx")
    arguments = [str(folder / "brightness.onnx"), "--fast", "--max-batch", "2", *options]
    assert build_engine(arguments) == 0
    return folder / "brightness.engine"


def draw_good(folder: Path, count: int) -> list[Frame]:
    """Draw parts of slowly changing brightness, with a spot in another place on each."""
    folder.mkdir()
    random = np.random.default_rng(3)
    frames = []
    for index in range(count):
        frame = random.normal(60 + index % 7, 3, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
        row, column = random.integers(0, SIZE - CELL, 2)
        frame[row : row + CELL, column : column + CELL] += np.uint8(index % 11)
        cv2.imwrite(str(folder / f"{index:03}.png"), frame)
        frames.append(frame)
    return frames


@pytest.mark.parametrize("names", [["local"], ["local", "whole"], ["a", "b2", "c_3"], list("abcdefgh")])
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_an_engine_gives_the_maps_that_its_graph_names(
    tmp_path: Path, names: list[str], runtime: str
) -> None:
    path = built(tmp_path, model_of(names), "--runtime", runtime)
    engine = open_engine(path, threads=1)
    assert engine.manifest.maps == {name: f"map_{name}" for name in names}
    assert engine.manifest.outputs == ("score", "anomaly_map", *engine.manifest.maps.values())
    frames = list(np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8))
    quantiles = np.array([[0.1 * row, 0.5 + row] for row in range(len(names))], np.float32)
    found = engine.infer(frames, quantiles, engine.manifest.outputs)
    raw = np.stack([found[output] for output in engine.manifest.maps.values()])
    q_a, q_b = quantiles[:, :1, None, None], quantiles[:, 1:, None, None]
    np.testing.assert_allclose(
        found[ANOMALY_MAP], (0.1 * (raw - q_a) / (q_b - q_a)).mean(0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(found[SCORE], found[ANOMALY_MAP].max((1, 2)), rtol=1e-6)
    alone = engine.infer(frames, uncalibrated(engine.manifest.maps), (ANOMALY_MAP,))[ANOMALY_MAP]
    np.testing.assert_allclose(alone, raw.mean(0), rtol=1e-4, atol=1e-6)

    wanted = f"the engine takes float32 {len(names)}×2, a row for each of its maps: {', '.join(names)}"
    for wrong, shown in (
        (np.zeros((len(names) + 1, 2), np.float32), f"float32 {len(names) + 1}×2"),
        (np.zeros(2, np.float32), "float32 2"),
        (quantiles.astype(np.float64), f"float64 {len(names)}×2"),
    ):
        with pytest.raises(ValueError) as raised:
            engine.infer(frames, wrong)
        assert str(raised.value) == f"quantiles are {shown}; {wanted}"
    engine.close()


def with_quantiles(rows: int) -> onnx.ModelProto:
    model = model_of(["local", "whole"])
    model.graph.input[1].CopyFrom(helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, [rows, 2]))
    return model


def without_output(name: str) -> onnx.ModelProto:
    model = model_of(["local", "whole"])
    [output] = [value for value in model.graph.output if value.name == name]
    model.graph.output.remove(output)
    return model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (model_of(["a"], contract="3"), "metadata contract is '3'; this build-engine reads versions 1 and 2"),
        (model_of(["a"], maps=""), "metadata maps is ''; expected 1 to 8 different names"),
        (model_of(["a"], maps="a,"), "metadata maps is 'a,'; expected 1 to 8 different names"),
        (model_of(["a"], maps="a,a"), "metadata maps is 'a,a'; expected 1 to 8 different names"),
        (model_of(["a"], maps="Local"), "metadata maps is 'Local'; expected 1 to 8 different names"),
        (model_of(list("abcdefghi")), "metadata maps is 'a,b,c,d,e,f,g,h,i'; expected 1 to 8 different"),
        (model_of(["a"], maps="a,b"), "quantiles float32 1×2; expected .* quantiles float32 2×2"),
        (with_quantiles(3), "quantiles float32 3×2; expected .* quantiles float32 2×2"),
        (without_output("map_whole"), "output map_whole is missing; found score float32 N"),
        (
            model_of(["a"], map_normalisation="peeks"),
            "metadata map_normalisation is 'peeks'; expected one of quantile, gaussian, peaks",
        ),
        (model_of(["a"], fp32_nodes="distance"), "metadata fp32_nodes names 'distance', but no node"),
        (model_of(["a"], fp32_nodes=","), "metadata fp32_nodes names '', but no node"),
    ],
)
def test_graphs_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: onnx.ModelProto, said: str
) -> None:
    path = save(model, tmp_path / "part.onnx")
    with pytest.raises(InputError, match=said):
        read_graph(path)
    assert build_engine([str(path), "--fast"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"build-engine: {path}: ")
    assert not path.with_suffix(".engine").exists()


def test_peaks_make_the_score_a_mean_of_z_scores(tmp_path: Path) -> None:
    names = ["local", "whole"]
    engine_file = built(tmp_path, model_of(names, map_normalisation="peaks"))
    frames = draw_good(tmp_path / "good", 30)
    arguments = ["--good", str(tmp_path / "good"), "--false-reject-rate", "0.05"]
    assert calibrate([str(engine_file), *arguments]) == 0
    path = tmp_path / "brightness.calibration.yaml"
    engine = open_engine(engine_file, threads=1)
    manifest = engine.manifest
    made = load_calibration(path, manifest.payload_sha256, manifest.maps)
    assert list(made.quantiles) == names
    outputs = [engine.infer([frame], uncalibrated(names), manifest.outputs) for frame in frames]
    scores = []
    for name, output in manifest.maps.items():
        peaks = np.array([found[output].max() for found in outputs], np.float64)
        assert made.quantiles[name] == pytest.approx((peaks.mean(), peaks.mean() + peaks.std()), rel=1e-5)
        scores.append((peaks - peaks.mean()) / peaks.std())
    found_scores = [engine.infer([frame], made.quantiles_array())[SCORE].item() for frame in frames]
    np.testing.assert_allclose(found_scores, 0.1 * np.mean(scores, axis=0), atol=1e-4)
    engine.close()


def test_without_peaks_quantiles_are_taken_over_all_cells(tmp_path: Path) -> None:
    names = ["local", "whole", "third"]
    engine_file = built(tmp_path, model_of(names))
    frames = draw_good(tmp_path / "good", 25)
    assert calibrate([str(engine_file), "--good", str(tmp_path / "good")]) == 0
    engine = open_engine(engine_file, threads=1)
    path = tmp_path / "brightness.calibration.yaml"
    made = load_calibration(path, engine.manifest.payload_sha256, names)
    for name, output in engine.manifest.maps.items():
        maps = [engine.infer([frame], uncalibrated(names), (output,))[output] for frame in frames]
        assert made.quantiles[name] == pytest.approx(np.quantile(maps, (0.9, 0.995)), rel=1e-4)
    engine.close()


def test_tiles_of_a_graph_with_several_maps(tmp_path: Path) -> None:
    """The map of the whole picture is that of each tile; the merged score is still the largest value."""
    names = ["local", "whole", "third"]
    engine = open_engine(built(tmp_path, model_of(names)), threads=1)
    grid = TileGrid(Tiles(SIZE, 16), Size(112, 160))
    tiled = TiledEngine(engine, TileMerge(grid, engine.manifest.geometry))
    picture = np.random.default_rng(2).integers(0, 256, (112, 160, 3), dtype=np.uint8)
    quantiles = np.array([[0, 1], [0.2, 0.3], [1, 2]], np.float32)
    found = tiled.infer([grid.cut(picture, Size(SIZE, SIZE))], quantiles, tiled.manifest.outputs)
    assert {found[output].shape[1:] for output in tiled.manifest.outputs[1:]} == {tiled.manifest.map_size}
    assert found[SCORE][0] == found[ANOMALY_MAP].max()
    tiled.close()


def test_a_line_runs_on_an_engine_with_three_maps(tmp_path: Path) -> None:
    names = ["local", "whole", "third"]
    built(tmp_path, model_of(names))
    draw_good(tmp_path / "good", 25)
    engine, good = tmp_path / "brightness.engine", tmp_path / "good"
    assert calibrate([str(engine), "--good", str(good), "--false-reject-rate", "0.01"]) == 0
    parts = tmp_path / "parts"
    parts.mkdir()
    for index, grey in enumerate((60, 255, 60)):
        frame = cv2.imread(str(good / "000.png"))
        frame[16:32, 16:32] = grey
        cv2.imwrite(str(parts / f"{index}.png"), frame)
    with running(write_config(tmp_path, {"top": {"source": "parts"}})) as line:
        line.until_end()
    assert [verdict.decision for verdict in line.verdicts] == ["pass", "reject", "pass"]


def as_written_before(engine: Path, calibration: Path) -> None:
    """Give an engine and its calibration the layout of the versions before maps had names."""
    with zipfile.ZipFile(engine) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    content = json.loads(entries["manifest.json"])
    del content["maps"]
    entries["manifest.json"] = json.dumps(content).encode()
    with zipfile.ZipFile(engine, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    made = yaml.safe_load(calibration.read_text())
    made["quantiles"] = [list(row) for row in made["quantiles"].values()]
    calibration.write_text(yaml.safe_dump(made, sort_keys=False))


def test_what_the_version_before_wrote_goes_on_working(line_folder: Path, tmp_path: Path) -> None:
    engine, calibration = line_folder / "brightness.engine", line_folder / "brightness.calibration.yaml"
    as_written_before(engine, calibration)
    manifest = read_manifest(engine)
    assert manifest.maps == {"local": "local_map", "global": "global_map"}
    assert manifest.outputs == ("score", "anomaly_map", "local_map", "global_map")
    made = load_calibration(calibration, manifest.payload_sha256, manifest.maps)
    assert made.quantiles == {"local": (0.0, 0.1), "global": (0.0, 0.1)}
    # On a line, and under evaluation.
    parts = line_folder / "parts"
    for folder, grey in ((parts, 40), (parts, 230)):
        folder.mkdir(exist_ok=True)
        frame = np.full((SIZE, SIZE, 3), 40, np.uint8)
        frame[16:32, 16:32] = grey
        cv2.imwrite(str(folder / f"{grey:03}.png"), frame)
    with running(write_config(line_folder, {"top": {"source": "parts"}})) as line:
        line.until_end()
    assert [verdict.decision for verdict in line.verdicts] == ["pass", "reject"]
    assert line.verdicts[1].score == pytest.approx(230 / 255, abs=1e-3) and THRESHOLD < 230 / 255
    data = line_folder / "data"
    for kind in ("good", "defect"):
        (data / "test" / kind).mkdir(parents=True)
    (data / "train" / "good").mkdir(parents=True)
    for index, grey in enumerate((40, 50)):
        cv2.imwrite(str(data / "train" / "good" / f"{index}.png"), np.full((SIZE, SIZE, 3), grey, np.uint8))
        cv2.imwrite(str(data / "test" / "good" / f"{index}.png"), np.full((SIZE, SIZE, 3), grey, np.uint8))
        cv2.imwrite(str(data / "test" / "defect" / f"{index}.png"), np.full((SIZE, SIZE, 3), 250, np.uint8))
    out = str(line_folder / "report")
    options = ["--calibration", str(calibration), "--data", str(data), "--out", out]
    assert efficientad(["evaluate", str(engine), *options]) == 0
    # And a graph of that version is built, calibrated and opened.
    again = brightness_model(line_folder / "again.onnx")
    assert build_engine([str(again), "--fast", "--max-batch", "2"]) == 0
    draw_good(line_folder / "good", 25)
    assert calibrate([str(line_folder / "again.engine"), "--good", str(line_folder / "good")]) == 0
    made_now = yaml.safe_load((line_folder / "again.calibration.yaml").read_text())
    assert list(made_now["quantiles"]) == ["local", "global"]


def test_files_that_commit_c877092_wrote_go_on_working(tmp_path: Path) -> None:
    """An engine and its calibration, made by the last commit before maps had names, and what it scored."""
    engine, calibration = VERSION_1 / "line.engine", VERSION_1 / "line.calibration.yaml"
    manifest = read_manifest(engine)
    quantiles = load_calibration(calibration, manifest.payload_sha256, manifest.maps).quantiles_array()
    frames = [
        np.random.default_rng(seed).normal(120, deviation, (64, 64, 3)).clip(0, 255).astype(np.uint8)
        for seed, deviation in ((100, 10), (101, 30))
    ]
    opened = open_engine(engine, threads=1)
    np.testing.assert_allclose(
        opened.infer(frames, quantiles)[SCORE], [-0.0095482, 2.0369108], rtol=1e-3, atol=1e-5
    )
    opened.close()
    # Its graph is built and calibrated again.
    graph = tmp_path / "line.onnx"
    with zipfile.ZipFile(engine) as archive:
        graph.write_bytes(archive.read("model.onnx"))
    assert build_engine([str(graph), "--fast", "--max-batch", "2"]) == 0
    draw_good(tmp_path / "good", 25)
    assert calibrate([str(tmp_path / "line.engine"), "--good", str(tmp_path / "good")]) == 0


def test_a_calibration_of_other_maps_is_refused(line_folder: Path) -> None:
    calibration = line_folder / "brightness.calibration.yaml"
    sha256 = read_manifest(line_folder / "brightness.engine").payload_sha256
    with pytest.raises(InputError) as raised:
        load_calibration(calibration, sha256, ("local", "whole"))
    expected = "quantiles: found local, global; expected local, whole, the engine's maps"
    assert str(raised.value) == f"{calibration}: {expected}"
    turned = load_calibration(calibration, sha256, ("global", "local"))
    assert list(turned.quantiles) == ["global", "local"]


def test_a_manifest_whose_maps_are_no_outputs_is_refused(line_folder: Path) -> None:
    engine = line_folder / "brightness.engine"
    manifest = read_manifest(engine)
    for maps in ({"local": "nowhere"}, {}, dict.fromkeys("abcdefghi", "local_map")):
        write_engine(engine, manifest.model_copy(update={"maps": maps}), b"")
        with pytest.raises(EngineRefused, match=r"manifest.json: maps: "):
            read_manifest(engine)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_mobilenet_with_gaussians_is_measured_and_built(tmp_path: Path, runtime: str) -> None:
    path = save(little_padim(64, 96), tmp_path / "padim.onnx")
    assert build_engine([str(path), "--runtime", runtime, "--time-limit", "1", "--max-batch", "4"]) == 0
    engine = open_engine(tmp_path / "padim.engine", threads=1)
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    quantiles = np.array([[1, 2], [3, 5]], np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = engine.manifest.outputs
    expected = session.run(list(outputs), {"frames": frames, "quantiles": quantiles})
    found = engine.infer(list(frames), quantiles, outputs)
    for name, values in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4)
    assert np.ptp(found["map_whole"], axis=(1, 2)).max() == 0
    engine.close()


def quantised_nodes(content: bytes) -> set[str]:
    """Name the convolutions that read weights of 8 bits."""
    graph = onnx.load_model_from_string(content).graph
    makers = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    return {
        node.output[0]
        for node in convolutions
        if node.input[1] in makers and makers[node.input[1]].op_type == "DequantizeLinear"
    }


def test_int8_leaves_depthwise_convolutions_and_what_the_graph_asks_for(tmp_path: Path) -> None:
    """Depthwise in INT8, a real MobileNet's distances of good parts were five times those in FP32."""
    model = little_padim(64, 64, channels=24)
    graph = read_graph(save(model, tmp_path / "padim.onnx"))
    frames = generated_parity_frames(graph.input_size)[:3]
    dims = {weight.name: weight.dims for weight in model.graph.initializer}
    convolutions = {
        node.output[0]: dims[node.input[1]] for node in model.graph.node if node.op_type == "Conv"
    }
    wide = {name for name, (_, given, *_) in convolutions.items() if given > 16}
    found = quantised_nodes(quantised(graph, frames, lambda: None))
    assert found == wide and len(wide) == len(convolutions) - 5  # the first, and four depthwise ones
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    last.name = "features"
    helper.set_model_props(model, {"contract": "2", "maps": "local,whole", "fp32_nodes": "features"})
    graph = read_graph(save(model, tmp_path / "left.onnx"))
    assert quantised_nodes(quantised(graph, frames, lambda: None)) == wide - {last.output[0]}


def test_what_int8_shifts_is_corrected_where_fp32_begins(tmp_path: Path) -> None:
    """Over the frames it was measured on, a density sees in the mean the features of the FP32 graph."""
    graph = read_graph(save(little_padim(64, 64, channels=24), tmp_path / "padim.onnx"))
    names = border(graph)
    assert names
    frames = generated_parity_frames(graph.input_size)[:3]
    content = quantised(graph, frames, lambda: None)
    model = onnx.load_model_from_string(content)
    added = {node.input[0]: node.output[0] for node in model.graph.node if "/corrected" in node.output[0]}
    assert sorted(added) == sorted(names)
    for tensor in added.values():
        model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    exact, plain = runner_of(graph.content, graph), runner_of(content, graph)
    quantiles = uncalibrated(graph.maps)
    for name in names:
        shift, error = np.zeros(1), np.zeros(1)
        for frame in frames:
            [found] = session.run([added[name]], {"frames": frame[None], "quantiles": quantiles})
            error = error + (found - exact(frame)[name])
            shift = shift + (plain(frame)[name] - exact(frame)[name])
        assert np.abs(error).max() < 1e-3 * np.abs(shift).max()


def test_half_precision_leaves_what_the_graph_asks_for(tmp_path: Path) -> None:
    """Sums and ReLU6 between the convolutions are done in half; a distance and all after it are not."""
    graph = read_graph(save(little_padim(), tmp_path / "padim.onnx"))
    half = onnx.load_model_from_string(halved(graph))
    onnx.checker.check_model(half, full_check=True)
    done = {
        node.op_type
        for node in half.graph.node
        if node.output[0].endswith("/half") and node.op_type != "Cast"
    }
    assert done == {"Add", "AveragePool", "Clip", "Concat", "Conv", "Resize"}
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert len(casts) == 3  # the frames, the picture into half, the features out of it
    frames = generated_parity_frames(graph.input_size)[:4]
    reference = run_reference(graph, frames, lambda: None)
    session = onnxruntime.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"frames": np.stack(frames), "quantiles": reference.quantiles}
    found = dict(zip(graph.outputs, session.run(list(graph.outputs), given), strict=True))
    assert max(reference.largest_differences(found, range(4)).values()) < 0.02

    metadata = {"fp32_nodes": ""}
    everywhere = read_graph(save(little_padim(metadata=metadata), tmp_path / "everywhere.onnx"))
    assert not everywhere.fp32_tensors()


def test_bfloat16_leaves_what_the_graph_asks_for(tmp_path: Path) -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    model = little_padim(128, 128)
    differences = []
    for name, left in (("left", "distance,whole"), ("all", "")):
        helper.set_model_props(model, {"contract": "2", "maps": "local,whole", "fp32_nodes": left})
        path = save(model, tmp_path / f"{name}.onnx")
        assert build_engine([str(path), "--fast", "--precision", "bf16", "--max-batch", "2"]) == 0
        engine = open_engine(path.with_suffix(".engine"), threads=1)
        assert engine.half_precision_share() == 1
        frames = generated_parity_frames(Size(128, 128))
        reference = run_reference(read_graph(path), frames, lambda: None)
        results = [engine.infer([frame], reference.quantiles, engine.manifest.outputs) for frame in frames]
        found = {output: np.concatenate([result[output] for result in results]) for output in results[0]}
        differences.append(reference.largest_differences(found, range(len(frames)))["map_local"])
        engine.close()
    assert differences[0] < differences[1]
