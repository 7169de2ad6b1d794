#!/usr/bin/env python3
"""contaccum against its Python peers, in turn: A B A B.

    compare.py --shared SHARED [W1 W2 ...] [--rounds 5]

SHARED holds data/squad and models/all-MiniLM-L6-v2. Needs `cargo build --release --workspace --examples` beforehand.
Every round runs ours, then the peer, each as a process of its own on the same token ids or texts; told are the median
of the rounds' ratios in wall time, with their smallest and largest, and in CPU time, and the largest peak resident
memory of each side. A machine with other work is refused without --force. Writes a Markdown table to stdout and every
figure to --json.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent
BUILT = HERE.parent.parent / "target" / "release"
PASSAGES_W4 = 4000
# Of the last minute: other work than these processes' own.
BUSY_LOAD = 0.5


def output(command):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def measured(command, key):
    """Seconds and peak bytes from the line of JSON that a workload prints."""
    result = json.loads(output(command))
    return {"seconds": result[key], "cpu_seconds": result[f"cpu_{key}"],
            "peak_resident_bytes": result.get("peak_resident_bytes")}


def whole_process(command):
    """Wall and CPU seconds and peak bytes of a whole process: loading, tokenising and writing included."""
    start = time.perf_counter()
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))}: failed")
    return {"seconds": time.perf_counter() - start, "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_resident_bytes": usage.ru_maxrss * 1024}


class Workloads:
    def __init__(self, shared, work, threads):
        self.squad, self.model = shared / "data" / "squad", shared / "models" / "all-MiniLM-L6-v2"
        self.work, self.threads = work, threads
        self.ours = BUILT / "contaccum"

    def peer(self, script, *arguments):
        return [sys.executable, HERE / script, *arguments, "--threads", self.threads]

    def tokens(self, name, *arguments):
        path = self.work / f"{name}.safetensors"
        if not path.exists():
            output([sys.executable, HERE / "pack.py", path, "--squad", self.squad, "--model", self.model, *arguments])
        return path

    def step(self, tokens, *model, ours=(), peer=("train_step.py",)):
        ours = [BUILT / "examples" / "train_step", tokens, *model, *ours]
        peer = self.peer(*peer[:1], tokens, *model, *peer[1:])
        return (lambda: measured(ours, "seconds_per_step")), (lambda: measured(peer, "seconds_per_step"))

    def w1(self):
        return self.step(self.tokens("w1"), "--model", self.model)

    def w2(self):
        return self.step(self.tokens("w2", "--equal", "32", "160"), "--model", self.model)

    def w3(self):
        return self.step(self.tokens("w3", "--steps", "5"), "--bert-base")

    def random(self, family):
        model = self.work / family
        if not model.exists():
            output([sys.executable, HERE / "random_model.py", family, model])
        return self.step(self.tokens("w3", "--steps", "5"), "--model", model)

    def modernbert(self):
        return self.random("modernbert")

    def mpnet(self):
        return self.random("mpnet")

    def mnrl(self):
        return self.step(self.tokens("w1"), "--model", self.model, ours=["--tied"], peer=["mnrl.py"])

    def cachedmnrl(self):
        return self.step(self.tokens("w1"), "--model", self.model, ours=["--tied", "--chunk", "4"],
                         peer=["mnrl.py", "--mini-batch", "4"])

    def w4(self, *dtype):
        corpus, index = self.work / "corpus.jsonl", self.work / "w4"
        with open(self.squad / "corpus.jsonl", encoding="utf-8") as lines:
            corpus.write_text("".join(line for line, _ in zip(lines, range(PASSAGES_W4))), encoding="utf-8")

        def ours():
            subprocess.run(["rm", "-rf", str(index)], check=True)
            return whole_process([self.ours, "encode", "--quiet", "--model", self.model, "--corpus", corpus,
                                  "--output", index, "--threads", self.threads, *dtype])
        peer = self.peer("encode.py", self.model, "--corpus", corpus, "--passages", PASSAGES_W4, *dtype)
        return ours, (lambda: measured(peer, "seconds"))

    def w4bf16(self):
        return self.w4("--dtype", "bf16")

    def w5(self):
        index, questions = self.work / "index", self.work / "questions"
        for folder, texts in ((index, ["--corpus", self.squad]), (questions, ["--queries", self.squad, "--split", "test"])):
            if not folder.exists():
                output([self.ours, "encode", "--quiet", "--model", self.model, *texts, "--output", folder])
        ours = [BUILT / "examples" / "search", index, questions]
        peer = self.peer("search.py", "--passages", index, "--queries", questions)
        return (lambda: measured(ours, "search_seconds")), (lambda: measured(peer, "search_seconds"))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("workloads", nargs="*", default=["W1", "W2", "W3", "W4", "W4bf16", "W5", "ModernBERT", "MPNet", "MNRL", "CachedMNRL"], metavar="W")
    ap.add_argument("--shared", type=pathlib.Path, required=True)
    ap.add_argument("--work", type=pathlib.Path, default=pathlib.Path("peers-work"), help="folder for token files")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--force", action="store_true", help="measure on a busy machine too: believe CPU time alone")
    ap.add_argument("--json", type=pathlib.Path, help="also write every figure here")
    args = ap.parse_args()

    load = os.getloadavg()[0]
    if load > BUSY_LOAD and not args.force:
        raise SystemExit(f"the machine is busy (load {load:.1f}): its wall times would say nothing; wait, or give --force")
    print(f"load before the first round: {load:.1f}, {args.threads} threads\n")
    args.work.mkdir(parents=True, exist_ok=True)
    workloads = Workloads(args.shared.resolve(), args.work.resolve(), args.threads)
    figures = {}
    print("| workload | ours (s) | peer (s) | ours / peer | smallest – largest | CPU, ours / peer | peak ours | peak peer "
          "| ours / peer |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in args.workloads:
        ours, peer = getattr(workloads, name.lower())()
        rounds = [(ours(), peer()) for _ in range(args.rounds)]
        figures[name] = [{"ours": a, "peer": b} for a, b in rounds]
        ratios, cpu_ratios = ([a[key] / b[key] for a, b in rounds] for key in ("seconds", "cpu_seconds"))
        seconds = [statistics.median(side["seconds"] for side in sides) for sides in zip(*rounds)]
        peaks = [max(side["peak_resident_bytes"] or 0 for side in sides) for sides in zip(*rounds)]
        memory = [f"{peak / 2**20:.0f} MiB" if peak else "–" for peak in peaks]
        ratio = f"{peaks[0] / peaks[1]:.2f}" if all(peaks) else "–"
        print(f"| {name} | {seconds[0]:.3f} | {seconds[1]:.3f} | {statistics.median(ratios):.2f} | "
              f"{min(ratios):.2f} – {max(ratios):.2f} | {statistics.median(cpu_ratios):.2f} | {memory[0]} | {memory[1]} | {ratio} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
