// The samples that match, as a grid of pictures: a page of them at a time, pictures when they come into sight.

import { ask, count, el, plural, position, quantityName, sampleAddress, score, showFailure } from "/dom.js";
import { filters, sampleLink } from "/state.js";

const MAX_LOADING = 4; // of a browser's six connections: the others are for pages and videos
const grid = document.getElementById("grid");
const end = document.getElementById("grid-end");
const total = document.getElementById("count");
let colours = {};
let shown = null; // the filters of what is in the grid
let samples = [];
let after = "";
let running = null; // AbortController of what is being asked for
let loading = null; // the page under way
const waiting = new Set();
const loadingPictures = new Map();

const pictures = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) waiting.add(target);
      else {
        waiting.delete(target);
        loadingPictures.get(target)?.abort();
      }
    }
    loadPictures();
  },
  { rootMargin: "400px" },
);
const ends = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && more(), { rootMargin: "1400px" });
ends.observe(end);

export function begin(dataset) {
  colours = dataset.colours;
}

export function colourOf(granularity) {
  return `g${colours[granularity] ?? 0}`;
}

function loadPictures() {
  for (const frame of waiting) {
    if (loadingPictures.size >= MAX_LOADING) return;
    waiting.delete(frame);
    loadPicture(frame);
  }
}

async function loadPicture(frame) {
  const control = new AbortController();
  loadingPictures.set(frame, control);
  try {
    const response = await fetch(frame.dataset.address, { signal: control.signal });
    if (response.ok) showPicture(frame, await response.blob());
    else showReason(frame, (await response.json()).error);
    pictures.unobserve(frame);
  } catch (error) {
    if (error.name !== "AbortError") showReason(frame, "The server does not answer.");
  }
  loadingPictures.delete(frame);
  loadPictures();
}

function showPicture(frame, blob) {
  const address = URL.createObjectURL(blob);
  const picture = el("img", { alt: "", src: address, onload: () => URL.revokeObjectURL(address) });
  frame.prepend(picture);
}

function showReason(frame, reason) {
  frame.classList.add("no-picture");
  frame.prepend(el("span", { class: "why", dir: "auto" }, "No picture: ", reason));
}

export function poster(sample, ...marks) {
  const frame = el("div", { class: "poster", "data-address": sampleAddress("poster", sample) }, ...marks);
  pictures.observe(frame);
  return frame;
}

function tile(sample) {
  const sort = (filters().get("sort") ?? "").replace(/^-?score\./, "");
  const facts = [plural(sample.num_words, "word")];
  if (sort in sample.scores) facts.unshift(`${sort} ${score(sample.scores[sort])}`);
  else if (sample.num_segments > 1) facts.push(`${count(sample.num_segments)} segments`);
  const badge = sample.duration_s ? el("span", { class: "badge" }, position(sample.duration_s)) : null;
  return el(
    "a",
    { class: `tile card ${colourOf(sample.granularity)}`, href: sampleLink(sample) },
    poster(sample, badge),
    el("p", { class: "line" }, el("b", {}, sample.granularity || "sample"), el("span", {}, facts.join(" · "))),
    el("p", { class: "text", dir: "auto" }, sample.text || "(no text)"),
  );
}

export function show() {
  const wanted = filters().toString();
  if (wanted === shown) return false;
  shown = wanted;
  running?.abort();
  running = new AbortController();
  for (const control of loadingPictures.values()) control.abort();
  waiting.clear();
  pictures.disconnect();
  samples = [];
  after = "";
  loading = null;
  grid.replaceChildren();
  total.textContent = "";
  more().then(countAll);
  return true;
}

async function countAll() {
  const wanted = shown;
  if (wanted === null) return;
  try {
    const { num } = await ask(`/api/count?${wanted}`, running.signal);
    if (wanted === shown) total.textContent = plural(num, "sample");
  } catch {
    // the grid says what is wrong
  }
}

export function more() {
  if (after === null || shown === null) return Promise.resolve();
  if (loading === null) {
    const own = loadPage(shown, running).finally(() => {
      if (loading === own) loading = null; // and not that of other filters, begun since
    });
    loading = own;
  }
  return loading;
}

async function loadPage(wanted, control) {
  end.textContent = "Loading…";
  const query = new URLSearchParams(wanted);
  if (after) query.set("after", after);
  try {
    const page = await ask(`/api/samples?${query}`, control.signal);
    if (control !== running) return;
    after = page.after;
    samples.push(...page.samples);
    grid.append(...page.samples.map(tile));
    end.textContent = samples.length ? "" : "No sample matches these filters.";
    if (samples.length > 60 && after === null) end.textContent = "That is all.";
  } catch (error) {
    if (control !== running || error.name === "AbortError") return;
    shown = null;
    showFailure(end, error.message, show);
    return;
  }
  // Watched anew, since an end that stays in sight is told only once.
  ends.unobserve(end);
  ends.observe(end);
}

function placeOf(sample) {
  const { granularity, key, tar } = sample;
  return samples.findIndex((other) => other.key === key && other.granularity === granularity && (!tar || other.tar === tar));
}

export function tileOf(sample) {
  return grid.children[placeOf(sample)];
}

// The samples before and after another one in the order of the grid. More are fetched where the grid ends; of a sample
// that is not in it yet, such as that of a link, the server knows.
export async function neighbours(sample) {
  await loading;
  const at = placeOf(sample);
  if (at < 0) {
    const query = filters();
    for (const name of ["granularity", "key", "tar"]) if (sample[name]) query.set(`of.${name}`, sample[name]);
    return ask(`/api/neighbours?${query}`).catch(() => ({})); // the sample's page says what is wrong
  }
  if (at + 1 >= samples.length) await more();
  return { before: samples[at - 1], after: samples[at + 1] };
}

export function sortOptions(quantities) {
  const options = [["key", "key"]];
  for (const quantity of quantities) {
    const name = quantityName(quantity);
    if (quantity === "words") options.push([quantity, "fewest words"], [`-${quantity}`, "most words"]);
    else if (quantity === "duration") options.push([quantity, "shortest"], [`-${quantity}`, "longest"]);
    else options.push([quantity, `${name}, lowest first`], [`-${quantity}`, `${name}, highest first`]);
  }
  return options;
}

