// Asks without leaving the page, and opens the passage behind a citation beside its answer.

import { announce, fragment } from "./app.js";

const form = document.getElementById("ask");
const question = document.getElementById("question");
const button = document.getElementById("ask-send");
const answers = document.getElementById("answers");
const panel = document.getElementById("panel");
const body = document.getElementById("panel-body");
let running = null;

async function ask() {
  if (!question.value.trim()) return;
  running = new AbortController();
  button.textContent = "Stop";
  announce("Asking the permitted places…");
  try {
    const given = new URLSearchParams(new FormData(form));
    const answer = await fragment("/portal/ask", { method: "POST", body: given, signal: running.signal });
    answers.prepend(...answer.elements);
    announce(answer.ok ? "The answer stands below." : "There is no answer; the reason stands below.");
    if (answer.ok) {
      question.value = "";
      answers.firstElementChild?.focus();
    }
  } catch (error) {
    announce("Stopped.");
  }
  running = null;
  button.textContent = "Ask";
}

async function open(link) {
  const address = new URL(link.href);
  const answer = await fragment(address.pathname + address.search);
  body.replaceChildren(...answer.elements);
  if (!panel.open) panel.showModal();
  const mark = body.querySelector("mark");
  if (mark) mark.scrollIntoView({ block: "center" });
  else body.scrollTop = 0;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else ask();
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !running) {
    event.preventDefault();
    form.requestSubmit();
  }
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-source]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  open(link);
});
panel.addEventListener("click", (event) => {
  if (event.target === panel) panel.close();
});
