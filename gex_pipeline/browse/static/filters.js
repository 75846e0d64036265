// The panel of filters: what it says stands in the address, and the address changes it.

import { ask, count, el, number, quantityName, svg } from "/dom.js";
import { changed, filters, go } from "/state.js";

const panel = document.getElementById("filters");
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
    timer = setTimeout(() => {
      go(changed({ q: search.value.trim(), sample: null, tar: null }), { replace: isTyped });
      isTyped = true;
    }, WAIT_MS);
  });
  search.addEventListener("blur", () => (isTyped = false));
  const source = el("input", { type: "text", id: "source", placeholder: "a whole id", spellcheck: "false", maxlength: 500 });
  source.addEventListener("change", () => go(changed({ source: source.value.trim() })));
  ranges = dataset.quantities.map(range);
  panel.replaceChildren(
    el("label", { class: "field" }, "Text", search),
    el("fieldset", { id: "granularities" }, el("legend", {}, "Granularity")),
    dataset.snapshots.length > 1 ? snapshots() : "",
    el("label", { class: "field" }, "Source id", source),
    ...ranges.map((item) => item.element),
    el("a", { id: "clear", class: "clear", href: "?" }, "Clear all filters"),
  );
}

function snapshots() {
  const select = el("select", { id: "snapshot" }, el("option", { value: "" }, "all"));
  select.append(...dataset.snapshots.map((value) => el("option", { value }, `added by snapshot ${value}`)));
  select.addEventListener("change", () => go(changed({ snapshot: select.value })));
  return el("label", { class: "field" }, "Snapshot", select);
}

export function show() {
  const own = filters();
  for (const id of ["search", "source", "snapshot"]) {
    const field = document.getElementById(id);
    const value = own.get(id === "search" ? "q" : id) ?? "";
    if (field && field !== document.activeElement) field.value = value;
  }
  drawGranularities(own);
  const granularity = own.get("granularity") ?? "";
  for (const item of ranges) item.show(own);
  if (drawnFor !== granularity) {
    drawnFor = granularity;
    drawSpreads(granularity);
  }
  const names = [...own.keys()].filter((name) => name !== "sort");
  const clear = document.getElementById("clear");
  clear.hidden = names.length === 0;
  clear.href = changed(Object.fromEntries(names.map((name) => [name, null])));
  clear.textContent = own.get("parent") ? "Made from one clip or sample. Clear all filters" : "Clear all filters";
}

async function drawSpreads(granularity) {
  for (const item of ranges) {
    const query = new URLSearchParams({ granularity, quantity: item.quantity });
    const spread = await ask(`/api/spread?${query}`).catch(() => null);
    if (drawnFor !== granularity) return;
    item.draw(spread);
    item.show(filters());
  }
}

function drawGranularities(own) {
  const chosen = own.get("granularity") ?? "";
  const all = { name: "", samples: dataset.granularities.reduce((sum, item) => sum + item.samples, 0) };
  const items = dataset.granularities.filter((item) => item.name);
  const place = document.getElementById("granularities");
  place.hidden = items.length < 2;
  place.replaceChildren(
    el("legend", {}, "Granularity"),
    ...[all, ...items].map((item) =>
      el(
        "a",
        {
          class: `choice g${item.name ? dataset.colours[item.name] : 0}`,
          href: changed({ granularity: item.name }),
          "aria-current": item.name === chosen ? "true" : null,
          "data-value": item.name,
        },
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
    field.addEventListener("change", () => go(changed({ [`${bound}.${quantity}`]: field.value })));
    return field;
  });
  const element = el("fieldset", { class: "range" }, el("legend", {}, name), plot, el("div", { class: "bounds" }, fields[0], "to", fields[1]));
  let spread = null;
  let drawn = null; // the range under the pointer

  function show(own) {
    const bounds = drawn ?? ["min", "max"].map((bound) => own.get(`${bound}.${quantity}`) ?? "");
    fields.forEach((field, index) => {
      if (field !== document.activeElement) field.value = bounds[index];
    });
    const [low, high] = bounds.map((text, index) => (text === "" ? [-Infinity, Infinity][index] : Number(text)));
    if (spread === null) return;
    [...plot.children].forEach((bar, index) => {
      const start = spread.low + index * spread.width;
      bar.classList.toggle("out", start + spread.width <= low || start > high);
    });
  }

  function draw(found) {
    spread = found;
    element.hidden = found === null;
    if (found === null) return;
    const most = Math.max(...found.bins);
    const step = 320 / found.bins.length;
    const bars = found.bins.map((num, index) => {
      const height = num ? Math.max(1.5, (42 * num) / most) : 0;
      return svg("rect", { x: index * step + 0.5, y: 44 - height, width: Math.max(step - 1, 0.5), height });
    });
    plot.replaceChildren(...bars);
    fields[0].placeholder = number(found.low);
    fields[1].placeholder = number(found.high);
  }

  function valueAt(event) {
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return share * spread.bins.length;
  }

  let first = 0;
  function extend(event) {
    const [from, to] = [first, valueAt(event)].sort((a, b) => a - b);
    const edge = (bin) => Number((spread.low + bin * spread.width).toPrecision(6));
    const last = edge(Math.ceil(to)) - (quantity === "words" ? 1 : 0);
    drawn = [edge(Math.floor(from)), Math.max(last, edge(Math.floor(from)))].map(String);
    show(filters());
  }
  plot.addEventListener("pointerdown", (event) => {
    if (!spread || event.button) return;
    plot.setPointerCapture(event.pointerId);
    first = valueAt(event);
    extend(event);
  });
  plot.addEventListener("pointermove", (event) => drawn && extend(event));
  plot.addEventListener("pointerup", () => {
    if (!drawn) return;
    const [low, high] = drawn;
    drawn = null;
    go(changed({ [`min.${quantity}`]: low, [`max.${quantity}`]: high }));
  });
  plot.addEventListener("pointercancel", () => {
    drawn = null;
    show(filters());
  });
  return { quantity, element, show, draw };
}
