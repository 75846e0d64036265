// One sample: its video with the segments as chapters, texts, scores, where it comes from and what became of it.

import { ask, bytes, count, el, markCurrent, number, plural, position, sampleAddress, score, span } from "/dom.js";
import { drawFrames, framesBeside } from "/frames.js";
import { colourOf, neighbours, poster } from "/grid.js";
import { changed, sampleLink } from "/state.js";

const view = document.getElementById("view-sample");
const WAYS = {
  copy: "stream-copied",
  encode: "re-encoded",
  frame: "the middle frame",
  embed: "copied from the parent",
  reference: "pointing into the parent",
};
const MAX_SPACED = 60; // segments with gaps between them on the line; of more a phone has not the pixels
let shown = null;
let control = null;

export function linkTo(sample) {
  return sampleLink(sample);
}

function name(sample) {
  return JSON.stringify([sample.granularity, sample.key, sample.tar]);
}

// Stop what plays unless it is the sample that stays open.
export function close(open) {
  if (open && name(open) === shown) return;
  shown = null;
  control?.abort();
  view.querySelector("video")?.pause();
  view.replaceChildren();
}

export async function show(open) {
  if (name(open) === shown) return;
  shown = name(open);
  control = new AbortController();
  const { signal } = control;
  const found = neighbours(open);
  view.replaceChildren(header(found), el("p", { class: "end" }, "Loading…"));
  try {
    const sample = await ask(sampleAddress("api/sample", open), signal);
    if (signal.aborted) return;
    const beside = el("div", { class: "lineage-tree" }, el("p", { class: "note" }, "Loading lineage…"));
    view.replaceChildren(header(found), page(sample, open, beside));
    view.querySelector("h1").focus({ preventScroll: true });
    drawLineage(sample, open, beside, signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    view.replaceChildren(header(found), el("p", { class: "empty", role: "alert" }, error.message));
  }
}

function header(found) {
  const bar = el(
    "p",
    { class: "crumbs" },
    el("a", { class: "back", href: changed({ sample: null, tar: null }) }, "← All samples"),
  );
  const { signal } = control;
  found.then(({ before, after }) => {
    if (signal.aborted) return;
    if (before) bar.append(el("a", { class: "previous", rel: "prev", href: sampleLink(before) }, "previous"));
    if (after) bar.append(el("a", { class: "next", rel: "next", href: sampleLink(after) }, "next"));
  });
  return bar;
}

function page(sample, open, beside) {
  const media = el("div", { class: "media" });
  const chapters = drawMedia(media, sample, open);
  const facts = [
    sample.duration_s ? position(sample.duration_s) : null,
    sample.width_px ? `${sample.width_px}×${sample.height_px}` : null,
    sample.fps ? `${number(sample.fps)} fps` : null,
    sample.codec,
    sample.frames?.width_px ? `${count(sample.frames.num)} frames of ${sample.frames.width_px}×${sample.frames.height_px}` : null,
    sample.media_size_bytes ? bytes(sample.media_size_bytes) : null,
    WAYS[sample.made_by] ?? sample.made_by,
  ].filter(Boolean);
  return el(
    "article",
    { class: `sample-page ${colourOf(sample.granularity)}` },
    el("div", { class: "left" }, media, framesBeside(sample, open), chapters),
    el(
      "div",
      { class: "right" },
      el("h1", { tabindex: "-1" }, el("b", { class: "coloured" }, sample.granularity || "Sample"), " ", el("span", { class: "key" }, sample.key)),
      el("p", { class: "facts" }, facts.join(" · ")),
      textBlock(sample),
      scores(sample),
      beside,
      files(sample),
    ),
  );
}

function textBlock(sample) {
  const isSummary = Boolean(sample.source_text_digest);
  return el(
    "section",
    { class: "block" },
    el("p", { class: "label" }, `${isSummary ? "Summary" : "Text"}, ${plural(sample.num_words, "word")}`),
    el("blockquote", { class: sample.num_words <= 40 ? "summary" : "" }, el("p", { class: "text", dir: "auto" }, sample.text || "(no text)")),
  );
}

function scores(sample) {
  const entries = Object.entries(sample.scores);
  if (!entries.length) return null;
  return el(
    "dl",
    { class: "meters" },
    entries.map(([key, value]) => {
      const fill = el("i");
      fill.style.width = `${100 * Math.min(1, Math.max(0, value))}%`;
      return el("div", {}, el("dt", {}, key), el("dd", {}, score(value)), el("span", { class: "meter" }, fill));
    }),
  );
}

function files(sample) {
  const rows = [
    ["shard", sample.tar],
    ["media in", sample.media_uri && sample.is_referenced ? sample.media_uri : null],
    ["snapshot", sample.snapshot],
    ["source id", sample.source_id],
    ["of the text", sample.source_text_digest],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  const of = sample.source_id ? el("a", { href: `?${new URLSearchParams({ source: sample.source_id })}` }, "all samples of this source") : null;
  return el("section", { class: "block" }, el("dl", { class: "files" }, rows.map(([key, value]) => [el("dt", {}, key), el("dd", { class: "text" }, String(value))])), of);
}

// The video, picture or frames, and the list of its segments. Returns the list.
function drawMedia(place, sample, open) {
  const address = sampleAddress("media", open);
  if (sample.kind === "image") {
    place.append(el("img", { src: address, alt: sample.text, onerror: () => explain(place, address, open, sample) }));
    return segmentList(sample, null);
  }
  if (sample.kind === "frames") return segmentList(sample, drawFrames(place, sample, open));
  if (sample.kind !== "video") {
    place.append(el("p", { class: "empty" }, "This sample has no video or picture."));
    return segmentList(sample, null);
  }
  const video = el("video", { controls: true, muted: true, playsinline: true, preload: "metadata", src: address, tabindex: "0" });
  video.muted = true;
  video.addEventListener("error", () => explain(place, address, open, sample));
  place.append(video);
  return segmentList(sample, {
    go(segment) {
      video.currentTime = Math.min(segment.offset_s + 0.01, Math.max(0, (video.duration || Infinity) - 0.05));
      video.play().catch(() => {}); // the error event says what is wrong
    },
    watch(callback) {
      video.addEventListener("timeupdate", () => callback(video.currentTime));
    },
  });
}

async function explain(place, address, open, sample) {
  const reason = async (response) => (response.ok ? null : (await response.json()).error);
  let found = null;
  try {
    found = await reason(await fetch(address, { headers: { Range: "bytes=0-0" } }));
    found ??= await reason(await fetch(sampleAddress("poster", open)));
  } catch {
    found = "the server does not answer";
  }
  found ??= `this browser does not play ${sample.codec || "it"}`;
  place.replaceChildren(el("p", { class: "empty", role: "alert" }, `The ${sample.kind} cannot be shown: ${found}.`));
}

// `player` goes to a segment and says what time is shown; null where there is nothing to play.
function segmentList(sample, player) {
  const segments = sample.segments;
  if (!segments.length) return null;
  const line = el("div", { class: `timeline-bar${segments.length > MAX_SPACED ? " dense" : ""}` });
  const head = el("i", { class: "head" });
  const list = el("ol", { class: "chapters" });
  const seek = (segment) => () => player.go(segment);
  const rows = segments.map((segment) => {
    const inside = [
      el("span", { class: "at" }, sample.duration_s ? position(segment.offset_s) : ""),
      el(
        "span",
        {},
        el("span", { class: "caption text", dir: "auto" }, segment.text),
        el("span", { class: "from" }, `${segment.source_id} ${span(segment.start_s, segment.end_s)}`),
      ),
    ];
    const row = player ? el("button", { type: "button", onclick: seek(segment) }, inside) : el("div", {}, inside);
    list.append(el("li", {}, row));
    const mark = el("i", { class: "mark", title: segment.text, onclick: player ? seek(segment) : null });
    mark.style.flexGrow = String(Math.max(segment.duration_s, 0.001));
    line.append(mark);
    return [row, mark];
  });
  if (player) {
    line.append(head);
    player.watch((now) => {
      head.style.left = `${(100 * Math.min(now, sample.duration_s)) / sample.duration_s}%`;
      const at = segments.findLastIndex((segment) => segment.offset_s <= now + 0.001);
      rows.forEach(([row, mark], index) => {
        markCurrent(row, index === at);
        mark.classList.toggle("now", index === at);
      });
    });
  }
  const title = el("p", { class: "label" }, segments.length === 1 ? "Caption" : `${count(segments.length)} segments`);
  return el("div", {}, sample.duration_s ? line : null, title, list);
}

async function drawLineage(sample, open, beside, signal) {
  try {
    const found = await ask(sampleAddress("api/lineage", open), signal);
    const rest = (num, list) => (num > list.length ? el("p", { class: "note" }, `and ${count(num - list.length)} more`) : null);
    const parents = found.parents.length ? [el("h2", {}, "Made from"), tree(found.parents), rest(found.num_parents, found.parents)] : [];
    const children = found.children.length
      ? [el("h2", {}, "Made of this"), el("ul", { class: "kin" }, found.children.map((child) => el("li", {}, kin(child)))), rest(found.num_children, found.children)]
      : [];
    beside.replaceChildren(...[...parents, ...children].filter(Boolean));
  } catch (error) {
    if (error.name !== "AbortError") beside.replaceChildren(el("p", { class: "note" }, error.message));
  }
}

// Source clips are folded away, for their captions stand beside the video already; what they carry besides is inside.
function tree(parents) {
  const clips = parents.filter((item) => item.kind === "clip");
  const list = el("ul", { class: "kin" }, parents.map((item) => el("li", {}, ancestor(item))));
  if (!clips.length || clips.length < parents.length) return list;
  return el("details", {}, el("summary", {}, plural(clips.length, "source clip"), " with their metadata"), list);
}

function ancestor(item) {
  if (item.kind === "sample") return [kin(item.sample), item.parents.length ? tree(item.parents) : null];
  if (item.kind === "clip") return clip(item);
  return el("p", { class: "note" }, el("code", {}, item.id), " is not in this data set");
}

function kin(sample) {
  return el(
    "a",
    { class: `kin-row ${colourOf(sample.granularity)}`, href: sampleLink(sample) },
    poster(sample),
    el("span", {}, el("b", { class: "coloured" }, sample.granularity || "sample"), el("span", { class: "text clamp", dir: "auto" }, sample.text)),
  );
}

function clip(item) {
  const facts = item.clip;
  const rows = Object.entries(facts).filter(([, value]) => value !== null);
  const shown = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  return el(
    "details",
    { class: "clip" },
    el("summary", {}, el("span", { class: "meta" }, `clip ${facts.source_id} ${span(facts.start_s, facts.end_s)} `), el("span", { class: "text", dir: "auto" }, facts.text)),
    el("dl", { class: "files" }, rows.map(([key, value]) => [el("dt", {}, key), el("dd", { class: "text", dir: "auto" }, shown(value))])),
    el("a", { href: `?${new URLSearchParams({ parent: item.id })}` }, "all samples made from this clip"),
  );
}
