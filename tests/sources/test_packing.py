"""Arrays with CF attributes have the values and dtypes of xarray, or of netCDF4-python."""

from __future__ import annotations

import base64
import struct
import textwrap
import warnings

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stores import read_all

from streamreg import InputError, LinearRegression
from streamreg.sources.kinds import open_source
from streamreg.sources.packing import Packing, attributes_of

xr = pytest.importorskip("xarray")


def decoded_by_xarray(stored, attributes):
    variable = xr.Variable(("row", "column")[: stored.ndim], stored, attributes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of several fill values, and of -1 as an unsigned one
        return xr.conventions.decode_cf_variable("X", variable).to_numpy()


def decoded_by_us(stored, attributes):
    packing = Packing.of(attributes_of(attributes), stored.dtype, "X")
    return stored if packing is None else packing.decoded(stored)


STORED = ["i1", "u1", "i2", ">i2", "u2", "i4", "i8", "f4", ">f4", "f8"]


@st.composite
def packed_arrays(draw):
    """Stored values and attributes, as libraries write them: of the types of NumPy, or of JSON."""
    dtype = np.dtype(draw(st.sampled_from(STORED)))
    values = np.array(draw(st.lists(st.integers(0, 100), min_size=1, max_size=12))).astype(dtype)
    in_json = draw(st.booleans())
    attributes = {}
    kind = draw(st.sampled_from([np.float32, np.float64]))
    for name in draw(st.sets(st.sampled_from(["scale_factor", "add_offset"]))):
        number = draw(st.sampled_from([0.01, 0.1, 2.0, -3.5, 1e-3]))
        attributes[name] = number if in_json else kind(number)
    for name in draw(st.sets(st.sampled_from(["_FillValue", "missing_value"]))):
        fill = dtype.type(draw(st.sampled_from([0, 1, 50, 99])))
        attributes[name] = fill.item() if in_json else fill
    if dtype.kind in "iu" and draw(st.booleans()):
        attributes["_Unsigned"] = "true" if dtype.kind == "i" else "false"
    return values, attributes


@given(packed_arrays())
@settings(max_examples=300)
def test_values_and_dtypes_are_those_of_xarray(case):
    stored, attributes = case
    # xarray fails where an unsigned attribute meets the fill value of Python's type
    try:
        expected = decoded_by_xarray(stored, attributes)
    except (KeyError, OverflowError):
        assume(False)
    ours = decoded_by_us(stored, attributes)
    assert ours.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "encoding",
    [
        {"dtype": "int16", "scale_factor": 0.01, "add_offset": 250.0, "_FillValue": -32768},
        {"dtype": "uint8", "_FillValue": 255, "scale_factor": 2.0},
        {"dtype": "int8", "_FillValue": -1, "_Unsigned": "true"},
        {"dtype": "float32", "_FillValue": np.float32(-9999.9)},
        {"_FillValue": -9999.0},
        {"_FillValue": None},
        {},
    ],
)
def test_zarr_that_xarray_wrote_is_read_as_by_xarray(tmp_path, zarr_format, encoding):
    values = np.random.default_rng(0).integers(1, 80, (50, 3)).astype(float)
    if encoding.get("_FillValue", -1) is not None:
        values[7, 1] = np.nan
    xr.Dataset({"X": (("t", "f"), values)}).to_zarr(
        tmp_path / "d.zarr",
        encoding={"X": encoding},
        zarr_format=zarr_format,
        consolidated=False,
    )
    with xr.open_zarr(tmp_path / "d.zarr", consolidated=False) as opened:
        expected = opened["X"].to_numpy()
    for data in (tmp_path / "d.zarr" / "X", zarr.open(tmp_path / "d.zarr")["X"]):
        read = read_all(open_source(data, "X"))
        assert read.dtype == expected.dtype
        np.testing.assert_array_equal(read, expected)
    # a plain array is still read straight from its files
    is_packed = bool(encoding) and encoding != {"_FillValue": None}
    missing_only = open_source(tmp_path / "d.zarr" / "X", "X")
    assert bool(missing_only.missing_text) == is_packed


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_netcdf_is_read_as_by_xarray(tmp_path, engine):
    pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
    values = np.random.default_rng(0).normal(280, 10, (50, 3)).round(2)
    values[[7, 33], [0, 1]] = np.nan
    packed = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 250.0, "_FillValue": -32768}
    path = tmp_path / "d.nc"
    xr.Dataset({"X": (("t", "f"), values)}).to_netcdf(path, engine=engine, encoding={"X": packed})
    with xr.open_dataset(path, engine=engine) as opened:
        expected = opened["X"].to_numpy()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(read_all(open_source(file["X"], "X")), expected)


@pytest.mark.parametrize("decodes_by_itself", [True, False])
def test_variables_of_netcdf4_python_are_decoded_once(tmp_path, decodes_by_itself):
    netcdf4 = pytest.importorskip("netCDF4")
    with netcdf4.Dataset(tmp_path / "d.nc", "w") as file:
        file.createDimension("t", 50)
        variable = file.createVariable("X", "i2", ("t",))
        variable.scale_factor, variable.add_offset = 0.01, 250.0
        variable[:40] = np.linspace(200, 300, 40)
    with netcdf4.Dataset(tmp_path / "d.nc") as file:
        expected = np.ma.filled(file["X"][:], np.nan)
        file["X"].set_auto_maskandscale(decodes_by_itself)
        read = read_all(open_source(file["X"], "X"))
        np.testing.assert_array_equal(read, expected)
        assert (file["X"].mask, file["X"].scale) == (decodes_by_itself, decodes_by_itself)
        stored = read_all(open_source(file["X"], "X", decode_cf=False))
        assert stored.dtype == np.int16


def test_variables_of_h5netcdf_are_decoded(tmp_path):
    h5netcdf = pytest.importorskip("h5netcdf")
    with h5netcdf.File(tmp_path / "d.nc", "w") as file:
        file.dimensions = {"t": 3}
        variable = file.create_variable("X", ("t",), "i2", data=np.array([1, 2, -1], "i2"))
        variable.attrs["scale_factor"], variable.attrs["missing_value"] = 0.5, np.int16(-1)
    with h5netcdf.File(tmp_path / "d.nc") as file:
        read = read_all(open_source(file["X"], "X"))
        np.testing.assert_array_equal(read, [0.5, 1, np.nan])


@pytest.mark.parametrize(
    ("dtype", "attributes"),
    [
        ("f8", {"valid_range": [10.0, 20.0]}),
        ("f4", {"valid_min": np.float32(10.1), "valid_max": np.float32(20.3)}),
        ("i2", {"valid_min": np.int16(10), "scale_factor": 0.5}),
        ("u1", {"valid_max": np.uint8(20)}),
    ],
)
def test_values_outside_the_valid_range_are_missing_as_in_netcdf4_python(
    tmp_path, dtype, attributes
):
    netcdf4 = pytest.importorskip("netCDF4")
    stored = np.arange(40).astype(dtype)
    if dtype == "f4":
        stored = np.append(stored, np.float32([10.1, 20.3]))
    with netcdf4.Dataset(tmp_path / "d.nc", "w") as file:
        file.createDimension("t", len(stored))
        variable = file.createVariable("X", dtype, ("t",), fill_value=False)
        variable.set_auto_maskandscale(False)
        variable[:] = stored
        variable.setncatts(attributes)
    with netcdf4.Dataset(tmp_path / "d.nc") as file:
        expected = np.ma.filled(file["X"][:].astype(float), np.nan)
    with h5py.File(tmp_path / "d.nc") as file:
        np.testing.assert_array_equal(read_all(open_source(file["X"], "X")), expected)


def test_limits_of_unsigned_bytes_are_unsigned_too():
    attributes = {"_Unsigned": "true", "valid_range": np.array([10, 200], "u1").view("i1")}
    decoded = decoded_by_us(np.arange(256).astype("u1").view("i1"), attributes)
    assert np.flatnonzero(np.isfinite(decoded)).tolist() == list(range(10, 201))


def test_limits_of_another_type_than_the_stored_one_are_of_decoded_values():
    # the NetCDF Users Guide, appendix A: valid_range of the type of scale_factor
    attributes = {"scale_factor": 0.1, "valid_range": [1.0, 2.0]}
    decoded = decoded_by_us(np.arange(0, 40, dtype="i2"), attributes)
    assert np.flatnonzero(np.isfinite(decoded)).tolist() == list(range(10, 21))


def test_a_missing_value_is_compared_as_the_stored_type_holds_it():
    # JSON has -9999.9; float32 holds -9999.900390625
    stored = np.array([1, -9999.9], "f4")
    np.testing.assert_array_equal(decoded_by_us(stored, {"missing_value": -9999.9}), [1, np.nan])


def test_what_netcdf_fills_new_variables_with_is_missing(tmp_path):
    netcdf4 = pytest.importorskip("netCDF4")
    with netcdf4.Dataset(tmp_path / "d.nc", "w") as file:
        file.createDimension("t", 4)
        file.createVariable("X", "f8", ("t",))[:2] = [1.0, 2.0]
    with netcdf4.Dataset(tmp_path / "d.nc") as file:
        expected = np.ma.filled(file["X"][:], np.nan)
    with h5py.File(tmp_path / "d.nc") as file:
        source = open_source(file["X"], "X")
        np.testing.assert_array_equal(read_all(source), expected)


def test_the_fill_value_of_zarr_2_is_no_missing_value_unless_xarray_wrote_the_array(tmp_path):
    array = zarr.create_array(tmp_path / "X", shape=(3,), dtype="i2", fill_value=0, zarr_format=2)
    array[:] = [0, 1, 2]
    assert read_all(open_source(tmp_path / "X", "X", missing_chunks="fill")).tolist() == [0, 1, 2]
    array.attrs["_ARRAY_DIMENSIONS"] = ["t"]
    decoded = read_all(open_source(tmp_path / "X", "X"))
    np.testing.assert_array_equal(decoded, [np.nan, 1, 2])
    assert read_all(open_source(tmp_path / "X", "X", decode_cf=False)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("fill", [-9.0, "-9", base64.b64encode(struct.pack("<d", -9.0)).decode()])
def test_a_fill_value_may_be_a_number_a_text_or_base64(fill):
    np.testing.assert_array_equal(
        decoded_by_us(np.array([1.0, -9.0]), {"_FillValue": fill}), [1, np.nan]
    )


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"scale_factor": "a lot"}, "attribute scale_factor of X is 'a lot', which is no number"),
        ({"_FillValue": []}, r"attribute _FillValue of X is \[\], which is no number"),
        ({"units": "hours since 1900-01-01 00:00:0.0"}, "X holds dates, 'hours since 1900-01-01"),
        ({"units": b"days since 2000-1-1"}, "X holds dates"),
    ],
)
def test_dates_and_attributes_that_are_no_numbers_are_refused(tmp_path, attributes, message):
    with pytest.raises(InputError, match=rf"{message}.*decode_cf=False"):
        decoded_by_us(np.arange(3), attributes)


@pytest.mark.parametrize("units", ["days", "K", "since", "degrees_since_birth", "m s-1"])
def test_other_units_are_read_as_they_are(units):
    assert decoded_by_us(np.arange(3), {"units": units}).tolist() == [0, 1, 2]


@pytest.fixture
def packed(tmp_path):
    """A group whose X is packed in 16 bits with two missing values, and the numbers of X."""
    X = np.random.default_rng(2).normal([280, 5], [10, 2], (400, 2)).round(2)
    y = X @ [0.5, -3.0] + 4
    X[7, 0] = X[333, 1] = np.nan
    packed = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 250.0, "_FillValue": -32768}
    xr.Dataset({"X": (("time", "f"), X), "y": ("time", y)}).to_zarr(
        tmp_path / "d.zarr", encoding={"X": {**packed, "chunks": (64, 2)}}, consolidated=False
    )
    return tmp_path / "d.zarr"


def test_a_missing_value_is_named_with_its_attribute_and_both_remedies_work(packed):
    with pytest.raises(
        InputError,
        match=r"NaN \(a missing value: _FillValue = -32768\) in row 7, column 0.*"
        r'nan_policy="omit".*decode_cf=False',
    ):
        LinearRegression().fit(packed)
    with pytest.warns(UserWarning, match="2 of 400 rows"):
        model = LinearRegression(nan_policy="omit").fit(packed)
    np.testing.assert_allclose(model.coef_, [0.5, -3.0], rtol=1e-10)
    stored = zarr.open(packed, use_consolidated=False)["X"][:].astype(float)
    raw = LinearRegression(decode_cf=False).fit(packed)
    y = zarr.open(packed, use_consolidated=False)["y"][:]
    expected = np.linalg.lstsq(np.c_[stored, np.ones(400)], y, rcond=None)[0]
    np.testing.assert_allclose(raw.coef_, expected[:2], rtol=1e-6)


def test_predict_and_score_decode_too(packed, tmp_path):
    with pytest.warns(UserWarning, match="2 of 400 rows"):
        model = LinearRegression(nan_policy="omit").fit(packed)
    with xr.open_zarr(packed, consolidated=False) as opened:
        expected = opened["X"].to_numpy() @ [0.5, -3.0] + 4
    np.testing.assert_allclose(model.predict(packed), expected, rtol=1e-10)
    model.predict(packed, out=tmp_path / "p.zarr")
    np.testing.assert_allclose(zarr.open(tmp_path / "p.zarr")[:], expected, rtol=1e-10)
    with pytest.warns(UserWarning, match="2 of 400 rows"):
        assert model.score(packed) == pytest.approx(1)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_rewritten_as_advised_means_the_same(tmp_path, zarr_format):
    values = np.arange(40.0).reshape(20, 2)
    values[3, 1] = np.nan
    encoding = {"X": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1, "chunks": (20, 2)}}
    xr.Dataset({"X": (("t", "f"), values)}).to_zarr(
        tmp_path / "d", encoding=encoding, zarr_format=zarr_format, consolidated=False
    )
    advice = open_source(tmp_path / "d/X", "X").rechunk_advice(5)
    exec(textwrap.dedent(advice.split("\n", 1)[1]), {})  # noqa: S102  (as the user would)
    source = open_source(tmp_path / "d/X-rows", "X")
    assert source.grid.chunk_rows == 5
    np.testing.assert_array_equal(read_all(source), values)


def test_integers_that_float64_cannot_hold_are_told_and_fill_values_are_not(tmp_path):
    y = np.arange(20.0)
    for largest, told in ((2**60 + 1, True), (2**40, False)):
        array = zarr.create_array(tmp_path / f"{largest}", shape=(20, 1), dtype="i8")
        array[:] = np.r_[np.arange(1, 19), -(2**62), largest][:, None]
        array.attrs["_FillValue"] = -(2**62)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            LinearRegression(nan_policy="omit").fit(tmp_path / f"{largest}", y)
        assert (
            any("2^53" in str(each.message) or "2⁵³" in str(each.message) for each in warned)
            == told
        )


def test_any_threads_and_limits_give_the_same_bits(packed):
    fits = []
    for options in ({"n_threads": 1}, {"n_threads": 4}, {"memory_limit": "24 MiB"}):
        with pytest.warns(UserWarning, match="2 of 400 rows"):
            fits.append(LinearRegression(nan_policy="omit", **options).fit(packed).coef_)
    assert all(fit.tobytes() == fits[0].tobytes() for fit in fits)


def test_a_checkpoint_of_decoded_rows_is_not_resumed_with_stored_ones(packed, tmp_path):
    from streamreg import CheckpointError  # noqa: PLC0415

    options = {"checkpoint": tmp_path / "c", "nan_policy": "omit"}
    with pytest.warns(UserWarning, match="2 of 400 rows"):
        LinearRegression(**options).fit(packed)
    with pytest.raises(CheckpointError, match="decode_cf"):
        LinearRegression(**options, decode_cf=False).fit(packed)
