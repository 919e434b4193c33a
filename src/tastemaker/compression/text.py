"""Steps on the text encoder: its vocabulary and its eight bits. What is learned anew stands in `distill`."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tokenizers import Tokenizer

from tastemaker.compression.calibration import Feed
from tastemaker.compression.figures import held_back
from tastemaker.compression.quantize import quantize, quantize_tables
from tastemaker.compression.reread import ENCODER, LEFT, reread, texts_of
from tastemaker.compression.step import Facts, NotApplicable, Tools, carry

GRAPH, TOKENS, KEPT = "model.onnx", "tokenizer.json", "golden.npz"
CALIBRATED_AT_ONCE = 8
GOLDEN = 16
"""Texts whose vectors are kept beside the graph; every runtime must give them again."""
MADE_AS = 2
"""Changes with how graphs are made, so that what an older version left behind is not taken for today's."""
_MARK = "##"


def changed(
    bundle: Path, place: Path, tools: Tools, name: str, make: Callable[[Path, Path, Sequence[str]], Facts], settings: Any = None
) -> Facts:
    """Writes the payload of a bundle whose text encoder is another one.

    Args:
        bundle, place, tools: as a step gets them.
        name: of the step.
        make: called as make(old folder, new folder, texts that may be learned from): writes what it changes of the encoder's folder; the rest is carried.
        settings: whatever else the result hangs on; with the same graph, texts and settings it is made once.
    """
    texts = texts_of(bundle)
    full = [text for text in dict.fromkeys(texts) if text]
    learn = [text for text, held in zip(full, held_back(full), strict=True) if not held] or full
    if not learn:
        raise NotApplicable("no item has a text")
    source = bundle / ENCODER
    key = _key(source, name, learn, [settings, tools.seed])
    kept = tools.cache / key
    if not (kept / "facts.json").is_file():
        _make(source, kept, name, key, learn, make)
    carry(bundle, place, LEFT)
    shutil.copytree(kept, place / ENCODER, ignore=shutil.ignore_patterns("facts.json"))
    for part in ("whitening_mean.npy", "whitening_components.npy"):
        shutil.copyfile(source / part, place / ENCODER / part)
    reread(bundle, place, tools)
    facts: Facts = msgspec.json.decode((kept / "facts.json").read_bytes())
    return facts


def int8(bundle: Path, place: Path, tools: Tools) -> Facts:
    """Products and tables of the encoder in eight bits."""

    def make(source: Path, target: Path, texts: Sequence[str]) -> Facts:
        feeds = text_feeds(source, texts, tools.settings.calibration, tools.seed)
        return most_alike(in_fast_form(source, target), target / GRAPH, feeds)

    return changed(bundle, place, tools, "int8-text", make, tools.settings.calibration)


def int8_sensitive(bundle: Path, place: Path, tools: Tools) -> Facts:
    """The same, but the products that lose most of the answer stay in float."""

    def make(source: Path, target: Path, texts: Sequence[str]) -> Facts:
        from tastemaker.compression.sensitive import keep_sensitive

        feeds = text_feeds(source, texts, tools.settings.calibration, tools.seed)
        return keep_sensitive(in_fast_form(source, target), target / GRAPH, feeds)

    return changed(bundle, place, tools, "int8-text-sensitive", make, tools.settings.calibration)


def int8_tables(bundle: Path, place: Path, tools: Tools) -> Facts:
    """The word vectors alone in eight bits; products stay in float."""

    def make(source: Path, target: Path, texts: Sequence[str]) -> Facts:
        import onnx

        model = onnx.load(str(source / GRAPH))
        found = quantize_tables(model)
        if not found:
            raise NotApplicable("it has no table of word vectors in float")
        onnx.save(model, str(target / GRAPH))
        return {"int8 tables": found}

    return changed(bundle, place, tools, "int8-word-vectors", make)


def vocabulary(times: int) -> Callable[[Path, Path, Tools], Facts]:
    """The step that keeps the word pieces which the catalogue uses, and `times` the first `compress.vocabulary` ones for texts to come.

    In a bundle that is judged the texts that no step learns from don't count as the catalogue's: what they lose is what a new item's text will lose.
    """

    def apply(bundle: Path, place: Path, tools: Tools) -> Facts:
        first = times * tools.settings.vocabulary
        known = [text for text in dict.fromkeys(texts_of(bundle)) if text]

        def make(source: Path, target: Path, texts: Sequence[str]) -> Facts:
            return _fewer_pieces(source, target, texts if tools.judging else known, first)

        name = "vocabulary" if times == 1 else f"vocabulary-{times}"
        return changed(bundle, place, tools, name, make, [first, tools.judging, _hash_of(known)])

    return apply


def _fewer_pieces(source: Path, target: Path, texts: Sequence[str], first: int) -> Facts:
    """Writes graph and tokenizer with the word pieces of these texts and the first ones alone."""
    import onnx
    from onnx import numpy_helper

    from tastemaker.compression.quantize import table_names

    table = json.loads((source / TOKENS).read_text(encoding="utf-8"))
    rows = pruned_rows(table, source / TOKENS, texts, first)
    model = onnx.load(str(source / GRAPH))
    words = len(table["model"]["vocab"])
    tables = [
        one
        for one in model.graph.initializer
        if one.name in table_names(model) and len(one.dims) == 2 and one.dims[0] >= words and _looks_up_ids(model, one.name)
    ]
    if not tables or len(rows) > 0.95 * words:
        raise NotApplicable(f"{len(rows):,} of its {words:,} word pieces are needed, or it has no plain table of them")
    for one in tables:
        one.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(one)[rows]), one.name))
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save(model, str(target / GRAPH))
    (target / TOKENS).write_text(json.dumps(with_rows(table, rows), ensure_ascii=False), encoding="utf-8")
    if not _reads_alike(source / TOKENS, target / TOKENS, texts, rows):
        raise NotApplicable("with fewer word pieces the tokenizer would read the catalogue otherwise")
    return {"word pieces": len(rows), "word pieces before": words}


def in_fast_form(source: Path, target: Path) -> Path:
    """The language model's graph as `bert_graph` writes it, in place of the one that becomes eight bits; the graph as it is where it is no BERT in an exporter's
    form, or where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return source / GRAPH
    from tastemaker.compression.bert_graph import write_bert
    from tastemaker.compression.graph_weights import bert_of

    config = msgspec.json.decode((source / "config.json").read_bytes())
    feed = text_feeds(source, ["a text to compare by", "and one more"], 2, 0)[0]
    try:
        model = bert_of(source / GRAPH, str(config.get("pooling", "mean")), feed, answers_of(source / GRAPH, [feed]))
    except NotApplicable:
        return source / GRAPH
    write_bert(model, int(config["max_length"]), target / GRAPH)
    return target / GRAPH


def most_alike(source: Path, target: Path, feeds: Sequence[Feed]) -> Facts:
    """Quantizes a graph and tells how close its answers are to the float graph's, on inputs that set no scale."""
    cut = max(len(feeds) * 3 // 4, 1)
    learn, check = feeds[:cut], feeds[cut:] or feeds[:1]
    wanted = answers_of(source, check)  # before: the target may be the source
    facts = quantize(source, target, learn)
    return {**facts, "cosine": round(cosine(wanted, answers_of(target, check)), 5)}


def text_feeds(folder: Path, texts: Sequence[str], most: int, seed: int) -> list[Feed]:
    """Real texts as the encoder's inputs, a few at a time, of like length.

    Raises:
        NotApplicable: the tokenizer can't be read.
    """
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENS))
    except Exception as error:  # the library raises plain Exception
        raise NotApplicable(f"the tokenizer can't be read ({str(error)[:100]})") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(int(config["max_length"]))
    chosen = np.random.default_rng(seed).permutation(len(texts))[:most]
    tokens = sorted((one.ids for one in tokenizer.encode_batch([texts[place] for place in chosen])), key=len)
    batches = [tokens[begin : begin + CALIBRATED_AT_ONCE] for begin in range(0, len(tokens), CALIBRATED_AT_ONCE)]
    mixed = np.random.default_rng(seed).permutation(len(batches))
    return [_padded(batches[place]) for place in mixed]


def answers_of(graph: Path, feeds: Sequence[Feed], exact: bool = False) -> np.ndarray:
    """What a graph answers to some inputs, its first output, rows below each other; `exact`: eight bits are undone and computed in float."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    runs = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return np.concatenate([runs.run(None, dict(feed))[0] for feed in feeds])


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Mean cosine of the rows of two tables."""
    length = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean((one * other).sum(axis=1) / np.maximum(length, 1e-12)))


def pruned_rows(table: dict[str, Any], tokenizer: Path, texts: Sequence[str], first: int) -> np.ndarray:
    """Numbers of the word pieces to keep, rising.

    Kept are those of the texts, the first `first`, everything special, and every single letter (at the begin of a word and inside), so that a word that
    was never met is still spelled out. A longer piece that the catalogue does not use can't have been chosen anywhere in it, so its texts read as before.

    Raises:
        NotApplicable: the tokenizer is not made of word pieces, whose greedy reading this is true of.
    """
    if table["model"].get("type") != "WordPiece":
        raise NotApplicable(
            f"its tokenizer is {table['model'].get('type')}, and only word pieces can be left out without changing the rest"
        )
    vocabulary: dict[str, int] = table["model"]["vocab"]
    reads = Tokenizer.from_file(str(tokenizer))
    reads.no_truncation()
    reads.no_padding()
    kept = {place for encoding in reads.encode_batch(list(texts)) for place in encoding.ids}
    kept |= set(range(min(first, len(vocabulary))))
    kept |= {int(one["id"]) for one in table.get("added_tokens", [])}
    kept |= {place for piece, place in vocabulary.items() if len(piece.removeprefix(_MARK)) == 1}
    return np.array(sorted(kept), dtype=np.int64)


def with_rows(table: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """A tokenizer's description with these word pieces alone, numbered anew."""
    number = {int(old): new for new, old in enumerate(rows)}
    less = json.loads(json.dumps(table))
    less["model"]["vocab"] = {
        piece: number[place]
        for piece, place in sorted(table["model"]["vocab"].items(), key=lambda pair: pair[1])
        if place in number
    }
    for one in less.get("added_tokens", []):
        one["id"] = number[int(one["id"])]
    _renumber(less.get("post_processor"), number)
    if less.get("padding"):
        less["padding"]["pad_id"] = number.get(int(less["padding"]["pad_id"]), 0)
    return dict(less)


def _renumber(part: Any, number: dict[int, int]) -> None:
    """Numbers of special tokens that a post-processor names: `["[SEP]", 102]`, or lists of ids."""
    if isinstance(part, dict):
        for name in ("sep", "cls"):
            pair = part.get(name)
            if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], int):
                pair[1] = number[pair[1]]
        for one in (part.get("special_tokens") or {}).values():
            one["ids"] = [number[place] for place in one["ids"]]
        for one in part.get("processors") or []:
            _renumber(one, number)


def _reads_alike(before: Path, after: Path, texts: Sequence[str], rows: np.ndarray) -> bool:
    one, other = Tokenizer.from_file(str(before)), Tokenizer.from_file(str(after))
    for reads in (one, other):
        reads.no_truncation()
        reads.no_padding()
    pairs = zip(one.encode_batch(list(texts)), other.encode_batch(list(texts)), strict=True)
    return all(a.ids == rows[np.array(b.ids, dtype=np.int64)].tolist() for a, b in pairs)


def _looks_up_ids(model: Any, table: str) -> bool:
    """Whether a table is looked up by the input of token numbers itself."""
    names = {one.name for one in model.graph.input}
    return all(node.input[1] in names for node in model.graph.node if node.op_type == "Gather" and node.input[0] == table)


def _make(
    source: Path, kept: Path, name: str, key: str, texts: Sequence[str], make: Callable[[Path, Path, Sequence[str]], Facts]
) -> None:
    partial = kept.with_name(f".{kept.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        facts = make(source, partial, texts)
        for part in (GRAPH, TOKENS):
            if not (partial / part).is_file():
                shutil.copyfile(source / part, partial / part)
        config = msgspec.json.decode((source / "config.json").read_bytes())
        config |= {"fingerprint": key[:24], "made_by": [*config.get("made_by", []), name]}
        (partial / "config.json").write_bytes(msgspec.json.encode(config))
        write_golden(partial, _golden_feed(partial, texts))
        (partial / "facts.json").write_bytes(msgspec.json.encode(facts))
        shutil.rmtree(kept, ignore_errors=True)
        partial.rename(kept)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_golden(folder: Path, feed: Feed) -> None:
    """Keeps inputs beside a graph with what it answers, computed as it is written, for every runtime to meet."""
    answers = answers_of(folder / GRAPH, [feed], exact=True)
    arrays: dict[str, Any] = {**feed, "vector": answers}
    np.savez(folder / KEPT, **arrays)


def _golden_feed(folder: Path, texts: Sequence[str]) -> Feed:
    feeds = text_feeds(folder, texts[:GOLDEN], GOLDEN, 0)
    longest = max(one["input_ids"].shape[1] for one in feeds)
    return {
        name: np.concatenate([np.pad(one[name], ((0, 0), (0, longest - one[name].shape[1]))) for one in feeds])
        for name in ("input_ids", "attention_mask")
    }


def _padded(tokens: Sequence[Sequence[int]]) -> Feed:
    length = max(2, max(len(ids) for ids in tokens))
    ids = np.zeros((len(tokens), length), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, found in enumerate(tokens):
        ids[row, : len(found)], mask[row, : len(found)] = found, 1
    return {"input_ids": ids, "attention_mask": mask}


def _key(source: Path, name: str, texts: Sequence[str], settings: Any) -> str:
    digest = hashlib.sha256()
    for part in (source / TOKENS, *sorted(source.glob(f"{GRAPH}*"))):
        with part.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    digest.update(msgspec.json.encode([MADE_AS, name, _hash_of(texts), settings]))
    return digest.hexdigest()[:40]


def _hash_of(texts: Sequence[str]) -> str:
    return hashlib.sha256("\x00".join(texts).encode("utf-8", "replace")).hexdigest()
