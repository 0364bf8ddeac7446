"""Train, and send what is logged to MLflow: pip install mlflow, then

python examples/log_to_mlflow.py photos/ runs/mine
"""

import sys

import mlflow

import tagmask


def main(photos: str, output: str) -> None:
    """Train on a folder of tagged photographs; a metric of a recipe of several stages bears the stage's name."""
    with mlflow.start_run():
        mlflow.log_params({"photos": photos, "output": output})

        def on_log(step: int, values: dict) -> None:
            stage = values.pop("stage", "")
            prefix = f"{stage}/" if stage else ""
            mlflow.log_metrics({prefix + name: value for name, value in values.items()}, step=step)

        run = tagmask.train(photos, output=output, on_log=on_log)
        mlflow.log_artifact(f"{run}/recipe.yaml")


if __name__ == "__main__":
    main(*sys.argv[1:])
