"""All settings, typed, each with what it does and why it has its default. `schema.settings_file` reads and writes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tastemaker.schema.rules import Caps, DiversityBy, Pins, Shifts

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[int, Meta(ge=1)]
Shares = Annotated[tuple[Share, ...], Meta(min_length=1)]


class Section(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A group of settings that belong together."""


class DataSettings(Section, kw_only=True, frozen=True):
    """What counts as a positive event and how the log is cleaned and split."""

    positive: list[str] = []
    """Expressions such as `purchase` or `rating>=4`; empty: every event is a positive one."""
    bot_events_per_day: Positive = 5_000
    """Users with more events in one day are reported as bots and quarantined."""
    future_tolerance: float = 86_400.0
    """Seconds an event may lie ahead of the machine's clock before it is refused."""
    split: str = "global_time"
    """`global_time`, `temporal_user` (the last events of each user, 20 at most), `leave_last_out` or `cold_items`. Logs that hold only an order use `leave_last_out` in place
    of `global_time`."""
    test_share: Share = 0.1
    """Share of the events, latest in time, that `evaluate` holds back."""


class TextSettings(Section, kw_only=True, frozen=True):
    """The language model that reads what the items are."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A Hugging Face / sentence-transformers name or a local folder."""
    template: str = "{title}. {categories}. {text}"
    """How an item becomes text; empty parts are left out."""
    max_length: Positive = 128
    """Tokens read of each item."""
    dim: Positive = 256
    """Dimensions kept by PCA whitening."""
    whitenings: Shares = (1.0, 0.5, 0.0)
    """Powers of the whitening: 1 gives all directions the same spread, 0 keeps their own. Of several the one that finds held-back new items best is kept."""
    batch_size: Positive = 64
    pooling: str = "auto"
    """`mean` of the tokens, `cls` (the first), `last` (the last) or `auto`: what the model's folder says; else the last of a decoder, the mean of others."""


class MediaSettings(Section, kw_only=True, frozen=True):
    """A model that reads the items' files, and where those may come from."""

    model: str = ""
    """A Hugging Face name or a local folder; empty: this signal is not read."""
    dim: Positive = 256
    """Dimensions kept by PCA whitening."""
    whitenings: Shares = (1.0, 0.5, 0.0)
    """Powers of the whitening, as `text.whitenings`."""
    batch_size: Positive = 32
    folder: str = "."
    """Where relative file names begin; no file outside of this folder is read. `.`: where the command is run."""
    fetch: bool = False
    """Whether http(s) addresses are fetched. Each is fetched once and remembered with the vectors; private addresses are never fetched."""
    fetch_from: tuple[str, ...] = ()
    """Private networks that may be fetched from all the same, such as a shop's own store: ["10.1.0.0/16"]."""
    max_bytes: Positive = 20_000_000
    """Larger files are left out."""
    timeout: Annotated[float, Meta(gt=0.0)] = 5.0
    """Seconds for one address, redirects included."""


class ImageSettings(MediaSettings, kw_only=True, frozen=True):
    """The vision model that reads the items' pictures (column `image`): ViT, DINO, CLIP, SigLIP and their like; see docs/signals.md."""

    max_pixels: Positive = 50_000_000
    """Pictures with more pixels are left out before they are decoded."""


class AudioSettings(MediaSettings, kw_only=True, frozen=True):
    """The model that hears the items' sounds (column `audio`): CLAP, wav2vec 2.0, HuBERT, WavLM and their like; see docs/signals.md."""

    seconds: Annotated[float, Meta(gt=0.0)] = 10.0
    """Read of each sound, from its middle; shorter ones are repeated."""


class FinetuneSettings(Section, kw_only=True, frozen=True):
    """How the language model that reads the items learns from what people took together; docs: `training/finetune.py`."""

    mode: str = "frozen"
    """`frozen`, `head` (a small network behind the model), `last` (the top `layers`), `lora` (needs peft) or `full`."""
    layers: Positive = 2
    """Top layers that `last` trains; what the lower ones give is computed once for each item."""
    steps: Positive = 200
    """Batches in all."""
    batch_size: Positive = 256
    """Pairs a step; each is told apart from all other items of its batch."""
    chunk: Positive = 128
    """Texts that are in memory with all their layers at a time; a larger batch is read twice instead (gradient caching)."""
    learning_rate: float = 1e-4
    """`head` takes ten times as much."""
    weight_decay: float = 0.01
    warmup: Share = 0.1
    temperature: Annotated[float, Meta(gt=0.0)] = 0.05
    history: Positive = 3
    """Latest items of a history whose mean is brought close to the next one."""
    item_share: Share = 0.5
    """Share of the pairs of a history that are item and item, not history and next item."""
    query_share: Share = 0.25
    """Share of the pairs that are a search and the item taken after it, where the log has searches; how well held-back searches find their items weighs as
    much in the choice of `blends`. 0: searches are not read."""
    query_field: str = "query"
    """Field of the events' context, or column of their file, that holds the words of a search."""
    correction: Share = 0.0
    """Logits lose correction * log(an item's share of the events): 1 models what comes next, 0 what belongs together however popular it is."""
    hard_negatives: Annotated[int, Meta(ge=0)] = 0
    """Texts added to each batch that lie close to its targets though nobody took both."""
    matryoshka: tuple[int, ...] = ()
    """The loss is also taken on these leading dimensions."""
    blends: Shares = (0.0, 0.5, 1.0)
    """How much of the learned change of the weights is tried; the best on items held back as new is kept. With one number nothing is tried."""
    lora_rank: Positive = 16
    pretrain_steps: Annotated[int, Meta(ge=0)] = 0
    """Batches of masked-language modelling on the catalogue's own texts before; BERT family only."""
    pretrain_rate: float = 5e-5
    mask_share: Share = 0.15
    cache_gib: Annotated[float, Meta(ge=0.0)] = 4.0
    """Memory for the lower layers' output; a larger catalogue computes it anew in each step."""
    shard: bool = False
    """With several processes each holds a part of the weights, their gradients and the optimiser's memory (FSDP2), not all of them: for models too large
    for one. `chunk` is not read then: each process reads its texts at once."""


class SequenceSettings(Section, kw_only=True, frozen=True):
    """The item and user towers and how they learn."""

    dim: Positive = 128
    block: str = "transformer"
    """A layer of the user tower: `transformer`, `ligr` (gated residuals) or `hstu` (pointwise attention, no feed-forward); see docs/learning.md."""
    layers: Positive = 1
    heads: Positive = 2
    loss: str = "softmax"
    """`softmax`, `bce`, `gbce` or `bpr`; what the right item is told apart from is the section `sampling`; see docs/learning.md."""
    loss_negatives: Positive = 256
    """Negatives that `bce` and `gbce` count for each event; 1 is SASRec's."""
    gbce_t: Share = 0.75
    """Calibration of `gbce`: 0 is plain `bce`, 1 undoes all overconfidence that comes from sampling."""
    label_smoothing: Share = 0.0
    """Share of each label that `softmax` spreads over all items."""
    dropout: Share = 0.4
    id_dropout: Share = 0.1
    """Share of the items whose id part is silenced in a step: makes text alone a good enough vector."""
    signal_dropout: Share = 0.1
    """Share of the signals (text, image, audio, graph) of an item that has several which are silenced in a step, so that any may be missing."""
    id_rows: Positive = 262_144
    """Rows of the table of id parts; a larger catalogue shares them by hashes, so that memory does not grow with it."""
    max_length: Positive = 50
    """Events of a user's history that the tower reads."""
    epochs: Positive = 8
    """Passes over the histories; early stopping on validation NDCG@10 may end sooner."""
    min_steps: int = 1_000
    """Small logs are passed more often, until this many steps are made."""
    refit: Share = 1.0
    """Share of the epochs found by validation that are run on all events: 1 from new weights, less from the validated ones on: sooner done,
    as good on MovieLens, worse on Beauty."""
    patience: Positive = 3
    """Validations without a gain before training ends."""
    batch_size: Positive = 128
    """Histories a step; smaller logs take smaller batches."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: Share = 0.05
    """Share of the steps in which the rate rises; a cosine brings it down after."""


class SamplingSettings(Section, kw_only=True, frozen=True):
    """Which items the right next one is told apart from, and how much each event counts. The defaults weigh all alike; see docs/sampling.md."""

    negatives: str = "full"
    """`full` (all items; beyond 100,000 of them a sample), `uniform`, `popularity`, `in_batch` or `hard`."""
    count: Positive = 2_048
    """Items drawn for each batch, besides the batch's own; `in_batch` draws none."""
    alpha: Share = 0.75
    """`popularity` and `hard` draw an item in proportion to its events ** alpha."""
    correction: str = "log_q"
    """How a sample stands for the whole: `log_q`, `log_q_negatives` (the positive is there for certain, so it is left as it is) or `none`."""
    hard_count: Positive = 16
    """Hard negatives of each event, besides the drawn ones."""
    hard_pool: Positive = 64
    """Best-ranked items from which they are drawn."""
    hard_skip: Annotated[int, Meta(ge=0)] = 5
    """First places of the ranking that are never drawn: likely right answers that are not known yet."""
    hard_margin: float = 0.0
    """An item whose cosine is this much above the positive's is not drawn either; below 0 is stricter."""
    weights: dict[str, float] = {}
    """Weight of an event by its type, as in {purchase = 3.0, view = 0.5}; types that are not named weigh 1."""
    value: str = "none"
    """`linear` weighs an event 1 + value_scale * its value, `log` 1 + value_scale * log(1 + its value); `none` reads no value."""
    value_scale: Annotated[float, Meta(ge=0.0)] = 1.0
    user_power: Share = 0.0
    """Weight of an event = (events of its user) ** -user_power: 0 counts events, 1 counts users."""
    item_power: Share = 0.0
    """Weight of an event = (events of its item) ** -item_power: 0 counts events, 1 counts items."""
    half_life: Annotated[float, Meta(ge=0.0)] = 0.0
    """Days in which an event's weight halves; 0: never."""
    shown: tuple[str, ...] = ("impression",)
    """Event types that say that an item was shown in an answer."""
    clicked: tuple[str, ...] = ("click",)
    """Event types that say that a shown item was taken."""
    ranker: str = "both"
    """What a ranker's positive rows are told apart from: `unclicked` (what the same answer showed in vain), `candidates` (what the channels
    found), or `both` (the shown ones first, filled up with candidates)."""
    rare_share: Share = 0.0
    """Share of the histories of an epoch that are drawn by their rare items (first an item, all alike, then a history in which it comes next)."""


class GraphSettings(Section, kw_only=True, frozen=True):
    """What edges between items, entities and users are used for; nothing here acts without edges. See docs/graph.md."""

    model: str = "auto"
    """Vectors of items by what they are connected with: `propagate`, `rotate` (RotatE), `transe`, `` (none), or `auto`: `propagate` where it
    finds held-back new items better than texts alone."""
    dim: Positive = 128
    """Length of these vectors."""
    most_edges: Positive = 5_000
    """Edges that a node keeps; of a hub with more the heaviest are, ties by a hash."""
    epochs: Positive = 30
    """Passes of `rotate` and `transe` over the edges."""
    batch_size: Positive = 1_024
    """Edges a step."""
    negatives: Positive = 32
    """Wrong ends that each edge of a step is told apart from."""
    margin: Annotated[float, Meta(gt=0.0)] = 9.0
    """Distance within which an edge counts as true."""
    temperature: Annotated[float, Meta(ge=0.0)] = 1.0
    """How much harder wrong ends weigh in the loss; 0: all alike."""
    learning_rate: float = 1e-2
    smoothing: Shares = (0.0, 0.25, 0.5)
    """Share of a user's vector that comes from those of friends; of several the one that finds held-back events best is kept."""


class NeighbourSettings(Section, kw_only=True, frozen=True):
    """Item-to-item neighbours with history decay."""

    k: Positive = 200
    """Neighbours kept for each item."""
    decay: Share = 0.7
    """Weight of an event = decay ** its place from the newest."""
    text_decay: Share = 0.5


class FeatureSettings(Section, kw_only=True, frozen=True):
    """What is told about a user, an item and the moment besides the channels; docs/features.md lists all features."""

    use: tuple[str, ...] = (
        "item_events",
        "item_events(window=7d)",
        "item_faded",
        "item_trend",
        "item_rank",
        "item_recency",
        "item_age",
        "price",
        "item_text",
        "item_quality",
        "group_events",
        "group_events(by=brand)",
        "user_events",
        "user_faded",
        "user_recency",
        "affinity",
        "affinity(by=brand)",
        "session",
        "user_item",
        "text_match",
        "time_of_day",
        "device",
    )
    """Features by name and parameters, as in `item_rate(of=purchase, per=view, half_life=30d)`; on the command line as a JSON list."""
    scaling: str = "auto"
    """`auto` (by each column's own shape), `zscore`, `robust`, `log`, `quantile` or `none`."""
    select: bool = True
    """Columns that say nothing, or nothing new, are dropped; the report tells why."""
    text_columns: int = 8
    """Most columns that the text vector of an item is reduced to."""


class IndexSettings(Section, kw_only=True, frozen=True):
    """How nearest items are found."""

    kind: Literal["auto", "exact", "approximate"] = "auto"
    """`auto` (exact up to `exact_to` items, above it approximate where that finds enough), `exact` or `approximate`. Read when a bundle is made; when it
    answers, `exact` leaves its approximate index unread."""
    exact_to: Annotated[int, Meta(ge=0)] = 10_000
    """Up to so many items every search reads them all. From some 4,000 on an approximate index costs less (docs/scale.md); small catalogues are spared its misses."""
    recall: Share = 0.0
    """Share of the true best hundred that an approximate index has to find, over held-back questions; it reads as many lists as that takes, and with `auto`
    search stays exact where it finds less. 0: .995 up to 50,000 items; above, .98 up to 500,000, .95 up to 5 million and .90 beyond are aimed at, and an
    index that finds .90 is used."""


class FusionSettings(Section, kw_only=True, frozen=True):
    """The learned fusion of the channels."""

    depth: Positive = 100
    """Candidates taken from each channel, when the fusion learns and when it answers."""
    cold_price: Share = 0.05
    """Share of the validation NDCG that may be given away so that new items are found as well as known ones."""
    cold_boost: float = 0.0
    """Added to the score of items that training never saw, on top of what the fusion learned."""


class RankerSettings(Section, kw_only=True, frozen=True):
    """The ranker: it orders the fusion's best candidates and tells the chance of each label; see docs/ranking.md."""

    mode: str = "auto"
    """`auto` (it orders where it was found better than the fusion, else it only tells chances), `always` (it orders), `chances` (it never orders) or
    `off` (none is learned)."""
    heads: tuple[str, ...] = ()
    """Labels whose chance is told, as in ["click", "purchase", "rating>=4"]; empty: the most frequent event types of the log."""
    weights: dict[str, float] = {}
    """The final score is the sum of weight * chance over these heads, as in {purchase = 1.0, click = 0.1}; `next` is the chance to be what comes
    next. Empty: {next = 1}. Read when answering: a change needs no training."""
    horizon_days: Annotated[float, Meta(ge=0.0)] = 0.0
    """Days within which an event must follow for a label to hold; 0: whenever."""
    depth: Positive = 30
    """Candidates that are ordered anew, the fusion's best; the others stay behind them in the fusion's order."""
    questions: Annotated[int, Meta(ge=0)] = 0
    """Last events of users that it learns from and is judged by, at most. 0: the latest 2,000 where times can be compared, as channels know what came after
    earlier ones; else 20,000, drawn by the seed."""
    later_share: Annotated[float, Meta(ge=0.0, le=0.5)] = 0.0
    """Share of the events, the latest, that it is asked for besides, by channels that learned from the events before alone; 0: none. Only where times
    can be compared. It costs about one more refit; see docs/ranking.md for what it brought."""
    later_questions: Positive = 6_000
    """Most of these; of more, some drawn by the seed."""
    body: str = "dcn"
    """What stands beside the experts: `dcn` (a cross network, DCNv2), `deepfm` (a factorisation machine) or `mlp` (a linear part)."""
    sharing: str = "bottom"
    """What the heads share: `bottom` (one network), `mmoe` (experts behind a gate of each head) or `ple` (own experts besides)."""
    cross_layers: Annotated[int, Meta(ge=0)] = 2
    experts: Positive = 3
    hidden: tuple[int, ...] = (48, 24)
    """Widths of an expert's layers."""
    embedding_dim: Positive = 6
    """Length of the vector of each category."""
    categories: tuple[str, ...] = ()
    """Read by name: `category` (the first), `brand`, `device`, `item_id`, `user_id`, or any column of the catalogue. A few thousand questions are too
    few to learn their vectors by: with them MovieLens' order gets worse and its chances get better."""
    buckets: Positive = 1_000
    """Names of a category are hashed into so many vectors."""
    likeness: bool = True
    """Compare candidates with each of the asker's latest 50 events, by texts and by item vectors; see docs/ranking.md for what it brings."""
    vector_dim: Annotated[int, Meta(ge=0)] = 0
    """Leading directions of the item and user vectors, and of their product, that are read; 0: nothing but their cosine. As `categories`: worth it
    with tens of thousands of questions."""
    dropout: Share = 0.2
    epochs: Positive = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    task_weights: dict[str, float] = {}
    """Weight of each head's loss, as in {purchase = 2.0}, heads that are not named 1; empty: weights are learned (by the uncertainty of each)."""
    calibration: str = "auto"
    """`isotonic`, `platt`, `none` or `auto`: isotonic where there are events enough, else Platt's."""


class TrainSettings(Section, kw_only=True, frozen=True):
    """How a training run behaves."""

    effort: str = "normal"
    """`quick`, `normal` or `thorough`: sets the dials that cost time, as docs/learning.md lists; those that you set yourself stay."""
    seed: int = 0
    threads: int = 0
    """CPU threads of a process; 0: all cores, shared by its processes."""
    workers: Positive = 1
    """Processes that train together, the sequence model and the language model, on this machine or with `--ray` on a cluster."""
    precision: str = "auto"
    """`auto` (bf16 where the CPU computes in it), `bf16` or `fp32`."""
    device: str = "cpu"
    """Where training runs: `cpu`. Bundles are learned and served on CPUs; another device is refused."""
    optimiser: str = "adamw"
    """`adamw`, `adam`, `sgd` or `adafactor` (a third of Adam's memory)."""
    schedule: str = "cosine"
    """The learning rate over time: `cosine` and `constant` with a warm-up, or `one_cycle`."""
    ema: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    """Decay of the average of the weights that is kept in their stead, as in 0.99; 0: none. It is at most (1 + step) / (10 + step), so 0.999
    differs from 0.99 only in trainings of several thousand steps."""
    accumulate: Positive = 1
    """Parts of a batch computed one after the other: less memory, the same step."""
    checkpoint_seconds: Annotated[float, Meta(ge=0.0)] = 60.0
    """Time between two checkpoints of a training, from which `train --resume` goes on."""


class EvaluationSettings(Section, kw_only=True, frozen=True):
    """What `evaluate` prints."""

    k: tuple[int, ...] = (10, 20)
    bootstrap: Positive = 1_000
    """Resamples behind each confidence interval."""
    max_users: Positive = 10_000
    """Questions asked; of more a sample is drawn by the seed, and the report says so."""


class ProfileSettings(Section, kw_only=True, frozen=True):
    """How `tastemaker profile` looks at the data."""

    session_gap: float = 1_800.0
    """Seconds without an event after which a new visit begins."""
    bot_events_per_minute: Positive = 60
    """Users with more events in one minute are named as suspects; more than `data.bot_events_per_day` in a day are, too."""
    bot_gap_variation: float = 0.1
    """Users whose gaps between events vary less than this (standard deviation over mean: 1 for chance, 0 for a clock) are named, too."""
    bot_least_events: Positive = 50
    """Events from which on the gaps of a user say something."""
    feature_rows: Positive = 20_000
    """Events for which features are drawn and measured, a sample."""


class TuneSettings(Section, kw_only=True, frozen=True):
    """How `tastemaker tune` searches the numbers of the next run."""

    trials: Positive = 30
    """Trials in all, the settings as they are among them; a search that is called again goes on until there are so many."""
    time_budget: Annotated[float, Meta(ge=0.0)] = 0.0
    """Seconds after which no fold is begun any more; 0: no limit. Trial 0 is always finished."""
    folds: Positive = 3
    """Moments at which every trial is frozen: it learns from all events before, and is judged by those until the next moment."""
    fold_share: Share = 0.1
    """Share of the events between two such moments. Logs that hold only an order are judged by the last event of each user, the one before, …"""
    confirm: bool = True
    """Put the latest `fold_share` of the events aside, and judge choice and settings as they were there once, at the end; a choice that does worse is
    not taken."""
    questions: Positive = 2_000
    """Questions of each fold; of more a sample is drawn by the seed, the same for all trials."""
    judge: str = "whole"
    """`whole` (the answer of a fit as `train` makes it), `fused` (without the refit: about half of the time; it misses what was held back and shows
    differences larger than they are) or `sequence` (the sequence model's own list, a poor guide to the whole)."""
    space: dict[str, str] = {}
    """Dials and their ranges, as in {"sequence.dropout" = "0.1..0.6", "sequence.dim" = "64|128|256", "sequence.learning_rate" = "5e-4..5e-3 log"}; an
    empty range is the known one of that dial; no dial at all: a dozen known ones."""
    sampler: str = "tpe"
    """`tpe` (tree-structured Parzen estimator), `gp` (Gaussian process) or `random`."""
    pruner: str = "paired"
    """When a trial ends after a fold: `paired` (surely worse than the best one on the same questions), `median` (worse than half of the others) or
    `none`. With several objectives nothing is pruned."""
    prune_epochs: bool = False
    """A trial also ends inside a fold: after the first quarter of its epochs, where the sequence model's validation is in the lowest quarter of the earlier
    trials' twice in a row. Only while that validation and the judge put six or more trials of this search into like order (rank correlation .7)."""
    objectives: tuple[str, ...] = ("quality",)
    """`quality` (NDCG@10), `latency` (milliseconds of CPU for one answer) and `size` (learned numbers), as many as are wanted, quality first."""
    rule: str = "paired"
    """What counts as good as the best: a gap of at most one standard error, of the `paired` differences of the users or of the means of the
    `folds`; `best`: nothing but the best mean."""
    cost: str = "size"
    """Of those as good as the best the one of least `size` or least `latency` is chosen; costs within 5 % are alike."""
    jobs: Positive = 1
    """Trials at the same time, each in a process of its own, the cores shared among them."""


class CompressSettings(Section, kw_only=True, frozen=True):
    """How `tastemaker compress` makes a bundle smaller."""

    budget: Share = 0.01
    """Share of the NDCG@10 that may be lost: the lower end of the 95 % interval of the paired change must stay inside; `--budget 1%` says the same."""
    steps: tuple[str, ...] = ()
    """Steps to try, as docs/compression.md names them; empty: all."""
    effort: str = "normal"
    """`quick` leaves out what must be trained; `normal` heals what was cut out of the language model and teaches smaller towers, by distillation."""
    questions: Positive = 10_000
    """Held-back questions asked of each rung, fewer where a part of them makes it sure; of more a sample is drawn by the seed."""
    neighbours: Share = 0.6
    """Share of its ten nearest texts that a text which no step has seen must keep: search and new items hang on the language model, and the NDCG
    of known items does not see them."""
    vocabulary: Positive = 8_192
    """Rows of word pieces that are kept besides those of the catalogue, the first ones of the vocabulary, so that new texts can be read; twice and three times as many are
    tried where texts that count as new lose too many neighbours with them."""
    layers: tuple[int, ...] = (2, 3, 4)
    """Layers that the smaller language model keeps, the fewest first."""
    forward: Share = 0.5
    """Share of the feed-forward neurons of each layer that the step `narrow` keeps."""
    heads: Share = 0.67
    """Share of the attention heads of each layer that the step `narrow` keeps."""
    importance: str = "activation"
    """How the step `narrow` tells which heads and neurons matter: by their `activation` times the weights behind it, or by `taylor` (activation times gradient)."""
    heal_steps: Annotated[int, Meta(ge=0)] = 600
    """Batches of distillation that heal what was cut; a user tower or a ranker takes four times as many of its own, which are cheaper."""
    heal_batch: Positive = 64
    """Texts in each of them."""
    heal_rate: float = 5e-4
    """Highest learning rate of the healing."""
    calibration: Positive = 128
    """Texts and histories that are run to find the scales of int8 activations."""
    split: str = "auto"
    """Whose later events judge the steps where the bundle has seen them all: a value of `data.split`, or `auto`: that of `data.split`, and where it leaves fewer than
    500 users to ask, the last fifth of each user's events (`temporal_user`), for which a bundle of the earlier events is trained; never with `effort = "quick"`."""


class ServingSettings(Section, kw_only=True, frozen=True):
    """How the service answers."""

    host: str = "127.0.0.1"
    """Another address than this machine's own needs API keys: `tastemaker keys add`."""
    port: int = 8000
    workers: Positive = 1
    max_k: Positive = 1_000
    """A larger k is answered with this many."""
    max_body: Positive = 10_485_760
    """Bytes of the largest request body."""
    max_events: Positive = 10_000
    """Events in one request."""
    deadline_ms: Annotated[float, Meta(ge=0.0)] = 250.0
    """Milliseconds that the sources of an answer have together, and again the ranker with its features; what is late is left out and named in
    `degraded`. 0: no deadline."""
    source_threads: Positive = 1
    """Threads that share the sources of one answer: more than one is worth it where the catalogue is large and cores are idle."""
    together: Positive = 16
    """Requests for lists that are answered together at most, of those that wait for the same turn. 1: each by itself."""
    together_ms: Annotated[float, Meta(ge=0.0)] = 1.0
    """Milliseconds after several were answered together in which the next ones wait until those of the last two batches have come; two fifths of what the answers
    took, if that is more. 0: nobody is waited for."""
    busy_ms: Annotated[float, Meta(ge=0.0)] = 100.0
    """Milliseconds that requests wait for their turn at which answers begin to step down the ladder (fewer candidates, no ranker, made before, popular);
    at five times as many they are refused with `Retry-After`. 0: never."""
    rate_limit: Annotated[float, Meta(ge=0.0)] = 0.0
    """Requests per second with one API key, over all workers and ten seconds; 0: no limit. A key may have a limit of its own."""
    access_log: str = ""
    """A file for a line of JSON about each request, in the workspace unless its path is absolute; `-`: the standard output; empty: none."""
    compat: tuple[str, ...] = ()
    """Routes of other services that are answered besides our own, so that their clients work: `gorse`, `personalize`."""
    state: str = ""
    """Where machines that serve the same workspace tell each other of events, items, users and edges, `redis://HOST:PORT/0` or `kafka://HOST:PORT/TOPIC`; empty: this
    machine is alone."""
    events_from: str = ""
    """A log of events that is read into the journal: `redis://HOST:PORT/0?stream=NAME`, `kafka://HOST:PORT/TOPIC` or `journal:FOLDER`; docs/streams.md.
    Empty: events come over HTTP alone."""
    events_group: str = "tastemaker"
    """The group of consumers that this service belongs to; its members share the log's partitions."""
    events_session: Annotated[float, Meta(ge=0.5)] = 10.0
    """Seconds without a sign of a consumer after which others read its partitions."""
    events_waiting: Positive = 50_000
    """Events that may wait for the disk in one worker; more are refused with 429 and `Retry-After`."""
    fresh_slots: Annotated[int, Meta(ge=0)] = 1
    """Places of each `fresh.page` that are kept for fresh items; 0: none. Which items and how: the section `fresh`."""
    record: Literal["explored", "all", "none"] = "explored"
    """Which answers are kept with the propensity of each place, for off-policy evaluation: those in which chance took part, all, or none."""
    record_days: Positive = 30
    """Days after which kept answers are removed."""
    traces: str = ""
    """Address of an OpenTelemetry collector (OTLP over HTTP), as in `http://127.0.0.1:4318/v1/traces`: a span a request and a stage; needs the extra
    `traces`. Empty: none."""


class ClusterSettings(Section, kw_only=True, frozen=True):
    """How `tastemaker serve --ray` answers from a Ray cluster; docs/cluster.md."""

    replicas_min: Positive = 1
    """Replicas, each the whole road in one process, that are always there; two or more where a change of settings must not be noticed."""
    replicas_max: Positive = 2
    """Replicas that a load may call in."""
    target_ongoing: Annotated[float, Meta(gt=0.0)] = 4.0
    """Requests under way in a replica, on average, above which another one is called in and far below which one goes."""
    max_ongoing: Positive = 100
    """Requests under way in a replica at most."""
    upscale_seconds: Annotated[float, Meta(ge=0.0)] = 5.0
    """So long the load must ask for more replicas before they come."""
    downscale_seconds: Annotated[float, Meta(ge=0.0)] = 60.0
    """So long the load must ask for fewer before they go."""
    cpus: Annotated[float, Meta(gt=0.0)] = 1.0
    """Cores that Ray sets aside for a replica."""
    encoders: Annotated[int, Meta(ge=0)] = 1
    """Processes at most that read texts, of searches and of new items, for all replicas; 0: every replica reads by itself."""
    encoder_cpus: Annotated[float, Meta(gt=0.0)] = 0.5
    """Cores that Ray sets aside for each of them."""
    encoder_batch: Positive = 16
    """Texts, or lists of texts, that are read at once at most."""
    encoder_wait_ms: Annotated[float, Meta(ge=0.0)] = 2.0
    """Milliseconds that a text waits for others to be read with."""
    health_seconds: Annotated[float, Meta(gt=0.0)] = 5.0
    """Time between two looks at a replica's health; one that does not answer three times as long is replaced."""
    drain_seconds: Annotated[float, Meta(gt=0.0)] = 10.0
    """Time that a replica has to finish what it is doing."""
    gone_seconds: Annotated[float, Meta(gt=0.0)] = 3.0
    """After so long without an answer from the cluster this machine answers by itself on the same port."""


class FreshSettings(Section, kw_only=True, frozen=True):
    """The fresh slot: places in which items that little is known of gather evidence; docs/lists.md."""

    page: Positive = 10
    """Places of a list of which `serving.fresh_slots` are fresh; a list of another length has its share, a fraction of a place by chance."""
    temperature: Annotated[float, Meta(ge=0.0)] = 10.0
    """How far chance reaches: the odds of a fresh item fall by e with so many places that it stands farther from this user; 0: always the closest."""
    graduate_taken: Annotated[int, Meta(ge=0)] = 10
    """An item that was taken so often is fresh no more; 0: does not matter."""
    graduate_shown: Annotated[int, Meta(ge=0)] = 500
    """An item that was shown so often (events of the types `sampling.shown`) is fresh no more; 0: does not matter."""
    graduate_days: Annotated[float, Meta(ge=0.0)] = 30.0
    """An item so many days after its `created_at` is fresh no more; one without is not fresh if the bundle knows it. 0: does not matter."""


class ListSettings(Section, kw_only=True, frozen=True):
    """What every list obeys besides relevance; a request can add to it; docs/lists.md. The defaults change nothing."""

    diversity: Share = 0.0
    """How much unlikeness counts beside relevance in requests that do not say it themselves: 0 nothing, 1 alone."""
    diversity_by: DiversityBy = "mmr"
    """`mmr` (maximal marginal relevance) or `dpp` (determinantal point process, greedy)."""
    filter: dict[str, Any] = {}
    """What an item must be to be shown at all, as in {all = [{field = "price", lte = 80}]}; the filter of a request comes on top."""
    pinned: Pins = []
    """Items at a fixed place, as in [{item_id = "i1", place = 1}]."""
    boost: Shifts = []
    """Items that stand higher, as in [{filter = {field = "brand", eq = "ours"}, places = 5}]."""
    bury: Shifts = []
    """Items that stand lower; without `places` behind all others."""
    max_per: Caps = []
    """At most so many items of a list with the same value, as in [{field = "categories", count = 3}]."""
    near_duplicates: Share = 0.0
    """Of items whose texts have at least this cosine only the best stays; 0: all stay."""
    same_title: bool = False
    """Of items whose titles are the same but for case, accents, punctuation and spaces only the best stays."""


class ReleaseSettings(Section, kw_only=True, frozen=True):
    """What a bundle must show before it takes the place of the live one; docs/releasing.md."""

    questions: Positive = 2_000
    """At most so many questions are asked of both bundles."""
    least: Positive = 200
    """With fewer events that neither bundle has learned from, users' last events are asked for instead: they show what is broken, not what is better."""
    max_loss: Share = 0.05
    """A bundle whose mean NDCG@10 is lower by more than this share is refused, however unsure it is."""
    sure_loss: Share = 0.01
    """One whose NDCG@10 is lower by more than this share for sure is refused, too: another seed of the same training may cost as much."""
    max_slice_loss: Share = 0.02
    """A kind of items (new, frequent, rare) may not for sure lose more than this share."""
    slice_questions: Positive = 1_000
    """Kinds of items with fewer questions are not judged."""
    over_popularity: Annotated[float, Meta(ge=0.0)] = 1.05
    """Its NDCG@10 must be so many times that of the most popular items, unless the live bundle's is not."""
    coverage: Share = 0.8
    """It must show at least this share of as many different items as the live one."""
    slower: Annotated[float, Meta(ge=1.0)] = 1.25
    """An answer may take so many times as long."""
    larger: Annotated[float, Meta(ge=1.0)] = 1.5
    """Its files may hold so many times the bytes."""
    load_seconds: Annotated[float, Meta(gt=0.0)] = 60.0
    """Seconds until it can answer."""
    slower_tail: Annotated[float, Meta(ge=1.0)] = 1.1
    """The 99th percentile of its answers' times may for sure not be more than so many times that of the live one."""
    slack_ms: Annotated[float, Meta(ge=0.0)] = 2.0
    """So many milliseconds more are no reason to refuse, however large a share they are: a ranker that begins to decide costs as much."""
    heavier: Annotated[float, Meta(ge=1.0)] = 1.2
    """A process that answers with it may keep so many times the memory (resident set)."""
    shadow: Annotated[int, Meta(ge=0)] = 0
    """So many lists are made by the bundle beside those of the live one before anybody is shown any; 0: no shadow."""
    canary: tuple[Annotated[float, Meta(gt=0.0, lt=1.0)], ...] = ()
    """Shares of the users who are answered by it, one after the other, before all are; empty: no canary."""
    step_lists: Positive = 1_000
    """Each step of the canary lasts until its users were answered so often,"""
    step_seconds: Annotated[float, Meta(ge=0.0)] = 600.0
    """and at least so long."""
    mirror: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.1
    """Share of the lists that the shadow makes, too."""
    mirror_busy: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.25
    """Share of the time of one core and worker that the shadow may take; what would be more is not made."""
    overlap: Share = 0.3
    """In the shadow, at least this share of the live top 10 must on average be in its own."""
    trial_errors: Annotated[float, Meta(ge=1.0)] = 2.0
    """In the canary, failures and degraded lists may for sure not be so many times those of the control group; in the shadow there may be no failure."""
    trial_slower: Annotated[float, Meta(ge=1.0)] = 1.2
    """Its lists may for sure not be slower than so many times the live one's 99th percentile more than twice as often as the live one's are."""
    trial_loss: Share = 0.05
    """A canary is ended when the share of taken lists has for sure fallen by more than this share."""


class WatchSettings(Section, kw_only=True, frozen=True):
    """When `tastemaker watch` learns anew, and what it does then; docs/releasing.md."""

    new_events: Positive = 10_000
    """So many events that the live bundle has not learned from are reason enough."""
    days: Annotated[float, Meta(ge=0.0)] = 7.0
    """So many days after the live bundle was made, too, if there is any new event; 0: age is no reason."""
    hold: Share = 0.5
    """This share of the new events is left out of the training and asked for at the release, at most `release.questions` times two; serving folds them in."""
    evaluate: bool = False
    """Make the evaluation report anew; costs a second training."""
    compress: bool = False
    """Release the compressed bundle; costs a second training."""
    release: bool = True
    """Put the bundle live if the gates let it; else it stays the candidate."""
    check_seconds: Annotated[float, Meta(gt=0.0)] = 60.0
    """Seconds between two looks."""


class AlertSettings(Section, kw_only=True, frozen=True):
    """When the service says that something is wrong, and to whom; docs/monitoring.md. The rules for Prometheus are made from the same numbers."""

    webhook: str = ""
    """An address (http or https) that is called when alerts begin and end, in the form of Alertmanager's webhooks; empty: none."""
    seconds: Annotated[float, Meta(gt=0.0)] = 15.0
    """Time between two looks at the figures."""
    data_seconds: Annotated[float, Meta(gt=0.0)] = 60.0
    """Time between two looks at the data: drift, freshness, what is shown."""
    window_seconds: Annotated[float, Meta(gt=0.0)] = 3_600.0
    """Data of this time is compared with what the bundle knew."""
    sample: Share = 0.1
    """Share of the lists that are kept with their features for that, `journal/sampled`, for two days; 0: none, and no checks of what is shown."""
    sample_rate: Annotated[float, Meta(gt=0.0)] = 2.0
    """At most so many of them per second and worker."""
    availability: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.999
    """Objective: share of the requests that the service does not fail (status below 500)."""
    latency_seconds: Annotated[float, Meta(gt=0.0)] = 0.1
    """Objective: lists are answered in this time; one of the histogram's bounds: .001, .002, .005, .01, .02, .05, .1, .25, .5, 1 or 2.5."""
    latency_share: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.99
    """Share of the lists that must be."""
    degraded_share: Share = 0.05
    """More lists than this from which something was taken away are too many."""
    rejected_share: Share = 0.2
    """More events refused than this are too many."""
    silence_seconds: Annotated[float, Meta(gt=0.0)] = 3_600.0
    """So long without a new event, though lists are asked for, something upstream has stopped."""
    lag_seconds: Annotated[float, Meta(gt=0.0)] = 60.0
    """Features may know the journal's latest events so much later."""
    stream_lag: Positive = 10_000
    """More messages of `serving.events_from` than this that have not been stored are too many."""
    stream_seconds: Annotated[float, Meta(gt=0.0)] = 120.0
    """So long without reading `serving.events_from` it can't be reached."""
    model_days: Annotated[float, Meta(gt=0.0)] = 30.0
    """A live bundle that was trained longer ago is stale."""
    drift_effect: Share = 0.15
    """Least distance that counts as drift (total variation: the share of the rows that would have to move); what chance alone does is added."""
    drift_chance: Annotated[float, Meta(gt=0.0, lt=0.5)] = 1e-4
    """How seldom one look at undrifted data may exceed the threshold."""
    drift_rows: Positive = 100
    """Fewer independent rows (users of the window) are not judged."""
    missing_share: Share = 0.01
    """More numbers of a feature that are not finite are too many."""
    range_share: Share = 0.2
    """More numbers of a feature outside what training saw are too many."""
    equal_share: Share = 0.9999
    """So many of the sampled live features must come out again when the journal is replayed."""
    score_difference: Share = 0.001
    """So much may sampled live scores on average differ from those that come out when the journal is replayed, relative to the live ones."""
    erasure_days: Annotated[float, Meta(gt=0.0)] = 25.0
    """So long may a bundle of before know somebody who was erased."""
    recall_share: Share = 0.9
    """An approximate index must find so many of the exact best."""
    calibration: Annotated[float, Meta(gt=1.0)] = 2.0
    """Chances may be so many times higher or lower, against what happens, than just after the release."""
    top_share: Share = 0.5
    """One item that stands in more of the lists than this has swallowed them."""
    suspect_share: Share = 0.2
    """More events than this of users with over `profile.bot_events_per_minute` in some minute are a flood."""
    cold_share: Share = 0.9
    """More lists for people without a history than this: ids have changed, or histories are lost."""


class Settings(Section, kw_only=True, frozen=True):
    """All settings of a workspace."""

    data: DataSettings = DataSettings()
    text: TextSettings = TextSettings()
    image: ImageSettings = ImageSettings()
    audio: AudioSettings = AudioSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    sequence: SequenceSettings = SequenceSettings()
    sampling: SamplingSettings = SamplingSettings()
    graph: GraphSettings = GraphSettings()
    neighbours: NeighbourSettings = NeighbourSettings()
    features: FeatureSettings = FeatureSettings()
    index: IndexSettings = IndexSettings()
    fusion: FusionSettings = FusionSettings()
    ranker: RankerSettings = RankerSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    profile: ProfileSettings = ProfileSettings()
    tune: TuneSettings = TuneSettings()
    compress: CompressSettings = CompressSettings()
    serving: ServingSettings = ServingSettings()
    cluster: ClusterSettings = ClusterSettings()
    fresh: FreshSettings = FreshSettings()
    lists: ListSettings = ListSettings()
    release: ReleaseSettings = ReleaseSettings()
    watch: WatchSettings = WatchSettings()
    alerts: AlertSettings = AlertSettings()
