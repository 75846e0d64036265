// What is shown stands in the address: filters, order, the open sample. Going back undoes the last change.

const OF_SAMPLE = ["sample", "tar"];
let listener = () => {};

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

export function onChange(callback) {
  listener = callback;
  addEventListener("popstate", () => listener());
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="?"]');
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
}
