"""One table of attention_benchmark and its peers. Usage: attention_table.py CASES RESULTS

CASES: attention_benchmark --device cuda --json; RESULTS: attention_gpu.py CASES --json. Milliseconds, a line for each direction of a batch; `x best` is
how many times as long the best peer takes, and (!) marks a peer whose results are not those of the batch. Then the memory beside inputs.
"""
import collections, json, sys

MOST_ERROR = 0.05  # of outputs around 1, in bf16


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
    print(f"{'ms':43}{'ours':>10}{'TFLOP/s':>9}{'GB/s':>7}{'of floor':>10}{'x best':>8}" + "".join(f"{way:>{width}}" for way in ways))
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
                  f"{100 * ours['floor_ms'] / ms:8.0f} %{against:>8}{cells}")
    print(f"\n{'MB beside inputs':43}{'ours':>10}{'':34}" + "".join(f"{way:>{width}}" for way in ways))
    for case in cases:
        found = [of[case["name"]].get(way, {}).get("megabytes") for way in ways]
        print(f"{case['name']:43}{case['megabytes']:10.1f}{'':34}" + "".join(f"{'-' if mb is None else f'{mb:.1f}':>{width}}" for mb in found))


if __name__ == "__main__":
    main()
