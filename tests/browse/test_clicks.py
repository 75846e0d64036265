"""A click that ends the typing in a field: it is not lost because what was typed changes the page."""

from __future__ import annotations

import pytest

from tests.browse.chromium import BINARY

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no Chromium here (Debian: apt install chromium)")
ROWS = "document.querySelectorAll('#losses tbody tr').length"


@pytest.mark.parametrize(("field", "text"), [("#search", "green"), ("#source", "v1"), ("[id='min.words']", "5")])
def test_typing_and_then_rejects_shows_the_rejects(page, site, field, text):
    page.open(site.address)
    page.wait("!document.querySelector('#tab-losses').hidden")
    page.click(field)
    page.type(text)
    page.click("#tab-losses")
    page.wait(f"{ROWS} === 8 && location.search === '?view=rejects'")


def test_a_reason_that_is_chosen_after_typing_is_chosen(page, site):
    page.open(f"{site.address}?view=rejects")
    page.wait(f"{ROWS} === 8")
    page.click("#loss-search")
    page.type("here")
    page.click('#loss-reason a[data-value="media_missing"]')
    page.wait("location.search.includes('reason=media_missing') && location.search.includes('q=here')")
    assert page.run("document.querySelector('#loss-search').value") == "here"


def test_a_filter_that_is_taken_away_after_typing_is_taken_away(page, site):
    page.open(f"{site.address}?granularity=LVLT")
    page.wait("document.querySelector('#chosen a[data-value=granularity]') !== null")
    page.click("#source")
    page.type("v1")
    page.click("#chosen a[data-value=granularity]")
    page.wait("location.search === '?source=v1'")


def test_typing_that_a_press_elsewhere_or_the_enter_key_ends_is_not_forgotten(page, site):
    page.open(f"{site.address}?view=rejects")
    page.wait(f"{ROWS} === 8")
    page.click("#loss-search")
    page.type("here")
    page.click("#losses tbody td")
    page.wait(f"location.search.includes('q=here') && {ROWS} === 1")
    page.click("#loss-search")
    page.run("document.querySelector('#loss-search').select()")
    page.type("nothing says this")
    page.key("Enter")
    page.wait(f"location.search.includes('q=nothing') && {ROWS} === 0")
