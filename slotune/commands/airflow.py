"""`slotune airflow install | bundle`: how Airflow finds the DAGs that came with the package.

Nothing of Airflow is imported: the package may be asked on a machine where Airflow is not.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path

import typer

from detection.errors import ConfigError

LINK = "slotune"
BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="airflow", help="Make Airflow find the DAGs of this package.", no_args_is_help=True)

    @group.command()
    def install(
        dags_folder: Path | None = typer.Option(
            None, help="Airflow's DAGs folder (default: of AIRFLOW__CORE__DAGS_FOLDER, else AIRFLOW_HOME/dags)."
        ),
    ) -> None:
        """Link the package's DAGs into Airflow's DAGs folder; an upgrade of the package needs no second time."""
        folder = dags_folder or dags_folder_of(os.environ)
        typer.echo(link(packaged_dags(), folder))

    @group.command()
    def bundle() -> None:
        """Print the setting that makes the package's DAGs a bundle of their own, beside the DAGs folder."""
        value = json.dumps(bundles(packaged_dags()))
        typer.echo(f"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST='{value}'")

    app.add_typer(group)


def dags_folder_of(environment: Mapping[str, str]) -> Path:
    """Where Airflow looks for DAGs, by the environment."""
    named = environment.get("AIRFLOW__CORE__DAGS_FOLDER")
    return Path(named) if named else Path(environment.get("AIRFLOW_HOME") or Path.home() / "airflow") / "dags"


def packaged_dags() -> Path:
    """The folder of the DAG files: in the installed package, or of the checkout that it was installed from."""
    spec = importlib.util.find_spec("slotune_airflow")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("slotune_airflow is not installed here: install the package slotune (not only its sources)")
    package = Path(next(iter(spec.submodule_search_locations)))
    for folder in (package / "dags", package.parents[1] / "dags"):
        if (folder / "watch_services.py").is_file():
            return folder.resolve()
    raise ConfigError(f"there are no DAG files beside {package}: install the package slotune again")


def link(dags: Path, folder: Path) -> str:
    """Make folder/slotune a link to `dags`; what was done, in a sentence. ConfigError where something else is there."""
    target = folder / LINK
    if target.is_symlink() and target.resolve() == dags:
        return f"{target} points to {dags} already."
    if target.exists() and not target.is_symlink():
        raise ConfigError(f"{target} is there and is no link: move it away, or use `slotune airflow bundle`")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(dags, target_is_directory=True)
    except OSError as error:
        raise ConfigError(f"{target} cannot be made ({error.strerror}): use `slotune airflow bundle`") from error
    return f"{target} points to {dags}: Airflow shows the DAGs at its next scan."


def bundles(dags: Path) -> list[dict[str, object]]:
    """The value of Airflow's dag_bundle_config_list: its own default and slotune's."""
    own: dict[str, object] = {"name": "dags-folder", "classpath": BUNDLE, "kwargs": {}}
    return [own, {"name": "slotune", "classpath": BUNDLE, "kwargs": {"path": str(dags)}}]
