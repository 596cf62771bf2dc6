// Keeps the list of documents up to date: row by row, so that focus and reading place stay.

import { announce, fragment } from "./app.js";

const rows = document.getElementById("rows");
let timer = 0;

function words(place) {
  const found = new Map();
  for (const row of place.querySelectorAll(".doc")) found.set(row.dataset.key, row.dataset);
  return found;
}

function put(old, fresh) {
  if (old.outerHTML === fresh.outerHTML) return old;
  const focused = old.contains(document.activeElement) ? [...old.querySelectorAll("a, button")].indexOf(document.activeElement) : -1;
  old.replaceWith(fresh);
  if (focused >= 0) fresh.querySelectorAll("a, button")[focused]?.focus();
  return fresh;
}

function merge(elements) {
  const list = rows.querySelector(".docs");
  const next = elements.find((element) => element.matches(".docs"));
  if (!list || !next) {
    rows.replaceChildren(...elements);
    return;
  }
  const known = new Map([...list.children].map((row) => [row.dataset.key, row]));
  let last = null;
  for (const fresh of [...next.children]) {
    const old = known.get(fresh.dataset.key);
    known.delete(fresh.dataset.key);
    const row = old ? put(old, fresh) : fresh;
    const place = last ? last.nextElementSibling : list.firstElementChild;
    if (place !== row) list.insertBefore(row, place);
    last = row;
  }
  for (const gone of known.values()) gone.remove();
}

/** Bring the list up to date now, and say what became of each document: one message a state. */
export async function refresh() {
  clearTimeout(timer);
  const before = words(rows);
  const answer = await fragment(rows.dataset.url);
  if (answer.ok) {
    merge(answer.elements);
    const said = [];
    for (const [key, now] of words(rows)) {
      const was = before.get(key);
      if (!was || was.word !== now.word) said.push(`${now.name}: ${now.word}`);
    }
    if (said.length) announce(said.join(". "));
  } else if (answer.status === 401) {
    rows.replaceChildren(...answer.elements);
    return;
  }
  timer = setTimeout(tick, rows.querySelector("[data-moving]") ? 700 : 15000);
}

function tick() {
  if (document.hidden) timer = setTimeout(tick, 2000);
  else refresh();
}

timer = setTimeout(tick, rows.querySelector("[data-moving]") ? 700 : 15000);
