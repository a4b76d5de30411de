"""Tables to ingest, and what becomes of them."""

import pytest
import zarr

from streamreg.errors import InputError
from streamreg.ingest.convert import ingest


def written(report):
    group = zarr.open_group(report.path, mode="r")
    return {name: array[:] for name, array in group.arrays()}


def write(path, table):
    """Put text, or a pandas frame, into the kind of file that the name says."""
    if isinstance(table, str):
        path.write_text(table)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path


def message(path, out, **options):
    """Return the message that refuses a table, which must leave no file behind."""
    with pytest.raises(InputError) as refusal:
        ingest(path, out, **({"target": ["y"]} | options))
    assert not list(out.parent.glob("out.zarr*"))
    return refusal.value.args[0]
