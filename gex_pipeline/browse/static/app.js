// Decides which view the address asks for, and what keys do.

import { ask, count, el, markCurrent } from "/dom.js";
import * as filterPanel from "/filters.js";
import * as grid from "/grid.js";
import * as losses from "/losses.js";
import * as sample from "/sample.js";
import { changed, filters, go, onChange, openSample, parameters } from "/state.js";

const views = Object.fromEntries(
  ["samples", "sample", "losses"].map((name) => [name, document.getElementById(`view-${name}`)]),
);
const sort = document.getElementById("sort");
let current = null;
let gridScroll = 0;
let opened = null; // the last sample

// A selector that finds an element again after it was drawn anew.
function selectorOf(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const { value } = element.dataset;
  return value === undefined ? null : `#${CSS.escape(element.closest("[id]").id)} [data-value="${CSS.escape(value)}"]`;
}

function render() {
  const held = document.activeElement;
  const selector = selectorOf(held);
  const before = current;
  draw();
  if (current === "sample") return; // it takes the focus when it is there
  const tile = before === "sample" && current === "samples" && grid.tileOf(opened);
  const isLost = held !== document.body && (document.activeElement === document.body || !held.checkVisibility());
  const again = selector && document.querySelector(selector);
  if (tile) tile.focus();
  else if (isLost) (again?.checkVisibility() ? again : views[current].querySelector("h1")).focus({ preventScroll: true });
}

function draw() {
  const open = openSample();
  opened = open ?? opened;
  const name = parameters().get("view") === "rejects" ? "losses" : open ? "sample" : "samples";
  if (current === "samples" && name !== "samples") gridScroll = scrollY;
  for (const [key, view] of Object.entries(views)) view.hidden = key !== name;
  const own = filters();
  document.getElementById("tab-samples").href = changed({ view: null, sample: null, tar: null, reason: null, stage: null, state: null });
  document.getElementById("tab-losses").href = "?view=rejects";
  for (const [id, is] of [["tab-samples", name !== "losses"], ["tab-losses", name === "losses"]]) {
    markCurrent(document.getElementById(id), is, "page");
  }
  sample.close(open);
  if (name === "losses") losses.show();
  else {
    sort.value = own.get("sort") ?? "key";
    filterPanel.show();
    const isNew = grid.show();
    if (isNew) gridScroll = 0;
    if (name === "sample") sample.show(open);
    else scrollTo(0, gridScroll);
  }
  if (name !== "samples" && current !== name) scrollTo(0, 0);
  current = name;
}

function isTyping(target) {
  return target.closest("input, select, textarea, video") !== null;
}

async function step(by) {
  const open = openSample();
  const next = open && (await grid.neighbours(open))[by < 0 ? "before" : "after"];
  if (next) go(sample.linkTo(next), { replace: true });
}

function moveFocus(key) {
  const tiles = [...document.querySelectorAll("#grid > a")];
  const at = tiles.indexOf(document.activeElement);
  if (at < 0) return false;
  const columns = tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length;
  const to = at + { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  tiles[to]?.focus();
  return Boolean(tiles[to]);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isOpen = openSample() !== null && current === "sample";
  if (event.key === "Escape" && isOpen) go(changed({ sample: null, tar: null }));
  if (isTyping(event.target)) return;
  if (event.key === "/") {
    event.preventDefault();
    if (isOpen) go(changed({ sample: null, tar: null }));
    document.getElementById(current === "losses" ? "loss-search" : "search")?.focus();
  } else if (isOpen && (event.key === "j" || event.key === "k")) step(event.key === "j" ? 1 : -1);
  else if (event.key.startsWith("Arrow") && moveFocus(event.key)) event.preventDefault();
}

async function begin() {
  history.scrollRestoration = "manual";
  const dataset = await ask("/api/dataset");
  document.title = `${dataset.name} – GEX`;
  document.getElementById("name").textContent = dataset.name;
  document.getElementById("tab-losses").hidden = !dataset.is_output;
  if (dataset.notes.length) {
    const notes = document.getElementById("notes");
    notes.textContent = dataset.notes.slice(0, 3).join("; ");
    if (dataset.notes.length > 3) notes.append(` and ${count(dataset.notes.length - 3)} more`);
    notes.hidden = false;
  }
  sort.append(...grid.sortOptions(dataset.quantities).map(([value, text]) => el("option", { value }, text)));
  sort.addEventListener("change", () => go(changed({ sort: sort.value === "key" ? null : sort.value })));
  grid.begin(dataset);
  filterPanel.begin(dataset);
  onChange(render);
  document.addEventListener("keydown", onKey);
  render();
}

begin().catch((error) => {
  document.body.append(el("p", { class: "empty" }, error.message));
});
