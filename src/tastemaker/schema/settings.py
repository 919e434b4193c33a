"""All settings, typed, each with what it does and why it has its default. `schema.settings_file` reads and writes them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

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
    """`global_time`, `leave_last_out` or `cold_items`. Logs that hold only an order always use `leave_last_out`."""
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
    """Share of the pairs that are item and item of one history, not history and next item."""
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


class FusionSettings(Section, kw_only=True, frozen=True):
    """The learned fusion of the channels."""

    depth: Positive = 100
    """Candidates taken from each channel, when the fusion learns and when it answers."""
    cold_price: Share = 0.05
    """Share of the validation NDCG that may be given away so that new items are found as well as known ones."""
    cold_boost: float = 0.0
    """Added to the score of items that training never saw, on top of what the fusion learned."""


class TrainSettings(Section, kw_only=True, frozen=True):
    """How a training run behaves."""

    effort: str = "normal"
    """`quick`, `normal` or `thorough`: sets the dials that cost time, as docs/learning.md lists; those that you set yourself stay."""
    seed: int = 0
    threads: int = 0
    """CPU threads of a process; 0: all cores, shared by its processes."""
    workers: Positive = 1
    """Processes that train the sequence model together, on this machine or with `--ray` on a cluster."""
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
    """`quick` leaves out what must be trained; `normal` heals what was cut out of the language model by distillation."""
    questions: Positive = 10_000
    """Held-back questions asked of each rung, fewer where a part of them makes it sure; of more a sample is drawn by the seed."""
    neighbours: Share = 0.6
    """Share of its ten nearest texts that a text which no step has seen must keep: search and new items hang on the language model, and the NDCG
    of known items does not see them."""
    vocabulary: Positive = 8_192
    """Rows of word pieces that are kept besides those of the catalogue, the first ones of the vocabulary, so that new texts can be read."""
    layers: tuple[int, ...] = (2, 3)
    """Layers that the smaller language model keeps, the fewest first."""
    forward: Share = 0.5
    """Share of the feed-forward neurons of each layer that the step `narrow` keeps."""
    heads: Share = 0.67
    """Share of the attention heads of each layer that the step `narrow` keeps."""
    heal_steps: Annotated[int, Meta(ge=0)] = 600
    """Batches of distillation that heal what was cut."""
    heal_batch: Positive = 64
    """Texts in each of them."""
    heal_rate: float = 5e-4
    """Highest learning rate of the healing."""
    calibration: Positive = 128
    """Texts and histories that are run to find the scales of int8 activations."""


class ServingSettings(Section, kw_only=True, frozen=True):
    """How the service answers."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: Positive = 1
    max_k: Positive = 1_000
    """A larger k is answered with this many."""
    max_body: Positive = 10_485_760
    """Bytes of the largest request body."""
    max_events: Positive = 10_000
    """Events in one request."""
    fresh_slots: int = 1
    """Places of a first page kept for the best-matching items that are newer than the bundle; 0: none."""


class Settings(Section, kw_only=True, frozen=True):
    """All settings of a workspace."""

    data: DataSettings = DataSettings()
    text: TextSettings = TextSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    sequence: SequenceSettings = SequenceSettings()
    sampling: SamplingSettings = SamplingSettings()
    neighbours: NeighbourSettings = NeighbourSettings()
    features: FeatureSettings = FeatureSettings()
    fusion: FusionSettings = FusionSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    profile: ProfileSettings = ProfileSettings()
    tune: TuneSettings = TuneSettings()
    compress: CompressSettings = CompressSettings()
    serving: ServingSettings = ServingSettings()
