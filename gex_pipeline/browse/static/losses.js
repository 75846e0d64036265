// What is not in the data set: counts by reason beside, losses with their details in a table.

import { ask, count, el, plural, showFailure } from "/dom.js";
import { changed, enter, filters } from "/state.js";

const NAMES = ["granularity", "stage", "state", "reason", "q"];
const body = document.querySelector("#losses tbody");
const end = document.getElementById("losses-end");
const beside = document.getElementById("loss-filters");
const total = document.getElementById("loss-count");
let counts = null;
let shown = null;
let after = 0;
let running = null;
let loading = null;
let num = 0;

const ends = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && more(), { rootMargin: "800px" });
ends.observe(end);

function words(text) {
  return text.replaceAll("_", " ");
}

function chosen() {
  const found = filters();
  return Object.fromEntries(NAMES.filter((name) => found.get(name)).map((name) => [name, found.get(name)]));
}

export async function show() {
  const wanted = new URLSearchParams(chosen()).toString();
  if (wanted === shown) return;
  shown = wanted;
  running?.abort();
  running = new AbortController();
  after = 0;
  num = 0;
  loading = null;
  body.replaceChildren();
  total.textContent = "";
  end.textContent = "Loading…";
  try {
    counts ??= (await ask("/api/losses/counts")).counts;
  } catch (error) {
    fail(error);
    return;
  }
  drawCounts();
  await more();
}

function fail(error) {
  shown = null;
  showFailure(end, error.message, show);
}

function isWanted(row, but) {
  const own = chosen();
  return ["granularity", "stage", "state", "reason"].every((name) => name === but || !own[name] || own[name] === row[name]);
}

function group(title, name) {
  const sums = new Map();
  for (const row of counts) {
    if (isWanted(row, name)) sums.set(row[name], (sums.get(row[name]) ?? 0) + row.num);
  }
  const own = chosen()[name];
  const most = Math.max(...sums.values(), 1);
  const rows = [...sums].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
  return el(
    "fieldset",
    { id: `loss-${name}` },
    el("legend", {}, title),
    rows.map(([value, sum]) => {
      const bar = el("i", { class: "share" });
      bar.style.width = `${Math.max(1, (100 * sum) / most)}%`;
      return el(
        "a",
        {
          class: "choice",
          href: changed({ [name]: own === value ? null : value }),
          "aria-current": own === value ? "true" : null,
          "data-value": value,
        },
        el("span", {}, words(value)),
        el("span", { class: "num" }, count(sum)),
        bar,
      );
    }),
  );
}

function drawCounts() {
  const search = el("input", { type: "search", id: "loss-search", placeholder: "detail, source, id", maxlength: 500 });
  search.value = chosen().q ?? "";
  search.addEventListener("change", () => enter({ q: search.value.trim() }));
  beside.replaceChildren(
    el("label", { class: "field" }, "Text", search),
    group("Reason", "reason"),
    group("State", "state"),
    group("Granularity", "granularity"),
    group("Stage", "stage"),
  );
  const sum = counts.filter((row) => isWanted(row)).reduce((all, row) => all + row.num, 0);
  total.textContent = chosen().q ? "" : `${count(sum)} not in the data set`;
}

function pretty(row) {
  try {
    return JSON.stringify(JSON.parse(row), null, 2);
  } catch {
    return row;
  }
}

function line(loss) {
  return el(
    "tr",
    {},
    el("td", {}, el("b", {}, loss.granularity), el("br"), el("span", { class: "meta" }, words(loss.stage))),
    el("td", {}, el("span", { class: `tag ${loss.state === "rejected" ? "bad" : "plain"}` }, words(loss.reason))),
    el("td", { class: "detail", dir: "auto" }, loss.detail || "–"),
    el("td", { class: "text" }, loss.source_id || "–", el("code", { class: "none num-id", title: loss.loss_id }, loss.loss_id)),
    el(
      "td",
      {},
      loss.row ? el("details", {}, el("summary", {}, "row"), el("pre", { dir: "auto" }, pretty(loss.row))) : "–",
    ),
  );
}

function more() {
  if (after === null || shown === null || counts === null) return Promise.resolve();
  if (loading === null) {
    const own = loadPage(running).finally(() => {
      if (loading === own) loading = null; // and not that of other filters, begun since
    });
    loading = own;
  }
  return loading;
}

async function loadPage(control) {
  try {
    const query = new URLSearchParams(shown);
    query.set("after", after);
    query.set("limit", 100);
    const page = await ask(`/api/losses?${query}`, control.signal);
    if (control !== running) return;
    after = page.after;
    num += page.losses.length;
    body.append(...page.losses.map(line));
    end.textContent = num ? "" : "Nothing matches.";
    ends.unobserve(end); // watched anew, since an end that stays in sight is told only once
    ends.observe(end);
    if (after === null && chosen().q) total.textContent = `${plural(num, "match")}`.replace("matchs", "matches");
  } catch (error) {
    if (control !== running || error.name === "AbortError") return;
    fail(error);
  }
}
