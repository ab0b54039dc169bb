"""Kernels of a single token: their results compared with torch, and their time compared with cuBLAS and FlashAttention.

``python -m benchmarks.gpu.single_token``; without a GPU, ``TRITON_INTERPRET=1`` compares small shapes, and measures nothing.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from benchmarks.gpu.reporting import report
from workers.gpu.engine.paged_attention import FlashAttention, FlashStep
from workers.gpu.engine.single_token_kernels import SingleTokenAttention, narrow_linear

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
DTYPE = torch.bfloat16 if HAS_GPU else torch.float32
TOLERANCE = 0.01 if HAS_GPU else 1e-5
EPSILON = 1e-5
PAGE = 256
# Layers in turn, so that the weights and the contexts of one are not in the cache of the GPU when its turn comes again.
BYTES_IN_TURN = 4e8

# Layers of Llama 3.1 8B and Llama 3.2 1B: outputs, width, and what is fused.
LAYERS = {
    "8b qkv": (6144, 4096, "norm"),
    "8b output": (4096, 4096, "add"),
    "8b gate_up": (14336, 4096, "gate"),
    "8b down": (4096, 14336, "add"),
    "8b head": (128256, 4096, "norm"),
    "1b qkv": (3072, 2048, "norm"),
    "1b output": (2048, 2048, "add"),
    "1b gate_up": (8192, 2048, "gate"),
    "1b down": (2048, 8192, "add"),
}
SMALL_LAYERS = {"even": (48, 64, "norm"), "odd": (50, 2500, "gate"), "long": (6, 6000, "add")}
# Query heads, key heads and their size.
HEADS, SMALL_HEADS = [(32, 8, 128), (32, 8, 64), (16, 16, 128)], [(8, 2, 32), (4, 4, 64), (8, 1, 32)]
CONTEXTS, SMALL_CONTEXTS = (1, 2, 300, 1000, 4000, 32000), (1, 2, 63, 700)


def main() -> None:
    generator = torch.Generator(DEVICE).manual_seed(5)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=DEVICE).to(DTYPE)

    for name, layer in (LAYERS if HAS_GPU else SMALL_LAYERS).items():
        compare_linear(name, *layer, random)
    for heads, context in itertools.product(HEADS if HAS_GPU else SMALL_HEADS, CONTEXTS if HAS_GPU else SMALL_CONTEXTS):
        for is_normalized in (False, True):
            compare_attention(*heads, context, random, is_normalized=is_normalized)


def compare_linear(name: str, outputs: int, width: int, fused: str, random: Callable[..., Tensor]) -> None:
    rows = outputs * (2 if fused == "gate" else 1)
    count = max(2, int(BYTES_IN_TURN / (rows * width * 2))) if HAS_GPU else 1
    weights = [random(rows, width) * width**-0.5 for _ in range(count)]
    token, gain, bias, added = random(1, width), random(width), random(rows), random(1, outputs)
    normalized = rms_norm(token, gain) if fused in ("norm", "gate") else token.float()
    expected = linear(normalized, weights[0].float(), bias.float())
    if fused == "gate":
        expected = silu(expected[:, :outputs]) * expected[:, outputs:]
    expected += added.float() if fused == "add" else 0

    def run(weight: Tensor, with_bias: Tensor | None = None) -> Tensor:
        if fused == "add":
            return narrow_linear(token, weight, with_bias, add_to=added)
        return narrow_linear(token, weight, with_bias, norm=gain, epsilon=EPSILON, gate=fused == "gate")

    check(f"narrow_linear of {name}", run(weights[0], bias), expected)
    if HAS_GPU:
        time = graph_time_us(lambda: [run(weight) for weight in weights]) / count
        cublas = graph_time_us(lambda: [linear(token, weight) for weight in weights]) / count
        report("single_token.linear", time, "us", layer=name, fused=fused, cublas_alone=round(cublas, 1))


def compare_attention(
    query_heads: int, key_heads: int, size: int, context: int, random: Callable[..., Tensor], *, is_normalized: bool
) -> None:
    pages, position = -(-context // PAGE), context - 1
    count = max(2, min(64, int(BYTES_IN_TURN / (pages * PAGE * key_heads * size * 4)))) if HAS_GPU else 1
    caches = [(random(pages, PAGE, key_heads, size), random(pages, PAGE, key_heads, size)) for _ in range(count)]
    table = torch.randperm(pages, device=DEVICE, dtype=torch.int32)[None]
    qkv = random(1, (query_heads + 2 * key_heads) * size)
    angles = torch.randn(context, size // 2, device=DEVICE)
    cosines, sines = angles.cos(), angles.sin()
    norms = (random(size), random(size)) if is_normalized else (None, None)
    positions = torch.tensor([position], device=DEVICE)
    slots = table[0, positions // PAGE].long() * PAGE + positions % PAGE
    attention = SingleTokenAttention(query_heads, key_heads, size, DEVICE)

    def run(keys: Tensor, values: Tensor) -> Tensor:
        return attention.attend(
            *(qkv, positions, slots, table, cosines, sines, keys, values),
            scale=size**-0.5,
            query_norm=norms[0],
            key_norm=norms[1],
            epsilon=EPSILON,
        )

    def rotate(heads: Tensor, norm: Tensor | None) -> Tensor:
        heads = heads.float() if norm is None else rms_norm(heads, norm)
        first, second = heads.chunk(2, -1)
        cosine, sine = cosines[position], sines[position]
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1).to(DTYPE).float()

    keys, values = caches[0]
    output = run(keys, values)
    heads = qkv.view(-1, size)
    queries = rotate(heads[:query_heads], norms[0])
    places = table[0, torch.arange(context, device=DEVICE) // PAGE].long() * PAGE + torch.arange(context, device=DEVICE) % PAGE
    read_keys, read_values = (cache.view(-1, key_heads, size)[places].float().transpose(0, 1) for cache in (keys, values))
    name = f"of {query_heads}/{key_heads} heads of {size}, context {context}"
    check(f"the key {name}", read_keys[:, -1], rotate(heads[query_heads : query_heads + key_heads], norms[1]))
    check(f"the value {name}", read_values[:, -1], heads[query_heads + key_heads :].float())
    expected = scaled_dot_product_attention(queries[None, :, None], read_keys[None], read_values[None], enable_gqa=True)
    check(f"attention {name}", output, expected.reshape(1, -1))
    if not HAS_GPU or is_normalized:
        return
    flash = FlashAttention("flash_attention_3")
    flash.keys, flash.values = (dict(enumerate(caches_of)) for caches_of in zip(*caches, strict=True))
    ends, contexts = (torch.tensor(entries, device=DEVICE, dtype=torch.int32) for entries in ([0, 1], [context]))
    query = qkv[:, : query_heads * size].view(1, query_heads, size)

    def run_flash(splits: int) -> None:
        flash.step = FlashStep(slots, ends, ends * context, contexts, table, 1, pages * PAGE, splits)
        for layer in range(count):
            flash.attend_pages(query, layer, scale=size**-0.5)

    times = [graph_time_us(lambda splits=splits: run_flash(splits)) / count for splits in (1, 0)]  # type: ignore[misc]
    time = graph_time_us(lambda: [run(*cache) for cache in caches]) / count
    report("single_token.attention", time, "us", heads=name, flash_one_block=round(times[0], 1), flash_split=round(times[1], 1))


def rms_norm(values: Tensor, gain: Tensor) -> Tensor:
    values = values.float()
    return values * torch.rsqrt(values.square().mean(-1, keepdim=True) + EPSILON) * gain.float()


def check(what: str, output: Tensor, expected: Tensor) -> None:
    error = float((output.float() - expected).norm() / expected.norm())
    if not error < TOLERANCE:
        raise SystemExit(f"{what}: relative error {error:.4f}, more than {TOLERANCE}")
    report("single_token.error", error, f"relative error, of at most {TOLERANCE}", what=what)


def graph_time_us(work: Callable[[], object]) -> float:
    """Microseconds of ``work`` on the device, as a CUDA graph."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    best = float("inf")
    for _ in range(3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(5):
            graph.replay()
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) * 1000 / 5)
    return best


if __name__ == "__main__":
    main()
