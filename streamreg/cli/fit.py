"""``streamreg plan`` and ``streamreg fit``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from streamreg.cli import options as o
from streamreg.cli import show
from streamreg.cli.config_options import with_config_options
from streamreg.cli.jobs import Job, job_of
from streamreg.config.fit_config import FitConfig
from streamreg.errors import InputError
from streamreg.formatting import column_names, count, format_nbytes, target_names
from streamreg.inference.summary import Summary
from streamreg.model import Model
from streamreg.output.stored_coefficients import StoredCoefficients
from streamreg.progress import progress_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamreg.fitting.result import Fit
    from streamreg.planning.plan import Plan
    from streamreg.solvers.selection import Selection

_NOT_CONVERGED = 4
_MANY_PASSES = 10
_MOST_ROWS, _MOST_TARGETS = 30, 5

_with_options = partial(with_config_options, opened=job_of)


@_with_options
def plan(
    job: Job,
    config: FitConfig,
    progress: Annotated[bool, typer.Option(hidden=True)] = True,
    json: o.Json = False,
) -> None:
    """Show what each solver would need, from metadata alone; exits with 3 if none fits."""
    # a plan has no passes, but accepts every option of a fit
    del config, progress
    planned = job.plan()
    _advise(job, planned)
    if json:
        show.write_json(planned.to_dict())
    else:
        show.write(planned.table())
    planned.require_fit()


@_with_options
def fit(
    job: Job,
    config: FitConfig,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the model, .json or .npz.")
    ] = None,
    overwrite: o.Overwrite = False,
    progress: o.Progress = True,
    json: o.Json = False,
) -> None:
    """Fit a data set, or statistics; exits with 4 if the tolerance was not reached."""
    if out is not None:
        _require_out(out, config, overwrite=overwrite)
    if job.advice_for_many_passes:
        _advise(job, job.plan())
    result = job.fit(progress_of(progress, "fit"))
    model = result.model(job.described)
    if out is not None:
        model.save(out)
    for message in result.warnings:
        show.warn(message)
    if json:
        show.write_json(_document(model, out))
    else:
        _write_result(model, result, out)
    if result.checkpoint_error is not None:
        raise result.checkpoint_error
    if not result.solution.status.converged:
        why = show.text_of(result.solution.status.value)
        show.say(f"{result.solver} did not converge. {why}")
        raise typer.Exit(_NOT_CONVERGED)


def _require_out(out: Path, config: FitConfig, *, overwrite: bool) -> None:
    """Refuse a path that no model can be written to."""
    # before any pass, because a file that cannot be written would lose the model
    o.require_output(out, (".json", ".npz"), overwrite=overwrite)
    if config.checkpoint is not None and out.resolve() == Path(config.checkpoint).resolve():
        raise InputError(f"--out and --checkpoint are both {out}; choose two files")


def _advise(job: Job, plan: Plan) -> None:
    """Say what pays before a solver that takes many passes."""
    passes = plan.candidates[plan.chosen].passes
    if passes >= _MANY_PASSES and job.advice_for_many_passes:
        show.say(f"{plan.chosen} takes about {passes:,} passes: {job.advice_for_many_passes}")


def _document(model: Model, out: Path | None) -> dict[str, Any]:
    one, coef = model.one_target, model.coefficients
    shown: Any = coef[0] if one else coef
    if isinstance(coef, StoredCoefficients):
        # they may not fit in memory
        shown = {"path": str(coef.path), "shape": coef.shape}
    return {
        **model.details,
        "model": None if out is None else str(out),
        "coef": shown,
        "intercept": model.intercept[0] if one else model.intercept,
        "feature_names": model.feature_names,
        "target_names": model.target_names,
        "inference": None if model.inference is None else model.inference.to_dict(),
    }


def _write_result(model: Model, result: Fit, out: Path | None) -> None:
    solution = result.solution
    status = show.text_of(solution.status.value)
    show.write(f"{result.solver}, {count(solution.n_epochs, 'epoch')}: {status}")
    show.write(f"loss {solution.loss_history[0]:.6g} → {solution.loss_history[-1]:.6g}")
    show.write(
        f"memory added: {format_nbytes(result.peak_nbytes)} measured, "
        f"{format_nbytes(result.planned_nbytes)} planned, "
        f"{format_nbytes(result.plan.memory_limit)} allowed"
    )
    if solution.selection is not None:
        _write_selection(solution.selection, target_names(model.target_names, model.n_targets))
    if model.inference is None:
        _write_weights(model)
    else:
        show.write(
            str(Summary(model.inference, result.solver, model.target_names, most_terms=_MOST_ROWS))
        )
    if out is not None:
        show.write(f"model written to {out}")


def _write_selection(selection: Selection, targets: Sequence[str]) -> None:
    n_l2s, n_folds, _ = selection.scores.shape
    how = "generalised cross-validation" if n_folds == 1 else count(n_folds, "fold")
    what = "GCV" if n_folds == 1 else "mean squared error"
    low, high = selection.l2s[[0, -1]]
    show.write(f"best of {count(n_l2s, 'penalty')} from {low:.3g} to {high:.3g}, by {how}:")
    chosen = zip(targets, selection.l2, -selection.best_score, strict=True)
    rows = [[name, f"{l2:.6g}", f"{error:.6g}"] for name, l2, error in chosen]
    show.write_table(["target", "l2", what], rows[:_MOST_TARGETS])
    if len(rows) > _MOST_TARGETS:
        show.write(f"… and {len(rows) - _MOST_TARGETS:,} more targets")


def _write_weights(model: Model) -> None:
    names = column_names(model.feature_names, model.n_features)
    targets = target_names(model.target_names, model.n_targets)
    shown = min(model.n_targets, _MOST_TARGETS)
    values = np.vstack([model.intercept[:shown], model.weights_of(0, shown).T])
    rows = [
        [name, *(f"{value:.6g}" for value in row)]
        for name, row in zip(["intercept", *names[:_MOST_ROWS]], values, strict=False)
    ]
    show.write_table(["", *targets[:_MOST_TARGETS]], rows)
    if len(targets) > _MOST_TARGETS:
        show.write(f"… and {len(targets) - _MOST_TARGETS:,} more targets")
    if model.n_features > _MOST_ROWS:
        show.write(f"… and {model.n_features - _MOST_ROWS:,} more coefficients")
    if model.stored is not None:
        show.write(f"{count(model.n_targets, 'target')}: weights written to {model.stored.path}")
