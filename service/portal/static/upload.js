// Sends files one by one, with progress, after the service has said where they would lie.

import { elementsOf, fragment, token } from "./app.js";
import { refresh } from "./documents.js";

const form = document.getElementById("upload");
const files = document.getElementById("files");
const drop = document.getElementById("drop");
const list = document.getElementById("sending");
const staged = document.getElementById("chosen");
const check = document.getElementById("check");
const send = document.getElementById("send");
const most = Number(form.dataset.most);
let asked = 0;
let busy = false;

function declaration() {
  const given = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (typeof value === "string" && name !== "csrf") given.append(name, value);
  }
  return given;
}

async function ask() {
  const mine = ++asked;
  const answer = await fragment("/portal/check", { method: "POST", body: declaration() });
  if (mine !== asked) return false;
  check.replaceChildren(...answer.elements);
  const permitted = check.querySelector('[data-permitted="true"]') !== null;
  send.disabled = !permitted || busy;
  return permitted;
}

function size(count) {
  const write = (share, unit) => `${share.toFixed(1).replace(".0", "")} ${unit}`;
  if (count >= 1048576) return write(count / 1048576, "MiB");
  return count >= 1024 ? write(count / 1024, "KiB") : `${count} bytes`;
}

function line(file) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  name.className = "sending-name";
  name.textContent = file.name;
  const state = document.createElement("span");
  state.className = "muted";
  state.textContent = size(file.size);
  item.append(name, state);
  return { item, state };
}

function choose() {
  staged.replaceChildren(...[...files.files].map((file) => line(file).item));
  const count = files.files.length;
  send.textContent = count === 1 ? "Send 1 file" : count ? `Send ${count} files` : "Send";
}

function problem(item, title, next) {
  item.replaceChildren();
  item.className = "sent bad";
  const first = document.createElement("p");
  first.textContent = title;
  const second = document.createElement("p");
  second.className = "next";
  second.textContent = next;
  item.append(first, second);
}

function put(file, item, state) {
  return new Promise((done) => {
    if (file.size > most) {
      problem(item, `${file.name} is larger than ${size(most)}.`, "Split it, or ask your operator to raise the limit.");
      done();
      return;
    }
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", `Sending ${file.name}`);
    item.append(bar);
    const call = new XMLHttpRequest();
    call.open("PUT", `/portal/documents/${encodeURIComponent(file.name)}?${declaration()}`);
    call.setRequestHeader("X-CSRF-Token", token);
    call.setRequestHeader("Domicile-Fragment", "true");
    call.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    call.upload.onprogress = (event) => {
      if (!event.lengthComputable) return;
      bar.value = event.loaded / event.total;
      state.textContent = event.loaded < event.total ? `${Math.floor(bar.value * 100)} %` : "being sealed";
    };
    call.onload = () => {
      item.replaceChildren(...elementsOf(call.responseText));
      done();
    };
    call.onerror = () => {
      problem(item, `${file.name}: sending broke off.`, "Check the connection and send it again; nothing half-done is kept.");
      done();
    };
    call.send(file);
  });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (busy || !files.files.length) return;
  if (!(await ask())) return;
  busy = true;
  send.disabled = true;
  const chosen = [...files.files];
  const lines = chosen.map(line);
  list.replaceChildren(...lines.map((each) => each.item));
  files.value = ""; // what is chosen from now on is for the next time
  choose();
  for (const [at, file] of chosen.entries()) {
    await put(file, lines[at].item, lines[at].state);
    refresh();
  }
  busy = false;
  send.disabled = false;
});

files.addEventListener("change", choose);
for (const name of ["jurisdiction", "residency", "personal", "categories", "classification", "collection"]) {
  for (const field of form.querySelectorAll(`[name="${name}"]`)) field.addEventListener("change", ask);
}
for (const name of ["dragover", "dragenter"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) {
    files.files = event.dataTransfer.files;
    choose();
  }
});
ask();
