"""The status page in a real browser: it shows what is where, does what is asked, and loads nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import Browser, Page, expect, sync_playwright

from medmllm_plugin.dicom_bridge.rules import parse_rules
from medmllm_plugin.dicom_bridge.states import State
from tests.http_node import HttpNode, http_node
from tests.node_runner import a_study

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TOKEN = "a token of more than 16 characters"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as tools:
        started = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[list[bytes]]:
    return [
        [path.read_bytes() for path in a_study(tmp_path_factory.mktemp("ct"), seed=seed, slices=slices)]
        for seed, slices in ((1, 16), (2, 18))
    ]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, studies: list[list[bytes]]) -> Iterator[HttpNode]:
    """A node with one study delivered and one parked."""
    told = {"study_instances": 17, "quiet_s": 0.6}
    with http_node(tmp_path_factory.mktemp("node"), **told) as one:
        one.stow(studies[0])
        one.only_study(State.DELIVERED)
        one.stow(studies[1])
        one.only_study(State.PARKED)
        yield one


class Seen:
    """A page, and what went wrong on it."""

    def __init__(self, browser: Browser, *, width: int = 1600, scheme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.wrong.append(said.text))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_the_list_fits_and_can_be_read(
    browser: Browser, running: HttpNode, width: int, scheme: str, tmp_path: Path
) -> None:
    with Seen(browser, width=width, scheme=scheme) as seen:
        seen.page.goto(running.server.url)
        expect(seen.page.locator("#studies tbody tr")).to_have_count(2)
        expect(seen.page.locator("#health-words")).to_have_text("receives, reads and delivers")

        wide = seen.page.evaluate("document.documentElement.scrollWidth")
        contrasts = seen.page.evaluate(_CONTRASTS)

        assert wide <= width
        assert min(contrasts.values()) >= 4.5, contrasts
        assert seen.wrong == []


_CONTRASTS = """() => {
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, n) => sum + one * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = {};
  const looked = ".state, .soft, #states a, #states b, th, td, .banner, button, .link";
  for (const node of document.querySelectorAll(looked)) {
    if (!node.textContent.trim() || !node.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    found[`${node.tagName}.${node.className}`] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return found;
}"""
"""Contrast of text by WCAG 2 for each kind of element."""


def test_it_asks_nobody_but_the_node(browser: Browser, running: HttpNode) -> None:
    with Seen(browser) as seen:
        seen.page.goto(running.server.url)
        seen.page.locator("#studies .link").first.click()
        expect(seen.page.locator("dialog[open]")).to_be_visible()

        assert seen.asked
        assert not [url for url in seen.asked if not url.startswith((running.server.url, "data:"))]


def test_a_parked_study_says_why_and_is_found_by_its_state(browser: Browser, running: HttpNode) -> None:
    with Seen(browser) as seen:
        seen.page.goto(running.server.url)

        seen.page.get_by_role("link", name="needs a person").click()

        rows = seen.page.locator("#studies tbody tr")
        expect(rows).to_have_count(1)
        expect(rows.first).to_contain_text("more than 17 instances")


def test_a_study_shows_its_report_with_pictures_in_a_frame_that_runs_nothing(
    browser: Browser, running: HttpNode
) -> None:
    key = running.only_study(State.DELIVERED)["key"]
    with Seen(browser) as seen:
        seen.page.goto(running.server.url)

        seen.page.get_by_role("button", name=f"Study {key}").click()

        frame = seen.page.frame_locator("dialog iframe")
        expect(frame.get_by_role("heading", name="MedMLLM report")).to_be_visible()
        expect(frame.locator("img").first).to_be_attached()
        assert seen.page.locator("dialog iframe").get_attribute("sandbox") == ""
        expect(seen.page.locator("dialog")).to_contain_text("reading to reported")
        assert seen.wrong == []


def test_everything_can_be_done_with_the_keyboard(browser: Browser, running: HttpNode) -> None:
    with Seen(browser) as seen:
        seen.page.goto(running.server.url)
        expect(seen.page.locator("#studies tbody tr")).to_have_count(2)
        for _ in range(40):
            seen.page.keyboard.press("Tab")
            if seen.page.evaluate("document.activeElement.matches('#studies .link')"):
                break

        key = seen.page.evaluate("document.activeElement.textContent")
        seen.page.keyboard.press("Enter")
        expect(seen.page.locator("dialog[open]")).to_be_visible()
        draw_again(seen.page)
        seen.page.keyboard.press("Escape")

        expect(seen.page.locator("dialog[open]")).to_have_count(0)
        expect(
            seen.page.locator("#studies").get_by_role("button", name=f"Study {key}", exact=True)
        ).to_be_focused()


def draw_again(page: Page) -> None:
    """Have the list of studies drawn anew, as when another study moves on."""
    page.evaluate("document.querySelector('#studies tbody tr').id = 'old'")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#old")).to_have_count(0)


def test_what_comes_is_shown_without_loading_the_page_again(
    browser: Browser, tmp_path: Path, studies: list[list[bytes]]
) -> None:
    rules = parse_rules([{"name": "keep", "when": {}, "action": "keep"}], where="rules")
    with http_node(tmp_path, rules=rules, quiet_s=0.4) as node, Seen(browser) as seen:
        seen.page.goto(node.server.url)
        expect(seen.page.locator("#none")).to_have_text("No study has come yet.")

        node.stow(studies[0])
        expect(seen.page.locator("#studies tbody tr")).to_contain_text("the rule 'keep' keeps it")
        seen.page.get_by_role("button", name="Read it:").click()

        expect(seen.page.locator("#message")).to_contain_text("it is read as soon as may be")
        expect(seen.page.locator("#studies .state.delivered")).to_have_count(1, timeout=20_000)
        assert seen.wrong == []


def test_who_has_the_token_signs_in_and_out(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_TOKEN", TOKEN)
    with http_node(tmp_path, http_token_env="NODE_TOKEN", rules=()) as node, Seen(browser) as seen:
        seen.page.goto(node.server.url)
        seen.page.get_by_label("Token").fill("wrong")
        seen.page.get_by_role("button", name="Sign in").click()
        expect(seen.page.locator("#sign-in")).to_contain_text("found another token than the node's")

        seen.page.get_by_label("Token").fill(TOKEN)
        seen.page.get_by_role("button", name="Sign in").click()
        expect(seen.page.locator("#none")).to_be_visible()
        cookies = seen.context.cookies()
        seen.page.get_by_role("button", name="Sign out").click()
        expect(seen.page.get_by_label("Token")).to_be_visible()

        assert [one["httpOnly"] for one in cookies] == [True]
        assert seen.context.cookies() == []


def test_words_of_strangers_are_text_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    hostile = '<img src=x onerror="document.title=1">'
    with http_node(tmp_path, rules=(), quiet_s=60.0) as node, Seen(browser) as seen:
        node.stow([path.read_bytes() for path in a_study(tmp_path / "ct")])
        study = node.node.store.studies()[0]
        node.node.store.move(study.study_uid, State.PARKED, hostile)

        seen.page.goto(node.server.url)
        expect(seen.page.locator("#studies tbody tr")).to_contain_text(hostile)
        seen.page.locator("#studies .link").click()
        expect(seen.page.locator("dialog[open]")).to_contain_text(hostile)

        assert seen.page.locator("#studies img, dialog img").count() == 0
        assert seen.page.title() == "MedMLLM one"


def test_a_reading_on_request_names_both_models(browser: Browser, running: HttpNode) -> None:
    key = running.only_study(State.DELIVERED)["key"]
    asked = {"study": key, "second": "embedded"}
    running.ended(running.client.post("/api/jobs", json=asked).json()["id"])

    with Seen(browser, width=400) as seen:
        seen.page.goto(running.server.url)

        expect(seen.page.locator("#jobs li")).to_contain_text("embedded and embedded")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
        assert seen.wrong == []
