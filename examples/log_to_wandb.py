"""Train, and send what is logged to Weights & Biases: pip install wandb, then

python examples/log_to_wandb.py photos/ runs/mine
"""

import sys

import wandb

import tagmask


def main(photos: str, output: str) -> None:
    """Train on a folder of tagged photographs; the curves are grouped by stage where the recipe has several."""
    with wandb.init(project="tagmask", config={"photos": photos, "output": output}) as run:
        # Stages count their steps from 0, and wandb wants one count that only rises: each has an axis of its own.
        run.define_metric("*", step_metric="step")

        def on_log(step: int, values: dict) -> None:
            stage = values.pop("stage", "")
            prefix = f"{stage}/" if stage else ""
            run.log({"step": step, **{prefix + name: value for name, value in values.items()}})

        tagmask.train(photos, output=output, on_log=on_log)


if __name__ == "__main__":
    main(*sys.argv[1:])
