"""kerasft's side of bench_gpu.py: the prefix pass, the suffix step and the live step, on JAX.

Weights are random, with a fixed seed, and scaled so that activations fit float16.

Shapes: B images in a batch, S side of the square input in pixels, N images.
"""

import functools
import gc
import hashlib
import itertools
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
from gpu_side import (
    CLASSES,
    OTHERS_OF,
    Job,
    Rows,
    Size,
    Windows,
    made_orders,
    made_task,
    random_batches,
    say,
    time_stream,
)
from jax import numpy as jnp

from kerasft.activations import engines
from kerasft.activations.whole_epochs import WholeEpochs
from kerasft.backbones.spec import default_blocks
from kerasft.config.fields import Phase
from kerasft.data.batches import Epoch
from kerasft.devices import prepare
from kerasft.heads.trained import attach
from kerasft.models import build
from kerasft.models.cut import Cut, freeze
from kerasft.models.live import LiveModel, restore_precision, set_precision
from kerasft.models.net import Net
from kerasft.training.rates import build_optimizer, rate_groups

MIXED = {"bfloat16": "mixed_bfloat16", "float32": "float32"}
# Variance of a kernel's weights times the number of its inputs, so that activations are neither
# tiny nor huge. In ResNet50 sixteen sums add to them.
GAIN, GAINS = 1.5, {"ResNet50": 1.0}


def run(job: Job) -> None:
    """Does a job."""
    prepare("auto")  # as every command does
    rows = Rows(job, "kerasft")
    if job.task == "curve":
        train_made_task(job)
        return
    if job.first:
        with rows.card():
            say(facts=peaks(job.size))
    net = open_net(job.net, job.size.side)
    cut = net.cut(default_blocks(job.net))
    assert cut.prefix is not None
    speeds = Speeds(job, rows, net, cut)
    speeds.measure_more() if job.task == "more" else speeds.measure()
    if job.task == "speed":  # last: without it the speeds are known all the same
        say(work={"net": job.net, **count_work(cut.prefix, net.base)})


def open_net(spec: str, side: int, classes: int = CLASSES) -> Net:
    """Builds a net with a head, and random weights."""
    base = build.load_one(spec, weights="none", image_size=side, seed=0)
    rng = np.random.default_rng(0)
    for layer in base._flatten_layers(include_self=False, recursive=True):
        if type(layer).__name__ == "LayerScale":  # 1e-6 at first, which would switch blocks off
            layer.set_weights([np.full(v.shape, 0.1) for v in layer.get_weights()])
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        if depthwise or isinstance(layer, keras.layers.Conv2D):
            kernel, *rest = layer.get_weights()
            inputs = math.prod(kernel.shape[: 2 if depthwise else 3])
            drawn = rng.standard_normal(kernel.shape, "float32") * math.sqrt(
                GAINS.get(spec, GAIN) / inputs
            )
            layer.set_weights([drawn, *rest])
    return Net.of(attach(base, classes, hidden=(), dropout=0.0, seed=0), spec)


def peaks(size: Size) -> dict[str, Any]:
    """Measures what the card can do: matrix products, FLOP/s, and a copy, bytes/s."""
    device = jnp.zeros(()).device
    found: dict[str, Any] = {
        "device": str(device.device_kind),
        "platform": device.platform,
        "jax": jax.__version__,
        "keras": keras.__version__,
    }
    n = size.matrix

    def rate(call: Callable[[], Any], units: float) -> float:
        def stream() -> Iterator[None]:
            while True:
                for _ in range(9):
                    call()
                call().block_until_ready()
                yield

        return time_stream(stream(), 10 * units, size)["images_per_second"]

    for dtype in ("bfloat16", "float32"):
        a, b = (jax.random.normal(jax.random.key(i), (n, n), dtype) for i in range(2))
        product = jax.jit(jnp.matmul).lower(a, b).compile()
        found[f"peak_{dtype}"] = rate(functools.partial(product, a, b), 2 * n**3)
    source = jax.random.bits(jax.random.key(2), (size.copied // 4,), "uint32")
    copy = jax.jit(lambda x: x + 1).lower(source).compile()
    found["bandwidth"] = rate(lambda: copy(source), 2 * size.copied)
    return found


def count_work(prefix: keras.Model, base: keras.Model) -> dict[str, float]:
    """Counts the floating-point operations for an image.

    XLA counts those of the forward pass, before it optimizes. A trained layer is counted three
    times: forward, and the gradients of its input and its weights.
    """

    def forward(model: keras.Model) -> float:
        pixels = jax.ShapeDtypeStruct((1, *model.input_shape[1:]), "float32")
        variables = jax.tree.map(
            lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype), _variables(model)
        )

        def compute(variables: tuple[list, list], pixels: Any) -> Any:
            return model.stateless_call(*variables, pixels, training=False)[0]

        # For the CPU: for a GPU, XLA tells nothing before it has compiled.
        with jax.default_device(jax.devices("cpu")[0]):
            return float(jax.jit(compute).lower(variables, pixels).cost_analysis()["flops"])

    frozen, whole = forward(prefix), forward(base)
    trained = 3 * (whole - frozen)
    return {"prefix": frozen, "whole": whole, "suffix": trained, "live": frozen + trained}


class Speeds:
    """The speeds of one net."""

    def __init__(self, job: Job, rows: Rows, net: Net, cut: Cut) -> None:
        self._job, self._size, self._rows, self._net, self._cut = job, job.size, rows, net, cut
        self._batches = random_batches(job.size.batch, job.size.side)

    def measure(self) -> None:
        """Measures the rows, those first that are compared with timm's."""
        batch = self._size.batch
        self._pass("pooled", "bfloat16", batch)
        self._suffix("bfloat16", batch)
        self._live("bfloat16", batch)
        self._pass("cut", "bfloat16", batch)
        self._errors()

    def measure_more(self) -> None:
        """Measures the rows that explain the others."""
        batch, small = self._size.batch, self._size.small
        self._suffix("bfloat16", small)
        self._pass("pooled", "float32", batch)
        self._pass("pooled", "bfloat16", batch, "float32")
        if self._job.net == OTHERS_OF:
            for other in self._size.others:
                self._pass("pooled", "bfloat16", other)
        self._profile()
        self._pass("cut", "float32", batch)
        self._suffix("float32", batch)
        self._suffix("float32", small)

    def _pass(self, at: str, precision: str, batch: int, pixels: str = "uint8") -> None:
        prefix = self._cut.prefix if at == "cut" else self._net.base
        assert prefix is not None
        batches = self._batches
        if batch != self._size.batch:
            batches = random_batches(batch, self._size.side)
        batches = [one.astype(pixels, copy=False) for one in batches]

        def of() -> dict[str, Any]:
            with self._rows.card():
                began = time.perf_counter()
                engine = engines.build(prefix, "compiled", precision, batch)
                stream = engine.over(itertools.cycle(batches), "float16")
                _, outputs = next(stream)
                compiled = time.perf_counter() - began
                figures = time_stream(stream, batch, self._size)
            lost = [] if all(output is not None for output in outputs) else ["overflows float16"]
            return {**figures, **_used(compiled), "note": ", ".join(lost)}

        name = f"pass {at}" + (", f32 in" if pixels == "float32" else "")
        work = "prefix" if at == "cut" else "whole"
        self._rows.measure("pass", name, of=of, precision=precision, batch=batch, work=work)
        gc.collect()

    def _suffix(self, precision: str, batch: int) -> None:
        def of() -> dict[str, Any]:
            shape = self._cut.suffix.input_shape[1:]
            count = self._size.stored // (2 * math.prod(shape))
            count = min(65536, max(count, 8 * batch)) // batch * batch
            few = np.random.default_rng(1).standard_normal((256, *shape), "float32")
            stored = np.resize(few.astype("float16"), (count, *shape))
            labels = np.arange(count) % CLASSES
            before = set_precision(self._net.model, MIXED[precision])
            try:
                freeze(self._cut, "frozen")
                timer = Timer(count, self._size)
                order = np.random.default_rng(2).permutation(count)
                with self._rows.card():
                    model = WholeEpochs(
                        self._cut.suffix, [stored], labels, num_classes=CLASSES, batch_size=batch
                    )
                    compile_model(model, self._cut, precision, batch, rate=1e-5)
                    fit(model, model.orders([epoch_of(order)] * MANY), 1, timer)
                return {**timer.figures(), "note": f"{count} rows"}
            finally:
                restore_precision(before)

        names = {"precision": precision, "batch": batch, "work": "suffix"}
        self._rows.measure("suffix", "suffix step", of=of, **names)  # type: ignore[arg-type]
        gc.collect()

    def _live(self, precision: str, batch: int) -> None:
        def of() -> dict[str, Any]:
            before = set_precision(self._net.model, MIXED[precision])
            try:
                freeze(self._cut, "frozen")
                model = LiveModel(self._cut.prefix, self._cut.suffix)
                compile_model(model, self._cut, precision, batch, rate=1e-5)
                targets = jnp.eye(CLASSES)[np.arange(batch) % CLASSES]
                timer = Timer(self._size.steps * batch, self._size)
                with self._rows.card():
                    pixels = [jax.device_put(one) for one in self._batches]
                    feed = ((one, targets) for one in itertools.cycle(pixels))
                    fit(model, feed, self._size.steps, timer)
                return timer.figures()
            finally:
                restore_precision(before)

        names = {"precision": precision, "batch": batch, "work": "live"}
        self._rows.measure("live", "live step", of=of, **names)  # type: ignore[arg-type]
        gc.collect()

    def _profile(self) -> None:
        """Names the kernels that take most of the pass, with their shares."""

        def of() -> dict[str, Any]:
            with self._rows.card(), tempfile.TemporaryDirectory() as folder:
                engine = engines.build(self._net.base, "compiled", "bfloat16", self._size.batch)
                list(engine.over(self._batches[:1], "float16"))
                with jax.profiler.trace(folder):
                    list(engine.over(self._batches, "float16"))
                shares = kernel_shares(Path(folder))
            most = [f"{name[:40]} {share:.0%}" for name, share in shares[:6]]
            return {"kernels": shares[:20], "note": ", ".join(most)}

        names = {"precision": "bfloat16", "batch": self._size.batch}
        self._rows.measure("profile", "profile of the pass", of=of, **names)  # type: ignore[arg-type]

    def _errors(self) -> None:
        """Compares the pass with exact activations: those of Keras' own layers on the CPU."""
        exact: list[np.ndarray] = []
        prefix = self._cut.prefix
        assert prefix is not None
        pixels = self._batches[0][: self._size.checked]

        def of(precision: str) -> dict[str, Any]:
            if not exact:
                exact.append(_on_cpu(prefix, pixels))
            with self._rows.card():
                (rough,) = engines.build(prefix, "compiled", precision, len(pixels))(pixels)
            error = engines.relative_error(exact[0], rough)
            return {"error": error, "note": f"relative error {error:.1e}"}

        for precision in ("float32", "bfloat16"):
            of_it = functools.partial(of, precision)
            self._rows.measure("check", "pass error", of=of_it, precision=precision)


def kernel_shares(folder: Path) -> list[tuple[str, float]]:
    """Reads a profile: (kernel, share of the time of all), the largest first. A CPU has none."""
    times: Counter[str] = Counter()
    for path in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines if "GPU" in plane.name else ():
                if "Stream" in line.name:
                    for event in line.events:
                        times[event.name] += int(event.duration_ns)
    total = sum(times.values())
    return [(name, time / total) for name, time in times.most_common()]


MANY = 100_000  # more epochs than there is time for; the timer stops them


def compile_model(model: LiveModel, cut: Cut, precision: str, batch: int, *, rate: float) -> None:
    """Compiles a model as `training.trainable` does, with a phase's optimizer."""
    phase = Phase(
        name="bench",
        epochs=1,
        learning_rate=rate,
        batch_size=batch,
        precision=MIXED[precision],  # type: ignore[arg-type]
    )
    optimizer = build_optimizer(phase, rate_groups(phase, cut), cut.suffix, 1)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])


def fit(model: LiveModel, feed: Iterator, steps: int, timer: "Timer") -> None:
    """Calls Keras' `fit` until the timer has enough."""
    timer.begin()
    model.fit(feed, epochs=MANY, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[timer])


class Timer(keras.callbacks.Callback):
    """A callback that times epochs: the first is compiled, two warm up."""

    def __init__(self, images: int, size: Size) -> None:
        super().__init__()
        self._windows = Windows(images, size)
        self._compiled = self._began = 0.0
        self._used: dict[str, Any] = {}

    def begin(self) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        assert logs is not None  # Keras passes the epoch's loss and metrics
        loss = float(logs["loss"])  # waits for the card, as `training.fit` does
        if not math.isfinite(loss):
            raise ValueError(f"the loss is {loss}")
        if epoch == 0:
            self._compiled = time.perf_counter() - self._began
        elif epoch >= 2:
            self.model.stop_training = self._windows.mark()

    def figures(self) -> dict[str, Any]:
        return {**self._windows.figures(), **_used(self._compiled)}


def epoch_of(order: np.ndarray) -> Epoch:
    """Returns an epoch without views or mixtures."""
    return Epoch(order, np.zeros_like(order), np.zeros_like(order))


def train_made_task(job: Job) -> None:
    """Trains the made task as kerasft does, pass then suffix; sends losses and digests."""
    size = job.size
    images, labels = made_task(size)
    net = open_net(job.net, size.made_side, classes=3)
    cut = net.cut(default_blocks(job.net))
    assert cut.prefix is not None
    engine = engines.build(cut.prefix, "compiled", "bfloat16", 32)

    def activations() -> np.ndarray:
        batches = [images[start : start + 32] for start in range(0, size.made, 32)]
        outputs = [output for _, (output,) in engine.over(batches, "float16")]
        return np.concatenate([output for output in outputs if output is not None])

    stored, again = activations(), activations()
    if len(stored) < size.made:
        raise ValueError("activations overflow float16")
    set_precision(net.model, "mixed_bfloat16")
    freeze(cut, "frozen")
    model = WholeEpochs(cut.suffix, [stored], labels, num_classes=3, batch_size=32)
    compile_model(model, cut, "bfloat16", 32, rate=1e-3)
    epochs = [epoch_of(order) for order in made_orders(size)]
    done = model.fit(
        model.orders(epochs), epochs=size.epochs, steps_per_epoch=1, shuffle=False, verbose=0
    )
    say(
        curve={
            "losses": [float(loss) for loss in done.history["loss"]],
            "activations": _digest([stored]),
            "activations_again": _digest([again]),
            "weights": _digest([np.asarray(v) for v in cut.suffix.weights]),
        }
    )


def _digest(arrays: Sequence[np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _on_cpu(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """Computes a model in float32 on the CPU."""
    variables, images = jax.device_put(
        (_variables(model), pixels.astype("float32")), jax.devices("cpu")[0]
    )

    def compute(variables: tuple[list, list], images: Any) -> Any:
        return model.stateless_call(*variables, images, training=False)[0]

    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(compute)(variables, images))


def _variables(model: keras.Model) -> tuple[list, list]:
    return (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )


def _used(compiled: float) -> dict[str, Any]:
    """Returns the seconds of compilation and the largest use of memory so far in this process."""
    stats = jnp.zeros(()).device.memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return {"compile_seconds": compiled, "peak_gb": peak and peak / 1e9}
