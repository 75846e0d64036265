"""What the page says of itself, in a real browser: fields, focus, what fits, what can be read, and ends of lists."""

from __future__ import annotations

import json

import pytest

from gex_pipeline.shard_format import make_key
from tests.browse.chromium import BINARY
from tests.browse.many import OF_MANY
from tests.shards.damage import ALPHA

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no Chromium here (Debian: apt install chromium)")
COUNT = "document.querySelector('#count').textContent.replace(/\\D/g, '')"
TILES = "document.querySelectorAll('#grid > a').length"
LOSSES = "document.querySelectorAll('#losses tbody tr').length"
FOCUS = "document.activeElement"
# Words whose colour stands out too little from what is behind them: WCAG AA asks for 4.5.
FAINT = """[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
  const c = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const luminance = () => [...c.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paint = colour => { c.fillStyle = colour; c.fillRect(0, 0, 1, 1); return luminance() };
  const behind = [];
  for (let n = e; n; n = n.parentElement) behind.unshift(getComputedStyle(n).backgroundColor);
  const back = behind.map(paint).at(-1), front = paint(getComputedStyle(e).color);
  const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
  return [e.textContent.slice(0, 30), ratio] }).filter(([, ratio]) => !(ratio >= 4.5))"""


def forget_missing_tars(page) -> None:
    """The many samples have no tars."""
    page.errors[:] = [error for error in page.errors if "404" not in error and "422" not in error]


def test_after_a_step_back_every_field_says_what_is_filtered_by(page, site):
    """The field with the focus kept its words while all samples were shown, and the next letter took a step away."""
    page.open(f"{site.address}?granularity=LVLT")
    page.wait(f"{COUNT} === '2'")
    page.click("#search")
    page.type("green")
    page.wait(f"{COUNT} === '1' && location.search.includes('q=green')")
    page.run("history.back()")
    page.wait(f"{COUNT} === '2' && document.querySelector('#search').value === ''")
    assert page.run(f"{FOCUS}.id") == "search"
    page.type("x")
    page.wait("location.search.includes('q=x')")
    page.run("history.back()")
    page.wait("location.search === '?granularity=LVLT'")
    field = "document.getElementById('min.words')"
    page.run(f"{field}.focus()")
    page.type("5")
    page.key("Enter")
    page.wait("location.search.includes('min.words=5')")
    page.run("history.back()")
    page.wait(f"location.search === '?granularity=LVLT' && {field}.value === ''")


def test_a_sample_opened_while_a_word_is_typed_stays_open(page, site):
    page.open(site.address)
    page.wait(f"{TILES} === 9")
    page.click("#search")
    page.type("green")
    page.click("#grid > a:nth-child(3)")
    page.wait("document.querySelector('#view-sample h1') !== null")
    page.run("new Promise(done => setTimeout(done, 400))")  # longer than a pause after the last letter
    assert page.run("[document.querySelector('#view-sample').hidden, location.search.includes('q=')]") == [False, False]


def test_a_space_after_a_word_is_left_to_who_types(page, site):
    page.open(site.address)
    page.wait(f"{COUNT} === '9'")
    page.click("#search")
    page.type("then ")
    page.wait("location.search === '?q=then'")
    assert page.run("document.querySelector('#search').value") == "then "


@pytest.mark.parametrize("quantity", ["words", "score.odd/name.~"])
def test_a_range_from_edge_to_edge_holds_every_sample_of_the_histogram(page, crowd, quantity):
    """Its bounds were rounded to six digits, inwards as often as not: the first and last samples fell out."""
    site, _ = crowd
    page.open(f"{site.address}?granularity=LVLT")
    field = f"document.getElementById({json.dumps(f'min.{quantity}')})"
    page.wait(f"{field}.closest('.range').querySelector('rect') !== null")
    box = page.run(
        "(e => (e.scrollIntoView({block: 'center'}),"
        " (b => [b.x, b.y, b.width, b.height])(e.getBoundingClientRect())))"
        f"({field}.closest('.range').querySelector('.spread'))"
    )
    middle_px = box[1] + box[3] / 2
    page.drag((box[0] + 1, middle_px), (box[0] + box[2] - 1, middle_px))
    num = site.json("/api/spread", granularity="LVLT", quantity=quantity)["num"]
    page.wait(f"location.search.includes('max.') && {COUNT} === '{num}'")
    forget_missing_tars(page)


def test_what_is_filtered_by_is_always_said_and_can_be_taken_away(page, site):
    """A range of a score that no sample here has was hidden, and so were all ranges on a telephone: nothing matched."""
    page.open(f"{site.address}?granularity=LVST&min.score.rouge1=0.5")
    page.wait(f"{COUNT} === '1'")
    page.click('#granularities a[data-value="IT"]')
    page.wait("document.querySelector('#grid-end').textContent === 'No sample matches these filters.'")
    legends = (
        "[...document.querySelectorAll('.range')].filter(e => e.checkVisibility()).map(e => e.firstChild.textContent)"
    )
    page.wait(f"{legends}.join() === 'Words,rouge1'")
    page.size(360, 780)
    assert page.run(legends) == ["rouge1"]
    assert page.run("[...document.querySelectorAll('#chosen span')].map(e => e.textContent)") == [
        "granularity: IT",
        "rouge1 at least 0.5",
    ]
    page.run("document.querySelector('#chosen [data-value=\"min.score.rouge1\"]').focus()")
    page.key("Enter")
    page.wait(f"{COUNT} === '5' && location.search === '?granularity=IT'")
    assert page.run(f"{FOCUS}.textContent") == "Samples"
    page.wait(f"{legends}.length === 0")


def test_the_focus_stays_where_something_was_chosen(page, site):
    page.open(site.address)
    page.wait(f"{COUNT} === '9'")
    page.run("document.querySelector('#granularities [data-value=LVLT]').focus()")
    page.key("Enter")
    page.wait("location.search === '?granularity=LVLT'")
    assert page.run(f"[{FOCUS}.dataset.value, {FOCUS}.ariaCurrent]") == ["LVLT", "true"]
    page.click("#tab-losses")
    page.wait(f"{LOSSES} === 8")
    page.run("document.querySelector('[data-value=media_missing]').focus()")
    page.key("Enter")
    page.wait(f"{LOSSES} === 1")
    assert page.run(f"[{FOCUS}.dataset.value, {FOCUS}.ariaCurrent]") == ["media_missing", "true"]
    page.click("#loss-search")
    page.type("here")
    page.key("Enter")
    page.wait("location.search.includes('q=here')")
    assert page.run(f"[{FOCUS}.id, {FOCUS}.value]") == ["loss-search", "here"]


def test_every_view_has_its_heading_and_its_tab_is_the_current_one(page, site):
    current = "[...document.querySelectorAll('nav a')].map(e => e.ariaCurrent)"
    headings = "[...document.querySelectorAll('h1')].filter(e => e.checkVisibility()).map(e => e.textContent)"
    page.open(site.address)
    page.wait(f"{COUNT} === '9'")
    assert (page.run(current), page.run(headings)) == (["page", None], ["Samples"])
    page.click("#tab-losses")
    page.wait(f"{LOSSES} === 8")
    assert (page.run(current), page.run(headings)) == ([None, "page"], ["Rejects"])
    page.open(f"{site.address}?sample=LVLT/{ALPHA.key}")
    page.wait(f"{headings}.join() === 'LVLT {ALPHA.key}'")
    assert page.run(current) == ["page", None]


def test_a_link_far_into_the_grid_has_its_neighbours(page, crowd):
    site, _ = crowd
    keys = [sample["key"] for sample in site.all_samples(granularity="LVLT", limit=200)]
    shown = "document.querySelector('#view-sample .key')?.textContent"
    page.open(f"{site.address}?granularity=LVLT&sample=LVLT/{keys[100]}")
    page.wait(f"{shown} === '{keys[100]}' && document.querySelector('.crumbs .previous') !== null")
    page.key("j")
    page.wait(f"{shown} === '{keys[101]}'")
    page.click(".crumbs .previous")
    page.wait(f"{shown} === '{keys[100]}'")
    page.key("k")
    page.wait(f"{shown} === '{keys[99]}'")
    forget_missing_tars(page)


def test_nothing_is_wider_than_a_telephone(page, site, crowd):
    page.size(360, 780)
    too_wide = "document.scrollingElement.scrollWidth > innerWidth"
    page.open(site.address)
    page.wait(f"{TILES} === 9")
    assert page.run(f"[{too_wide}, document.querySelector('#sort').getBoundingClientRect().right <= innerWidth]") == [
        False,
        True,
    ]
    page.click("#tab-losses")
    page.wait(f"{LOSSES} === 8")
    assert page.run(too_wide) is False
    key = make_key("LVLT", [OF_MANY])
    page.open(f"{crowd[0].address}?sample=LVLT/{key}")
    page.wait("document.querySelectorAll('.timeline-bar .mark').length === 150")
    assert page.run(
        f"[{too_wide}, (e => e.scrollWidth <= e.clientWidth)(document.querySelector('.timeline-bar'))]"
    ) == [
        False,
        True,
    ]
    forget_missing_tars(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_words_can_be_read(page, site, theme):
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    page.open(f"{site.address}?max.words=20")
    page.wait(f"{TILES} === 9 && document.querySelector('.spread rect') !== null")
    assert page.run(FAINT) == []
    page.open(f"{site.address}?sample=LVLT/{ALPHA.key}")
    page.wait("document.querySelectorAll('.kin details').length === 3")
    assert page.run(FAINT) == []
    page.click("#tab-losses")
    page.wait(f"{LOSSES} === 8")
    assert page.run(FAINT) == []
    page.call("Emulation.setEmulatedMedia", features=[])


def test_who_finds_the_server_gone_can_try_again(page, site):
    """Rejects had no button; the grid did not ask again for the same filters when they were chosen once more."""
    page.open(site.address)
    page.wait(f"{COUNT} === '9' && !document.querySelector('#tab-losses').hidden")
    line = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.call("Network.emulateNetworkConditions", offline=True, **line)
    page.click('#granularities a[data-value="LVLT"]')
    page.wait("document.querySelector('#grid-end button')?.textContent === 'Try again'")
    page.click("#tab-losses")
    page.wait("document.querySelector('#losses-end button')?.textContent === 'Try again'")
    page.call("Network.emulateNetworkConditions", offline=False, **line)
    page.click("#losses-end button")
    page.wait(f"{LOSSES} === 8")
    assert page.run(f"{FOCUS}.textContent") == "Rejects"
    page.click("#tab-samples")
    page.wait(f"{TILES} === 9 && {COUNT} === '9'")
    page.errors.clear()
