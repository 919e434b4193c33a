"""What compression gives: the text encoder, the user tower and item vectors, beside what they were, as ratios.

    python benchmarks/compression.py [--texts 1500] [--steps 600] [--arms NAME …] [--data ../shared/data] [--workspace demo] [--out benchmarks/compression.md]

Encoder: all-MiniLM-L6-v2 on names of Amazon Beauty cut to 32 tokens, batches of 64 sorted by length, one thread; seconds are seconds of CPU (median), so that other
work on the machine counts little. Neighbours: of the ten nearest texts how many are the same, of texts that no step has learned from (a fifth of them), among all, by the
vectors as they are, without whitening. The peer is sentence-transformers with its defaults (float32, torch), in the same process, timed anew before each arm. Runtimes other than ONNX Runtime are measured
where they are installed. What is measured of an arm is kept in `--work`: a run that was cut short goes on there. User tower: batch 1, 50 events, 128 numbers a vector, torch eager as the peer. Item vectors: 20,000 rows of 128 numbers in clusters.
Accepted encoder: that of the newest bundle which `tastemaker compress` made in a workspace, whole, with its tokenizer and its whitening, beside sentence-transformers with the language model
that it was made of, texts to vectors both; with what the compression's report says that it cost. Ranker: a list of 30 candidates, the bundle's weights.
The matrix peak of the machine is measured with 2,048 x 2,048. Whole bundle: the newest bundle of a workspace that `tastemaker compress` made there, beside the one that it was
made of, each in a fresh process. The first table is what the others found, beside what is wanted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import polars as pl
import torch

from tastemaker.bundle.verify import read_manifest
from tastemaker.cli.compress import memory_of
from tastemaker.compression.distill import GENTLE, Lesson, export_encoder
from tastemaker.compression.figures import held_back, neighbours_kept
from tastemaker.compression.prune import cut
from tastemaker.compression.reread import texts_of
from tastemaker.compression.step import TEXT, Tools
from tastemaker.compression.text import in_fast_form, most_alike, text_feeds
from tastemaker.compression.vectors import product_codes, recall
from tastemaker.index.coded import Bytes
from tastemaker.inference import runtimes
from tastemaker.inference.engine import TextEncoder
from tastemaker.inference.ranker import open_ranker
from tastemaker.inference.runtimes import openers
from tastemaker.models.ranker import Columns
from tastemaker.models.text import Whitening
from tastemaker.models.text_template import fill
from tastemaker.models.user_sequence import LastState, UserSequence
from tastemaker.schema.settings import CompressSettings, TextSettings
from tastemaker.training.encoder import find_model, load_encoder
from tastemaker.training.export import export_text, export_users

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE, TOKENS, EVENTS, DIM = "{title}. {categories}", 32, 50, 128
NARROW = ("narrow", "narrow-taylor")
"""Arms that are asked for by name: two measures of importance side by side."""
ARMS = ("whole", "int8", "healed", "layers-4", "layers-3", "layers-2", "static")
REACH = {
    "encoder throughput": ("sentence-transformers, fp32 torch", "4 x", "10 x"),
    "the same, the encoder that `compress` accepted": ("sentence-transformers, fp32 torch", "4 x within the budget", "10 x"),
    "encoder bytes on disk": ("fp32", "1/4", "1/8"),
    "neighbours, bf16": ("fp32", ".985 (.9999)", ".99"),
    "neighbours, int8": ("fp32", ".94 (.997)", ".96"),
    "user tower, batch 1": ("torch eager", "3 x", "4 x"),
    "item vectors": ("fp32", "1/4 at .99 recall@100", "1/16"),
    "whole bundle resident": ("uncompressed", "1/3", ""),
}
KEPT = "stands as an earlier run had measured it, beside the peer of that run"
Found = dict[str, list[str]]
"""What was measured, by the rows of `REACH`."""
FLOP_TOKEN = 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)


def cpu_seconds(work: Callable[[], Any], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return float(np.median(times))


def read_texts(data: Path, count: int) -> list[str]:
    items = pl.read_parquet(data / "amazon-beauty" / "items.parquet")
    pairs = zip(items["title"].to_list(), items["categories"].to_list(), strict=True)
    texts = list(dict.fromkeys(text for title, groups in pairs if (text := fill(TEMPLATE, title, None, groups))))
    return [texts[place] for place in np.random.default_rng(0).permutation(len(texts))[:count]]


def encoder(asked: argparse.Namespace, lines: list[str], told: Found) -> None:
    """The table of the encoders, and how far each is from what the machine can do."""
    from sentence_transformers import SentenceTransformer

    texts = read_texts(asked.data, asked.texts)
    held = held_back(texts)
    learn = [text for text, kept in zip(texts, held, strict=True) if not kept]
    folder = asked.work / "whole"
    if not (folder / "model.onnx").is_file():
        found = load_encoder(TextSettings(max_length=TOKENS), "fp32")
        export_text(found, Whitening(np.zeros(384, np.float32), np.eye(384, dtype=np.float32)), TEMPLATE, folder)
    peer = SentenceTransformer(str(find_model("all-MiniLM-L6-v2")), device="cpu")
    peer.max_seq_length = TOKENS
    sample = texts[: asked.timed]

    def peers() -> float:
        return len(sample) / cpu_seconds(lambda: peer.encode(sample, batch_size=64), asked.repeats)

    base = peers()
    wanted = peer.encode(texts, batch_size=64, normalize_embeddings=True)
    whole = (folder / "model.onnx").stat().st_size
    lines += [
        "| encoder | runtime | texts a CPU second | ratio | bytes | of fp32 | neighbours kept, new texts | cosine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    speeds = {"sentence-transformers": base}
    say(lines, f"| sentence-transformers | torch fp32 | {base:.0f} | 1.00 | {whole:,} | 1 | 1 | 1 |")
    lesson: Lesson | None = None
    for arm in asked.arms:
        graph = asked.work / f"{arm}-{asked.steps}.onnx" if arm not in ("whole", "int8") else asked.work / f"{arm}.onnx"
        graph = folder / "model.onnx" if arm == "whole" else graph
        kept = asked.work / f"{arm}-{asked.steps}-{asked.texts}-{asked.timed}.json"
        if kept.is_file():
            say(lines, f"| {arm} | {KEPT} | | | | | | |")
        else:
            if not graph.is_file():
                lesson = make(asked, folder, learn, arm, graph, lesson)
            base = peers()  # again: the machine may be busier or less by now
            rows = [measured(asked, folder, texts, wanted, held, base, graph, *one) for one in openers().items()]
            kept.write_text(json.dumps(rows))
        for row in json.loads(kept.read_text()):
            tell(row | {"arm": arm, "whole": whole}, lines, told, speeds)
    if (asked.work / "int8.onnx").is_file():
        feeds, _ = batches(folder, sample)
        real, padded = (sum(int(np.sum(part)) for part in parts) / len(sample) for parts in (
            [feed["attention_mask"] for feed in feeds], [np.ones_like(feed["attention_mask"]) for feed in feeds]))  # fmt: skip
        say(lines, f"\nA text has {real:.1f} tokens, {padded:.1f} with those that fill up its batch.")
        roofline(lines, speeds, real, asked.work / "int8.onnx", feeds[len(sample) // 128])


def measured(
    asked: argparse.Namespace, folder: Path, texts: list[str], wanted: np.ndarray, held: np.ndarray, base: float, graph: Path,
    runtime: str, opener: Callable[[Path, int], Any],
) -> dict[str, Any]:  # fmt: skip
    """An arm in a runtime: its speed, that beside the peer's (`base`, of the same process), its bytes, and what it keeps of the peer's vectors."""
    runs, sample = opener(graph, 1), texts[: asked.timed]
    feeds, order = batches(folder, sample)
    speed = len(sample) / cpu_seconds(lambda: [runs.run(None, feed) for feed in feeds], asked.repeats)
    feeds, order = batches(folder, texts)
    found = np.zeros_like(wanted)
    found[order] = np.concatenate([runs.run(None, feed)[0] for feed in feeds])
    kept, alike = neighbours_kept(wanted, found, held), float((wanted * found).sum(1)[held].mean())
    return {
        "runtime": runtime,
        "speed": speed,
        "ratio": speed / base,
        "bytes": graph.stat().st_size,
        "kept": kept,
        "alike": alike,
    }


def tell(row: dict[str, Any], lines: list[str], told: Found, speeds: dict[str, float]) -> None:
    """Puts a row of `measured` into the tables."""
    arm, name, ratio, less = row["arm"], row["runtime"], f"**{row['ratio']:.2f}", row["whole"] / row["bytes"]
    beside = f"**{row['kept']:.3f}** ({row['alike']:.4f})"
    if arm in ("whole", "int8") and not name.endswith("-float"):
        speeds[f"{arm}, {name}"] = row["speed"]
    if not name.endswith("-float"):
        told["encoder throughput"].append(f"{arm}, {name} {ratio} x**")
    if name == "onnxruntime":
        told["encoder bytes on disk"].append(f"{arm} **1/{less:.1f}**")
    if arm == "whole" and name.endswith("bf16"):
        told["neighbours, bf16"].append(beside)
    if arm in ("int8", "healed") and not name.endswith("-float"):
        told["neighbours, int8"].append(f"{arm}, {name} {beside}")
    words = [
        arm,
        name,
        f"{row['speed']:.0f}",
        f"{ratio}**",
        f"{row['bytes']:,}",
        f"1/{less:.1f}",
        f"{row['kept']:.3f}",
        f"{row['alike']:.4f}",
    ]
    say(lines, f"| {' | '.join(words)} |")


def make(asked: argparse.Namespace, folder: Path, learn: list[str], arm: str, graph: Path, lesson: Lesson | None) -> Lesson | None:
    """Writes the int8 graph of an arm; gives the lesson, so that the next arm need not read the texts again."""
    source = folder / "model.onnx"
    if arm == "int8":
        (asked.work / "fast").mkdir(exist_ok=True)
        source = in_fast_form(folder, asked.work / "fast")
    else:
        tools = Tools(None, None, None, CompressSettings(heal_steps=asked.steps), asked.work, 0)  # type: ignore[arg-type]
        lesson = lesson or Lesson(folder, learn, tools)
        rate, small = 5e-4, None
        if arm == "static":
            from tastemaker.models.bert import WordTable

            small, rate = WordTable(torch.from_numpy(lesson.word_vectors())), 5e-3
        elif arm == "healed":
            small, rate = lesson.teacher(), GENTLE * 5e-4
        elif arm.startswith("narrow"):
            measure = "taylor" if arm.endswith("taylor") else "activation"
            small = cut(lesson.teacher(), 6, 0.67, 0.5, lesson.batches(64), measure)
            print(f"{arm}: cosine {lesson.alike(small):.4f} before healing", flush=True)
        else:
            small = cut(lesson.teacher(), int(arm.split("-")[1]), 1.0, 1.0, lesson.batches(64))
        began = time.process_time()
        lesson.heal(small, asked.steps, rate, 64)
        print(f"{arm}: healed in {time.process_time() - began:.0f} CPU s, cosine {lesson.alike(small):.4f}", flush=True)
        source = asked.work / f"{arm}-{asked.steps}-float.onnx"
        export_encoder(small, TOKENS, source)
    made = asked.work / f"{arm}.making.onnx"
    most_alike(source, made, text_feeds(folder, learn, 128, 0))
    made.replace(graph)
    return lesson


def batches(folder: Path, texts: list[str]) -> tuple[list[dict[str, Any]], np.ndarray]:
    from tokenizers import Tokenizer

    from tastemaker.inference.batching import length_batches
    from tastemaker.inference.engine import _padded

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS)
    tokens = [one.ids for one in tokenizer.encode_batch(texts)]
    rows = length_batches([len(ids) for ids in tokens], 64)
    return [_padded([tokens[row] for row in batch]) for batch in rows], np.concatenate(rows)


def user_tower(asked: argparse.Namespace, lines: list[str], told: Found) -> None:
    torch.manual_seed(0)
    tower = UserSequence(DIM, 1, 2, EVENTS, 0.4).eval()
    export_users(tower, DIM, asked.work / "user.onnx")
    random = np.random.default_rng(0)

    def history(rows: int) -> dict[str, Any]:
        vectors = random.normal(size=(rows, EVENTS, DIM)).astype(np.float32)
        return {"vectors": vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), "lengths": np.full(rows, EVENTS)}

    most_alike(asked.work / "user.onnx", asked.work / "user8.onnx", [history(32) for _ in range(64)])
    one, many = history(1), history(64)
    given = [torch.from_numpy(one[name]) for name in ("vectors", "lengths")]

    def eager(module: Any) -> Callable[[], Any]:
        def answer() -> Any:
            with torch.inference_mode():
                return module(*given)

        return answer

    def ms(work: Callable[[], Any]) -> float:
        return 1e3 * cpu_seconds(lambda: [work() for _ in range(50)], 7) / 50

    base, last = ms(eager(tower)), ms(eager(LastState(tower)))
    with torch.inference_mode():
        wanted = tower(*(torch.from_numpy(many[name]) for name in ("vectors", "lengths"))).numpy()
    lines += ["", "| user tower | runtime | ms, batch 1 | ratio | cosine |", "|---|---|---|---|---|"]
    say(lines, f"| as it was | torch eager | {base:.3f} | 1.00 | 1 |")
    say(lines, f"| last block for the last event alone | torch eager | {last:.3f} | **{base / last:.2f}** | 1 |")
    for name, graph in (("as it is served", "user.onnx"), ("int8", "user8.onnx")):
        for runtime, opener in openers().items():
            runs = opener(asked.work / graph, 1)
            took = ms(lambda runs=runs: runs.run(None, one))  # type: ignore[misc]
            found = runs.run(None, many)[0]
            alike = float(((found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)).mean())
            say(lines, f"| {name} | {runtime} | {took:.3f} | **{base / took:.2f}** | {alike:.5f} |")
            if not runtime.endswith("-float"):
                words = f"{name}, {runtime} **{base / took:.2f} x** ({last / took:.2f} x the same trick in torch)"
                told["user tower, batch 1"].append(words)


def item_vectors(lines: list[str], told: Found) -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(300, DIM))
    rows = centres[random.integers(0, 300, 20_000)] + 0.7 * random.normal(size=(20_000, DIM))
    table = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    exact = Bytes.of(table)
    lines += ["", "| item vectors | bytes scanned a row | of fp32 | bytes a row in all | recall@100 |", "|---|---|---|---|---|"]
    for name, codes, stored in (
        ("int8", exact, exact.scanned),
        ("product codes, best 1,000 again in int8", product_codes(table, exact, 0), exact.scanned + DIM // 4),
    ):
        kept = recall(table, codes, 0)
        say(lines, f"| {name} | {codes.scanned} | 1/{4 * DIM / codes.scanned:.0f} | {stored} | {kept:.4f} |")
        told["item vectors"].append(f"{name.split(',')[0]} **1/{4 * DIM / codes.scanned:.0f}** at {kept:.4f}")


def compressed(workspace: Path) -> tuple[Path, Path] | None:
    """The newest compressed bundle of a workspace and the one that it was made of."""
    bundles = sorted((workspace / "bundles").glob("*/manifest.json"), reverse=True)
    pairs = [(path.parent, parents[0]) for path in bundles if (parents := read_manifest(path.parent).parents)]
    found = [(child, child.with_name(parent)) for child, parent in pairs if child.with_name(parent).is_dir()]
    return found[0] if found else None


def accepted(asked: argparse.Namespace, pair: tuple[Path, Path], lines: list[str], told: Found) -> None:
    """The encoder that stayed in the budget, as one product: texts to vectors, beside the same by sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    folder = pair[0] / "text_encoder"
    config = json.loads((folder / "config.json").read_text())
    peer = SentenceTransformer(str(find_model("all-MiniLM-L6-v2")), device="cpu")
    peer.max_seq_length = int(config["max_length"])
    width = np.load(folder / "whitening_components.npy").shape[0]
    random, own = np.random.default_rng(0), [text for text in dict.fromkeys(texts_of(pair[0])) if text]
    groups = {"the workspace's catalogue": [own[row] for row in random.permutation(len(own))[: asked.timed]]}
    if (asked.data / "amazon-beauty").is_dir():
        cut = [" ".join(text.split()[:20]) for text in read_texts(asked.data, asked.timed)]  # 20 words are about 32 word pieces
        groups["names of Amazon Beauty, 20 words at most"] = cut
    cost = cost_of(asked.workspace, pair[0])
    picked = TextEncoder(folder, width)
    picked.encode(own[:64])
    name_of = runtimes.chosen(folder / "model.onnx", 1)
    lines += ["", f"The accepted encoder ({', '.join(config.get('made_by', []))}): {cost}."]
    lines += [
        "",
        "| texts | word pieces: peer, accepted | runtime | texts a CPU second | ratio to sentence-transformers |",
        "|---|---|---|---|---|",
    ]
    for name, texts in groups.items():
        base = len(texts) / cpu_seconds(lambda texts=texts: peer.encode(texts, batch_size=64), asked.repeats)  # type: ignore[misc]
        asked_of_peer = peer.tokenizer(texts, truncation=True, max_length=peer.max_seq_length)["input_ids"]
        both = asked_of_peer, picked._tokenizer.encode_batch(texts)
        pieces = ", ".join(f"{np.mean([len(one) for one in found]):.0f}" for found in both)
        say(lines, f"| {name} | {pieces} | sentence-transformers, torch fp32 | {base:.0f} | 1.00 |")
        for runtime, opener in openers().items():
            encoder = TextEncoder(folder, width, later=True)
            encoder._session = opener(folder / "model.onnx", 1)
            speed = len(texts) / cpu_seconds(lambda e=encoder, texts=texts: e.encode(texts), asked.repeats)  # type: ignore[misc]
            mark = f"{runtime}, the one that is picked here" if runtime == name_of else runtime
            say(lines, f"| {name} | {pieces} | {mark} | {speed:.0f} | **{speed / base:.2f}** |")
            if not runtime.endswith("-float"):
                told["the same, the encoder that `compress` accepted"].append(f"{name}, {runtime} **{speed / base:.2f} x**")
    told["the same, the encoder that `compress` accepted"].append(cost)
    before, after = (sum(part.stat().st_size for part in (one / "text_encoder").glob("model.onnx*")) for one in (pair[1], pair[0]))
    told["encoder bytes on disk"].append(f"accepted **1/{before / after:.1f}**")


def cost_of(workspace: Path, made: Path) -> str:
    """What the compression's report says that the accepted steps on the text encoder cost together."""
    path = workspace / "reports" / "compression.json"
    report = json.loads(path.read_text()) if path.is_file() else {}
    if report.get("version") != made.name:
        return "no report tells what it cost"
    steps = [one for one in report["steps"] if one["state"] == "accepted" and one["part"] == TEXT]
    if not steps:
        return "no step on the encoder was accepted"
    verdict = steps[-1]["verdict"]
    change, was = verdict["change"], verdict["before"]
    span = f"{change['mean'] / was:+.2%} [{change['low'] / was:+.2%}, {change['high'] / was:+.2%}]"
    return f"NDCG@10 {span} of what it was on {verdict['asked']:,} questions, {report['budget']:.0%} may be lost; {' + '.join(one['step'] for one in steps)}"


def ranker(pair: tuple[Path, Path], lines: list[str]) -> None:
    """A list of 30 candidates in the compressed bundle's ranker and in the one that it was made of, as they compute here."""
    random = np.random.default_rng(0)
    both = [open_ranker(one / "ranker") for one in pair if (one / "ranker").is_dir()]
    if len(both) < 2:
        return
    shape = both[1].plan.shape
    width = np.load(pair[1] / "ranker" / "of_item.npy").shape[1]
    parts = [random.normal(size=size).astype(np.float32) for size in ((30, shape.dense - 3 * width), (1, width), (30, width))]
    dense, codes = Columns(*parts, np.array([0, 30])), np.zeros((30, shape.fields), np.int64)
    fusion = random.normal(size=30).astype(np.float32)
    rounds = [
        [cpu_seconds(lambda one=one: [one.logits(dense, codes, fusion) for _ in range(200)], 1) / 200 for one in both]
        for _ in range(11)
    ]  # type: ignore[misc]
    times = [float(np.median(column)) for column in zip(*rounds, strict=True)]
    sizes = [
        sum(part.stat().st_size for name in ("weights", "scale") for part in (one / "ranker").glob(f"{name}.*.npy")) for one in pair
    ]
    lines += ["", "| ranker | us a list of 30 | ratio | weights, bytes on disk |", "|---|---|---|---|"]
    for name, took, size in zip(("compressed", "as it was"), times, sizes, strict=True):
        say(lines, f"| {name} | {1e6 * took:.0f} | **{times[1] / took:.2f}** | {size:,} |")


def whole_bundle(workspace: Path, pair: tuple[Path, Path], lines: list[str], told: Found) -> None:
    """The newest compressed bundle of a workspace beside the one that it was made of."""
    sizes, resident = [], []
    lines += ["", "| bundle | MB on disk | MB resident, at rest | at the peak |", "|---|---|---|---|"]
    for name, folder in zip(("compressed", "as it was"), pair, strict=True):
        memory_of(folder)  # the first process may have to choose its runtimes
        both = [memory_of(folder) for _ in range(3)]
        peak, rest = (float(np.median(column)) for column in zip(*both, strict=True))
        sizes.append(sum(entry.bytes for entry in read_manifest(folder).files.values()))
        resident.append(rest)
        say(lines, f"| {name} | {sizes[-1] / 1e6:.1f} | {rest / 1e6:.1f} | {peak / 1e6:.1f} |")
    told["whole bundle resident"].append(f"**{resident[0] / resident[1]:.2f}**; on disk 1/{sizes[1] / sizes[0]:.1f}")
    report = workspace / "reports" / "compression.json"
    if report.is_file():
        rows = json.loads(report.read_text())["steps"]
        lines.append("")
        for one in (row for row in rows if row["verdict"]):
            say(lines, f"- `{one['step']}` {one['state']}: {one['why']}")


def summary(told: Found) -> list[str]:
    """What was measured beside what is wanted."""
    lines = ["| | against | reach | aim | measured |", "|---|---|---|---|---|"]
    for name, wanted in REACH.items():
        lines.append(f"| {' | '.join([name, *wanted])} | {'; '.join(told[name]) or 'not measured in this run'} |")
    return lines


def roofline(lines: list[str], speeds: dict[str, float], tokens: float, graph: Path, feed: dict[str, Any]) -> None:
    """What of the machine's matrix peak an encoder reaches, and where the rest of its time goes."""
    peaks = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        one, other = (torch.randn(2_048, 2_048).to(kind) for _ in range(2))
        peaks[name] = 2 * 2_048**3 / cpu_seconds(lambda one=one, other=other: one @ other, 5) / 1e9  # type: ignore[misc]
    peaks["int8"] = int8_peak()
    words = ", ".join(f"{name} {peak:,.0f}" for name, peak in peaks.items())
    say(
        lines,
        f"\nMatrix peak of a core, 2,048 x 2,048, G operations a second: {words} (fp32 and bf16 by torch, int8 by ONNX Runtime).",
    )
    lines += ["", "| encoder | G operations a second | of the fp32 peak | of bf16 | of int8 |", "|---|---|---|---|---|"]
    for name, speed in speeds.items():
        done = speed * tokens * FLOP_TOKEN / 1e9
        say(lines, f"| {name} | {done:.0f} | {' | '.join(f'{done / peak:.0%}' for peak in peaks.values())} |")
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares(graph, feed).items())
    say(lines, f"\nWhere the time of the int8 encoder goes in ONNX Runtime, by operator: {told}.")


def int8_peak() -> float:
    """G operations a second of a large product of integers, uint8 by int8, on one thread."""
    import onnxruntime
    from onnx import helper, numpy_helper

    size, random = 2_048, np.random.default_rng(0)
    weights = numpy_helper.from_array(random.integers(-127, 128, (size, size), dtype=np.int8), "w")
    given = helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [size, size])
    found = helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [size, size])
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "peak", [given], [found], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    runs = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    table = random.integers(0, 256, (size, size), dtype=np.uint8)
    return 2 * size**3 / cpu_seconds(lambda: runs.run(None, {"x": table}), 7) / 1e9


def shares(graph: Path, feed: dict[str, Any]) -> dict[str, float]:
    """Share of the time of each kind of operator, the largest first, those of at least 1 %."""
    import json
    from collections import Counter

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = 1, True
    options.profile_file_prefix = str(graph.with_suffix(""))
    runs = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    for _ in range(10):
        runs.run(None, feed)
    told, spent = Path(runs.end_profiling()), Counter[str]()
    for one in json.loads(told.read_text()):
        if one.get("cat") == "Node" and one["name"].endswith("_kernel_time"):
            spent[one["args"]["op_name"]] += one["dur"]
    told.unlink()
    total = sum(spent.values())
    return {name: count / total for name, count in spent.most_common() if count >= total / 100}


def say(lines: list[str], line: str) -> None:
    lines.append(line)
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=1_500)
    parser.add_argument("--timed", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=[*ARMS, *NARROW])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--workspace", type=Path, default=ROOT / "demo")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "compression")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "compression.md")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    lines, told = list[str](), {name: list[str]() for name in REACH}
    began = time.perf_counter()
    if (asked.data / "amazon-beauty").is_dir():
        encoder(asked, lines, told)
    else:
        print(f"{asked.data / 'amazon-beauty'} is absent: the encoder is not measured")
    user_tower(asked, lines, told)
    item_vectors(lines, told)
    pair = compressed(asked.workspace)
    if pair is None:
        print(f"{asked.workspace} has no compressed bundle (tastemaker compress {asked.workspace}): none is measured")
    else:
        accepted(asked, pair, lines, told)
        ranker(pair, lines)
        whole_bundle(asked.workspace, pair, lines, told)
    table = summary(told)
    print("\n" + "\n".join(table), flush=True)
    given = [Path(one).name if "/" in one else one for one in sys.argv[1:]]
    words = f"`{' '.join(given) or 'no arguments'}`, {asked.steps} steps of healing, {(time.perf_counter() - began) / 60:.0f} minutes, load {os.getloadavg()[0]:.0f}."
    head = ["# What compression gives", "", "Made by `python benchmarks/compression.py`; what is measured is described there.", ""]
    asked.out.write_text("\n".join([*head, f"This run: {words}", "", *table, "", *lines]) + "\n")
    print(f"Written: {asked.out}")


if __name__ == "__main__":
    main()
