"""timm's side of bench_gpu.py: forward and fine-tuning step of the same nets, on PyTorch.

As fast as one would reasonably write it: channels_last, bfloat16, `torch.compile`, pinned memory,
copies in streams of their own, a fused optimizer. What it has for free: in the step, images lie on
the card already, the frozen part has bfloat16 weights, and no block is dropped at random.

Shapes: B images in a batch, S side of the square input in pixels.
"""

import functools
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gpu_side import (
    CLASSES,
    NETS,
    OTHERS_OF,
    Job,
    Rows,
    made_orders,
    made_task,
    random_batches,
    say,
    time_stream,
)

try:
    import timm
    import torch
    from torch import nn
except ImportError:
    timm = torch = nn = None

MEAN, STDDEV = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, of 0 to 255


def run(job: Job) -> None:
    """Does a job."""
    if timm is None:
        not_installed(job)
    elif job.task == "curve":
        train_made_task(job)
    else:
        torch.manual_seed(0)
        say(facts={"torch": torch.__version__, "timm": timm.__version__})
        speeds = Speeds(job, Rows(job, "timm"))
        speeds.measure_more() if job.task == "more" else speeds.measure()


def not_installed(job: Job) -> None:
    """Sends the rows of a side that can't be measured."""
    rows, size = Rows(job, "timm"), job.size

    def nothing() -> dict[str, Any]:
        return {"note": "not installed"}

    if job.task != "speed":
        return
    rows.measure("forward", "forward", of=nothing, precision="bfloat16", batch=size.batch)
    for batch in (size.batch, size.small):
        rows.measure("finetune", "step", of=nothing, precision="bfloat16", batch=batch)


def halves(name: str, classes: int) -> tuple[Any, Any, Any]:
    """Builds a net: (the whole, pixels to features, and its lower and upper part).

    The parts meet where kerasft cuts the same net by default: below 3 blocks, 8 in EfficientNetV2S.
    """
    options: dict[str, Any] = {"zero_init_last": False} if name == "resnet50" else {}
    net = timm.create_model(name, pretrained=False, num_classes=0, **options)
    if name == "resnet50":
        for stage in (net.layer2, net.layer3, net.layer4):
            # Keras has ResNet's first version, which takes the step in the first convolution, not
            # in the second; that is 6% less work.
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
        lower = [net.conv1, net.bn1, net.act1, net.maxpool, net.layer1, net.layer2, net.layer3]
        upper = [net.layer4, net.global_pool]
    elif name == "convnext_tiny":
        for key, weight in net.named_parameters():
            if key.endswith("gamma"):  # 1e-6 at first, which would switch blocks off
                nn.init.constant_(weight, 0.1)
        lower = [net.stem, *net.stages[:3]]
        upper = [net.stages[3], net.norm_pre, net.head]
    else:
        frozen = {"tf_efficientnetv2_s": 7}.get(name, 1)  # blocks of the divided stage
        lower = [net.conv_stem, net.bn1, *net.blocks[:5], net.blocks[5][:frozen]]
        upper = [net.blocks[5][frozen:], *net.blocks[6:], net.conv_head, net.bn2, net.global_pool]
    return net.eval(), nn.Sequential(*lower), nn.Sequential(*upper)


def from_pixels(body: Any, dtype: Any, device: str) -> Any:
    """Puts the normalisation in front of a net: uint8 [B,S,S,3] to what the net gives."""

    class FromPixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body
            self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
            self.register_buffer("stddev", torch.tensor(STDDEV).view(1, 3, 1, 1))

        def forward(self, pixels: Any) -> Any:
            x = pixels.permute(0, 3, 1, 2).float()  # channels_last, as it lies in memory
            return self.body(((x - self.mean) / self.stddev).to(dtype))

    body.to(dtype=dtype)
    return FromPixels().to(device=device, memory_format=torch.channels_last)


class Speeds:
    """The speeds of one net."""

    def __init__(self, job: Job, rows: Rows) -> None:
        self._job, self._size, self._rows = job, job.size, rows
        self._cuda = torch.cuda.is_available()
        self._device = "cuda" if self._cuda else "cpu"
        torch.set_float32_matmul_precision("high")

    def measure(self) -> None:
        """Measures the rows that are compared with kerasft's."""
        self._forward("forward", "bfloat16", self._size.batch)
        self._step("step", self._size.batch)

    def measure_more(self) -> None:
        """Measures small steps, and what else one could have written; CUDA alone has that."""
        batch, small = self._size.batch, self._size.small
        self._step("step", small)
        if self._cuda:
            self._forward("forward folded", "bfloat16", batch, freezing=True)
            self._step("step graphs", small, mode="reduce-overhead")
            if self._job.net == OTHERS_OF:
                self._forward("forward", "float32", batch)
            self._forward("forward graphs", "bfloat16", batch, mode="reduce-overhead")

    def _forward(
        self,
        name: str,
        precision: str,
        batch: int,
        *,
        mode: str = "default",
        freezing: bool = False,
    ) -> None:
        def of() -> dict[str, Any]:
            self._reset(freezing)
            net, _, _ = halves(NETS[self._job.net], 0)
            body = from_pixels(net, getattr(torch, precision), self._device)
            batches = [torch.from_numpy(one) for one in random_batches(batch, self._size.side)]
            if self._cuda:
                batches = [one.pin_memory() for one in batches]
            run = self._compiled(body, mode)
            with torch.inference_mode():
                compiled = self._seconds(lambda: run(batches[0].to(self._device)))
                with self._rows.card():
                    self._ready()
                    stream = self._over(run, itertools.cycle(batches))
                    figures = time_stream(stream, batch, self._size)
            return {**figures, **self._used(compiled)}

        self._rows.measure("forward", name, of=of, precision=precision, batch=batch, work="whole")

    def _over(self, run: Callable, batches: Iterator) -> Iterator[np.ndarray]:
        """Computes many batches: while one is computed, others travel to the card and back."""
        if not self._cuda:
            for pixels in batches:
                yield run(pixels).half().numpy()
        inward, outward, work = (
            torch.cuda.Stream(),
            torch.cuda.Stream(),
            torch.cuda.current_stream(),
        )
        begun: deque[tuple[Any, Any]] = deque()
        spare: list[Any] = []
        for pixels in batches:
            with torch.cuda.stream(inward):
                there = pixels.to("cuda", non_blocking=True)
            work.wait_stream(inward)
            there.record_stream(work)
            features = run(there).half()
            outward.wait_stream(work)
            back = (
                spare.pop()
                if spare
                else torch.empty(features.shape, dtype=torch.float16, pin_memory=True)
            )
            with torch.cuda.stream(outward):
                back.copy_(features, non_blocking=True)
                done = torch.cuda.Event()
                done.record()
            features.record_stream(outward)
            begun.append((done, back))
            if len(begun) > 2:
                done, back = begun.popleft()
                done.synchronize()
                yield back.numpy()
                spare.append(back)

    def _step(self, name: str, batch: int, *, mode: str = "default") -> None:
        def of() -> dict[str, Any]:
            self._reset(False)
            side, device = self._size.side, self._device
            compiled_as = functools.partial(self._compiled, mode=mode)
            step = tuning_step(
                NETS[self._job.net],
                CLASSES,
                device,
                compiled_as,
                rate=1e-5,
                own_output=mode != "default",
            )
            pixels = [torch.from_numpy(one).to(device) for one in random_batches(batch, side)]
            labels = (torch.arange(batch) % CLASSES).to(device)
            compiled = self._seconds(lambda: step(pixels[0], labels))

            def stream() -> Iterator[None]:
                turn = itertools.cycle(pixels)
                while True:
                    for _ in range(self._size.steps):
                        step(next(turn), labels)
                    self._wait()
                    yield

            with self._rows.card():
                self._ready()
                figures = time_stream(stream(), self._size.steps * batch, self._size)
            return {**figures, **self._used(compiled)}

        self._rows.measure("finetune", name, of=of, precision="bfloat16", batch=batch, work="live")

    def _compiled(self, module: Any, mode: str = "default") -> Any:
        if not self._cuda:
            return module  # there may be no compiler
        return torch.compile(module, mode=mode, dynamic=False)

    def _reset(self, freezing: bool) -> None:
        """Forgets what was compiled; a second size would make PyTorch compile for any size."""
        torch._dynamo.reset()
        if self._cuda:
            import torch._inductor.config as inductor

            inductor.freezing = freezing  # folds normalisations and weights, for inference
            torch.backends.cudnn.benchmark = False
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _ready(self) -> None:
        """Lets cuDNN try out its algorithms, which only makes sense while the card is ours."""
        if self._cuda:
            torch.backends.cudnn.benchmark = True

    def _seconds(self, call: Callable[[], Any]) -> float:
        began = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    def _used(self, compiled: float) -> dict[str, Any]:
        peak = torch.cuda.max_memory_allocated() / 1e9 if self._cuda else None
        return {"compile_seconds": compiled, "peak_gb": peak}


def tuning_step(
    name: str,
    classes: int,
    device: str,
    compiled: Callable[[Any], Any],
    *,
    rate: float,
    own_output: bool = False,
) -> Callable[[Any, Any], Any]:
    """Makes the function that does a step of fine-tuning: (pixels, labels [B]) -> the loss.

    As in kerasft, the lower part is frozen and runs in inference mode, and so do the
    normalisations of the upper part.

    Args:
        name: name of the net in timm.
        classes: number of classes.
        device: device of PyTorch.
        compiled: function that compiles a module.
        rate: learning rate.
        own_output: whether the frozen part's output is copied; CUDA graphs overwrite theirs.
    """
    whole, lower, upper = halves(name, classes)
    frozen = compiled(from_pixels(lower, torch.bfloat16, device))
    for module in upper.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    head = nn.Linear(whole.head_hidden_size, classes)
    trained = nn.Sequential(upper, head).to(device=device, memory_format=torch.channels_last)
    learning = [weight for weight in trained.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=rate, fused=device == "cuda")
    run = compiled(trained)

    def step(pixels: Any, labels: Any) -> Any:
        with torch.no_grad():
            x = frozen(pixels)
            if own_output:
                x = x.clone()
        with torch.autocast(device, torch.bfloat16):
            logits = run(x)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def train_made_task(job: Job) -> None:
    """Fine-tunes on the made task; sends the losses. Not compiled, which would change nothing."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = job.size
    images, labels = (torch.from_numpy(one).to(device) for one in made_task(size))
    step = tuning_step(NETS[job.net], 3, device, lambda module: module, rate=1e-3)
    losses = []
    for order in made_orders(size):
        of_steps = [
            step(images[rows], labels[rows].long())
            for rows in torch.from_numpy(order).to(device).split(32)
        ]
        losses.append(float(torch.stack(of_steps).mean()))
    say(curve={"losses": losses})
