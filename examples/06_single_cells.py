"""Single cells: an AnnData store of sparse counts, read by path, with 20,000 genes.

The store is made as cells are counted: counts of a gene are negative binomial, and their mean
depends on the gene, on the depth of the cell, and, for 50 genes, on the age of the donor. It is
laid out as anndata writes it: X in CSR, names of genes in var, the age in obs.

    python examples/06_single_cells.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import zarr

import streamreg

CELLS, GENES, LIMIT = 2_000, 20_000, "256 MiB"


def write(path: Path) -> None:
    """Write X (CELLS, GENES), about 3 % of which is not 0, a block of cells at a time."""
    rng = np.random.default_rng(0)
    mean = rng.lognormal(-5, 1.5, GENES)
    effect = np.zeros(GENES)
    effect[rng.choice(GENES, 50, replace=False)] = rng.normal(0, 0.03, 50)
    mean[effect != 0] = 1.0
    age = rng.uniform(20, 80, CELLS)
    counts, columns, bounds = [], [], [0]
    for start in range(0, CELLS, 500):
        years = age[start : start + 500, None]
        depth = rng.lognormal(0, 0.3, years.shape)
        rates = depth * mean * np.exp(effect * (years - 50))
        # a gamma mixture of Poisson counts is negative binomial
        block = rng.poisson(rates * rng.gamma(2.0, 0.5, rates.shape))
        rows, genes = np.nonzero(block)
        counts.append(block[rows, genes].astype(np.float32))
        columns.append(genes.astype(np.int32))
        bounds += list(bounds[-1] + np.cumsum(np.bincount(rows, minlength=len(block))))
    root = zarr.open_group(path, mode="w", zarr_format=2)
    X = root.create_group("X")
    X.attrs.update(
        {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [CELLS, GENES]}
    )
    X.create_array("data", data=np.concatenate(counts))
    X.create_array("indices", data=np.concatenate(columns))
    X.create_array("indptr", data=np.array(bounds))
    var = root.create_group("var")
    var.attrs["_index"] = "gene"
    var.create_array("gene", data=np.array([f"gene{j}" for j in range(GENES)]))
    root.create_group("obs").create_array("age", data=age)


def main(folder: Path) -> None:
    """Write the store, plan, fit, and name the genes that tell most of the age."""
    atlas = folder / "atlas.zarr"
    write(atlas)
    X, age = atlas / "X", atlas / "obs" / "age"
    print(streamreg.plan(X, age, memory_limit=LIMIT), "\n")
    model = streamreg.LinearRegression(solver="cg", l2=1.0, memory_limit=LIMIT).fit(X, age)
    print(
        f"{model.n_iter_} epochs, R² {model.score(X, age):.2f}, memory added "
        f"{model.peak_memory_ / 2**20:.0f} MiB of {LIMIT}"
    )
    for gene in np.argsort(-np.abs(model.coef_))[:5]:
        print(f"{model.feature_names_in_[gene]:>10}  {model.coef_[gene]:+.2f} years a count")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
