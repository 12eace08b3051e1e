"use strict";

// Keeps the page as the server has it now, uploads what is dropped, and sends the forms as JSON.

const EVERY_MS = 1000;
const sources = new WeakMap();
let last = "";

/** The HTML from which a node was made, whatever has been opened in it since. */
const sourceOf = node => sources.get(node) ?? node.outerHTML;

const remember = node => {
  sources.set(node, node.outerHTML);
  return node;
};

const focusable = node => [...node.querySelectorAll("a, summary, pre")];

/** Make the items of a list those of `fresh`; unchanged ones stay, with what is open or focused in them. */
function updateList(list, fresh) {
  const old = new Map([...list.children].map(item => [item.id, item]));
  let place = list.firstElementChild;
  for (const item of [...fresh.children]) {
    const before = old.get(item.id);
    old.delete(item.id);
    if (before && sourceOf(before) === item.outerHTML) {
      if (before === place) place = place.nextElementSibling;
      else list.insertBefore(before, place);
      continue;
    }
    remember(item);
    const isOpen = before?.querySelector("details[open]");
    const focus = before ? focusable(before).indexOf(document.activeElement) : -1;
    if (before) {
      if (before === place) place = place.nextElementSibling;
      before.remove();
    }
    list.insertBefore(item, place);
    if (isOpen) item.querySelector("details").open = true;
    focusable(item)[focus]?.focus();
  }
  for (const item of old.values()) item.remove();
}

async function refresh() {
  const response = await fetch(location.href, { cache: "no-store" });
  const text = await response.text();
  if (text === last) return;
  last = text;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(part.id);
    if (now && sourceOf(part) !== now.outerHTML) part.replaceWith(remember(now));
  }
  for (const list of document.querySelectorAll("[data-list]")) {
    const now = fresh.getElementById(list.id);
    if (now) updateList(list, now);
  }
}

const connection = document.getElementById("connection");

function say(isLive) {
  const words = isLive ? "live" : "the emulator does not answer";
  if (connection.textContent === words) return;
  connection.textContent = words;
  connection.className = `state ${isLive ? "good" : "bad"}`;
}

async function keepFresh() {
  if (!document.hidden) {
    try {
      await refresh();
      say(true);
    } catch {
      say(false);
    }
  }
  setTimeout(keepFresh, EVERY_MS);
}

/** Send a request; its JSON, or an Error with the words of the server. */
async function send(method, path, { json, file } = {}) {
  const type = file ? "application/octet-stream" : "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers: { "Content-Type": type }, body: file ?? JSON.stringify(json) });
  } catch {
    throw new Error("the emulator does not answer, or the file cannot be read");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `the emulator answered ${response.status}`);
  return answer;
}

async function upload(file, form) {
  const line = document.createElement("li");
  const name = document.createElement("bdi");
  name.textContent = file.name;
  const report = words => { line.replaceChildren(name, `: ${words}`); };
  report("uploading");
  document.getElementById("uploads").append(line);
  try {
    const { bucket, region, ...process } = Object.fromEntries(new FormData(form));
    const key = `dropped/${Date.now().toString(36)}/${file.name}`;
    const path = ["upload", `${bucket}.cos.${region}.myqcloud.com`, ...key.split("/")].map(encodeURIComponent).join("/");
    await send("PUT", `/_emulator/${path}`, { file });
    const job = await send("POST", "/_emulator/jobs", { json: { bucket, region, key, process } });
    report("job ");
    const link = document.createElement("a");
    link.href = `/jobs/${job.job_id}`;
    link.textContent = job.job_id;
    line.append(link);
    await refresh();
  } catch (error) {
    report(error.message);
    line.className = "problem";
  }
}

async function uploadAll(files, form) {
  for (const file of files) await upload(file, form);
}

/** The values of a form that are given: numbers as numbers, and no number of times as null. */
function values(form) {
  const found = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled) continue;
    if (field.type === "checkbox") {
      if (field.checked) found[field.name] = true;
    } else if (field.type === "number") {
      if (field.value !== "") found[field.name] = field.valueAsNumber;
      else if (field.name === "times") found.times = null;
    } else if (field.value !== "") {
      found[field.name] = field.value;
    }
  }
  return found;
}

/** Say what the kind of a fault does, and offer the operations that fit it, and its seconds if it has them. */
function fit(form) {
  const { kind, operation, seconds } = form.elements;
  const { meaning, operations, seconds: has } = kind.selectedOptions[0].dataset;
  document.getElementById("meaning").textContent = meaning;
  for (const option of operation.options) option.disabled = !operations.split(" ").includes(option.value);
  if (operation.selectedOptions[0].disabled) operation.value = operations.split(" ")[0];
  seconds.disabled = has === undefined;
}

function onSubmit(form, act) {
  const problem = form.querySelector(".problem");
  return async event => {
    event.preventDefault();
    problem.textContent = "";
    try {
      await act(values(form));
      await refresh();
    } catch (error) {
      problem.textContent = error.message;
    }
  };
}

const drop = document.getElementById("upload");
if (drop) {
  const files = document.getElementById("files");
  files.addEventListener("change", () => {
    uploadAll([...files.files], drop);
    files.value = "";
  });
  drop.addEventListener("submit", event => event.preventDefault());
  // Anywhere on the page: a document that misses the field must not replace the page.
  document.addEventListener("dragover", event => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", event => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", event => {
    event.preventDefault();
    drop.classList.remove("over");
    uploadAll([...event.dataTransfer.files], drop);
  });
  const fault = document.getElementById("fault");
  fault.elements.kind.addEventListener("change", () => fit(fault));
  fit(fault);
  fault.addEventListener("submit", onSubmit(fault, json => send("POST", "/_emulator/faults", { json })));
  document.getElementById("clear-faults").addEventListener(
    "click", onSubmit(fault, () => send("DELETE", "/_emulator/faults")));
  document.addEventListener("click", async event => {
    const path = event.target.closest("[data-post]")?.dataset.post;
    if (!path) return;
    try {
      await send("POST", path);
      await refresh();
    } catch (error) {
      document.getElementById("refused").textContent = error.message;
    }
  });
  const clock = document.getElementById("clock");
  clock.addEventListener("submit", onSubmit(clock, json => send("PUT", "/_emulator/clock", { json })));
}
document.querySelectorAll("[data-live], [data-list] > *").forEach(remember);
keepFresh();
