"""How long a network takes for an input, measured on this machine (Tan et al. 2019, "MnasNet: Platform-Aware Neural Architecture
Search for Mobile", section 3: "directly measure real-world latency by executing the model").

A measurement is the median of repeated, warmed runs, batch 1, with as many threads as are stated, whatever the training
around it has. It depends on the machine and on what else it does: on an idle one medians repeat within a few per cent, and
beside other work they may be a third and more off. So a search whose reward has a measured latency in it does not repeat
to the bit, unlike one that looks latencies up in a table (`archsmith.training.Tabular`).
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from archsmith.core.checks import plain_fields
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.shown import shown
from archsmith.training.settings import whole

if TYPE_CHECKING:
    import torch

ENGINES = ("pytorch", "onnxruntime")


@dataclass(frozen=True)
class Latency:
    """What a latency is measured with. As `ImageClassification(latency=Latency())` every child's is, once, untrained, before
    its training begins; it is the metric "latency", in milliseconds.

    Args:
        engine: "pytorch", or "onnxruntime" for the network as `archsmith export --format onnx` writes it.
        threads: of the engine; one is one core of a phone.
        size: pixels a side. None: those of the training's images.
        batch: images at once.
        repeats: timed runs.
        warmup: runs before them.
        device: "cpu", or "cuda" (pytorch alone), where each run is waited for.
    """

    engine: str = "pytorch"
    threads: int = 1
    size: int | None = None
    batch: int = 1
    repeats: int = 30
    warmup: int = 5
    device: str = "cpu"

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.engine not in ENGINES:
            raise UnknownName("engine of a latency", str(self.engine), ENGINES)
        for name, least in (("threads", 1), ("batch", 1), ("repeats", 3), ("warmup", 0)):
            whole(f"{name} of Latency", getattr(self, name), least)
        if self.size is not None:
            whole("size of Latency", self.size, 1)
        if not isinstance(self.device, str) or self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise UsageError(f"device of Latency must be cpu or cuda, got {shown(self.device)}")
        if self.engine == "onnxruntime" and self.device != "cpu":
            raise UsageError("engine onnxruntime measures on the cpu; for a GPU use engine pytorch")

    def measure(self, model: torch.nn.Module, input_shape: Sequence[int]) -> Measured:
        """Measure a model. `input_shape` is one input's, whose height and width `size` replaces."""
        shape = tuple(input_shape)
        if self.size is not None:
            shape = (*shape[:-2], self.size, self.size)
        return measure_latency(
            model,
            shape,
            batch=self.batch,
            threads=self.threads,
            engine=self.engine,
            repeats=self.repeats,
            warmup=self.warmup,
            device=self.device,
        )


@dataclass(frozen=True)
class Measured:
    """A measured latency, in milliseconds for a batch.

    Args:
        median: of the timed runs.
        low, high: their quartiles: a quarter of the runs was faster, and a quarter slower.
        engine, threads, batch, device, repeats, input_shape: what it was measured with.
    """

    median: float
    low: float
    high: float
    engine: str
    threads: int
    batch: int
    device: str
    repeats: int
    input_shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "input_shape": list(self.input_shape)}

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        where = f"{self.engine}, {threads}, {self.device}, batch {self.batch}"
        return f"{self.median:.3g} ms (middle half of {self.repeats} runs {self.low:.3g} to {self.high:.3g}; {where})"


def measure_latency(
    model: torch.nn.Module,
    input_shape: Sequence[int],
    *,
    batch: int = 1,
    threads: int = 1,
    engine: str = "pytorch",
    repeats: int = 50,
    warmup: int = 10,
    device: str = "cpu",
) -> Measured:
    """How long a model takes for a batch of inputs, in milliseconds: the median of timed runs, with its quartiles.

    A copy is timed in evaluation mode, so the model stays as it is, and so do torch's threads and random state.

    Args:
        model: of one input and one output.
        input_shape: of one input, without the batch.
        batch, threads, engine, repeats, warmup, device: as in `Latency`.

    Raises UsageError when the model does not take such an input, cannot be exported (engine onnxruntime), or the device
    is not there.
    """
    Latency(engine=engine, threads=threads, batch=batch, repeats=repeats, warmup=warmup, device=device)
    shape = tuple(input_shape)
    if not shape or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
        raise UsageError(f"input_shape must be positive whole numbers, got {shown(input_shape)}")
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"there is no GPU here to measure a latency on (device {device!r}); use device='cpu'")
    copied = copy.deepcopy(model).to(device=device, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    draws = torch.Generator().manual_seed(0)
    example = torch.rand(batch, *shape, generator=draws).to(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            try:
                copied(example)
            except Exception as error:
                raise UsageError(
                    f"{type(model).__name__} takes no input of shape {(batch, *shape)}: {error}"
                ) from error
        run = _session(copied, example, threads) if engine == "onnxruntime" else _torch_run(copied, example)
        times = run_times(run, repeats, warmup)
    finally:
        torch.set_num_threads(before)
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Measured(median, low, high, engine, threads, batch, device, repeats, shape)


def run_times(run: Callable[[], object], repeats: int, warmup: int) -> list[float]:
    """Milliseconds of each timed run."""
    for _ in range(warmup):
        run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - began))
    return times


def _torch_run(model: torch.nn.Module, example: torch.Tensor) -> Callable[[], None]:
    """A forward pass that has ended when it returns, also on a GPU."""
    import torch

    def run() -> None:
        with torch.inference_mode():
            model(example)
        if example.is_cuda:
            torch.cuda.synchronize(example.device)

    if example.is_cuda:
        torch.cuda.synchronize(example.device)  # copies that are under way are not of the first run
    return run


def _session(model: torch.nn.Module, example: torch.Tensor, threads: int) -> Callable[[], None]:
    """The same by ONNX Runtime, with as many threads and no others beside them."""
    from archsmith.nn.onnx_program import needed, to_onnx

    runtime = needed("onnxruntime")
    program = to_onnx(model, (example,), None, ["input"], ["output"])
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = runtime.InferenceSession(program.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"input": example.numpy()}

    def run() -> None:
        session.run(None, feed)

    return run
