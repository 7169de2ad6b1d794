"""What the peers share: reading BEIR texts and folders of vectors, clocks, and how a result is printed."""
import json, pathlib, resource, statistics, time


def read_texts(path, limit=None):
    """A BEIR corpus.jsonl or queries.jsonl: ids, and texts or [title, text] pairs; an empty title leaves the text."""
    ids, texts = [], []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if limit is not None and len(ids) == limit:
                break
            record = json.loads(line)
            ids.append(record["_id"])
            texts.append([record["title"], record["text"]] if record.get("title") else record["text"])
    return ids, texts


def read_vectors(path):
    """A .npy file (ids: None), or the folder that `contaccum encode` writes, with its ids."""
    import numpy as np
    path = pathlib.Path(path)
    if path.is_file():
        return None, np.load(path)
    shards = sorted(path.glob("embeddings-*.npy"))
    if not shards:
        raise SystemExit(f"{path}: no embeddings-*.npy; give a .npy file or a folder of `contaccum encode`")
    ids = [line for shard in shards
           for line in (path / f"ids-{shard.stem[-5:]}.txt").read_text(encoding="utf-8").splitlines()]
    return ids, np.concatenate([np.load(shard) for shard in shards])


class Clock:
    """Wall and CPU seconds of what is timed, several times over; CPU seconds are those of all threads."""
    def __init__(self):
        self.wall, self.cpu = [], []

    def __enter__(self):
        self.start = time.perf_counter(), time.process_time()

    def __exit__(self, *_):
        self.wall.append(time.perf_counter() - self.start[0])
        self.cpu.append(time.process_time() - self.start[1])

    def medians(self, name):
        return {name: statistics.median(self.wall), f"cpu_{name}": statistics.median(self.cpu)}


def report(**result):
    """One line of JSON on stdout, with the peak resident memory of this process."""
    result["peak_resident_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))
