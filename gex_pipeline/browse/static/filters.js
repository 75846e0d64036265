// The panel of filters: what it says stands in the address, and the address changes it.

import { ask, count, el, markCurrent, number, quantityName, svg } from "/dom.js";
import { afterPress, changed, enter, filters, go } from "/state.js";

const panel = document.getElementById("filters");
const said = document.getElementById("chosen");
const WAIT_MS = 250; // after the last letter
let dataset = null;
let ranges = [];
let isTyped = false; // the last change came from the search field: letters of one word are one step back
let drawnFor = null;

export function begin(found) {
  dataset = found;
  const search = el("input", { type: "search", id: "search", placeholder: "words, or a key", maxlength: 500 });
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    const from = location.search;
    const find = () => {
      if (location.search !== from) return; // something else was done meanwhile: a sample opened, a step back
      go(changed({ q: search.value.trim() }), { replace: isTyped });
      isTyped = true;
    };
    timer = setTimeout(() => afterPress(find), WAIT_MS);
  });
  search.addEventListener("focus", () => (isTyped = false));
  const source = el("input", { type: "text", id: "source", placeholder: "a whole id", spellcheck: "false", maxlength: 500 });
  source.addEventListener("change", () => enter({ source: source.value.trim() }));
  ranges = dataset.quantities.map(range);
  panel.replaceChildren(
    el("label", { class: "field" }, "Text", search),
    granularities(),
    dataset.snapshots.length > 1 ? snapshots() : "",
    el("label", { class: "field" }, "Source id", source),
    ...ranges.map((item) => item.element),
  );
}

function snapshots() {
  const select = el("select", { id: "snapshot" }, el("option", { value: "" }, "all"));
  select.append(...dataset.snapshots.map((value) => el("option", { value }, `added by snapshot ${value}`)));
  select.addEventListener("change", () => go(changed({ snapshot: select.value })));
  return el("label", { class: "field" }, "Snapshot", select);
}

// Every field says what the address says, even the one that has the focus: after a step back it would say what is not so.
export function show() {
  const own = filters();
  isTyped = false;
  for (const id of ["search", "source", "snapshot"]) {
    const field = document.getElementById(id);
    const value = own.get(id === "search" ? "q" : id) ?? "";
    if (field && field.value.trim() !== value) field.value = value; // with the space after the word that was typed
  }
  const granularity = own.get("granularity") ?? "";
  for (const link of document.querySelectorAll("#granularities a")) {
    link.href = changed({ granularity: link.dataset.value });
    markCurrent(link, link.dataset.value === granularity);
  }
  for (const item of ranges) item.show(own);
  if (drawnFor !== granularity) {
    drawnFor = granularity;
    drawSpreads(granularity);
  }
  drawChosen(own);
}

// What is filtered by, in words: the panel has no field for some of it, and shows no range that no sample has.
function drawChosen(own) {
  const names = [...own.keys()].filter((name) => name !== "sort");
  said.hidden = names.length === 0;
  said.replaceChildren(
    ...names.map((name) => {
      const words = inWords(name, own.get(name));
      const link = { class: "chip", href: changed({ [name]: null }), "data-value": name, "aria-label": `${words}, take away` };
      return el("a", link, el("span", { dir: "auto" }, words), " ×");
    }),
    el("a", { id: "clear", href: changed(Object.fromEntries(names.map((name) => [name, null]))) }, "Clear all filters"),
  );
}

function inWords(name, value) {
  const bound = { "min.": "at least", "max.": "at most" }[name.slice(0, 4)];
  if (bound) return `${quantityName(name.slice(4))} ${bound} ${value}`;
  return `${{ q: "text", source: "source id", parent: "made from" }[name] ?? name}: ${value}`;
}

async function drawSpreads(granularity) {
  for (const item of ranges) {
    const query = new URLSearchParams({ granularity, quantity: item.quantity });
    const spread = await ask(`/api/spread?${query}`).catch(() => null);
    if (drawnFor !== granularity) return;
    item.draw(spread);
  }
}

function granularities() {
  const all = { name: "", samples: dataset.granularities.reduce((sum, item) => sum + item.samples, 0) };
  const items = dataset.granularities.filter((item) => item.name);
  return el(
    "fieldset",
    { id: "granularities", hidden: items.length < 2 },
    el("legend", {}, "Granularity"),
    [all, ...items].map((item) =>
      el(
        "a",
        { class: `choice g${item.name ? dataset.colours[item.name] : 0}`, "data-value": item.name },
        el("span", {}, item.name ? el("i", { class: "dot" }) : null, item.name || "all"),
        el("span", { class: "num" }, count(item.samples)),
      ),
    ),
  );
}

// One quantity: a histogram in which a range can be drawn, and the two bounds as fields.
function range(quantity) {
  const name = quantityName(quantity);
  const plot = svg("svg", { class: "spread", viewBox: "0 0 320 44", preserveAspectRatio: "none", "aria-hidden": "true" });
  const fields = ["min", "max"].map((bound) => {
    const field = el("input", { type: "number", step: "any", "aria-label": `${name}, ${bound}`, id: `${bound}.${quantity}` });
    field.addEventListener("change", () => enter({ [`${bound}.${quantity}`]: field.value }));
    return field;
  });
  const element = el("fieldset", { class: "range" }, el("legend", {}, name), plot, el("div", { class: "bounds" }, fields[0], "to", fields[1]));
  let spread; // null where no sample has it
  let bounds = ["", ""];
  let isDrawing = false;

  function show(own) {
    write(["min", "max"].map((bound) => own.get(`${bound}.${quantity}`) ?? ""));
  }

  function write(found) {
    bounds = found;
    fields.forEach((field, index) => (field.value = bounds[index]));
    mark();
  }

  function mark() {
    const isSet = bounds.some(Boolean);
    element.classList.toggle("set", isSet);
    element.hidden = spread === null && !isSet;
    const [low, high] = bounds.map((text, index) => (text === "" ? [-Infinity, Infinity][index] : Number(text)));
    [...plot.children].forEach((bar, index) => {
      const start = spread.low + index * spread.width;
      bar.classList.toggle("out", start + spread.width <= low || start > high);
    });
  }

  function draw(found) {
    spread = found;
    plot.toggleAttribute("hidden", found === null);
    fields.forEach((field, index) => (field.placeholder = found ? number([found.low, found.high][index]) : ""));
    if (found === null) {
      plot.replaceChildren();
      mark();
      return;
    }
    const most = Math.max(...found.bins);
    const step = 320 / found.bins.length;
    const bars = found.bins.map((num, index) => {
      const height = num ? Math.max(1.5, (42 * num) / most) : 0;
      return svg("rect", { x: index * step + 0.5, y: 44 - height, width: Math.max(step - 1, 0.5), height });
    });
    plot.replaceChildren(...bars);
    mark();
  }

  function valueAt(event) {
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return share * spread.bins.length;
  }

  // To a thousandth of a bin and outwards: the samples at both ends of what is drawn are in it.
  function rounded(value, round) {
    const scale = 10 ** Math.max(0, 3 - Math.floor(Math.log10(spread.width)));
    return (round === Math.floor ? Math.min : Math.max)(value, round(value * scale) / scale);
  }

  let first = 0;
  function extend(event) {
    const [from, to] = [first, valueAt(event)].sort((a, b) => a - b);
    const edge = (bin) => (bin < spread.bins.length ? spread.low + bin * spread.width : spread.high);
    const [low, high] = [edge(Math.floor(from)), edge(Math.ceil(to))];
    const last = quantity === "words" && high < spread.high ? high - 1 : high;
    write([rounded(low, Math.floor), rounded(Math.max(last, low), Math.ceil)].map(String));
  }
  plot.addEventListener("pointerdown", (event) => {
    if (!spread || event.button) return;
    plot.setPointerCapture(event.pointerId);
    isDrawing = true;
    first = valueAt(event);
    extend(event);
  });
  plot.addEventListener("pointermove", (event) => isDrawing && extend(event));
  plot.addEventListener("pointerup", () => {
    if (!isDrawing) return;
    isDrawing = false;
    go(changed({ [`min.${quantity}`]: bounds[0], [`max.${quantity}`]: bounds[1] }));
  });
  plot.addEventListener("pointercancel", () => {
    isDrawing = false;
    show(filters());
  });
  return { quantity, element, show, draw };
}
