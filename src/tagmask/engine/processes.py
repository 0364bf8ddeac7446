"""The processes that train together: started by torchrun or here, and ended together when one of them fails."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes
from torch.nn.parallel import DistributedDataParallel

from tagmask.engine.device import Precision, default_device, launched_processes, resolve
from tagmask.errors import TagmaskError
from tagmask.ops.distributed import wait_for_all, world

logger = logging.getLogger(__name__)

PATIENCE = timedelta(minutes=10)
"""How long a process waits for another within a step: long enough for a slow disk. Stages wait without a limit."""
LINGER = 5.0
"""Seconds that a process outlives the loss of another, so that whoever watches sees first which one was lost."""
_HERE = "tagmask"
"""What TORCHELASTIC_RUN_ID holds where the processes were started here, and not by torchrun."""
_SEND_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # the second until torch 2.14
    if name in inspect.signature(DistributedDataParallel).parameters
)


def make_fabric(precision: Precision) -> Fabric:
    """Devices and precision of a training, on all processes; `auto` is bf16 where the hardware multiplies it."""
    processes = launched_processes() or 1
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if processes > 1 else 1  # of this machine; the others have as many
    # Buffers are equal in all processes, since each computes them of the whole batch: nobody has to send them.
    unsent: Any = {_SEND_BUFFERS: False}
    strategy = DDPStrategy(find_unused_parameters=True, timeout=PATIENCE, **unsent)
    return Fabric(
        accelerator="auto",
        devices=here,
        num_nodes=processes // here,
        precision=resolve(precision, default_device().type),
        strategy=strategy if processes > 1 else "auto",
    )


class Searched(nn.Module):
    """A method as DDP gets it: with a parameter that no step uses.

    DDP searches each step for parameters without a gradient, since the phases of a training differ in what they use
    (`decoder_from`). In the first step without any it would warn that the search is for nothing.
    """

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method, self.unused = method, nn.Parameter(torch.zeros(1))

    def forward(self, *arguments: Any) -> Any:
        """Call the method."""
        return self.method(*arguments)


@contextmanager
def together() -> Iterator[None]:
    """Join the processes that were started to train together, and fail together; does nothing in a single process.

    All but the first say nothing but errors from then on.

    Raises:
        TagmaskError: another process has ended or does not answer.
    """
    if (launched_processes() or 1) == 1:
        yield
        return
    with ExitStack() as words:
        try:
            logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would say how many we are
            make_fabric("32-true").launch()
            if world()[0]:
                logging.getLogger("tagmask").setLevel(logging.ERROR)
            words.enter_context(_last_words())
            yield
            wait_for_all()
        except Exception as error:
            if not _is_loss(error):
                raise
            logger.debug("lost another process", exc_info=error)
            # Meanwhile torchrun may end this process, so the last words are still ready.
            time.sleep(LINGER)
            rank, count = world()
            raise TagmaskError(
                f"process {rank + 1} of {count}: another process of this training has ended, or has not answered for "
                f"{PATIENCE.seconds // 60} minutes; the reason is what that one said. The same command resumes the "
                "training"
            ) from None


@contextmanager
def _last_words() -> Iterator[None]:
    """Say how to go on where torchrun ends this process, which it does by SIGTERM as soon as another one has failed.

    Only the first two of a machine say so: one of them is left, whichever failed. A thread of its own hears the
    signal, since the main one may wait for the failed process within torch, where it hears nothing.
    """
    on_main = threading.current_thread() is threading.main_thread()
    if os.environ["TORCHELASTIC_RUN_ID"] == _HERE or int(os.environ["LOCAL_RANK"]) > 1 or not on_main:
        yield
        return
    rank, count = world()
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)

    def listen() -> None:
        while heard := ear.recv(1):
            if heard[0] == signal.SIGTERM:
                logger.error(
                    "process %d of %d: ended by torchrun, since another one failed (torchrun names it as root cause) "
                    "or since torchrun was told to end. The same command resumes the training",
                    *(rank + 1, count),
                )
                os._exit(128 + signal.SIGTERM)

    def ignore(*_: object) -> None:
        """Leave the signal to the thread, which Python tells of no signal that has no handler."""

    def forget() -> None:
        """Be ended as any other process; for those that this one starts."""
        if signal.getsignal(signal.SIGTERM) is ignore:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    threading.Thread(target=listen, daemon=True).start()
    os.register_at_fork(after_in_child=forget)
    before = signal.signal(signal.SIGTERM, ignore), signal.set_wakeup_fd(mouth.fileno())
    try:
        yield
    finally:
        signal.set_wakeup_fd(before[1])
        signal.signal(signal.SIGTERM, before[0])
        mouth.close()


def _is_loss(error: Exception) -> bool:
    """Whether this is how torch says that another process is gone: by errors of its own, or gloo's, by their text."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def run_on_processes(
    count: int, work: Callable[..., object], arguments: Sequence[object], on_log: Callable[..., None] | None = None
) -> None:
    """Run a function on several processes of this machine, in the environment that torchrun would give them.

    Args:
        count: of processes, each with a GPU of its own where there are GPUs.
        work: called in each as `work(*arguments, on_log=…)`; both have to be such that pickle takes them.
        on_log: called here with what the first process calls its `on_log` with. What the first one logs is logged here.

    Raises:
        TagmaskError: there are fewer GPUs; or a process was killed.
        Exception: whatever the process raised that failed first; the others are ended.
    """
    if torch.cuda.is_available() and torch.cuda.device_count() < count:
        raise TagmaskError(
            f"training.devices {count}: this machine has {torch.cuda.device_count()} GPUs; set it to as many at most, "
            "or start with torchrun on several machines"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ends = [Pipe(duplex=False) for _ in range(count)]
    readers, writers = zip(*ends, strict=True)
    level = logging.getLogger("tagmask").getEffectiveLevel()
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it names the processes that it ends
    context = start_processes(
        _member, (writers, port, level, work, arguments, on_log is not None), nprocs=count, join=False
    )
    assert context is not None
    started: list[Any] = context.processes
    failures: dict[int, BaseException] = {}
    try:
        while not context.join(timeout=0.1):
            _hear(readers, on_log, failures)
        _hear(readers, on_log, failures)
    except (ProcessExitedException, ProcessRaisedException) as error:
        _hear(readers, on_log, failures)
        raise failures.get(error.error_index) or _unexplained(error, count) from None
    finally:
        for process in started:
            process.kill()
        for end in (*readers, *writers):
            end.close()


def _hear(readers: Sequence[Connection], on_log: Callable[..., None] | None, failures: dict[int, Any]) -> None:
    """Pass on what the processes have said so far."""
    while heard := wait(readers, timeout=0):
        for reader in heard:
            assert isinstance(reader, Connection)
            said = reader.recv()
            if isinstance(said, logging.LogRecord):
                logging.getLogger(said.name).handle(said)
            elif isinstance(said, BaseException):
                failures[readers.index(reader)] = said
            elif on_log is not None:
                on_log(*said)


def _unexplained(error: ProcessExitedException | ProcessRaisedException, count: int) -> TagmaskError:
    """The error of a process that ended without a word."""
    who = f"process {error.error_index + 1} of {count}"
    name = getattr(error, "signal_name", None)
    if name is not None:
        return TagmaskError(
            f"{who} was killed ({name}) and the others were ended; where nobody did it, the machine's memory ran out: "
            "set training.batch or training.workers smaller. The same command resumes the training"
        )
    return TagmaskError(
        f"{who} ended before it began to train. In a script, put what it does under `if __name__ == '__main__':`, "
        "since each process reads the script anew; or start it with torchrun"
    )


def _member(
    rank: int,
    writers: Sequence[Connection],
    port: int,
    level: int,
    work: Callable[..., object],
    arguments: Sequence[object],
    tells: bool,
) -> None:
    """Be one of the processes."""
    count, told = len(writers), _Teller(writers[rank])
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        GROUP_RANK="0",
        WORLD_SIZE=str(count),
        LOCAL_WORLD_SIZE=str(count),
        TORCHELASTIC_RUN_ID=_HERE,
    )
    own = logging.getLogger("tagmask")
    own.setLevel(level)
    own.propagate = False
    if rank == 0:
        own.addHandler(QueueHandler(told))  # pyright: ignore[reportArgumentType]: it has what is asked of a queue
    try:
        with together():
            work(*arguments, on_log=told.on_log if tells else None)
    except BaseException as error:
        told.put_nowait(_portable(error))
        raise SystemExit(1) from None


def _portable(error: BaseException) -> BaseException:
    """The error as another process can raise it, with the lines that led to it where it is none of the user's."""
    lines = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(str(error))
    if not isinstance(error, TagmaskError):
        error.add_note(lines)
    return error


class _Teller:
    """Sends what a process has to say to the one that started it."""

    def __init__(self, writer: Connection) -> None:
        self.writer, self.lock = writer, threading.Lock()

    def put_nowait(self, said: object) -> None:
        """Send a log record, an error, or what `on_log` is called with."""
        with self.lock:
            self.writer.send(said)

    def on_log(self, step: int, values: dict[str, Any]) -> None:
        """Tell the starting process what is logged."""
        self.put_nowait((step, values))
