// What is shown stands in the address: filters, order, the open sample. Going back undoes the last change.

const OF_SAMPLE = ["sample", "tar"];
let listener = () => {};
let isPressed = false;
let late = null; // what waits for the end of a press

export function parameters() {
  return new URLSearchParams(location.search);
}

// The address's parameters with some of them changed; "" and null take one away.
export function changed(patch, base = parameters()) {
  const next = new URLSearchParams(base);
  for (const [name, value] of Object.entries(patch)) {
    if (value === "" || value === null || value === undefined) next.delete(name);
    else next.set(name, value);
  }
  next.sort();
  return `?${next}`;
}

export function filters(base = parameters()) {
  const found = new URLSearchParams(base);
  for (const name of [...OF_SAMPLE, "view"]) found.delete(name);
  found.sort();
  return found;
}

export function sampleLink(sample) {
  return changed({ view: null, sample: `${encodeURIComponent(sample.granularity || "-")}/${sample.key}`, tar: sample.tar });
}

export function openSample() {
  const found = parameters().get("sample");
  if (!found) return null;
  const cut = found.indexOf("/");
  const granularity = decoded(found.slice(0, cut));
  return { granularity: granularity === "-" ? "" : granularity, key: found.slice(cut + 1), tar: parameters().get("tar") };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // an address that somebody wrote
  }
}

export function go(address, { replace = false } = {}) {
  if (address === (location.search || "?")) return;
  history[replace ? "replaceState" : "pushState"](null, "", address === "?" ? location.pathname : address);
  listener();
}

// At once, or after the click that a press of the mouse becomes: drawn anew under it, a link would not be clicked.
export function afterPress(change) {
  if (isPressed) late = change;
  else change();
}

// What was entered into a field. The press that ends the typing may be a click on another filter, or lead elsewhere.
export function enter(patch) {
  const view = parameters().get("view");
  afterPress(() => parameters().get("view") === view && go(changed(patch)));
}

function release() {
  isPressed = false;
  setTimeout(() => {
    const change = late;
    late = null;
    change?.();
  }); // the click comes before it
}

export function onChange(callback) {
  listener = callback;
  addEventListener("mousedown", () => (isPressed = true), true); // of a touch it comes after the pointer is up
  for (const name of ["mouseup", "dragend"]) addEventListener(name, release, true);
  addEventListener("popstate", () => listener());
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="?"]');
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
}
