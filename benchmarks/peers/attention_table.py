"""One table of attention_benchmark and its peers. Usage: attention_table.py CASES RESULTS

CASES: attention_benchmark --device cuda --json; RESULTS: attention_gpu.py CASES --json. Milliseconds, a line for each direction of a batch; `x best` is
how many times as long the best peer takes, `x model` how many times as long ours takes as the model of an H100 in docs/performance_gpu.md has it, and (!)
marks a peer whose results are not those of the batch. Then the memory beside inputs.
"""
import collections, json, sys

MOST_ERROR = 0.05  # of outputs around 1, in bf16
PROCESSORS, CYCLES, COPY = 132, 1.755e9, 3.0e12  # an H100's: a second, and bytes a second
MMA_SYNC = {"forward": 2.8e12, "backward": 2.4e12}  # operations of a multiprocessor a second: FlashAttention-2's best there
# Cycles of a multiprocessor for a tile of 128 x 64 pairs of Hopper's kernels: what takes longest.
WGMMA = {"forward": {64: 615, 128: 1230, 256: 2455}, "backward": {64: 1818, 128: 3840, 256: 9625}, "e4m3": {64: 660, 128: 730, 256: 1325}}
# With SiLU at least: an exponential and a reciprocal of each pair, in both kernels of the backward.
SILU = {"forward": 1024, "backward": 2048}
# Likewise of the backward whose blocks have whole sequences, and how many queries one block has and two have.
WHOLE = {64: [(2048, 512)], 128: [(3712, 256), (3968, 512)], 256: [(7168, 128), (8064, 256)]}
# Queries whose d_q a block keeps in shared memory, which it has with one kernel.
ONE_KERNEL = {32: 768, 64: 320, 128: 128, 256: 0}


def takes_wgmma(case, direction, queries, keys):
    dim = case["head_dim"]
    if dim < 64 or max(queries, keys) <= (256 if dim == 256 else 512):
        return False
    few = queries <= (16 if dim == 256 else 64) and keys > 256 or dim < 256 and queries <= 128 and keys > 1024
    return not (few and direction == "forward" and case["type"] != "e4m3") and not (case["shares_queries"] and direction == "backward")


def whole_by_wgmma(case, direction, queries, keys):
    """The cycles of a tile where one or two blocks have a whole sequence, else None."""
    dim = case["head_dim"]
    if direction == "forward" or dim < 64 or case["shares_queries"] or not 64 < keys <= 512 * min(1, 128 / dim):
        return None
    rows = -(-queries // 64) * 64  # no workload shares keys among heads
    if rows <= (WHOLE[dim][0][1] // 2 if dim <= 128 else 0):
        return None
    return next((cycles for cycles, most in WHOLE[dim] if rows <= most), None)


def model_ms(case, direction):
    """What docs/performance_gpu.md expects of an H100: the time of its memory or, spread evenly, of its multiprocessors, whichever is longer."""
    if case["type"] == "float32" or case["head_dim"] not in ONE_KERNEL:
        return float("nan")
    dim, memory, compute, pairs = case["head_dim"], 0.0, 0.0, []
    for queries, keys in zip(case["query_lengths"], case["key_lengths"]):
        pairs.append((queries, keys, queries * (queries + 1) / 2 if case["mask"] == "causal" else queries * keys))
    flops = case[direction]["flops"] * case["tile_pairs_of_visible"] / max(sum(visible for _, _, visible in pairs), 1)  # of a pair
    rows = max(sum(queries + keys for queries, keys, _ in pairs), 1)
    for queries, keys, visible in pairs:
        again = 1.0  # how often bytes move
        if takes_wgmma(case, direction, queries, keys):
            tile = 4 * dim * 128 * 64 * (2.5 if direction == "backward" else 1)
            cycles = WGMMA["e4m3" if case["type"] == "e4m3" else direction][dim]
            if case["silu_divisor"]:
                cycles = max(cycles, SILU[direction])
            compute += visible * flops / tile * cycles / CYCLES
        elif cycles := whole_by_wgmma(case, direction, queries, keys):
            compute += visible * flops / (10 * dim * 128 * 64) * cycles / CYCLES
        else:
            rate = MMA_SYNC[direction] * (2 if case["type"] == "e4m3" else 1)
            if direction == "backward" and queries > ONE_KERNEL[dim] and keys > 64:
                rate, again = rate * 5 / 7, 13 / 8  # two kernels, seven products
            compute += visible * flops / rate
        memory += case[direction]["bytes"] * again * (queries + keys) / rows / COPY
    return 1e3 * max(memory, compute / PROCESSORS)


def read(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def main():
    cases, results = read(sys.argv[1]), read(sys.argv[2])
    of = collections.defaultdict(dict)
    for result in results:
        of[result["name"]][result["way"]] = result
    ways = list(dict.fromkeys(result["way"] for result in results if result.get("forward_ms")))
    width = max([11, *map(len, ways)]) + 1
    print(f"{'ms':43}{'ours':>10}{'TFLOP/s':>9}{'GB/s':>7}{'of floor':>10}{'x best':>8}{'x model':>9}" + "".join(f"{way:>{width}}" for way in ways))
    for case in cases:
        for direction in ("forward", "backward"):
            ours = case[direction]
            if ours is None:
                continue
            cells, best = "", float("inf")
            for way in ways:
                result = of[case["name"]].get(way, {})
                ms, wrong = result.get(f"{direction}_ms"), not result.get("error", 0) <= MOST_ERROR
                if ms is not None and not wrong:
                    best = min(best, ms)
                cells += f"{'-' if ms is None else f'{ms:.3f}' + ('(!)' if wrong else ''):>{width}}"
            ms = ours["ms"] or float("nan")
            against = f"{best / ms:.2f}" if best < float("inf") else "-"
            print(f"{case['name']:33} {direction:9}{ms:10.3f}{ours['flops'] / ms * 1e-9:9.1f}{ours['bytes'] / ms * 1e-6:7.0f}"
                  f"{100 * ours['floor_ms'] / ms:8.0f} %{against:>8}{ms / model_ms(case, direction):9.2f}{cells}")
    print(f"\n{'MB beside inputs':43}{'ours':>10}{'':43}" + "".join(f"{way:>{width}}" for way in ways))
    for case in cases:
        found = [of[case["name"]].get(way, {}).get("megabytes") for way in ways]
        print(f"{case['name']:43}{case['megabytes']:10.1f}{'':43}" + "".join(f"{'-' if mb is None else f'{mb:.1f}':>{width}}" for mb in found))


if __name__ == "__main__":
    main()
