"""Pictures cut into tiles, and the maps of the tiles merged into one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brightness import CELL, SIZE
from engine_graphs import GLOBAL_MAP, LOCAL_MAP, OUTPUTS, UNCALIBRATED, little_model, save
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine_build.cli import main as build_engine
from engine_runtime.engine import ANOMALY_MAP, SCORE, Engine
from engine_runtime.open import open_engine
from engine_runtime.tiled_engine import TiledEngine
from foundation.errors import InputError
from pictures.frames import Frame, Roi, Size, fit
from pictures.heatmap import MapGeometry
from pictures.tile_merge import TileMerge
from pictures.tiles import MOST_TILES, TileGrid, Tiles, parse_tiles

PDN = MapGeometry(Size(128, 160), Size(24, 32), (4.0, 4.0))
WHOLE = MapGeometry(Size(64, 64), Size(8, 8), (8.0, 8.0))
Maps = NDArray[np.float32]
Places = NDArray[np.floating[Any]]


@st.composite
def grids(draw: st.DrawFn, largest: int = 300) -> TileGrid:
    size = draw(st.integers(16, largest))
    tiles = Tiles(size, draw(st.integers(0, size // 2)))
    sides = st.integers(size, 6 * size)
    return TileGrid(tiles, Size(draw(sides), draw(sides)))


geometries = st.sampled_from([PDN, WHOLE])


def centres(merge: TileMerge) -> tuple[Places, Places]:
    """Give where the rows and columns of a merged map lie in the region."""
    geometry = merge.geometry
    rows, columns = (
        margin + (np.arange(count) + 0.5) * stride
        for margin, count, stride in zip(geometry.margin, geometry.map, geometry.stride, strict=True)
    )
    return rows, columns


def maps_of(grid: TileGrid, tile: MapGeometry, values: object) -> Maps:
    """Give the tiles' maps of a function of the region's y and x."""
    assert callable(values)
    scale = [grid.tiles.size / side for side in tile.frame]
    ys, xs = (
        (tile.margin[axis] + (np.arange(tile.map[axis]) + 0.5) * tile.stride[axis]) * scale[axis]
        for axis in (0, 1)
    )
    maps = [values((top + ys)[:, None], (left + xs)[None, :]) for top in grid.tops for left in grid.lefts]
    return np.stack(maps).astype(np.float32)


@settings(deadline=None)
@given(grids(100))
def test_every_pixel_is_in_a_tile_and_every_tile_in_the_region(grid: TileGrid) -> None:
    seen = np.zeros(grid.region, np.int64)
    step = grid.tiles.size - grid.tiles.overlap
    for top in grid.tops:
        for left in grid.lefts:
            assert 0 <= top <= grid.region.height - grid.tiles.size
            assert 0 <= left <= grid.region.width - grid.tiles.size
            seen[top : top + grid.tiles.size, left : left + grid.tiles.size] += 1
    assert seen.min() >= 1
    assert len(grid) == len(grid.tops) * len(grid.lefts)
    for corners in (grid.tops, grid.lefts):
        assert set(np.diff(corners)[:-1]) <= {step}
        assert (np.diff(corners) >= 1).all() and (np.diff(corners) <= step).all()


@settings(deadline=None)
@given(grids(), geometries, st.floats(-100, 100, width=32))
def test_a_constant_map_stays_constant(grid: TileGrid, tile: MapGeometry, value: float) -> None:
    merge = TileMerge(grid, tile)
    merged = merge(np.full((len(grid), *tile.map), value, np.float32))
    assert merged.shape == (1, *merge.geometry.map)
    np.testing.assert_allclose(merged, value, rtol=1e-5, atol=1e-7)


@settings(deadline=None)
@given(grids(), geometries)
def test_the_merged_map_reaches_from_the_first_cell_of_all_to_the_last(
    grid: TileGrid, tile: MapGeometry
) -> None:
    merge = TileMerge(grid, tile)
    for axis, places in enumerate(centres(merge)):
        scale = grid.tiles.size / tile.frame[axis]
        stride = tile.stride[axis] * scale
        first = tile.margin[axis] * scale + stride / 2
        assert places[0] == pytest.approx(first, abs=1e-6)
        assert places[-1] == pytest.approx(grid.region[axis] - first, abs=1e-6)
        # As fine as the tiles' maps, and no finer than one more cell makes it.
        assert merge.geometry.stride[axis] <= stride * (1 + 1e-6)
        assert merge.geometry.map[axis] - 2 < (places[-1] - places[0]) / stride


@settings(deadline=None)
@given(grids(), geometries, st.floats(-1, 1), st.floats(-1, 1), st.floats(-50, 50))
def test_maps_cut_out_of_a_slope_give_the_slope_back(
    grid: TileGrid, tile: MapGeometry, down: float, right: float, height: float
) -> None:
    """Linear interpolation is exact on it, so any seam, shift or wrong weight shows."""

    def slope(y: Places, x: Places) -> Places:
        return height + down * y + right * x

    merge = TileMerge(grid, tile)
    rows, columns = centres(merge)
    expected = slope(rows[:, None], columns[None, :])
    # Where neighbours do not meet, the gap is bridged, linearly as well.
    np.testing.assert_allclose(merge(maps_of(grid, tile, slope))[0], expected, atol=0.01)


@settings(deadline=None)
@given(grids(), geometries)
def test_maps_cut_out_of_a_wave_give_the_wave_back(grid: TileGrid, tile: MapGeometry) -> None:
    length = 16 * max(tile.stride) * grid.tiles.size / min(tile.frame)

    def wave(y: Places, x: Places) -> Places:
        height: Places = np.sin(2 * np.pi * y / length) + np.cos(2 * np.pi * x / length)
        return height

    merge = TileMerge(grid, tile)
    if grid.tiles.overlap < merge.least_overlap:
        return  # what lies in a gap nobody has seen
    rows, columns = centres(merge)
    expected = wave(rows[:, None], columns[None, :])
    np.testing.assert_allclose(merge(maps_of(grid, tile, wave))[0], expected, atol=0.05)


@settings(deadline=None)
@given(grids(), geometries, st.data())
def test_a_peak_lands_where_it_was_put(grid: TileGrid, tile: MapGeometry, data: st.DataObject) -> None:
    merge = TileMerge(grid, tile)
    top, left = merge.geometry.margin
    y = data.draw(st.floats(top, grid.region.height - top))
    x = data.draw(st.floats(left, grid.region.width - left))
    cell = max(tile.stride) * grid.tiles.size / min(tile.frame)

    def hill(down: Places, right: Places) -> Places:
        height: Places = np.exp(-((down - y) ** 2 + (right - x) ** 2) / (2 * (2 * cell) ** 2))
        return height

    gap = max(0, merge.least_overlap - grid.tiles.overlap)
    found_x, found_y = merge.geometry.peak(merge(maps_of(grid, tile, hill))[0])
    assert abs(found_y - y) <= cell + gap
    assert abs(found_x - x) <= cell + gap


@settings(deadline=None)
@given(grids(), geometries, st.integers(0, 2**32 - 1))
def test_what_tiles_disagree_about_has_no_seam(grid: TileGrid, tile: MapGeometry, seed: int) -> None:
    """Each tile says something else: the merged map goes over from one to the next in steps of equal size."""
    merge = TileMerge(grid, tile)
    levels = np.random.default_rng(seed).random(len(grid), dtype=np.float32)
    merged = merge(np.broadcast_to(levels[:, None, None], (len(grid), *tile.map)))[0]
    assert levels.min() - 1e-6 <= merged.min() and merged.max() <= levels.max() + 1e-6
    for axis, corners in ((0, grid.tops), (1, grid.lefts)):
        if len(corners) == 1:
            np.testing.assert_allclose(np.diff(merged, axis=axis), 0, atol=1e-6)
            continue
        scale = grid.tiles.size / tile.frame[axis]
        # Between the centres of the first cell of one tile and the last one of the tile before.
        covered = grid.tiles.size - (2 * tile.margin[axis] + tile.stride[axis]) * scale
        crossing = np.abs(np.diff(corners)[:-1] - covered) if len(corners) > 2 else np.array([np.inf])
        narrowest = min(crossing.min(), abs(np.diff(corners)[-1] - covered))
        # Three tiles meet where the last was moved inwards: two go over at once.
        steepest = 2 * merge.geometry.stride[axis] / max(narrowest, 1e-9)
        assert np.abs(np.diff(merged, axis=axis)).max() <= min(1, steepest) + 1e-5


def test_values_go_over_linearly_from_tile_to_tile() -> None:
    merge = TileMerge(TileGrid(Tiles(64, 32), Size(64, 96)), WHOLE)
    maps = np.stack([np.zeros(WHOLE.map, np.float32), np.ones(WHOLE.map, np.float32)])
    expected = [0, 0, 0, 0, 0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1]  # four cells of eight pixels overlap
    np.testing.assert_allclose(merge(maps)[0], np.tile(expected, (8, 1)), atol=1e-6)


def test_where_tiles_lie_on_the_cells_the_values_are_their_own() -> None:
    grid = TileGrid(Tiles(64, 16), Size(64, 112))
    merge = TileMerge(grid, WHOLE)
    maps = np.random.default_rng(0).random((2, 8, 8), dtype=np.float32)
    merged = merge(maps)[0]
    np.testing.assert_array_equal(merged[:, :6], maps[0, :, :6])
    np.testing.assert_array_equal(merged[:, 8:], maps[1, :, 2:])
    # From the first cell of the right tile to the last of the left one.
    np.testing.assert_allclose(merged[:, 6], maps[0, :, 6])
    np.testing.assert_allclose(merged[:, 7], maps[1, :, 1])


def test_many_pictures_are_merged_as_each_by_itself() -> None:
    grid = TileGrid(Tiles(50, 20), Size(130, 222))
    merge = TileMerge(grid, PDN)
    maps = np.random.default_rng(1).random((3, len(grid), *PDN.map), dtype=np.float32)
    together = merge(maps.reshape(-1, *PDN.map))
    np.testing.assert_array_equal(together, np.concatenate([merge(one) for one in maps]))


@settings(deadline=None)
@given(grids(100), st.integers(1, 80), st.integers(1, 80))
def test_tiles_are_put_together_to_the_picture_again(grid: TileGrid, height: int, width: int) -> None:
    """A picture of smooth colour, so that rounding to pixels hardly shows."""
    ys, xs = np.mgrid[: grid.region.height, : grid.region.width]
    planes = [200 * ys / grid.region.height, 200 * xs / grid.region.width, np.full_like(ys, 99)]
    picture = np.stack(planes, axis=2).astype(np.uint8)
    seen = grid.assemble(grid.cut(picture, Size(height, width)))
    expected = Size(
        *(
            int(region * side / grid.tiles.size + 0.5)
            for region, side in zip(grid.region, (height, width), strict=True)
        )
    )
    assert np.abs(np.array(seen.shape[:2]) - expected).max() <= 1
    difference = seen.astype(int) - fit(picture, Size(*seen.shape[:2]))
    # By half a pixel of the engine's input a place is rounded, and area interpolation has edges.
    most = 2 + 300 / min(height, width)
    assert np.abs(difference).max() <= most


def test_a_region_is_cut_where_it_lies() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    grid = TileGrid(Tiles(64, 32), Size(96, 128))
    tiles = grid.cut(picture, Size(64, 64), Roi(10, 20, 128, 96))
    assert len(tiles) == 6
    np.testing.assert_array_equal(tiles[4], picture[20 + 32 : 20 + 96, 10 + 32 : 10 + 96])
    np.testing.assert_array_equal(grid.assemble(tiles), picture[20:116, 10:138])
    with pytest.raises(InputError, match=r"300×200 pixels; expected 128×96, over which the tiles are laid"):
        grid.cut(picture, Size(64, 64))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512", "not size,overlap"),
        ("512,64,1", "not size,overlap"),
        ("a,b", "not size,overlap"),
        ("-512,64", "not size,overlap"),
        ("512,6.4", "not size,overlap"),
        ("15,0", "found size 15, expected at least 16"),
        ("512,257", "found overlap 257, expected 0 to 256 pixels"),
    ],
)
def test_tiles_that_make_no_sense(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_tiles(text)


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        tiles = parse_tiles(text)
    except ValueError:
        return
    assert parse_tiles(str(tiles)) == tiles


def test_regions_that_tiles_do_not_fit() -> None:
    with pytest.raises(InputError, match="a roi of 100×63 pixels is smaller than a tile of 64"):
        TileGrid(Tiles(64, 0), Size(63, 100))
    with pytest.raises(InputError, match=f"expected at most {MOST_TILES}: give larger tiles"):
        TileGrid(Tiles(16, 8), Size(10**18, 10**18))


@dataclass
class Counted:
    """An engine that notes how many frames it is given at a time."""

    engine: Engine
    runs: list[int] = field(default_factory=list)
    trouble = None

    def __post_init__(self) -> None:
        self.manifest = self.engine.manifest

    def infer(
        self, frames: Sequence[Frame], quantiles: NDArray[np.float32], outputs: Sequence[str] = OUTPUTS
    ) -> dict[str, Maps]:
        self.runs.append(len(frames))
        return self.engine.infer(frames, quantiles, outputs)

    def half_precision_share(self) -> float:
        return self.engine.half_precision_share()

    def close(self) -> None:
        self.engine.close()


def tiled(engine: Engine, tiles: Tiles, region: Size) -> tuple[TileGrid, TiledEngine]:
    grid = TileGrid(tiles, region)
    return grid, TiledEngine(engine, TileMerge(grid, engine.manifest.geometry))


def test_the_cost_grows_with_the_number_of_tiles_and_with_nothing_else(brightness_engine: Path) -> None:
    engine = open_engine(brightness_engine)
    most = engine.manifest.max_batch
    for rows, columns in ((1, 1), (2, 3), (5, 7)):
        counted = Counted(engine)
        region = Size(48 * (rows - 1) + 64, 48 * (columns - 1) + 64)
        grid, large = tiled(counted, Tiles(64, 16), region)
        assert len(grid) == rows * columns
        picture = np.zeros((*region, 3), np.uint8)
        large.infer([grid.cut(picture, Size(SIZE, SIZE))] * 2, UNCALIBRATED)
        assert sum(counted.runs) == 2 * rows * columns
        assert len(counted.runs) == -(-2 * rows * columns // most)
    engine.close()


def test_the_score_is_the_highest_value_and_the_maps_lie_where_they_say(brightness_engine: Path) -> None:
    engine = open_engine(brightness_engine)
    grid, large = tiled(engine, Tiles(128, 32), Size(320, 416))
    assert large.manifest.max_batch == max(1, engine.manifest.max_batch // len(grid))
    pictures = np.full((2, 320, 416, 3), 51, np.uint8)
    pictures[1, 192:208, 304:320] = 255  # a whole cell of 16 camera pixels
    frames = [grid.cut(picture, Size(SIZE, SIZE)) for picture in pictures]
    found = large.infer(frames, UNCALIBRATED, OUTPUTS)
    assert set(found) == set(OUTPUTS)
    np.testing.assert_allclose(found[SCORE], [0.2, 1.0], atol=1e-5)
    merge = TileMerge(grid, engine.manifest.geometry)
    assert merge.geometry.stride == (2 * CELL, 2 * CELL)
    assert merge.geometry.peak(found[ANOMALY_MAP][1]) == (312, 200)
    assert large.infer(frames[1:], UNCALIBRATED, (SCORE,))[SCORE] == found[SCORE][1]
    large.close()


def test_tiles_give_the_maps_of_the_whole(tmp_path: Path) -> None:
    """The same weights at two sizes of input; a graph without padding gives the same values in both."""
    tile, region = Size(64, 64), Size(160, 208)  # multiples of the stride of 4 between tiles
    engines = []
    for name, size in (("tile", tile), ("whole", region)):
        save(little_model(*size, seed=5), tmp_path / f"{name}.onnx")
        arguments = [str(tmp_path / f"{name}.onnx"), "--runtime", "onnxruntime", "--fast"]
        assert build_engine(arguments) == 0
        engines.append(open_engine(tmp_path / f"{name}.engine"))
    small, whole = engines
    stride = (4.0, 4.0)
    geometry = MapGeometry(tile, small.manifest.map_size, stride)
    grid = TileGrid(Tiles(64, 32), region)
    merge = TileMerge(grid, geometry)
    large = TiledEngine(small, merge)
    picture = np.random.default_rng(3).integers(0, 256, (*region, 3), dtype=np.uint8)
    maps = (LOCAL_MAP, GLOBAL_MAP, ANOMALY_MAP)
    ours = large.infer([grid.cut(picture, tile)], UNCALIBRATED, maps)
    theirs = whole.infer([picture], UNCALIBRATED, maps)
    for name in maps:
        rows, columns = ours[name].shape[1:]
        assert (rows, columns) == merge.geometry.map
        np.testing.assert_allclose(ours[name], theirs[name][:, :rows, :columns], rtol=1e-3, atol=1e-4)
    for engine in engines:
        engine.close()
