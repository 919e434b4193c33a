"""The console in a real browser: what a visitor can do, in two languages, light and dark, wide and narrow, by mouse and by keys."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from live_service import Service, serving
from tastemaker.bundle.registry import Registry
from tastemaker.bundle.verify import read_manifest
from tastemaker.bundle.write import write_bundle
from tastemaker.journal.append import Journal
from tastemaker.schema.items import Item
from tastemaker.serving.auth import KEYS_FILE, KeyFile
from toy_bundle import write_workspace

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

STATIC = Path(__file__).resolve().parents[2] / "src" / "tastemaker" / "console" / "static"
PANELS = ("try", "catalogue", "health", "models", "data")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
HOSTILE = "<img src=x onerror=document.title='broken'>"


def second_bundle(space: Path, **metrics: Any) -> str:
    """The same bundle under another name, as a training would leave it."""
    registry = Registry(space / "bundles")
    old = read_manifest(registry.live())
    files = {name: (registry.live() / name).read_bytes() for name in old.files}

    def put(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    new = write_bundle(space / "bundles", put, settings=old.settings, data=old.data, metrics=metrics, parents=[old.version])
    registry.add(new)
    return new


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    space = tmp_path_factory.mktemp("console") / "space"
    write_workspace(space)
    Journal.open(space / "journal").put_items([Item(item_id="hostile", title=HOSTILE, categories=["boots"])])
    (space / "reports").mkdir(exist_ok=True)
    (space / "reports" / "profile.html").write_text("<h1>数据概况</h1><script>parent.document.title='broken'</script>", "utf-8")
    with serving(space) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as found:
        chromium = found.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@contextmanager
def page_of(browser: Any, **options: Any) -> Iterator[Any]:
    """A page that fails the test if a script of it failed."""
    context = browser.new_context(**{"locale": "en", "viewport": {"width": 1280, "height": 900}, **options})
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.set_default_timeout(15_000)
    try:
        yield page
    finally:
        context.close()
    assert not faults


def titles(page: Any) -> list[str]:
    return [str(text) for text in page.locator(".item .title").all_inner_texts()]


def test_a_click_changes_the_list_at_once_and_nothing_is_stored(service: Service, browser: Any) -> None:
    with page_of(browser) as page:
        page.goto(service.url)
        page.wait_for_selector(".item")
        assert page.locator(".item").count() == 12
        page.get_by_role("button", name="New visitor").click()
        page.get_by_text("Recommended for a visitor whom nobody knows").wait_for()
        before = titles(page)
        row = next(at for at, title in enumerate(before) if title.endswith("guitar"))
        page.locator(".item").nth(row).get_by_role("button").first.click()
        page.wait_for_selector(".item.new")
        after = titles(page)
        assert sum(title.endswith("guitar") for title in after[:4]) == 4, after
        assert before[row] not in after, "what was clicked is not offered again"
        assert page.locator(".item .why").count() >= 4
    assert service.raw("GET", "/v1/users/visitor")[0] == 404


def test_stored_clicks_are_events(service: Service, browser: Any) -> None:
    with page_of(browser) as page:
        page.goto(service.url)
        page.wait_for_selector(".item")
        name = page.get_by_label("Who")
        name.fill("painter")
        name.press("Enter")
        page.get_by_text("Recommended for painter").wait_for()
        page.get_by_label("Store my clicks as events").check()
        chosen = titles(page)[0]
        page.locator(".item").first.get_by_role("button").first.click()
        page.locator("section", has_text="Latest events").get_by_text(chosen, exact=True).wait_for()
    assert [row["title"] for row in service.ask("GET", "/v1/users/painter")["history"]] == [chosen]


def test_reasons_and_why_not(service: Service, browser: Any) -> None:
    service.ask("POST", "/v1/events", {"events": [{"user_id": "reader", "item_id": "coffee-1"}]})
    with page_of(browser) as page:
        page.goto(service.url)
        page.wait_for_selector(".item")
        name = page.get_by_label("Who")
        name.fill("reader")
        name.press("Enter")
        page.get_by_text("Recommended for reader").wait_for()
        page.locator(".item").first.get_by_role("button").last.click()
        box = page.locator("dialog")
        box.get_by_text("Place 1 of 12").wait_for()
        assert box.locator(".bar-line").count() >= 1
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Why not…").click()
        box.get_by_role("searchbox").fill("brand1 coffee")
        page.keyboard.press("Enter")
        box.locator(".pick").first.click()
        box.get_by_text("Not in the list of 12").wait_for()
        assert re.search("seen", box.inner_text())


def test_a_new_item_shows_who_would_get_it_and_goes_again(service: Service, browser: Any) -> None:
    with page_of(browser) as page:
        page.goto(service.url + "/#catalogue")
        page.locator("summary", has_text="Add an item").click()
        page.get_by_label("Title").fill("acoustic guitar strings")
        page.get_by_label("Categories, by commas").fill("guitar")
        page.get_by_role("button", name="Add", exact=True).click()
        told = page.locator(".toast", has_text="Added and offered to").inner_text()
        offered, asked = (int(number) for number in re.findall(r"(\d+) of (\d+)", told)[0])
        assert 0 < offered <= asked
        page.locator(".card", has_text="Who would get it").locator(".tag").first.wait_for()
        page.get_by_role("button", name="Delete").click()
        page.locator("dialog").get_by_role("button", name="Delete").click()
        page.get_by_text("Choose an item to see it here.").wait_for()
    assert "acoustic guitar strings" not in [row["title"] for row in service.ask("GET", "/v1/items?limit=1000")["items"]]


def test_titles_are_text(service: Service, browser: Any) -> None:
    with page_of(browser) as page:
        page.goto(service.url + "/#catalogue")
        page.get_by_role("searchbox").fill("img onerror")
        page.keyboard.press("Enter")
        page.get_by_role("button", name=HOSTILE).first.click()
        page.get_by_role("heading", name=HOSTILE).wait_for()
        assert page.title() != "broken"
        assert service.raw("GET", "/")[1]["content-security-policy"].startswith("default-src 'self'")


def test_reports_are_shown_and_their_scripts_do_not_run(service: Service, browser: Any) -> None:
    with page_of(browser) as page:
        page.goto(service.url + "/#data")
        page.frame_locator("iframe").get_by_text("数据概况").wait_for()
        assert page.title() != "broken"


def test_health_counts_what_is_asked(service: Service, browser: Any) -> None:
    with page_of(browser) as page:
        page.goto(service.url + "/#health")
        page.wait_for_selector(".tile")
        for _ in range(20):
            service.recommend(k=3)
        service.raw("POST", "/v1/recommend", "{")
        rows = page.locator(".card", has=page.get_by_role("heading", name="By route")).locator("tbody tr", has_text="recommend")
        playwright.expect(rows.filter(has_text="2xx").locator("td").nth(2)).to_have_text("20")
        playwright.expect(rows.filter(has_text="4xx").locator("td").nth(2)).to_have_text("1")
        assert rows.count() == 2
        for plot in ("Shares over time", "Freshness", "Drift"):
            page.locator(".card", has=page.get_by_role("heading", name=plot, exact=True)).locator("svg path").first.wait_for(
                state="attached"
            )
        status, _, body = service.raw("GET", "/console/runbooks/Drift.md")
        assert (status, body[:7]) == (200, b"# Drift")


def test_release_refusal_and_rollback(tmp_path: Path, browser: Any) -> None:
    space = tmp_path / "space"
    write_workspace(space)
    registry = Registry(space / "bundles")
    first = registry.stages().live
    with serving(space) as service, page_of(browser) as page:
        second = second_bundle(space, validation_ndcg_fusion=0.2)
        page.goto(service.url + "/#models")
        page.get_by_role("button", name="Release").click()
        page.locator("dialog").get_by_role("button", name="Release").click()
        page.get_by_text(f"{second} is live.").wait_for()
        assert registry.stages().live == second
        bad = second_bundle(space, validation_ndcg_fusion=0.1)
        page.reload()
        page.locator("tr", has_text=bad).get_by_role("button", name="Release").first.click()
        page.locator("dialog").get_by_role("button", name="Release").click()
        page.locator("dialog").get_by_text("validation NDCG@10 is 0.1000").wait_for()
        assert registry.stages().live == second
        page.locator("dialog").get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Roll back").click()
        page.locator("dialog").get_by_role("button", name="Roll back").click()
        page.get_by_text(f"{first} is live.").wait_for()
        assert registry.stages().live == first
        page.locator("tr", has_text=bad).get_by_role("button", name="In stages").click()
        page.locator("dialog").get_by_role("button", name="In stages").click()
        page.get_by_text(f"{bad} is on trial.").wait_for()
        assert registry.stages().shadow == bad
        page.get_by_role("button", name="End the trial").click()
        page.locator("dialog").get_by_role("button", name="End the trial").click()
        page.get_by_role("heading", name="On trial").wait_for(state="detached")
        assert (registry.stages().live, registry.stages().rollout) == (first, None)


def test_a_release_is_asked_for_in_words_that_a_process_can_be_given(service: Service) -> None:
    version = service.ask("GET", "/v1/bundles")["stages"]["live"]
    for why, status in (("a\x00b", 422), ("x" * 1_001, 422), ("\ud800", 400)):
        service.ask("POST", "/v1/bundles:release", {"version": version, "why": why}, status)
    service.ask("POST", "/v1/bundles:release", {"version": version, "why": "--force"})
    assert service.ask("GET", "/v1/bundles")["record"][0]["why"] == "--force"
    service.ask("POST", "/v1/bundles:release", {"version": "--force"}, 404)


def test_a_locked_service_asks_for_the_key(tmp_path: Path, browser: Any) -> None:
    write_workspace(tmp_path / "space")
    secret = KeyFile(tmp_path / "space" / KEYS_FILE).add("console", ("read", "admin"))[1]
    with serving(tmp_path / "space") as service, page_of(browser) as page:
        page.goto(service.url)
        page.locator("dialog").get_by_label("API key").fill(secret)
        page.keyboard.press("Enter")
        page.wait_for_selector(".item")
        page.goto(service.url + "/#catalogue")
        page.wait_for_selector(".pick")
        assert secret not in page.content()


@pytest.mark.parametrize(("locale", "scheme", "width"), [("en", "light", 1280), ("zh-CN", "dark", 1280), ("en", "dark", 390)])
def test_every_panel_is_accessible_and_fits(service: Service, browser: Any, locale: str, scheme: str, width: int) -> None:
    checker = axe.Axe()
    size = {"width": width, "height": 844}
    with page_of(browser, locale=locale, color_scheme=scheme, viewport=size, reduced_motion="reduce") as page:
        for panel in PANELS:
            page.goto(f"{service.url}/#{panel}")
            page.locator(
                {"try": ".item", "catalogue": ".pick", "health": ".tile", "models": "td", "data": "iframe"}[panel]
            ).first.wait_for()
            faults = [(one["id"], one["nodes"][0]["html"]) for one in checker.run(page).response["violations"]]
            assert not faults, (panel, faults)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, panel
            assert page.evaluate("document.documentElement.lang") == locale[:2]


def test_keys_are_enough(service: Service, browser: Any) -> None:
    with page_of(browser) as page:
        page.goto(service.url)
        page.wait_for_selector(".item")
        page.keyboard.press("/")
        page.keyboard.type("guitar strings")
        page.keyboard.press("Enter")
        page.get_by_text("Found for “guitar strings”").wait_for()
        page.locator(".item button").first.focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.closest('.item').querySelector('.place').textContent") == "2"


def test_a_dead_service_is_told_and_can_be_asked_again(tmp_path: Path, browser: Any) -> None:
    write_workspace(tmp_path / "space")
    with page_of(browser) as page:
        with serving(tmp_path / "space") as service:
            page.goto(service.url + "/#catalogue")
            page.wait_for_selector(".pick")
        page.get_by_role("searchbox").fill("boots")
        page.keyboard.press("Enter")
        page.get_by_text("The service can’t be reached.").first.wait_for()
        assert page.get_by_role("button", name="Try again").count() == 1


def test_both_languages_have_all_words() -> None:
    text = (STATIC / "words.js").read_text("utf-8")
    keys = {
        name: set(re.findall(r"(?:^\s*|[{,]\s*)(\w+): '", block, re.M))
        for name, block in re.findall(r"const (en|zh) = \{(.*?)\n\};", text, re.S)
    }
    assert keys["en"] == keys["zh"]
    scripts = "".join(path.read_text("utf-8") for path in STATIC.glob("*.js"))
    asked = set(re.findall(r"\bt\('(\w+)'[,)]", scripts)) | set(
        re.findall(r'data-t="(\w+)"', (STATIC / "index.html").read_text("utf-8"))
    )
    assert asked <= keys["en"], asked - keys["en"]
    blanks = {
        name: {key: sorted(re.findall(r"\{\d\}", words)) for key, words in re.findall(r"(\w+): '((?:[^'\\]|\\.)*)'", block)}
        for name, block in re.findall(r"const (en|zh) = \{(.*?)\n\};", text, re.S)
    }
    assert blanks["en"] == blanks["zh"]
