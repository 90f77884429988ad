"""PyTorch eager's network as a contestant: as fast as it gets, or as it comes.

"torch" has channels_last images and weights, cuDNN's measured choice of algorithms, and the float32 precision that
gpucnn was asked for; "torch default" has PyTorch's own layout, heuristics and precision, in which cuDNN multiplies
float32 in TF32. Both autocast to what gpucnn does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from gpucnn.bench import memory, peers
from gpucnn.bench.answers import Answer, sketch
from gpucnn.bench.networks import (
    ANSWER_SCALE,
    MOMENTUM,
    Contestant,
    Task,
    batches,
    network,
)
from gpucnn.bench.turns import THREAD_COUNTS
from gpucnn.train.trainer import AUXILIARY_WEIGHT


class TorchNetwork(Contestant):
    """PyTorch, "torch" or "torch default"."""

    def __init__(self, name: str, task: Task) -> None:
        super().__init__(name, task)
        import torch

        self._torch = torch
        self._on_gpu = task.device != "cpu"
        self._is_default = name == "torch default"
        if not self._on_gpu and (count := os.environ.get(THREAD_COUNTS[0])):
            torch.set_num_threads(int(count))
        self._others = int(torch.cuda.memory_allocated(task.device)) if self._on_gpu else 0
        order = torch.contiguous_format if self._is_default else torch.channels_last
        self._dtype = getattr(torch, task.dtype)
        self._network = self._built().to(task.device, self._dtype).to(memory_format=order)
        self._batches = [
            (
                torch.from_numpy(images).to(task.device, self._dtype).to(memory_format=order),
                torch.from_numpy(labels).to(task.device),
            )
            for images, labels in batches(task)
        ]
        self._amp = None if task.amp in (None, "tf32") else getattr(torch, str(task.amp))
        self._kind = task.device.partition(":")[0]
        self._scaler = torch.amp.GradScaler(self._kind, enabled=task.amp == "float16")
        self._optimizer: Any = None
        if task.training:
            parameters = self._network.parameters()
            self._optimizer = torch.optim.SGD(parameters, task.learning_rate, MOMENTUM, nesterov=True)

    def _built(self) -> Any:
        """The peer with gpucnn's weights."""
        task, torch = self.task, self._torch
        ours = network(task)
        peer = peers.build(task.model, task.classes, task.image[0], task.image[1])
        peer.load_state_dict({name: torch.from_numpy(tensor.numpy()) for name, tensor in ours.state_dict().items()})
        if task.fused:
            pairs = [(path, *names) for path, module in ours.named_modules() for names in module.pairs()]
            peers.fold(peer, pairs)
        return peer.train(task.training)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        torch = self._torch
        wants_tf32 = self.task.amp == "tf32"
        before = torch.get_float32_matmul_precision()
        with ExitStack() as stack:
            if self._on_gpu:
                stack.enter_context(torch.cuda.device(self.task.device))
                stack.enter_context(
                    torch.backends.cudnn.flags(
                        enabled=True,
                        benchmark=not self._is_default,
                        deterministic=False,
                        allow_tf32=self._is_default or wants_tf32,
                    )
                )
                torch.set_float32_matmul_precision("high" if wants_tf32 and not self._is_default else "highest")
                stack.callback(torch.set_float32_matmul_precision, before)
            yield

    def _casting(self) -> Any:
        return self._torch.autocast(self._kind, self._amp, enabled=self._amp is not None)

    def _training_loss(self, number: int) -> Any:
        images, labels = self._batches[number]
        cross_entropy = self._torch.nn.functional.cross_entropy
        with self._casting():
            outputs = self._network(images)
            logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
            loss = cross_entropy(logits, labels)
            for others in auxiliary:
                loss = loss + AUXILIARY_WEIGHT * cross_entropy(others, labels)
        return loss

    def _step(self, number: int) -> Any:
        if self._optimizer is None:
            with self._torch.no_grad(), self._casting():
                return self._network(self._batches[number][0])
        loss = self._training_loss(number)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach()

    def _number(self, loss: Any) -> float:
        return float(loss.item())

    def _wait(self) -> None:
        if self._on_gpu:
            self._torch.cuda.synchronize(self.task.device)

    def _answer(self) -> Answer:
        if not self.task.training:
            return Answer(outputs=self._step(0).float().cpu().numpy())
        torch = self._torch
        layers = [each for each in self._network.modules() if isinstance(each, (torch.nn.Dropout, torch.nn.Dropout2d))]
        before = [layer.p for layer in layers]
        try:
            for layer in layers:
                layer.p = 0.0
            loss = self._training_loss(0)
            scale = ANSWER_SCALE if self._scaler.is_enabled() else 1.0
            (loss * scale).backward()
        finally:
            for layer, p in zip(layers, before, strict=True):
                layer.p = p
        gradients = {
            name: sketch((parameter.grad / scale).float().cpu().numpy(), name)
            for name, parameter in self._network.named_parameters()
            if parameter.grad is not None
        }
        self._network.zero_grad()
        return Answer(self._number(loss), gradients)

    def _meter(self) -> memory.Meter:
        return TorchPool(self._torch, self.task.device, self._others) if self._on_gpu else memory.Process()

    def _count(self) -> int:
        return len(self._batches)


class TorchPool(memory.Meter):
    """Of PyTorch's caching allocator on a GPU: the most that it has reserved, as memory.CupyPool counts.

    Args:
        torch: the module.
        device: of the allocator.
        others: bytes that were allocated before the contestant was made.
    """

    def __init__(self, torch: Any, device: str, others: int) -> None:
        self._cuda, self._device, self._others = torch.cuda, device, others

    def begin(self) -> None:
        self.release()
        self._cuda.reset_peak_memory_stats(self._device)

    def end(self) -> memory.Peak:
        most = int(self._cuda.max_memory_reserved(self._device))
        return memory.Peak(max(0, most - self._others), self._others)

    def release(self) -> None:
        self._cuda.empty_cache()
