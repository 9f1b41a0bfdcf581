// The rows of the report: a list of which only what is seen is in the page, and one row in full.
// Data becomes text nodes only; nothing here reads or writes markup.
"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const { texts, rows, columns, charts } = data;
const byId = (id) => document.getElementById(id);
const scroll = byId("scroll"), space = byId("space"), search = byId("search"), sortBox = byId("sort");
const detail = byId("detail"), panes = detail.parentElement;
const withPictures = rows.some((row) => row.i);
const ROW = withPictures ? 56 : 40;
const SPARE = 8;
const SNIPPET = 220;
document.documentElement.style.setProperty("--row", ROW + "px");
if (withPictures) document.documentElement.style.setProperty("--thumb", "48px");
else document.documentElement.classList.add("plain");

function el(tag, props, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
const number = (n) => n.toLocaleString("en");
const text = (place) => (place === null || place === undefined ? "" : texts[place]);
const isText = (column) => column.kind === "text" || column.kind === "json";
const cell = (row, i) => {
  const value = row.v ? row.v[i] : null;
  return value === null || value === undefined ? null : isText(columns[i]) ? text(value) : value;
};
const shownCell = (row, i) => {
  const value = cell(row, i);
  return value === null ? "" : typeof value === "number" ? String(value) : String(value);
};
const flagged = new Set(data.flagged);

// --- what each row is looked for and ordered by -------------------------------------------------

const own = rows.map((row) => (row.p && row.p.length ? row.p[Math.min(data.own, row.p.length - 1)] : null));
const ownText = (i) => (own[i] ? text(own[i][1]) : "");
const shared = data.shared; // how much of every row's own prompt is the same at its start
const haystacks = new Array(rows.length);
function haystack(i) {
  if (haystacks[i] === undefined) {
    const row = rows[i];
    const parts = [row.k, ownText(i), text(row.r), text(row.e), row.id || ""];
    columns.forEach((_, c) => parts.push(shownCell(row, c)));
    haystacks[i] = parts.join("\n").toLowerCase();
  }
  return haystacks[i];
}
const FIELDS = {
  len: (row) => (row.r === null || row.r === undefined ? null : row.n),
  in: (row) => row.u[0], out: (row) => row.u[1], cost: (row) => row.u[2],
  conf: (row) => row.c, attempt: (row) => row.a,
};
const field = (row, name) =>
  name.startsWith("v") ? cell(row, Number(name.slice(1))) : FIELDS[name](row) ?? null;

const order = new Map(data.statuses.map((status, i) => [status, i]));
const compareText = new Intl.Collator(undefined, { numeric: true }).compare;
const sorts = [
  // Of the usable rows the least sure come first: there the errors are.
  ["flagged", "flagged first", (a, b) => order.get(rows[a].s) - order.get(rows[b].s) || (rows[a].c ?? 2) - (rows[b].c ?? 2)],
  ["frame", "as in the frame", () => 0],
  ["key", "by key", (a, b) => compareText(rows[a].k, rows[b].k)],
  ["asked", "by prompt", (a, b) => compareText(ownText(a).slice(shared, shared + 200), ownText(b).slice(shared, shared + 200))],
  ["len", "longest answer first", null],
];
if (rows.some((row) => row.c !== undefined)) sorts.push(["conf", "least sure first", null]);
if (rows.some((row) => (row.u[1] ?? null) !== null)) sorts.push(["out", "most tokens first", null]);
if (rows.some((row) => (row.u[2] ?? null) !== null)) sorts.push(["cost", "dearest first", null]);
if (rows.some((row) => row.a > 1)) sorts.push(["attempt", "most attempts first", null]);
if (rows.some((row) => row.w)) sorts.push(["said", "reviewed first", (a, b) => !rows[a].w - !rows[b].w]);
columns.forEach((column, i) => sorts.push(["v" + i, "by " + column.name, null]));

function comparison(name) {
  const known = sorts.find((sort) => sort[0] === name);
  if (known[2]) return known[2];
  const sign = name.startsWith("v") || name === "conf" ? 1 : -1;
  return (a, b) => {
    const x = field(rows[a], name), y = field(rows[b], name);
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (typeof x === "number" ? x - y : compareText(String(x).slice(0, 200), String(y).slice(0, 200)));
  };
}

// --- what is shown ------------------------------------------------------------------------------

const state = { query: "", statuses: new Set(), picks: new Map(), sort: "flagged", down: false };
let shown = [];
let at = -1; // the selected row, as its place in `shown`

function matches(i, needle) {
  const row = rows[i];
  if (state.statuses.size && !state.statuses.has(row.s)) return false;
  for (const pick of state.picks.values()) if (!pick.test(row)) return false;
  return !needle || haystack(i).includes(needle);
}

function update(keep) {
  const before = keep && at >= 0 ? shown[at] : -1;
  const needle = state.query.trim().toLowerCase();
  shown = [];
  for (let i = 0; i < rows.length; i++) if (matches(i, needle)) shown.push(i);
  const compare = comparison(state.sort);
  shown.sort((a, b) => (state.down ? compare(b, a) : compare(a, b)) || a - b);
  at = before >= 0 ? shown.indexOf(before) : -1;
  if (at < 0) at = shown.length ? 0 : -1;
  space.style.height = shown.length * ROW + "px";
  if (!keep) scroll.scrollTop = 0;
  byId("shown").textContent =
    shown.length === rows.length ? number(rows.length) + " rows" : number(shown.length) + " of " + number(rows.length) + " rows";
  byId("none").hidden = shown.length > 0;
  showChips();
  showHead();
  draw(true);
  showDetail();
}

// Only the rows in sight are in the page, under the place they have in the list.
const drawn = new Map();
function draw(anew) {
  if (anew) { for (const node of drawn.values()) node.remove(); drawn.clear(); }
  const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - SPARE);
  const last = Math.min(shown.length, Math.ceil((scroll.scrollTop + scroll.clientHeight) / ROW) + SPARE);
  for (const [place, node] of drawn) if (place < first || place >= last) { node.remove(); drawn.delete(place); }
  for (let place = first; place < last; place++) {
    let node = drawn.get(place);
    if (!node) {
      node = drawRow(place);
      drawn.set(place, node);
      space.append(node);
    }
    node.setAttribute("aria-selected", String(place === at));
  }
  if (at >= 0 && drawn.has(at)) scroll.setAttribute("aria-activedescendant", "row-" + at);
  else scroll.removeAttribute("aria-activedescendant");
}

function drawRow(place) {
  const i = shown[place], row = rows[i];
  const node = el("div", { class: "row", role: "option", id: "row-" + place, "aria-posinset": place + 1, "aria-setsize": shown.length },
    el("span", { class: "badge s-" + row.s }, row.s),
    el("span", { class: "key", title: row.k, dir: "auto" }, ...marked(row.k)),
    el("span", { class: "pics" }, ...thumbs(row)),
    el("span", { class: "asked", dir: "auto" }, ...snippet(ownText(i), shared)),
    flagged.has(row.s) || !row.v
      ? el("span", { class: "why", dir: "auto" }, ...judged(row), ...snippet(text(row.e)))
      : el("span", { class: "answer", dir: "auto" }, ...reviewed(row), ...judged(row), ...answer(row)));
  node.style.top = place * ROW + "px";
  return node;
}

function thumbs(row) {
  return (row.i || []).map((place) => data.images[place]).filter((image) => image[0] === "src").slice(0, 1)
    .map((image) => el("img", { src: image[1], alt: "", loading: "lazy", decoding: "async" }));
}

function answer(row) {
  if (columns.length === 1) return snippet(shownCell(row, 0));
  const parts = [];
  columns.slice(0, 6).forEach((column, i) => {
    if (i) parts.push(el("span", { class: "sep" }, "·"));
    parts.push(el("span", { class: "field" }, column.name + " "), ...snippet(shownCell(row, i) || "–", 0, 80));
  });
  return parts;
}

function snippet(whole, from = 0, length = SNIPPET) {
  const needle = state.query.trim().toLowerCase();
  const found = needle ? whole.toLowerCase().indexOf(needle) : -1;
  let start = from && whole.length > from ? from : 0;
  if (found >= 0 && (found < start || found > start + 40)) start = Math.max(0, found - 24);
  const cut = whole.slice(start, start + length).replace(/\s+/g, " ");
  return [...(start && found >= 0 ? ["…"] : []), ...marked(cut)];
}

function marked(whole) {
  const needle = state.query.trim().toLowerCase();
  if (!needle) return [whole];
  const low = whole.toLowerCase(), parts = [];
  if (low.length !== whole.length) return [whole]; // some letters grow in lower case
  let from = 0;
  for (let found; (found = low.indexOf(needle, from)) >= 0 && parts.length < 400; from = found + needle.length)
    parts.push(whole.slice(from, found), el("mark", {}, whole.slice(found, found + needle.length)));
  return [...parts, whole.slice(from)];
}

// --- one row ------------------------------------------------------------------------------------

function longText(place, kind, spot) {
  const whole = text(place);
  const node = el("pre", { class: "text " + kind, dir: "auto" });
  if (spot) node.append(whole.slice(0, spot[0]), el("mark", { class: "spot" }, whole.slice(spot[0], spot[1])), whole.slice(spot[1]));
  else node.append(...marked(whole));
  const length = data.clipped[place];
  if (!length) return [node];
  return [node, el("p", { class: "clipped" }, "Cut here for this page: the whole text has " + number(length) + " characters.")];
}

function turn(role, place, always) {
  const parts = longText(place, "");
  if (!always) return el("div", { class: "turn " + role }, el("p", { class: "role" }, role), ...parts);
  return el("details", { class: "turn " + role }, el("summary", {}, role + ", the same for every row"), ...parts);
}

function pretty(value, column) {
  if (column.kind !== "json") return marked(String(value));
  if (value.length < 72) return marked(value);
  try { return marked(JSON.stringify(JSON.parse(value), null, 2)); } catch { return marked(value); }
}

function picture(place) {
  const [kind, value] = data.images[place];
  if (kind === "src") return el("img", { src: value, alt: "image of this row", decoding: "async" });
  if (kind === "url" && /^https?:\/\//i.test(value))
    return el("p", { class: "text" }, "image ", el("a", { href: value, rel: "noopener noreferrer", target: "_blank" }, value));
  return el("p", { class: "text" }, value);
}

function showDetail() {
  detail.replaceChildren();
  detail.scrollTop = 0;
  if (at < 0) return;
  const row = rows[shown[at]];
  detail.append(el("header", {},
    el("button", { type: "button", class: "back", onclick: close }, "Back"),
    el("h2", { dir: "auto" }, row.k), el("span", { class: "badge s-" + row.s }, row.s), judge(row)));
  if (row.e !== null && row.e !== undefined) detail.append(el("p", { class: "reason s-" + row.s, dir: "auto" }, ...marked(text(row.e))));
  if (row.i) detail.append(el("div", { class: "pictures" }, ...row.i.map(picture)));
  if (row.v) detail.append(el("h3", {}, row.m ? "Answer, mended before it was read" : "Answer"), valueTable(row));
  const plain = row.v && columns.length === 1 && row.v[0] === row.r;
  if (row.r !== null && row.r !== undefined && !plain) detail.append(el("h3", {}, "Raw answer"), ...longText(row.r, "raw", row.x));
  if (row.p) {
    detail.append(el("h3", {}, "Prompt"));
    row.p.forEach(([role, place], i) => detail.append(turn(role, place, i < data.own && row.p[i][1] === data.same[i])));
  }
  if (row.w) detail.append(el("h3", {}, "Reviewed"), el("ul", { class: "attempts" }, ...row.w.map((said) => {
    const [verdict] = said.split(":", 1);
    return el("li", { dir: "auto" }, el("b", { class: { right: "yes", wrong: "no" }[verdict] || "" }, verdict), " by " + said.slice(verdict.length + 1));
  })));
  if (row.h) detail.append(el("h3", {}, "Earlier attempts"), el("ol", { class: "attempts" }, ...row.h.map((attempt) =>
    el("li", {}, el("span", { class: "badge s-" + attempt.status }, attempt.status), " ", attempt.error || "",
      attempt.then ? el("div", { class: "then" }, "asked again: " + attempt.then) : null))));
  detail.append(el("dl", { class: "meta" }, ...facts(row).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

function valueTable(row) {
  const table = el("dl", { class: "values" });
  columns.forEach((column, i) => {
    const value = cell(row, i);
    table.append(el("dt", {}, column.name), value === null ? el("dd", { class: "null" }, "null") : el("dd", { dir: "auto" }, ...pretty(value, column)));
  });
  return table;
}

function facts(row) {
  const [asked, answered, cost] = row.u, found = [];
  if ((answered ?? null) !== null) found.push(["tokens", number(asked ?? 0) + " in, " + number(answered) + " out"]);
  // Where the answer does not tell its tokens, nothing is known of its cost.
  if ((cost ?? null) !== null && (cost || (answered ?? null) !== null)) found.push(["cost", "$" + cost.toPrecision(3)]);
  if (row.c !== undefined) found.push(["score", row.c.toFixed(3)]);
  if (row.f) found.push(["finish reason", row.f]);
  if (row.o) found.push(["model", row.o]);
  if (row.a) found.push(["asked", row.a === 1 ? "once" : row.a + " times"]);
  if (row.id) found.push(["custom_id", row.id]);
  return found;
}

// --- a person's own judgement -------------------------------------------------------------------

const drawer = "frameenrich:" + data.job;
// Without a prototype: a row may be called "constructor", which every other object has.
const noted = (...all) => Object.assign(Object.create(null), ...all);
let verdicts = noted(), touched = false; // since the page was loaded
const restore = (kept) => { verdicts = noted(JSON.parse(kept)); };
try { restore(localStorage.getItem(drawer)); } catch { /* kept for this visit only */ }
const keep = () => { touched = true; try { localStorage.setItem(drawer, JSON.stringify(verdicts)); } catch { /* as above */ } };
// A browser writes what is kept a little later: the page before a reload, or another tab, may be
// heard of only now. Its verdicts are not lost, and ours stand where both judged.
addEventListener("storage", (event) => {
  if (event.key !== drawer || !event.newValue) return;
  if (!touched) restore(event.newValue);
  // Kept with the next verdict: two tabs that kept it now would answer each other without end.
  else verdicts = noted(JSON.parse(event.newValue), verdicts);
  showChecked();
  draw(true);
  showDetail();
});
// One that was taken back is null, or another tab's older state would bring it in again.
const verdictOf = (row) => verdicts[row.k] ?? null;
const good = rows.map((row, i) => i).filter((i) => rows[i].s === "ok");

// What reviewers said begins with the verdict: "wrong:Ada, Kitchen".
function reviewed(row) {
  return (row.w || []).map((said) => {
    const [verdict] = said.split(":", 1), sign = { right: "✓", wrong: "✗" }[verdict] || "?";
    const kind = { right: "yes", wrong: "no" }[verdict] || "";
    return el("span", { class: "judged " + kind, title: verdict + ", " + said.slice(verdict.length + 1) }, sign);
  });
}

function judged(row) {
  const verdict = verdictOf(row);
  return verdict === null ? [] : [el("span", { class: "judged " + (verdict ? "yes" : "no"), title: "you judged it" }, verdict ? "✓" : "✗")];
}

function judge(row) {
  const button = (name, key, verdict) => el("button", { type: "button", class: name, "aria-pressed": String(verdicts[row.k] === verdict),
    onclick: () => decide(verdict) }, name[0].toUpperCase() + name.slice(1) + " ", el("kbd", {}, key));
  return row.s === "ok" ? el("span", { class: "judge" }, button("right", "y", 1), button("wrong", "n", 0)) : null;
}

function decide(verdict) {
  const row = at >= 0 ? rows[shown[at]] : null;
  if (!row || row.s !== "ok") return;
  verdicts[row.k] = verdictOf(row) === verdict ? null : verdict;
  keep();
  showChecked();
  draw(true);
  showDetail();
}

// No interval here: whoever clicks picks the rows, and only a recorded draw has bounds.
function showChecked() {
  const said = good.filter((i) => verdictOf(rows[i]) !== null);
  const place = byId("checked");
  place.hidden = !said.length;
  if (!said.length) return;
  const right = said.filter((i) => verdicts[rows[i].k]).length;
  place.replaceChildren("You judged " + number(said.length) + (said.length === 1 ? " usable row: " : " usable rows: "), el("b", {}, number(right) + " right"),
    ". Rows picked here give no interval for the others: ", el("code", {}, "job.review(n=" + Math.min(100, good.length) + ")"), " draws rows that do.",
    el("button", { type: "button", onclick: forget }, "Forget"));
}

function forget() { for (const key in verdicts) verdicts[key] = null; keep(); showChecked(); draw(true); showDetail(); }

function randomRow() {
  const left = good.filter((i) => verdictOf(rows[i]) === null);
  if (!left.length) return;
  const i = left[Math.floor(Math.random() * left.length)];
  if (!shown.includes(i)) clear();
  select(shown.indexOf(i));
}

// --- filters ------------------------------------------------------------------------------------

function showChips() {
  const chip = (name, n, pressed, style, act) => el("button", { type: "button", "aria-pressed": String(pressed), onclick: act },
    style ? el("i", { class: "dot s-" + style }) : null, el("span", {}, name), n === null ? null : el("span", { class: "n" }, number(n)));
  const counts = new Map();
  for (const row of rows) counts.set(row.s, (counts.get(row.s) || 0) + 1);
  const flags = [...counts].filter(([status]) => flagged.has(status));
  const all = [chip("all", rows.length, !state.statuses.size, "", () => onlyStatuses([]))];
  if (flags.length > 1) all.push(chip("flagged", flags.reduce((sum, [, n]) => sum + n, 0), isFlaggedOnly(), "", toggleFlagged));
  for (const status of data.statuses) {
    if (!counts.has(status)) continue;
    const alone = state.statuses.size === 1 && state.statuses.has(status);
    all.push(chip(status, counts.get(status), alone, status, () => onlyStatuses(alone ? [] : [status])));
  }
  for (const [name, pick] of state.picks) all.push(chip(pick.label + "  ×", null, true, "", () => { state.picks.delete(name); showPicks(); update(); }));
  byId("chips").replaceChildren(...all);
}

function onlyStatuses(statuses) { state.statuses = new Set(statuses); update(); }
function isFlaggedOnly() { return state.statuses.size > 1 || (state.statuses.size === 1 && flagged.has([...state.statuses][0]) && new Set(rows.map((row) => row.s).filter((s) => flagged.has(s))).size === 1); }
function toggleFlagged() { onlyStatuses(isFlaggedOnly() ? [] : data.flagged); }

const buttons = [...document.querySelectorAll("[data-chart], [data-reason]")];
const pickName = (node) => (node.dataset.reason !== undefined ? "reason" : "chart" + node.dataset.chart);
const pickValue = (node) => node.dataset.reason ?? node.dataset.bar;

function pick(node) {
  const name = pickName(node), value = pickValue(node);
  if (state.picks.has(name) && state.picks.get(name).value === value) state.picks.delete(name);
  else state.picks.set(name, { value, ...(name === "reason" ? byReason(Number(value)) : byBar(Number(node.dataset.chart), Number(value))) });
  showPicks();
  update();
  byId("rows").scrollIntoView({ block: "start" });
}

const byReason = (group) => ({ label: data.reasons[group], test: (row) => row.g === group });

function byBar(which, bar) {
  const chart = charts[which], { label, value, low, high } = chart.bars[bar];
  // A number that JavaScript cannot hold comes as text, and is counted as the nearest that it can.
  const same = chart.number ? (x) => x !== null && Number(x) === Number(value) : (x) => x === value;
  const test = low === undefined
    ? (row) => same(field(row, chart.field))
    : (row) => { const x = field(row, chart.field); return x !== null && x >= low && (high === null || x < high); };
  return { label: chart.title + ": " + label, test };
}

function showPicks() {
  for (const node of buttons) {
    const found = state.picks.get(pickName(node)), on = found !== undefined && found.value === pickValue(node);
    if (node instanceof HTMLButtonElement) node.setAttribute("aria-pressed", String(on));
    else node.classList.toggle("on", on);
  }
}
for (const node of buttons) node.addEventListener("click", () => pick(node));

function showHead() {
  const heads = [["flagged", "Status"], ["key", "Key"], [null, "pics"], ["asked", "Prompt"], [columns.length ? "v0" : "len", columns.length === 1 ? columns[0].name : "Answer"]];
  byId("head").replaceChildren(...heads.map(([name, label]) => name === null ? el("span", { class: label }) :
    el("button", { type: "button", class: name, "aria-pressed": String(state.sort === name), onclick: () => sortBy(name) },
      label + (state.sort === name ? (state.down ? " ↓" : " ↑") : ""))));
}

function sortBy(name) {
  state.down = state.sort === name ? !state.down : false;
  state.sort = name;
  sortBox.value = name;
  update();
}

function clear() {
  search.value = state.query = "";
  state.statuses.clear();
  state.picks.clear();
  showPicks();
  update();
}

// --- hands --------------------------------------------------------------------------------------

function select(place) {
  if (place < 0 || place >= shown.length) return;
  at = place;
  const top = at * ROW;
  if (top < scroll.scrollTop) scroll.scrollTop = top;
  else if (top + ROW > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + ROW - scroll.clientHeight;
  draw(false);
  showDetail();
}
function close() { panes.classList.remove("open"); scroll.focus(); }
function toRows() {
  const box = panes.getBoundingClientRect();
  if (box.top > innerHeight * 0.6 || box.bottom < innerHeight * 0.4) byId("rows").scrollIntoView({ block: "start" });
}
const move = (by) => { toRows(); select(Math.min(Math.max(at + by, 0), shown.length - 1)); };
const page = () => Math.max(1, Math.floor(scroll.clientHeight / ROW) - 1);

for (const [name, label] of sorts) sortBox.append(el("option", { value: name }, label));
sortBox.addEventListener("change", () => { state.down = false; state.sort = sortBox.value; update(); });
let typing = 0;
search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { state.query = search.value; update(); }, rows.length > 2000 ? 90 : 0);
});
let due = false;
const drawSoon = () => { if (!due) { due = true; requestAnimationFrame(() => { due = false; draw(false); }); } };
scroll.addEventListener("scroll", drawSoon, { passive: true });
addEventListener("resize", drawSoon);
space.addEventListener("click", (event) => {
  const node = event.target.closest(".row");
  if (!node) return;
  select(Number(node.id.slice(4)));
  panes.classList.add("open");
});
byId("clear").addEventListener("click", clear);
byId("random").addEventListener("click", randomRow);
byId("help").addEventListener("click", () => byId("keys").showModal());
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

const KEYS = {
  j: () => move(1), k: () => move(-1), f: toggleFlagged, r: () => { toRows(); randomRow(); }, y: () => decide(1), n: () => decide(0),
  "/": () => { byId("rows").scrollIntoView({ block: "start" }); search.focus(); search.select(); }, "?": () => byId("keys").showModal(),
};
const LIST_KEYS = {
  ArrowDown: () => move(1), ArrowUp: () => move(-1), PageDown: () => move(page()), PageUp: () => move(-page()),
  Home: () => select(0), End: () => select(shown.length - 1),
  Enter: () => { panes.classList.add("open"); detail.focus(); },
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  const typed = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
  if (event.key === "Escape") {
    if (panes.classList.contains("open")) close();
    else { clear(); search.blur(); }
    return;
  }
  if (typed && event.target === search && (event.key === "Enter" || event.key === "ArrowDown")) { scroll.focus(); event.preventDefault(); return; }
  const act = typed ? null : KEYS[event.key] || (event.target === scroll ? LIST_KEYS[event.key] : null);
  if (act) { event.preventDefault(); act(); }
});

showChecked();
update();
document.documentElement.dataset.ready = "yes";
})();
