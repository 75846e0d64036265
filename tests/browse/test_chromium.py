"""The page as a person uses it, in a real browser: clicks and keys in, what is on the screen out."""

from __future__ import annotations

import http.server
import threading

import pytest

from tests.browse.chromium import BINARY
from tests.report import outputs
from tests.shards import damage
from tests.shards.damage import ALPHA

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no Chromium here (Debian: apt install chromium)")
SHORT = outputs.summary_of(ALPHA, {})
COUNT = "document.querySelector('#count').textContent"
TILES = "document.querySelectorAll('#grid > a').length"
POSTERS = "[...document.querySelectorAll('#grid .poster img')].filter(i => i.naturalWidth).length"


def test_a_person_filters_opens_a_sample_plays_it_and_goes_back(page, site):
    page.open(site.address)
    page.wait(f"{COUNT} === '9 samples' && {TILES} === 9 && {POSTERS} === 9")
    page.click('#granularities a[data-value="LVLT"]')
    page.wait(f"{COUNT} === '2 samples' && {TILES} === 2 && location.search === '?granularity=LVLT'")
    page.click("#search")
    page.type("green")
    page.wait(f"{COUNT} === '1 sample' && location.search.includes('q=green')")
    page.click("#grid > a")
    page.wait("document.querySelector('#view-sample video').readyState >= 2")
    page.click(".chapters li:nth-child(3) button")
    page.wait("document.querySelector('video').currentTime > 4.1")
    page.wait("document.querySelector('.chapters li:nth-child(3) button[aria-current=true]') !== null")
    assert page.run("document.querySelectorAll('.chapters [aria-current]').length") == 1
    pixel = page.run(
        "(v => { const c = new OffscreenCanvas(8, 8).getContext('2d'); c.drawImage(v, 0, 0, 8, 8);"
        "return [...c.getImageData(4, 4, 1, 1).data].slice(0, 3) })(document.querySelector('video'))"
    )
    assert max(abs(found - wanted) for found, wanted in zip(pixel, outputs.BLUE, strict=True)) < 24
    page.click(".timeline-bar .mark:nth-child(2)")
    page.wait("(t => t >= 2 && t < 4)(document.querySelector('video').currentTime)")
    page.click(".kin-row")
    page.wait(f"document.querySelector('#view-sample .key').textContent === '{SHORT.key}'")
    assert page.run("document.querySelector('blockquote.summary').textContent") == SHORT.text
    assert page.run("document.querySelectorAll('.meters div').length") == 3
    page.run("history.back()")
    page.wait(f"document.querySelector('#view-sample .key')?.textContent === '{ALPHA.key}'")
    page.run("history.back()")
    page.wait(f"!document.querySelector('#view-samples').hidden && {COUNT} === '1 sample'")
    page.run("history.back()")
    page.wait(f"{COUNT} === '2 samples' && document.querySelector('#search').value === ''")
    ours = (site.address, f"blob:{site.address}", "data:")  # data: the browser's own buttons
    assert [address for address in page.requests if not address.startswith(ours)] == []


def test_a_text_with_tags_stays_a_text(page, site):
    page.open(f"{site.address}?sample=LVLT/{ALPHA.key}")
    page.wait("document.querySelectorAll('.kin details').length === 3")
    shown = page.run("document.querySelector('.chapters li:nth-child(3) .caption').textContent")
    assert shown == outputs.HOSTILE
    assert outputs.HOSTILE in page.run("document.querySelector('blockquote').textContent")
    page.open(f"{site.address}?granularity=IT")
    page.wait(f"{TILES} === 5")
    assert page.run("document.querySelectorAll('main script, main img:not([src^=\"blob:\"]), main b > b').length") == 0


def test_a_link_opens_what_it_was_copied_from(page, site):
    page.open(f"{site.address}?sort=-score.rouge1&granularity=LVST&max.score.rouge1=0.5")
    page.wait(f"{COUNT} === '1 sample' && {TILES} === 1")
    assert page.run("document.querySelector('#sort').value") == "-score.rouge1"
    assert page.run("document.getElementById('max.score.rouge1').value") == "0.5"
    page.open(f"{site.address}?q=nothing+has+this")
    page.wait("document.querySelector('#grid-end').textContent === 'No sample matches these filters.'")
    page.click("#clear")
    page.wait(f"{COUNT} === '9 samples' && location.search === ''")


def test_keys_are_enough(page, site):
    page.open(f"{site.address}?sort=-words&granularity=LVLT")
    page.wait(f"{TILES} === 2")
    page.key("/")
    assert page.run("document.activeElement.id") == "search"
    page.run("document.querySelector('#grid > a').focus()")
    page.key("Enter")
    page.wait(f"document.querySelector('#view-sample .key')?.textContent === '{ALPHA.key}'")
    page.wait("document.querySelector('.crumbs .next') !== null")
    page.key("j")
    page.wait(f"document.querySelector('#view-sample .key')?.textContent === '{damage.BETA.key}'")
    page.key("k")
    page.wait(f"document.querySelector('#view-sample .key')?.textContent === '{ALPHA.key}'")
    page.key("j")
    page.wait(f"document.querySelector('#view-sample .key')?.textContent === '{damage.BETA.key}'")
    page.key("Escape")
    page.wait("!document.querySelector('#view-samples').hidden && location.search === '?granularity=LVLT&sort=-words'")
    assert page.run("[...document.querySelectorAll('#grid > a')].indexOf(document.activeElement)") == 1


def test_a_range_is_drawn_in_a_histogram(page, site):
    page.open(f"{site.address}?granularity=IT")
    page.wait(f"{COUNT} === '5 samples' && document.querySelector('.spread rect') !== null")
    box = page.run("(b => [b.x, b.y, b.width, b.height])(document.querySelector('.spread').getBoundingClientRect())")
    middle_px = box[1] + box[3] / 2
    page.drag((box[0] + box[2] - 30, middle_px), (box[0] + box[2] - 2, middle_px))
    page.wait(f"{COUNT} === '1 sample' && location.search.includes('min.words=')")
    assert page.run(f"{TILES}") == 1


def test_other_filters_in_the_middle_of_loading_mix_nothing(page, crowd):
    site, _ = crowd
    page.open(site.address)
    page.wait(f"{TILES} > 0")
    links = "[...document.querySelectorAll('#granularities a')]"
    page.run(f"(() => {{ scrollTo(0, 1e6); for (const n of [1, 2, 0, 2]) {links}[n].click() }})()")
    page.wait(f"{COUNT} === '330 samples'")
    page.wait(f"(scrollTo(0, document.body.scrollHeight), {TILES} >= 330)", timeout_s=30)
    assert page.run("new Set([...document.querySelectorAll('#grid > a')].map(a => a.href)).size") == 330
    assert page.run(TILES) == 330
    page.errors[:] = [error for error in page.errors if "422" not in error]  # these samples have no tars


def test_the_grid_goes_on_while_it_is_scrolled(page, crowd):
    site, records = crowd
    page.open(f"{site.address}?granularity=LVLT&sort=duration")
    page.wait(f"{COUNT}.replace(/\\D/g, '') === '660'")
    assert page.run(TILES) < 400
    page.wait(f"(scrollTo(0, document.body.scrollHeight), {TILES} === 660)", timeout_s=30)
    assert page.run("new Set([...document.querySelectorAll('#grid > a')].map(a => a.href)).size") == 660
    page.wait("document.querySelector('#grid-end').textContent === 'That is all.'")
    assert len(records) == 990
    page.errors[:] = [error for error in page.errors if "422" not in error]  # these samples have no tars


def test_rejects_are_counted_filtered_and_shown_with_their_detail(page, site):
    page.open(site.address)
    page.wait("!document.querySelector('#tab-losses').hidden")
    page.click("#tab-losses")
    page.wait("document.querySelectorAll('#losses tbody tr').length === 8")
    page.click('a[data-value="media_missing"]')
    page.wait("document.querySelectorAll('#losses tbody tr').length === 1")
    assert page.run("document.querySelector('#losses .detail').textContent") == "no file <b>here</b>"
    assert page.run("document.querySelector('#loss-count').textContent") == "1 not in the data set"
    page.click("#losses summary")
    assert page.run("document.querySelector('#losses pre').textContent") == '{\n  "text": "<i>x</i>"\n}'
    page.run("history.back()")
    page.wait("document.querySelectorAll('#losses tbody tr').length === 8")


def test_damage_is_a_sentence_on_the_page(page, browse, output):
    path = damage.tar(output, "LVLT")
    offset, size = damage.member_offset(path, f"{ALPHA.key}.mp4")
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    damage.tar(output, "LVST").unlink()
    site = browse(output)
    page.open(f"{site.address}?sample=LVLT/{ALPHA.key}")
    page.wait("document.querySelector('.media [role=alert]')?.textContent.includes('cannot be read as a video')")
    page.open(f"{site.address}?sample=LVST/{SHORT.key}")
    page.wait("document.querySelector('.media [role=alert]')?.textContent.includes('LVST-000000.tar is missing')")
    page.open(f"{site.address}?sample=LVST/{'0' * 32}")
    page.wait("document.querySelector('#view-sample [role=alert]')?.textContent.includes('there is no sample')")
    page.open(f"{site.address}?granularity=LVST")
    page.wait("[...document.querySelectorAll('.why')].filter(e => e.textContent.includes('is missing')).length === 2")
    page.errors[:] = [error for error in page.errors if "404" not in error and "422" not in error]
    assert page.errors == []


def test_a_page_elsewhere_cannot_show_the_videos(page, site):
    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title><link rel='icon' href='data:,'>")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page.open(f"http://127.0.0.1:{server.server_port}/")
        media = f"{site.address}media?granularity=LVLT&key={ALPHA.key}".replace("127.0.0.1", "localhost")
        loaded = page.run(
            "new Promise(done => { const v = document.createElement('video'); v.onloadeddata = () => done('shown');"
            f"v.onerror = () => done('refused'); v.src = '{media}'; document.body.append(v) }})"
        )
        read = page.run(f"fetch('{media}').then(() => 'read', () => 'refused')")
    finally:
        server.shutdown()
        server.server_close()
    assert (loaded, read) == ("refused", "refused")
    page.errors.clear()


def test_frames_are_looked_through_where_there_is_no_video(page, browse, output):
    damage.replace_shard(output, "LVLT", damage.framed_samples(output))
    site = browse(output)
    page.open(f"{site.address}?sample=LVLT/{ALPHA.key}")
    loaded = "[...document.querySelectorAll('.strip img')].filter(i => i.naturalWidth === 32).length"
    page.wait(f"{loaded} === 5 && document.querySelector('.media .frame').naturalWidth === 32")
    assert page.run("document.querySelector('#view-sample video')") is None
    assert page.run("document.querySelector('.frame-at').textContent") == "1 of 5 frames, shown at 0:00.7"
    page.click(".chapters li:nth-child(3) button")
    page.wait("document.querySelector('.media .frame').src.endsWith('frame=3')")
    page.wait("document.querySelector('.chapters li:nth-child(3) button[aria-current]') !== null")
    page.click(".strip button:nth-child(2)")
    page.wait("document.querySelector('.media .frame').src.endsWith('frame=1')")
    assert page.run("document.querySelectorAll('.strip [aria-current]').length") == 1
    assert page.run("document.querySelector('.strip [aria-current]').ariaCurrent") == "true"


def test_a_sample_whose_key_has_dots_in_its_path_is_opened_and_plays(page, browse, tmp_path):
    video = outputs.write_video(tmp_path / "v.mp4", [(2.0, outputs.RED)]).read_bytes()
    members = [("./0001.mp4", video), ("./0001.json", b'{"granularity": "a/../b", "caption": "red"}')]
    damage.write_members(tmp_path / "x.tar", members)
    site = browse(tmp_path / "x.tar")
    page.open(site.address)
    page.wait(f"{TILES} === 1 && {POSTERS} === 1")
    page.click("#grid > a")
    page.wait("document.querySelector('#view-sample video')?.readyState >= 2")
    page.open(page.run("location.href"))
    page.wait("document.querySelector('#view-sample video')?.readyState >= 2")
    assert page.run("document.querySelector('#view-sample .key').textContent") == "./0001"
