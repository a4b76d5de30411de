"""Texts in 2^20 hashed columns: functions of Python's standard library that are about networks.

The corpus ships with Python: the source of the functions in its standard library. Words are counted
in 2^20 columns, of which a function has about fifty; dense rows would be more than 100 GB. New
texts are predicted by the schema that the model keeps.

    python examples/05_hashed_text.py
"""

from __future__ import annotations

import re
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

import streamreg

LIMIT = "512 MiB"
ABOUT_NETWORKS = {
    "asyncio", "ftplib", "http", "imaplib", "poplib", "smtplib", "socket", "socketserver", "ssl",
    "urllib", "xmlrpc",
}  # fmt: skip


def write(folder: Path) -> tuple[Path, Path]:
    """Write every fifth function to test.parquet, the others to train.parquet."""
    library = Path(sysconfig.get_paths()["stdlib"])
    tables: tuple[list[dict[str, object]], list[dict[str, object]]] = ([], [])
    number = 0
    for path in sorted(library.rglob("*.py")):
        module = path.relative_to(library).parts
        if module[0] in {"site-packages", "test", "idlelib", "lib2to3"}:
            continue
        source = path.read_text(encoding="utf-8", errors="replace")
        is_about = float(module[0].removesuffix(".py") in ABOUT_NETWORKS)
        for text in re.split(r"\n(?=[ ]*(?:async )?def )", source)[1:]:
            tables[number % 5 == 0].append({"source": text, "about_networks": is_about})
            number += 1
    paths = folder / "train.parquet", folder / "test.parquet"
    for path, rows in zip(paths, tables, strict=True):
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return paths


def main(folder: Path) -> None:
    """Write the tables, fit, and predict functions and a text that the model has not seen."""
    train, test = write(folder)
    table = streamreg.read_table(train, target="about_networks", text="source")
    # few epochs, so that this takes seconds: an early end acts as a penalty too
    model = streamreg.LinearRegression(solver="cg", l2=0.1, max_epochs=12, memory_limit=LIMIT)
    model.fit(table)
    print(
        f"{table}\n{model.n_iter_} epochs, memory added {model.peak_memory_ / 2**20:.0f} MiB of "
        f"{LIMIT}"
    )
    unseen = streamreg.read_table(test, like=model)
    print(f"R² of functions that it has not seen: {model.score(unseen):.2f}")
    texts = ["self.socket.connect((host, port))", "return math.sqrt(x * x + y * y)"]
    new = streamreg.read_table(pa.table({"source": texts}), like=model)
    for text, predicted in zip(texts, np.asarray(model.predict(new)), strict=True):
        print(f"{predicted:+.3f}  {text}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
