"""The LSTM controller (Zoph and Le 2017, sections 3.1 and 3.3): a policy over the genotypes of any space of choices.

At each step the LSTM reads what was answered before and one head answers the space's next question:

- a softmax per kind of choice, as wide as its longest option list, the rest masked;
- for a subset whose options are earlier steps, the anchor, attention over the anchor points (section 3.3):
  P(j feeds i) = sigmoid(v . tanh(W_prev h_j + W_curr h_i)), each sampled independently;
- for any other subset an independent Bernoulli per option.

The next input is the embedding of the answer; after a subset the mean of its members' embeddings, a learned vector if it
is empty. The paper feeds an anchor's hidden states instead (`anchor_input="hidden"`). Ours depends on answers alone, so that
a batch is scored in one pass of torch's fused LSTM. Sampling is the same mathematics in numpy, on the same memory:
for matrices this small it is several times faster than torch called step by step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from archsmith.core.genotype import Genotype
from archsmith.core.space import Space
from archsmith.searchers.blas import one_blas_thread
from archsmith.searchers.depth_schedule import DepthSchedule
from archsmith.searchers.lstm_sampler import sample_walk
from archsmith.searchers.parameters import Floats, Layout, initial_rows, trunk
from archsmith.searchers.traces import Batch, Head, Ints, Trace
from archsmith.searchers.walks import OffScript, Reader


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, as it was afterwards: two gain nothing on matrices this small, and round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Score:
    """What the current policy makes of m traces of at most T steps; zero where a trace has ended.

    Args:
        log_prob: [m, T], the log-probability of what was answered at each step; differentiable.
        entropy: [m, T], the entropy of each step's answer in nats; differentiable.
        decisions: how many softmaxes and Bernoullis that is, in all.
    """

    log_prob: torch.Tensor
    entropy: torch.Tensor
    decisions: int


class Decided(NamedTuple):
    """What one head decides in a plan: arrays with one entry per decision, as `traces.Batch.gather` has them, but
    `masked` [decisions, options] for the options that a choice does not have; None where it has all."""

    form: str
    name: str
    step: torch.Tensor
    taken: torch.Tensor
    option: torch.Tensor
    masked: torch.Tensor | None
    target: torch.Tensor


@dataclass(frozen=True)
class Plan:
    """Traces as they are scored: what is decided by each head, and what is read; see `Controller.plan`."""

    num_traces: int
    num_steps: int
    decided: list[Decided]
    decisions: int
    rows: torch.Tensor
    starts: torch.Tensor | None
    weights: torch.Tensor
    recalled: torch.Tensor | None


class Controller:
    """The policy: samples genotypes, scores them, and descends a loss by Adam (Kingma and Ba 2015).

    Heads and embeddings grow when a question of a new kind, or with more options, is met. Each row of each parameter is
    drawn from a generator of its own, so that the policy does not depend on when that happens.

    Args:
        space: what is searched.
        seed: decides the initial parameters.
        hidden, layers, embedding: the sizes of the network.
        init: all parameters, biases too, start uniform in [-init, init].
        anchor_input: "answers" or "hidden": what is read after an anchor.
        schedule: forces the depth, or None.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        *,
        hidden: int,
        layers: int,
        embedding: int,
        init: float,
        anchor_input: str = "answers",
        schedule: DepthSchedule | None = None,
    ) -> None:
        self.reader = Reader(space, schedule)
        self.parameters: dict[str, torch.Tensor] = {}
        self.widths: dict[Head, int] = {}
        self._seed = seed
        self.hidden, self.layers = hidden, layers
        self._embedding, self._init = embedding, init
        self.feeds_hidden = anchor_input == "hidden"
        self.forced = schedule.choice if schedule else None
        self._moments: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # Adam's m and v
        self._steps = 0  # Adam's t
        for name, (rows, *shape) in trunk(hidden, layers, embedding).items():
            self._extend(name, rows, *shape)

    # --- parameters

    def _extend(self, name: str, rows: int, *shape: int) -> None:
        """Make a parameter, or give it more rows."""
        old = self.parameters.get(name)
        have = 0 if old is None else len(old)
        if have >= rows and old is not None:
            return
        new = initial_rows(self._seed, self._init, name, range(have, rows), shape)
        self._set(name, new if old is None else np.concatenate([old.detach().numpy(), new]))
        if name in self._moments:
            nothing = torch.zeros(rows - have, *shape)
            m, v = self._moments[name]
            self._moments[name] = torch.cat([m, nothing]), torch.cat([v, nothing])

    def _set(self, name: str, value: Floats) -> None:
        self.parameters[name] = torch.from_numpy(value).requires_grad_()

    def know(self, head: Head, width: int) -> bool:
        """Let a head answer questions of that width; whether it had to grow."""
        if self.widths.get(head, -1) >= width:
            return False
        self.widths[head] = width
        form, name = head[0], ":".join(head)
        if form != "anchor" or not self.feeds_hidden:
            self._extend(f"{name}.embedding", width, self._embedding)
        if form in ("subset", "anchor"):
            self._extend(f"{name}.none", 1, self._embedding)
        if form in ("choice", "subset"):
            self._extend(f"{name}.weight", width, self.hidden)
            self._extend(f"{name}.bias", width)
        if form == "anchor":
            self._extend(f"{name}.W_prev", self.hidden, self.hidden)
            self._extend(f"{name}.W_curr", self.hidden, self.hidden)
            self._extend(f"{name}.v", self.hidden)
        return True

    def table(self) -> tuple[list[torch.Tensor], dict[str, int]]:
        """All vectors that may be read as inputs, the start first, and at which row of them each parameter begins."""
        parts, first, rows = [self.parameters["start"]], {"start": 0}, 1
        for name, value in self.parameters.items():
            if name.endswith((".embedding", ".none")):
                parts.append(value)
                first[name] = rows
                rows += len(value)
        return parts, first

    def layout(self) -> Layout:
        """That of all parameters as one vector."""
        return Layout.of(self.widths, {name: tuple(value.shape) for name, value in self.parameters.items()})

    def take(self, layout: Layout, values: Floats) -> None:
        """Have these parameters, as they were pulled from where they are learned, and know no question but theirs."""
        self.widths, self.parameters = dict(layout.widths), {}
        for name, shape, at, end in layout.places():
            value = torch.empty(shape)  # torch's own memory: how that is aligned may decide how a product rounds
            value.numpy()[...] = values[at:end].reshape(shape)
            self.parameters[name] = value.requires_grad_()
        self.reader.scripted = True

    # --- scoring: torch, teacher-forced

    def plan(self, traces: Sequence[Trace]) -> Plan:
        """What these traces decide and read, worked out once for any number of scorings. Heads grow as they must."""
        batch = Batch(traces)
        for layout, _, _ in batch.groups:
            for head, widest in layout.widths.items():
                self.know(head, widest)
        T = batch.num_steps
        decided, decisions = [], 0
        for head in batch.heads:
            form, name = head[0], ":".join(head)
            step, taken, option, width, target = (torch.from_numpy(a) for a in batch.gather(head, T))
            if form == "forced" or not len(step):
                continue
            decisions += len(step)
            masked = torch.arange(self.widths[head]) >= width[:, None] if form == "choice" else None
            if masked is not None and not masked.any():
                masked = None
            decided.append(Decided(form, name, step, taken, option, masked, target))
        return Plan(batch.num_traces, T, decided, decisions, *self._reads(batch))

    def score(self, traces: Plan | Sequence[Trace]) -> Score:
        """What the current policy makes of these traces, in one pass."""
        plan = traces if isinstance(traces, Plan) else self.plan(traces)
        m, T = plan.num_traces, plan.num_steps
        parts, _ = self.table()
        table = torch.cat(parts)
        if plan.starts is None:
            inputs = F.embedding(plan.rows, table)
        else:
            inputs = F.embedding_bag(plan.rows, table, plan.starts, mode="sum", per_sample_weights=plan.weights)
        hidden = self._unroll(inputs.view(m, T, -1), plan.recalled).reshape(m * T, -1)
        log_prob, entropy = torch.zeros(m * T), torch.zeros(m * T)
        for form, name, step, taken, option, masked, target in plan.decided:
            if form == "choice":
                weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
                everywhere = len(plan.decided) == 1 and len(step) == m * T
                at = hidden if everywhere else hidden.index_select(0, step)
                logits = torch.addmm(bias, at, weight.T)
                if masked is not None:
                    logits = logits.masked_fill(masked, -torch.inf)
                logs = logits.log_softmax(1)
                found = logs.gather(1, taken[:, None]).squeeze(1)
                finite = logs if masked is None else logs.masked_fill(masked, 0.0)
                uncertainty = -(logs.exp() * finite).sum(1)
            else:
                if form == "anchor":
                    prev = hidden @ self.parameters[f"{name}.W_prev"].T
                    curr = hidden @ self.parameters[f"{name}.W_curr"].T
                    logit = torch.tanh(prev[target] + curr[step]) @ self.parameters[f"{name}.v"]
                else:
                    weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
                    logit = (hidden[step] * weight[option]).sum(1) + bias[option]
                yes, no = F.logsigmoid(logit), F.logsigmoid(-logit)
                found = torch.where(taken == 1, yes, no)
                uncertainty = -(yes.exp() * yes + no.exp() * no)
            if form == "choice" and everywhere:  # the steps are in order, then
                log_prob, entropy = found, uncertainty
                break
            log_prob = log_prob.index_add(0, step, found)
            entropy = entropy.index_add(0, step, uncertainty)
        return Score(log_prob.view(m, T), entropy.view(m, T), plan.decisions)

    def _reads(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
        """The inputs of every step [m * T], known from the answers: each a weighted sum of rows of the table, as the
        rows, where each step's begin (None: each step reads one), and the weights. With anchor_input="hidden", also the
        weights [m, T, T] of earlier steps' hidden states."""
        _, first = self.table()
        m, T = batch.num_traces, batch.num_steps
        places = [np.arange(m) * (T + 1)]  # the first input is the start vector
        rows, weights = [np.zeros(m, np.int64)], [np.ones(m)]
        recalled = torch.zeros(m, T, T) if self.feeds_hidden else None

        def feed(place: Ints, row: Ints | int, weight: npt.NDArray[np.float64] | float) -> None:
            places.append(place)
            rows.append(np.broadcast_to(row, place.shape))
            weights.append(np.broadcast_to(weight, place.shape))

        for head in batch.heads:
            form, name = head[0], ":".join(head)
            step, taken, option, _, target = batch.gather(head, T + 1)
            if form in ("choice", "forced"):
                feed(step + 1, first[f"{name}.embedding"] + taken, 1.0)
                continue
            members = taken == 1
            place = step[members] + 1
            size = np.bincount(place, minlength=m * (T + 1) + 1)
            if form == "anchor" and recalled is not None:
                inside = place % (T + 1) < T  # what follows a trace's last step is read by nobody
                r, t, source = place // (T + 1), place % (T + 1), target[members] % (T + 1)
                recalled[r[inside], t[inside], source[inside]] = torch.from_numpy(1 / size[place[inside]]).float()
            else:
                feed(place, first[f"{name}.embedding"] + option[members], 1 / size[place])
            after = batch.sets(head, T + 1) + 1
            feed(after[size[after] == 0], first[f"{name}.none"], 1.0)
        place, row, weight = np.concatenate(places), np.concatenate(rows), np.concatenate(weights)
        order = np.argsort(place, kind="stable")
        order = order[place[order] % (T + 1) < T]  # what follows a trace's last step is read by nobody
        place = place[order] // (T + 1) * T + place[order] % (T + 1)
        alone = len(place) == m * T and (place == np.arange(m * T)).all() and (weight[order] == 1).all()
        return (
            torch.from_numpy(row[order]),
            None if alone else torch.from_numpy(np.searchsorted(place, np.arange(m * T))),
            torch.from_numpy(weight[order]).float(),
            recalled,
        )

    def _unroll(self, inputs: torch.Tensor, recalled: torch.Tensor | None) -> torch.Tensor:
        """The top layer's hidden states [m, T, hidden]."""
        nothing = torch.zeros(4 * self.hidden)  # torch has two bias vectors, of which one is enough
        weights = [
            w
            for layer in range(self.layers)
            for w in (*(self.parameters[f"lstm{layer}.{part}"] for part in ("input", "hidden", "bias")), nothing)
        ]
        h = c = torch.zeros(self.layers, len(inputs), self.hidden)
        if recalled is None:
            top: torch.Tensor = torch.lstm(inputs, (h, c), weights, True, self.layers, 0.0, True, False, True)[0]
            return top
        tops: list[torch.Tensor] = []
        for t in range(inputs.shape[1]):  # the next input depends on hidden states, so step by step
            x = inputs[:, t]
            if tops:
                x = x + torch.einsum("ms,msh->mh", recalled[:, t, :t], torch.stack(tops, 1))
            y, h, c = torch.lstm(x[:, None], (h, c), weights, True, self.layers, 0.0, True, False, True)
            tops.append(y[:, 0])
        return torch.stack(tops, 1)

    # --- learning

    def gradient(self, loss: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
        """That of `loss` by each of the parameters; None where nothing was left to decide."""
        if not loss.requires_grad:
            return None
        values = list(self.parameters.values())
        return torch.autograd.grad(loss, values, allow_unused=True, materialize_grads=True)

    def descend(self, loss: torch.Tensor, learning_rate: float, *, measured: bool = True) -> float:
        """One step of Adam down the gradient of `loss`; gives the gradient's norm, or 0 where it is not `measured`.

        beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, as torch.optim.Adam, which is not used since parameters grow here.
        """
        gradients = self.gradient(loss)
        if gradients is None:
            return 0.0
        values = list(self.parameters.values())
        self._steps += 1
        for name, gradient in zip(self.parameters, gradients, strict=True):
            if name not in self._moments:
                self._moments[name] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        m, v = (list(moment) for moment in zip(*(self._moments[name] for name in self.parameters), strict=True))
        with torch.no_grad():
            torch._fused_adam_(
                values,
                list(gradients),
                m,
                v,
                [],
                [torch.tensor(float(self._steps))] * len(values),
                lr=learning_rate,
                beta1=0.9,
                beta2=0.999,
                weight_decay=0.0,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )
            return float(torch.nn.utils.get_total_norm(gradients)) if measured else 0.0

    def is_finite(self) -> bool:
        """Whether all parameters are finite numbers, and none so large that the sum of their squares is not."""
        with torch.no_grad():
            return math.isfinite(float(torch.nn.utils.get_total_norm(self.parameters.values())))

    # --- sampling: numpy, all walks of a batch in step

    def sample(self, first: int, count: int, seed: int) -> tuple[list[Genotype], npt.NDArray[np.float64]]:
        """Genotypes for the proposals numbered from `first`, and their log-probabilities [count]."""
        try:
            return self._sample(first, count, np.random.default_rng(seed))
        except OffScript:  # a rare combination of answers changes the questions after all
            self.reader.scripted = False
            return self._sample(first, count, np.random.default_rng(seed))

    def _sample(
        self, first: int, count: int, rng: np.random.Generator
    ) -> tuple[list[Genotype], npt.NDArray[np.float64]]:
        walks = self.reader.walks(first, count)
        with one_blas_thread():
            log_probs = [sample_walk(self, walk, rng) for walk in walks]
        return [genotype for walk in walks for genotype in walk.genotypes()], np.concatenate(log_probs)

    # --- state

    def state_dict(self) -> dict[str, Any]:
        """Parameters and Adam's moments, as numpy arrays, and what else decides the samples."""
        parameters = []
        for name, value in self.parameters.items():
            m, v = self._moments.get(name, (torch.zeros_like(value), torch.zeros_like(value)))
            arrays = {"value": value, "m": m, "v": v}
            parameters.append({"name": name, **{k: a.detach().numpy().copy() for k, a in arrays.items()}})
        heads = [{"form": form, "kind": kind, "width": width} for (form, kind), width in self.widths.items()]
        return {
            "seed": self._seed,
            "steps": self._steps,
            "scripted": self.reader.scripted,
            "heads": heads,
            "parameters": parameters,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._seed = int(state["seed"])
        self._steps = int(state["steps"])
        self.reader.scripted = bool(state["scripted"])
        self.widths = {(head["form"], head["kind"]): int(head["width"]) for head in state["heads"]}
        self.parameters, self._moments = {}, {}
        for entry in state["parameters"]:
            value, m, v = (np.array(entry[key], np.float32) for key in ("value", "m", "v"))
            self._set(entry["name"], value)
            self._moments[entry["name"]] = torch.from_numpy(m), torch.from_numpy(v)
