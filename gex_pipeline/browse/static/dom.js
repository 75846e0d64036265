// Makes elements and words. Texts of the data become text nodes only: nothing of them is ever read as HTML.

export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function svg(tag, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function plural(value, one) {
  return `${count(value)} ${one}${value === 1 ? "" : "s"}`;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return count(value);
  return Math.abs(value) >= 1000 ? count(Math.round(value)) : String(Number(value.toPrecision(3)));
}

export function score(value) {
  return value.toFixed(3).replace("-", "−");
}

export function position(seconds) {
  const tenths = Math.round(Math.max(seconds, 0) * 10);
  const rest = tenths % 600;
  const minutes = Math.floor(tenths / 600);
  const tail = String(Math.floor(rest / 10)).padStart(2, "0") + (rest % 10 ? `.${rest % 10}` : "");
  return minutes >= 60 ? `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

export function span(start, end) {
  return `${position(start)}–${position(end)}`;
}

export function bytes(value) {
  let left = value;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (left < 1000 || unit === "GB") return `${number(left)} ${unit}`;
    left /= 1000;
  }
  return "";
}

export function quantityName(quantity) {
  return { words: "Words", duration: "Seconds" }[quantity] ?? quantity.replace(/^score\./, "");
}

// Not toggled, for without a value aria-current means that it is not.
export function markCurrent(element, isCurrent, kind = "true") {
  if (isCurrent) element.setAttribute("aria-current", kind);
  else element.removeAttribute("aria-current");
}

// What went wrong, where a list ends, and a button to ask again.
export function showFailure(end, message, again) {
  const retry = () => {
    again();
    end.closest("main").querySelector("h1").focus(); // the button is gone
  };
  end.replaceChildren(message, " ", el("button", { type: "button", onclick: retry }, "Try again"));
}

// An answer of the server as JSON, or an error with the server's sentence.
export async function ask(address, signal) {
  let response;
  try {
    response = await fetch(address, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is “gex shards browse” still running?");
  }
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

// The key stands in the query: out of a path browsers take "." and "..", which keys of other people's tars hold.
export function sampleAddress(kind, sample) {
  const place = new URLSearchParams({ granularity: sample.granularity, key: sample.key });
  if (sample.tar) place.set("tar", sample.tar);
  return `/${kind}?${place}`;
}
