"use strict";
// Only one item is in the page at a time, so that 1,000 rows are as smooth as ten.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const MOST = 60; // choices in the page at once; searching finds the others
const VERDICTS = ["right", "wrong", "unsure"];
const items = data.rows.flatMap((row, r) => data.fields.map((field, f) => ({ row, field, f, r })));
const name = "frameenrich-review-" + data.review;
let state = { at: 0, reviewer: "", log: [], given: {} };
let searched = "";

// --- what was judged, kept over a reload ---

function restore(text) {
  const kept = JSON.parse(text);
  if (!kept || !kept.given) return;
  state = { ...state, ...kept };
  state.at = Math.min(Math.max(state.at | 0, 0), items.length - 1);
}

try { restore(localStorage.getItem(name)); } catch { /* nothing was kept, or the browser keeps nothing */ }
let touched = false; // since the page was loaded
let saved = true;

function keep() {
  let said = "";
  try { localStorage.setItem(name, JSON.stringify(state)); } catch { said = "This browser keeps nothing: save before you leave."; }
  $("kept").textContent = said || (saved ? "" : "not saved to a file yet");
}

const given = (i) => state.given[i] || {};
const judged = (i) => Boolean(given(i).verdict || given(i).correct);
const count = () => items.reduce((n, _, i) => n + judged(i), 0);

function give(change, moves) {
  const i = state.at;
  state.log.push([i, state.given[i] || null]);
  if (state.log.length > 500) state.log.shift();
  state.given[i] = { ...given(i), ...change };
  saved = false;
  touched = true;
  if (moves && i + 1 < items.length) state.at = i + 1;
  searched = "";
  show();
}

function undo() {
  const last = state.log.pop();
  if (!last) return;
  const [i, before] = last;
  if (before) state.given[i] = before; else delete state.given[i];
  state.at = i;
  saved = false;
  touched = true;
  show();
}

// A browser writes what is kept a little later: the page before a reload, or another tab, may be
// heard of only now. Its verdicts are not lost, and ours stand where both judged.
window.addEventListener("storage", (event) => {
  if (event.key !== name || !event.newValue) return;
  if (!touched) {
    restore(event.newValue);
    show();
  } else { // not shown and kept now, or two tabs would answer each other without end
    state.given = { ...JSON.parse(event.newValue).given, ...state.given };
  }
});

// --- showing ---

function show() {
  const { row, field, f } = items[state.at];
  const own = given(state.at);
  $("key").textContent = data.keyNames.map((n, i) => n + " " + row.key[i]).join(", ");
  $("where").textContent = (state.at + 1).toLocaleString("en") + " / " + items.length.toLocaleString("en");
  $("text").textContent = row.text;
  $("before").replaceChildren(...row.before.map(([role, text]) => element("pre", role + ": " + text)));
  $("more").hidden = !row.before.length;
  $("pictures").replaceChildren(...row.images.map(picture));
  $("said").hidden = Boolean(field.labels);
  $("field").textContent = field.name;
  $("answer").textContent = field.labels ? "" : row.answers[f];
  $("question").textContent = field.labels ? "Which is right for " + field.name + "?" : "Is " + field.name + " right?";
  $("search").hidden = !field.labels || field.labels.length <= 9;
  if ($("search").value !== searched) $("search").value = searched;
  $("correction").hidden = Boolean(field.labels) || own.verdict !== "wrong";
  $("correct").value = field.labels ? "" : own.correct || "";
  $("note").value = own.note || "";
  $("reviewer").value = state.reviewer;
  choices();
  const done = count();
  $("done").style.width = (100 * done / items.length) + "%";
  $("progress").setAttribute("aria-valuemax", items.length);
  $("progress").setAttribute("aria-valuenow", done);
  $("count").textContent = done.toLocaleString("en") + " of " + items.length.toLocaleString("en") + " reviewed";
  $("back").disabled = state.at === 0;
  $("next").disabled = state.at === items.length - 1;
  $("open").disabled = done === items.length;
  $("undo").disabled = !state.log.length;
  keep();
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function picture(image) {
  if (typeof image === "string") return element("p", image);
  const made = document.createElement("img");
  made.src = data.images[image];
  made.alt = "image of this row";
  return made;
}

function found() {
  const { field } = items[state.at];
  if (!field.labels) return VERDICTS.slice(0, 2);
  const words = searched.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = field.labels.filter((l) => words.every((w) => l.toLowerCase().includes(w)));
  const whole = searched.trim().toLowerCase();
  return fits.sort((a, b) => b.toLowerCase().startsWith(whole) - a.toLowerCase().startsWith(whole));
}

function choices() {
  const { field } = items[state.at];
  const own = given(state.at);
  const all = found();
  const buttons = all.slice(0, MOST).map((label, i) => choice(label, i < 9 ? i + 1 : "", field.labels ? own.correct === label : own.verdict === label));
  buttons.push(choice("unsure", 0, own.verdict === "unsure"));
  $("choices").replaceChildren(...buttons);
  const hidden = all.length - MOST;
  $("rest").textContent = hidden > 0 ? hidden.toLocaleString("en") + " more labels: search" : all.length ? "" : "No label matches.";
}

function choice(label, key, pressed) {
  const made = document.createElement("button");
  made.type = "button";
  const hint = element("kbd", key);
  if (key === "") hint.style.visibility = "hidden";
  made.append(hint, element("span", label));
  made.setAttribute("aria-pressed", pressed);
  made.addEventListener("click", () => take(key === 0 ? null : label));
  return made;
}

function take(label) { // null: unsure
  const { field } = items[state.at];
  if (label === null) give({ verdict: "unsure", correct: "" }, true);
  else if (field.labels) give({ verdict: "", correct: label }, true);
  else give({ verdict: label, correct: "" }, label === "right");
  if (document.activeElement && document.activeElement !== document.body) document.activeElement.blur();
}

function step(by) {
  state.at = Math.min(Math.max(state.at + by, 0), items.length - 1);
  searched = "";
  show();
}

function nextOpen() {
  for (let k = 1; k <= items.length; k++) {
    const i = (state.at + k) % items.length;
    if (!judged(i)) { state.at = i; searched = ""; show(); return; }
  }
}

// --- saving ---

const cell = (text) => /[",\r\n]|^\s|\s$/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;

function sheet() {
  const header = ["review", ...data.keyNames, "field", "correct", "verdict", "reviewer", "note"];
  const lines = items.map(({ row, field }, i) => {
    const own = given(i);
    return [data.review, ...row.key, field.name, own.correct || "", own.verdict || "", judged(i) ? state.reviewer : "", own.note || ""];
  });
  return "\ufeff" + [header, ...lines].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([sheet()], { type: "text/csv" }));
  link.download = "review.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  saved = true;
  keep();
  $("kept").textContent = "saved as review.csv";
}

// --- keys and clicks ---

$("undo").addEventListener("click", undo);
$("save").addEventListener("click", save);
$("back").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("open").addEventListener("click", nextOpen);
$("help").addEventListener("click", () => $("keys").showModal());
$("reviewer").addEventListener("input", () => { touched = true; state.reviewer = $("reviewer").value.trim(); keep(); });
$("search").addEventListener("input", () => { searched = $("search").value; choices(); });
$("note").addEventListener("input", () => { touched = true; state.given[state.at] = { ...given(state.at), note: $("note").value }; saved = false; keep(); });
$("correct").addEventListener("input", () => { touched = true; state.given[state.at] = { ...given(state.at), correct: $("correct").value.trim() }; saved = false; keep(); });
window.addEventListener("beforeunload", (event) => { if ($("kept").textContent.startsWith("This browser")) event.preventDefault(); });

document.addEventListener("keydown", (event) => {
  if ($("keys").open) return;
  const typing = event.target.matches("input, textarea");
  if (typing) {
    if (event.key === "Escape") { event.target.blur(); event.preventDefault(); }
    else if (event.key === "Enter" && event.target === $("search")) {
      const first = found()[0];
      if (first !== undefined && searched.trim()) take(first);
      event.preventDefault();
    } else if (event.key === "Enter" && event.target !== $("reviewer") && !event.shiftKey) {
      event.target.blur();
      step(1);
      event.preventDefault();
    }
    return;
  }
  if ((event.ctrlKey || event.metaKey) && event.key === "z") { undo(); event.preventDefault(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const focus = (id) => { if (!$(id).closest("[hidden]")) { $(id).focus(); event.preventDefault(); } };
  if (event.key === "0") take(null);
  else if (/^[1-9]$/.test(event.key)) { const label = found()[event.key - 1]; if (label !== undefined) take(label); }
  else if (event.key === "ArrowLeft" || event.key === "k") step(-1);
  else if (event.key === "ArrowRight" || event.key === "j") step(1);
  else if (event.key === "g") nextOpen();
  else if (event.key === "z") undo();
  else if (event.key === "s") save();
  else if (event.key === "/") focus("search");
  else if (event.key === "c") focus("correct");
  else if (event.key === "m") focus("note");
  else if (event.key === "?") $("keys").showModal();
});

show();
document.documentElement.dataset.ready = "yes";
