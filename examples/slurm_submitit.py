"""Train on several machines of a Slurm cluster: pip install submitit, then, where jobs are submitted,

python examples/slurm_submitit.py --nodes 2 --gpus 8 --hours 24 -- photos/ -r seco/default -o runs/mine

What follows `--` are the arguments of `tagmask train`; training.batch has to be a multiple of nodes x gpus. Data and
run folder lie where all machines see them. A job that is preempted, or whose time ends, is queued again and goes on at
its last checkpoint.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import submitit


class Train:
    """What each machine does: torchrun starts a process a GPU, and those of all machines train together."""

    def __init__(self, processes: int, arguments: list[str]) -> None:
        self.processes, self.arguments = processes, arguments

    def __call__(self) -> None:
        """Train, as one of the machines of the job."""
        subprocess.run(self.command(submitit.JobEnvironment()), check=True)

    def command(self, job: Any) -> list[str]:
        """Give the command of one machine; they meet at a port of the first."""
        many = [
            f"--nnodes={job.num_nodes}",
            f"--node-rank={job.node}",
            f"--rdzv-id={job.job_id}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={job.hostnames[0]}:29500",
        ]
        meeting = many if job.num_nodes > 1 else ["--standalone"]
        torchrun = [sys.executable, "-m", "torch.distributed.run", *meeting, f"--nproc-per-node={self.processes}"]
        return [*torchrun, "-m", "tagmask", "train", *self.arguments]

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Queue the same again; submitit calls this when the job's time is over or others need the machines."""
        return submitit.helpers.DelayedSubmission(self)


def submit(arguments: argparse.Namespace, cluster: str | None = None) -> submitit.Job:
    """Submit the job; `cluster` "local" runs it here, without Slurm."""
    executor = submitit.AutoExecutor(folder=arguments.logs, cluster=cluster)
    executor.update_parameters(
        name="tagmask",
        nodes=arguments.nodes,
        tasks_per_node=1,  # torchrun starts the processes of a machine
        gpus_per_node=arguments.gpus,
        cpus_per_task=arguments.cpus,
        timeout_min=60 * arguments.hours,
        slurm_partition=arguments.partition,
    )
    return executor.submit(Train(arguments.gpus or arguments.processes, arguments.train))


def parse(given: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=8, help="a machine; 0 trains on CPUs")
    parser.add_argument("--processes", type=int, default=1, help="a machine, where there are no GPUs")
    parser.add_argument("--cpus", type=int, default=16, help="cores a machine: training.workers a GPU, and some")
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--partition", default=None)
    parser.add_argument("--logs", type=Path, default=Path("slurm"), help="folder of what the jobs print")
    parser.add_argument("train", nargs="+", help="arguments of `tagmask train`, after --")
    return parser.parse_args(given)


if __name__ == "__main__":
    job = submit(parse(sys.argv[1:]))
    print(f"job {job.job_id}; what it says: {job.paths.stderr}")
