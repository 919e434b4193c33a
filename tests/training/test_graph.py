"""What edges teach: on a world whose items hang together by their makers, and on people who meet in circles."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
import torch
from ring_world import ITEMS, ring

from tastemaker.data.dataset import Dataset
from tastemaker.data.graph import build_graphs
from tastemaker.data.sequences import build
from tastemaker.index.channels import CHANNELS
from tastemaker.index.friends import Person
from tastemaker.journal.append import Journal
from tastemaker.models.graph import ROTATE, TRANSE, EdgeModel
from tastemaker.recommender import Recommender
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.graph import Graph
from tastemaker.schema.items import Item
from tastemaker.schema.protocols import Asker
from tastemaker.schema.queries import ExplainQuery, RecommendQuery, SessionEvent
from tastemaker.schema.settings import Settings
from tastemaker.serving.answers import Answers
from tastemaker.training.fit import TrainedBrain
from tastemaker.training.friends import circles, learn_friends
from tastemaker.training.graph import choose_graph, learn_edges
from tastemaker.training.holdout import Holdout, hold_out
from tastemaker.training.propagation import item_tastes, propagate, taste_basis

MAKERS, EACH = 12, 10


def world(shuffled: bool = False, seed: int = 0) -> Dataset:
    """Everybody likes the items of two makers, and only the edges tell who made what; shuffled: they tell nonsense."""
    random = np.random.default_rng(seed)
    makers = random.permutation(np.repeat(np.arange(MAKERS), EACH))
    rows = []
    for user in range(300):
        liked = np.flatnonzero(np.isin(makers, random.choice(MAKERS, size=2, replace=False)))
        for step, item in enumerate(random.permutation(liked)[:8]):
            rows.append((f"u{user}", f"i{item}", 1e9 + 100.0 * user + step))
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    told = random.permutation(makers) if shuffled else makers
    edges = [(f"item:i{item}", "made_by", f"entity:maker {maker}", 1.0) for item, maker in enumerate(told)]
    items = pl.DataFrame({"item_id": [f"i{item}" for item in range(len(makers))]})
    table = pl.DataFrame(edges, schema=["head", "relation", "tail", "weight"], orient="row")
    return Dataset.read(events=events, items=items, edges=table)


def held_and_graph(data: Dataset) -> tuple[Holdout, Graph]:
    held = hold_out(build(data), 0.1, 0)
    graph = build_graphs(data.edges, data.item_ids(), held.train.user_ids, 1_000).knowledge
    assert graph is not None
    return held, graph


def test_an_item_without_events_gets_the_vector_of_its_kin() -> None:
    data = world()
    held, graph = held_and_graph(data)
    tastes = item_tastes(held.train, taste_basis(held.train, 16, 0))
    vectors = propagate(graph, tastes)[: graph.n_items]
    makers = np.array([graph.others[graph.offsets[item]] for item in range(graph.n_items)])
    alike = vectors @ vectors.T
    cold = np.flatnonzero(held.train.counts() == 0)
    assert len(cold) >= 10
    for item in cold:
        same = (makers == makers[item]) & (np.arange(graph.n_items) != item)
        assert alike[item, same].min() > alike[item, makers != makers[item]].max()


def test_what_an_item_hands_on_does_not_come_back_to_it() -> None:
    """Else known items would say of themselves what a new one can't, and what is learned on them would not hold for it."""
    held, graph = held_and_graph(world())
    tastes = item_tastes(held.train, taste_basis(held.train, 8, 0))
    met = int(np.argmax(held.train.counts()))
    changed = tastes.copy()
    changed[met] = -changed[met]
    before, after = propagate(graph, tastes), propagate(graph, changed)
    assert np.allclose(before[met], after[met], atol=1e-5)
    kin = int(graph.others[graph.offsets[met]])
    assert not np.allclose(before[kin], after[kin], atol=1e-3)
    direct = Graph(
        [], [], 3, np.array([0, 1, 2, 2]), np.array([1, 0], np.int32), np.array([0, ~0], np.int16), np.ones(2, np.float32), ["next"]
    )
    rows = propagate(direct, np.array([[1, 0], [0, 0], [0, 1]], np.float32))
    assert np.allclose(
        rows, [[0, 0], [1, 0], [0, 0]]
    )  # an edge between items hands on the neighbour's own taste, and nothing to the lonely


@pytest.mark.parametrize("kind", [TRANSE, ROTATE])
def test_distances_are_those_of_the_papers(kind: str) -> None:
    torch.manual_seed(0)
    model = EdgeModel(5, 2, 8, kind, 6.0)
    head, tail = model.nodes[:3], model.nodes[2:5]
    found = model.distance(head, torch.tensor([0, 1, 1]), tail).detach().numpy()
    h, r, t = head.detach().numpy(), model.relations.detach().numpy()[[0, 1, 1]], tail.detach().numpy()
    if kind == TRANSE:
        wanted = np.abs(h + r - t).sum(axis=1)
    else:
        wanted = np.abs((h[:, :4] + 1j * h[:, 4:]) * np.exp(1j * r) - (t[:, :4] + 1j * t[:, 4:])).sum(axis=1)
    assert np.allclose(found, wanted, atol=1e-4)
    edges, wrong = torch.tensor([[0, 0, 2]]), torch.tensor([3, 4])
    plain = [
        model.margin - model.distance(model.nodes[None, one], torch.tensor([0]), model.nodes[None, two]).item()
        for one, two in ((0, 2), (0, 3), (0, 4), (3, 2), (4, 2))
    ]
    share = [np.exp(np.array(pair)) / np.exp(np.array(pair)).sum() for pair in (plain[1:3], plain[3:])]
    log = lambda value: -np.log1p(np.exp(-value))  # noqa: E731
    wanted = -log(plain[0]) - 0.5 * sum(
        (one * log(-np.array(pair))).sum() for one, pair in zip(share, (plain[1:3], plain[3:]), strict=True)
    )
    assert model.loss(edges, wrong, torch.ones(1), 1.0).item() == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize("kind", [TRANSE, ROTATE])
def test_learned_vectors_bring_kin_together(kind: str, toy_settings: Settings) -> None:
    held, graph = held_and_graph(world())
    chosen = msgspec.structs.replace(
        toy_settings.graph, model=kind, dim=16, epochs=12, batch_size=128, negatives=16, margin=4.0, learning_rate=0.05
    )
    settings = msgspec.structs.replace(toy_settings, graph=chosen)
    vectors = learn_edges(graph, held.train, settings)[: graph.n_items]
    makers = np.array([graph.others[graph.offsets[item]] for item in range(graph.n_items)])
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -2)
    cold = np.flatnonzero(held.train.counts() == 0)
    nearest = np.argsort(-alike[cold], axis=1)[:, :5]
    assert (makers[nearest] == makers[cold][:, None]).mean() > 0.7
    assert np.array_equal(vectors, learn_edges(graph, held.train, settings)[: graph.n_items])


@pytest.mark.parametrize("shuffled", [False, True])
def test_edges_are_used_where_they_help_and_not_where_they_lie(shuffled: bool, toy_settings: Settings) -> None:
    held, graph = held_and_graph(world(shuffled))
    text = np.zeros((graph.n_items, 1), np.float32)
    found = choose_graph(graph, held, text, toy_settings)
    assert (found.found is None) is shuffled
    assert bool(found.notes) is shuffled
    if shuffled:
        assert "graph.model = propagate" in found.notes[0]
    wrong = msgspec.structs.replace(toy_settings, graph=msgspec.structs.replace(toy_settings.graph, model="gcn"))
    with pytest.raises(SettingsError, match=r"graph.model is 'gcn'; expected one of 'auto'"):
        choose_graph(graph, held, text, wrong)


def friendly(users: int = 160, seed: int = 0) -> pl.DataFrame:
    """People of four circles: 8 friends each, nearly all of the own circle."""
    random = np.random.default_rng(seed)
    rows = set()
    for user in range(users):
        own = [other for other in range(users) if other % 4 == user % 4 and other != user]
        rows |= {(user, int(other)) for other in random.choice(own, size=4, replace=False)}
        rows.add((user, int(random.integers(users))))
    return pl.DataFrame(
        [(f"user:u{one}", "friend", f"user:u{other}", 1.0) for one, other in sorted(rows) if one != other],
        schema=["head", "relation", "tail", "weight"], orient="row",
    )  # fmt: skip


def test_hidden_friends_are_found_again_and_circles_are_the_eigenvectors(toy_settings: Settings) -> None:
    data = ring(160)
    sequences = build(data)
    social = build_graphs(friendly(), sequences.item_ids, sequences.user_ids, 1_000).social
    assert social is not None
    learned = learn_friends(social, sequences, toy_settings)
    assert learned.quality is not None
    assert learned.rows > 100
    hits = []
    for user in range(0, 160, 5):
        row = social.names.index(f"u{user}")
        found = learned.friends.candidates(Person(row, learned.friends.tastes[row]), 100)
        best = found.items[np.argsort(-learned.fusion.score(found, 8), kind="stable")[:10]]
        hits.append(np.mean([int(social.names[other][1:]) % 4 == user % 4 for other in best]))
    assert np.mean(hits) > 0.7  # by chance .25; one friendship of five is outside the own circle
    near = np.zeros((social.n_users, social.n_users))
    near[np.repeat(np.arange(social.n_users), np.diff(social.offsets)), social.friends] = 1
    scale = near.sum(axis=1) ** -0.5
    values, vectors = np.linalg.eigh(scale[:, None] * near * scale)
    best = np.argsort(-values)[:8]
    found = circles(social, 8, 0)
    assert np.allclose(found @ found.T, (vectors[:, best] * values[best] ** 2) @ vectors[:, best].T, atol=2e-2)


@pytest.fixture(scope="module")
def whole(toy_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """The ring with a graph of its quarters and friends who walk the same quarter, learned, saved and opened again."""
    data = ring(140, skip=(15, 35))
    random = np.random.default_rng(0)
    edges = [(f"item:i{item}", "film.film.director", f"entity:Director {item // 4}", 1.0) for item in range(ITEMS)]
    edges += [("item:later", "film.film.director", "entity:Director 2", 1.0), ("user:new", "friend", "user:u1", 1.0)]
    first = {
        f"u{user}": int(item[1:]) // 10
        for user, item in data.events.group_by("user_id")
        .first()
        .select(pl.col("user_id").str.slice(1).cast(int), "item_id")
        .iter_rows()
    }
    for user, quarter in first.items():
        alike = [other for other, theirs in first.items() if theirs == quarter and other != user]
        edges += [(f"user:{user}", "friend", f"user:{other}", 1.0) for other in random.choice(alike, size=4, replace=False)]
    table = pl.DataFrame(edges, schema=["head", "relation", "tail", "weight"], orient="row").unique()
    chosen = msgspec.structs.replace(
        toy_settings,
        graph=msgspec.structs.replace(toy_settings.graph, model="propagate", dim=16),
        sequence=msgspec.structs.replace(toy_settings.sequence, min_steps=20, epochs=2),
    )
    given = Dataset.read(events=data.events, items=data.items.select("item_id"), edges=table)
    folder = tmp_path_factory.mktemp("whole")
    Recommender(chosen).fit(given).save(folder / "bundle")
    return Recommender.load(folder / "bundle")


def test_a_bundle_knows_paths_friends_and_items_that_only_edges_named(whole: Recommender, tmp_path: Path) -> None:
    live = whole._ready()
    assert live.channels.names[-2:] == ("graph", "friends")
    assert live.connections is not None
    assert live.people is not None
    history = live.state.history("u3")
    place = next(
        item for item in range(ITEMS) if item // 4 == int(live.brain.items.item_id(history[-1])[1:]) // 4 and item not in history
    )
    shared = f"shares the director Director {place // 4} with "
    said = live.connections.to(history)(live.state.index_of[f"i{place}"])
    assert said is not None
    assert said.removeprefix(shared) in {live.state.rows[int(item)]["item_id"] for item in history}
    told = {"item_id": "told", "categories": ["DIRECTOR 5"], "extra": {"director": ["Director 5", 7], "year": 1999}}
    content = live.reader.contents([Item(item_id="later"), Item(item_id="nobody knows"), Item(**told)])
    part = live.reader.part("graph")
    assert part is not None
    assert not content[1, part].any()
    near = live.channels.graph.rows(np.arange(ITEMS)) @ content[[0, 2], part].T  # type: ignore[union-attr]
    assert (np.argmax(near, axis=0) // 4).tolist() == [2, 5]
    journal = Journal.open(tmp_path / "journal")
    journal.put_items([Item(**told)], [content[2].astype(np.float32).tobytes()], live.reader.version)
    (change,) = journal.item_changes(0)
    live.state.fold_changes([change])
    again = live.channels.graph.rows(np.array([live.state.index_of["told"]]))[0]  # type: ignore[union-attr]
    assert np.allclose(again, content[2, part])
    journal.close()


def test_people_are_recommended_and_newcomers_are_known_by_their_friends(whole: Recommender) -> None:
    live = whole._ready()
    friends = live.people.friends  # type: ignore[union-attr]
    found = whole.friends(["u3", "new", "nobody"], k=5)
    assert found["user_id"].to_list() == ["u3"] * 5 + ["new"] * 5 + ["nobody"] * 5
    own = {friends.social.names[int(other)] for other in friends.friends(live.people.companions.row("u3"))}  # type: ignore[union-attr]
    assert not own & set(found.filter(user_id="u3")["friend_id"])
    assert "u3" not in set(found.filter(user_id="u3")["friend_id"])
    assert "u1" not in set(found.filter(user_id="new")["friend_id"])
    state = live.query(np.zeros(0, np.int32), Asker("new", time.time()))
    assert state.user_vector is not None
    scores = live.channels.scores([state])[live.channels.names.index("friends")][0]
    assert set(np.flatnonzero(scores)) == set(live.state.history("u1").tolist())
    stranger = live.query(np.zeros(0, np.int32), Asker("nobody", time.time()))
    assert stranger.user_vector is None
    (theirs, _), (popular, _) = live.best([state, stranger], 10)
    assert theirs.tolist() != popular.tolist()


def test_the_service_answers_for_people_with_reasons(whole: Recommender, tmp_path: Path) -> None:
    live, journal = whole._ready(), Journal.open(tmp_path / "journal")
    answers = Answers(live, journal, Settings().serving)
    people = answers.recommend(RecommendQuery(user_id="u3", target="users", k=6, explain=True, exclude=["u7"]))
    assert people.items == []
    assert people.users is not None
    assert len(people.users) == 6
    assert "u7" not in {one.user_id for one in people.users}
    assert all(one.reason for one in people.users)
    assert any("in common" in str(one.reason) for one in people.users)
    visit = answers.recommend(RecommendQuery(session=[SessionEvent(item_id="i4"), SessionEvent(item_id="i5")], target="users", k=3))
    assert visit.users is not None
    assert {one.source for one in visit.users} <= {"taste", "popular"}
    told = answers.recommend(RecommendQuery(user_id="u3", k=10, explain=True))
    assert any("shares the director Director" in str(one.reason) for one in told.items)
    newcomer = answers.recommend(RecommendQuery(user_id="new", k=5, explain=True))
    assert newcomer.users is None
    assert len(newcomer.items) == 5
    assert "connection" in answers.explain(ExplainQuery(user_id="u3", item_id=told.items[0].item_id))
    journal.close()


def test_without_edges_nothing_is_different(brain: TrainedBrain, tmp_path: Path) -> None:
    assert brain.channels.names == CHANNELS
    assert brain.graph is None
    assert brain.friends is None
    brain.channels.save(tmp_path)
    assert not any((tmp_path / name).exists() for name in ("friends", "graph.npy"))
