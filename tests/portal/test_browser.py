"""The portal in a real browser, at the width of a desk and of a telephone.

Each journey fails on an error in the console, a report of the Content-Security-Policy, or a call to another origin.
Skipped where no Chromium is; `DOMICILE_TEST_INSIST` turns the skip into a failure, `DOMICILE_TEST_CHROMIUM` names one.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.doubles.lacking import lacking
from tests.doubles.serving import Served
from tests.doubles.visiting import signin_link

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.enable_socket]

CHROMIUM = Path(os.environ.get("DOMICILE_TEST_CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WIDTHS = [(1280, 860), (390, 844)]
DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"
QUESTION = "How soon do I have to tell the service desk that I lost my hardware key?"
QUOTE = "Report a lost hardware key to the service desk within four hours."


@dataclass
class Watch:
    """What a page did that it must not."""

    origin: str
    wrong: list[str] = field(default_factory=list)

    def over(self, page: Page) -> Page:
        """Begin to watch a page."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("request", self._asked)
        return page

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error" or "Content Security Policy" in message.text:
            self.wrong.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.origin + "/", "data:")):
            self.wrong.append(f"foreign: {request.url}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium, with a fresh profile."""
    if not CHROMIUM.exists():
        lacking(f"there is no {CHROMIUM}: install Debian's chromium, or set DOMICILE_TEST_CHROMIUM")
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=flags)
        yield running
        running.close()


@contextmanager
def visit(browser: Browser, served: Served, size: tuple[int, int], **options: bool) -> Iterator[tuple[Page, Watch]]:
    """Open a page in a context of its own; nothing wrong may have been seen at the end."""
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, accept_downloads=True, base_url=served.url, **options)  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    watch = Watch(served.url)
    try:
        yield watch.over(context.new_page()), watch
        assert watch.wrong == []
    finally:
        context.close()


def sign_in(page: Page, served: Served, tenant: str) -> None:
    page.goto(f"/sign-in?token={signin_link(served, tenant)}")
    page.get_by_role("button", name="Sign in with this link").click()
    expect(page.get_by_role("heading", name="Documents", exact=True)).to_be_visible()


def send(page: Page, *names: str) -> None:
    expect(page.locator("[data-permitted=true]")).to_contain_text("de-frankfurt")
    page.set_input_files("#files", [str(DOCUMENTS / name) for name in names])
    page.get_by_role("button", name=re.compile("^Send")).click()
    for name in names:
        expect(page.locator("#sending")).to_contain_text(f"{name}: received and sealed")
        expect(page.locator(".doc", has_text=name).locator(".state")).to_have_text("Live", timeout=60_000)


TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter(() => document.documentElement.scrollWidth > innerWidth)
  .filter((each) => each.getBoundingClientRect().right > innerWidth)
  .map((each) => `${each.tagName}.${each.className} ${each.getBoundingClientRect().right}`)"""


def too_wide(page: Page) -> list[str]:
    """Name what makes the page wider than the window."""
    page.wait_for_load_state()  # its style sheet is there
    found: list[str] = page.evaluate(TOO_WIDE)
    return found


@pytest.mark.parametrize("size", WIDTHS, ids=["desk", "telephone"])
def test_from_the_link_to_the_cited_passage_and_the_report(
    browser: Browser, served: Served, tmp_path: Path, size: tuple[int, int]
) -> None:
    with visit(browser, served, size) as (page, _):
        # (1) in by a one-time link; two files, said beforehand where they would lie, watched until they are live
        sign_in(page, served, f"width-{size[0]}")
        expect(page.locator("#rows")).to_contain_text("No documents yet.")
        assert too_wide(page) == []
        send(page, "security-handbook.pdf", "night-shift-runbook.txt")
        expect(page.locator("#announce")).to_contain_text("Live")
        assert too_wide(page) == []
        # (2) a question; its citation opens the passage, highlighted, and in view
        page.get_by_role("link", name="Ask", exact=True).click()
        expect(page.locator("html.scripted")).to_be_visible()  # the module is there, and takes the key
        page.get_by_label("Your question").fill(QUESTION)
        page.get_by_label("Your question").press("Enter")
        answer = page.locator(".answer")
        expect(answer.locator(".answer-text")).to_contain_text(QUOTE)
        expect(answer.locator(".badge")).to_contain_text("Answered in Germany (DE)")
        assert too_wide(page) == []
        answer.get_by_role("link", name="Source 1").click()
        mark = page.get_by_role("dialog").locator("mark")
        expect(mark).to_contain_text(QUOTE)
        expect(mark).to_be_in_viewport()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        # (3) the receipt, as a page
        answer.get_by_role("link", name="Receipt").click()
        expect(page.get_by_text("Signed, and proven to stand in the ledger")).to_be_visible()
        assert too_wide(page) == []
        # (4) the report, as a page and as a file
        page.get_by_role("link", name="Reports").click()
        page.get_by_role("button", name="Show the report").click()
        expect(page.get_by_role("heading", name="Where documents lie")).to_be_visible()
        assert too_wide(page) == []
        with page.expect_download() as coming:
            page.get_by_role("link", name="PDF").click()
        kept = tmp_path / coming.value.suggested_filename
        coming.value.save_as(kept)
        assert kept.read_bytes().startswith(b"%PDF")
        # (5) out
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_refused_declaration_shuts_the_gate_before_a_byte_is_sent(browser: Browser, served: Served) -> None:
    with visit(browser, served, WIDTHS[0]) as (page, _):
        sign_in(page, served, "refused")
        page.get_by_label("May be processed in").select_option("FR")
        page.get_by_text("Category, class, collection").click()
        page.get_by_label("Health").check()
        expect(page.locator("[data-permitted=false]")).to_contain_text("forbid-health-de-outside-de")
        expect(page.get_by_role("button", name="Send", exact=True)).to_be_disabled()
        page.get_by_label("May be processed in").select_option("DE")
        expect(page.get_by_role("button", name="Send", exact=True)).to_be_enabled()


def test_erasing_asks_and_the_certificate_completes_by_itself(browser: Browser, served: Served) -> None:
    with visit(browser, served, WIDTHS[1]) as (page, _):
        sign_in(page, served, "erased")
        send(page, "night-shift-runbook.txt")
        page.get_by_role("link", name="Erase night-shift-runbook.txt").click()
        page.get_by_role("button", name="Erase it").click()
        expect(page.get_by_text("Complete: every store was cleared")).to_be_visible(timeout=60_000)
        assert too_wide(page) == []


def test_everything_but_progress_works_without_script(browser: Browser, served: Served) -> None:
    with visit(browser, served, WIDTHS[0], java_script_enabled=False) as (page, _):
        sign_in(page, served, "plain")
        page.get_by_role("button", name="Say where it would lie").click()
        expect(page.locator("[data-permitted=true]")).to_be_visible()
        page.set_input_files("#files", [str(DOCUMENTS / "security-handbook.pdf")])
        page.get_by_role("button", name="Send").click()
        row = page.locator(".doc", has_text="security-handbook.pdf")
        expect(row).to_be_visible()
        for _ in range(60):
            if row.get_attribute("data-state") == "live":
                break
            page.wait_for_timeout(250)
            page.reload()
        page.get_by_role("link", name="Ask", exact=True).click()
        page.get_by_label("Your question").fill(QUESTION)
        page.get_by_role("button", name="Ask").click()
        page.locator(".citation").first.click()
        expect(page.locator("mark")).to_contain_text(QUOTE)
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_page_of_the_api_starts_under_its_policy(browser: Browser, served: Served) -> None:
    with visit(browser, served, WIDTHS[0]) as (page, _):
        page.goto("/api/swagger")
        expect(page.locator(".opblock").first).to_be_visible()


def test_a_planted_script_a_planted_style_and_a_foreign_image_are_stopped_and_seen(
    browser: Browser, served: Served
) -> None:
    with visit(browser, served, WIDTHS[0]) as (page, watch):
        page.goto("/sign-in")
        page.evaluate(
            """() => {
              document.body.insertAdjacentHTML("beforeend", '<p style="color: red">x</p><img src="https://evil.example/x">');
              const script = document.createElement("script");
              script.textContent = "window.planted = true";
              document.body.append(script);
            }"""
        )
        page.wait_for_timeout(200)
        assert page.evaluate("window.planted") is None
        assert len([each for each in watch.wrong if "Content Security Policy" in each]) >= 3
        watch.wrong.clear()
