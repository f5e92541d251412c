// The page of `kerasft serve`: the server, the photos, what is shown, what is pressed.
// Photos are sent as they are, one in a request. Names of classes and files are only ever text.
"use strict";

const AT_ONCE = 4; // requests at a time: the server has work, and few are in vain after "Cancel"
const TRIES = 5; // of a request that the server is too busy for
const FEW = 12; // classes that are listed without unfolding
const TOKEN = "kerasft-token"; // key of the session storage, which a tab keeps until it is closed

const $ = (id) => document.getElementById(id);
const share = (score) => {
  const text = `${(100 * score).toFixed(1)}%`;
  if (text === "100.0%" && score < 1) return "over 99.9%";
  return text === "0.0%" && score > 0 ? "under 0.1%" : text;
};
const photos = (count) => (count === 1 ? "1 photo" : `${count.toLocaleString("en")} photos`);
const megabytes = (size) => `${(size / 1e6).toFixed(1)} MB`;

// The server

/** An answer that is no success: a sentence, and whether another try may go better. */
class Refused extends Error {
  constructor(sentence, again) {
    super(sentence);
    this.again = again;
  }
}

let about = null; // what /page/about says
let token = stored();
let asking = null; // { promise, resolve } while the form for the token is open

/** Sends a request until there is an answer: waits for a token, and while the server is busy. */
async function send(path, { body, signal } = {}) {
  for (let left = TRIES; ;) {
    const used = token;
    const headers = used ? { Authorization: `Bearer ${used}` } : {};
    let response;
    try {
      response = await fetch(path, { method: body ? "POST" : "GET", body, headers, signal });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw await unsent(body);
    }
    if (response.ok) {
      accept(used);
      return response;
    }
    if (response.status === 401) {
      if (used === token) await aborts(askForToken(Boolean(used)), signal);
      continue;
    }
    if (response.status === 503 && --left) {
      const seconds = Math.min(10, Number(response.headers.get("Retry-After")) || 1);
      await aborts(new Promise((resolve) => setTimeout(resolve, 1000 * seconds)), signal);
      continue;
    }
    throw new Refused(await sentence(response), [408, 500, 502, 503, 504].includes(response.status));
  }
}

async function unsent(file) {
  try {
    await file?.slice(0, 1).arrayBuffer();
  } catch {
    return new Refused("The file can't be read. Was it moved or changed? Choose it once more.", false);
  }
  return new Refused("The server does not answer. Is it still running?", true);
}

async function sentence(response) {
  try {
    return (await response.json()).error || `The server answered with status ${response.status}.`;
  } catch {
    return `The server answered with status ${response.status}.`; // of a proxy in between
  }
}

function aborts(promise, signal) {
  if (!signal) return promise;
  return Promise.race([promise, new Promise((_, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
  })]);
}

function stored() {
  try {
    return sessionStorage.getItem(TOKEN) || "";
  } catch {
    return ""; // the browser keeps nothing
  }
}

function askForToken(wrong) {
  if (!asking) {
    let resolve;
    const promise = new Promise((done) => { resolve = done; });
    asking = { promise, resolve };
  }
  $("token-why").textContent = wrong
    ? "That is not the right one." : "Whoever started it has set one, and can tell you.";
  $("token").setAttribute("aria-invalid", String(wrong));
  $("token-form").hidden = false;
  $("token").focus();
  return asking.promise;
}

function accept(used) {
  if ($("token-form").hidden || used !== token) return;
  const had = $("token-form").contains(document.activeElement);
  $("token-form").hidden = true;
  $("token").value = "";
  if (had) $("choose").focus();
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch { /* then it is asked for again */ }
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("token").value.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) { // a header can't hold it
    askForToken(true);
    return;
  }
  token = given;
  const { resolve } = asking;
  asking = null;
  resolve();
});

async function learn() {
  about = await (await send("page/about")).json();
  const { name, version, format, classes, threshold, image_size: side } = about;
  const count = classes.length;
  document.title = `${name} · kerasft`;
  $("name").textContent = name;
  $("facts").textContent = `Version ${version} · ${format} · ${count} classes · sees ${side} by ${side} pixels`
    + (threshold === null ? "" : ` · says “I don't know” below ${share(threshold)}`);
  $("few-classes").textContent = classes.join(", ");
  $("few-classes").hidden = count > FEW;
  $("many-classes").hidden = count <= FEW;
  $("many-classes").firstElementChild.textContent = "Its classes";
  $("many-classes").lastElementChild.replaceChildren(...classes.map((one) => {
    const item = document.createElement("li");
    item.textContent = one;
    return item;
  }));
  const at = (path) => new URL(path, document.baseURI).href;
  const header = token ? '-H "Authorization: Bearer $TOKEN" ' : "";
  $("short").textContent = `curl ${header}--data-binary @photo.jpg ${at("page/predict")}`;
  $("rest").textContent = `(echo '{"instances": [{"b64": "'; base64 < photo.jpg; echo '"}]}') |\n`
    + `  curl ${header}--data @- ${at(`v1/models/${name}:predict`)}`;
  $("openapi").textContent = at("openapi.json");
  $("token-hint").hidden = !token;
  if (shown) showLabels();
}

// The photos

const all = []; // in the order in which they came
let shown = null; // the one whose labels are shown
let running = 0;

const WAITS = "waits", ASKED = "asked", DONE = "done", FAILED = "failed";

/** Takes files, each with the name that is shown, and asks the server for their labels. */
function take(files) {
  if (!files.length) return;
  $("notice").hidden = true;
  learn().catch(() => {}); // there may be a new version; if the server is away, the photos say so
  const taken = files.map(([file, name]) => ({
    file, name, state: WAITS, labels: [], abstain: null, novel: null, error: "", again: false,
    url: URL.createObjectURL(file), heats: new Map(), heatOf: null, row: null, stop: null,
  }));
  for (const photo of taken) {
    all.push(photo);
    addRow(photo);
  }
  show(taken.length === 1 ? taken[0] : null);
  work();
}

function work() {
  for (const photo of all) {
    if (running >= AT_ONCE) break;
    if (photo.state !== WAITS) continue;
    running += 1;
    ask(photo).finally(() => {
      running -= 1;
      work();
    });
  }
  showCount();
}

async function ask(photo) {
  photo.state = ASKED;
  photo.error = "";
  photo.stop = new AbortController();
  showPhoto(photo);
  try {
    if (about && photo.file.size > about.largest_file) {
      throw new Refused(`The file has ${megabytes(photo.file.size)}. This server takes at most `
        + `${megabytes(about.largest_file)}.`, false);
    }
    const response = await send("page/predict", { body: photo.file, signal: photo.stop.signal });
    const { labels, abstain, novel } = await response.json();
    Object.assign(photo, { state: DONE, labels, abstain, novel });
  } catch (error) {
    fail(photo, error);
  }
  showPhoto(photo);
  if (photo === shown) say(photo);
}

function fail(photo, error) {
  const cancelled = photo.stop?.signal.aborted;
  photo.state = FAILED;
  photo.error = cancelled ? "Cancelled." : error instanceof Refused ? error.message : `${error}`;
  photo.again = Boolean(cancelled || error.again);
}

function cancel() {
  for (const photo of all) {
    if (photo.state === ASKED) photo.stop.abort();
    if (photo.state === WAITS) {
      Object.assign(photo, { state: FAILED, error: "Cancelled.", again: true });
      showPhoto(photo);
    }
  }
  showCount();
}

function askAgain(some) {
  for (const photo of some.filter((one) => one.again)) {
    Object.assign(photo, { state: WAITS, again: false, error: "" });
    showPhoto(photo);
  }
  work();
}

function clear() {
  cancel();
  for (const photo of all) {
    for (const url of [photo.url, ...photo.heats.values()]) URL.revokeObjectURL(url);
  }
  all.length = 0;
  $("rows").replaceChildren();
  $("said").textContent = "";
  show(null);
  showCount();
  $("choose").focus();
}

/** Writes the table: path, predicted, score, abstain as `kerasft predict --csv` does, and more. */
function csv() {
  const flag = (value) => (value === null ? "" : String(value));
  const rows = all.map(({ name, labels: [best], abstain, novel, error }) => [
    name, best?.label ?? "", best ? best.score.toFixed(6) : "", flag(abstain), flag(novel), error,
  ]);
  const cell = (text) => {
    const plain = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // a spreadsheet would compute it
    return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  const head = ["path", "predicted", "score", "abstain", "novel", "error"];
  return [head, ...rows].map((row) => `${row.map(cell).join(",")}\n`).join("");
}

function download() {
  // The mark at the start tells spreadsheets that this is UTF-8.
  const url = URL.createObjectURL(new Blob(["\ufeff", csv()], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `${about?.name ?? "kerasft"}-labels.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// What is shown

function notify(text, again) {
  $("notice").firstElementChild.textContent = text;
  $("notice").lastElementChild.hidden = !again;
  $("notice").lastElementChild.onclick = again;
  $("notice").hidden = false;
}

function doubts(photo) {
  return [photo.abstain && "I don't know", photo.novel && "unlike the training photos"].filter(Boolean);
}

function say(photo) {
  const [best] = photo.labels;
  const answer = photo.abstain ? `I don't know. The best guess is ${best.label}` : best?.label;
  const unlike = photo.novel ? " Unlike the training photos." : "";
  $("said").textContent = photo.state === DONE
    ? `${photo.name}: ${answer}, ${share(best.score)}.${unlike}` : `${photo.name}: ${photo.error}`;
}

function addRow(photo) {
  photo.row = $("row").content.firstElementChild.cloneNode(true);
  const picture = photo.row.querySelector("img");
  picture.onerror = () => {
    picture.hidden = true;
    picture.parentElement.classList.add("none");
  };
  picture.src = photo.url;
  photo.row.querySelector("button").textContent = photo.name;
  photo.row.addEventListener("click", () => {
    show(photo);
    $("verdict").focus();
    $("one").scrollIntoView({ block: "nearest" });
  });
  $("rows").append(photo.row);
  showPhoto(photo);
}

function showPhoto(photo) {
  const [best] = photo.labels;
  const cell = (name) => photo.row.querySelector(`.${name}`);
  photo.row.classList.toggle("unsure", Boolean(photo.abstain));
  photo.row.classList.toggle("failed", photo.state === FAILED);
  cell("label").textContent = photo.state === DONE ? best.label : photo.state === FAILED ? "" : "…";
  cell("score").textContent = photo.state === DONE ? share(best.score) : "";
  cell("doubts").textContent = photo.error || doubts(photo).join(", ");
  if (photo === shown) showLabels();
}

/** Shows a photo with its labels; null shows none. */
function show(photo) {
  shown?.row.removeAttribute("aria-current");
  shown = photo;
  $("one").hidden = !photo;
  $("drop").classList.toggle("small-drop", all.length > 0);
  if (!photo) return;
  photo.row.setAttribute("aria-current", "true");
  $("file-name").textContent = photo.name;
  showPicture();
  showLabels();
  showCount();
}

function showPicture() {
  const photo = shown, label = photo.heatOf;
  const picture = $("picture");
  const none = (there) => {
    picture.hidden = there;
    $("no-picture").hidden = !there;
    $("frame").classList.toggle("none", there);
  };
  none(false);
  picture.onerror = () => none(true);
  picture.alt = label === null ? photo.name : `Heat map of ${photo.name} for ${label}`;
  picture.src = label === null ? photo.url : photo.heats.get(label);
  $("heat").setAttribute("aria-pressed", String(label !== null));
  $("heat-note").textContent = label === null ? "" : `Yellow places speak most for ${label}, dark ones do not (Grad-CAM).`;
}

function showLabels() {
  const photo = shown, { state, labels, abstain, novel } = photo;
  const [best] = labels, done = state === DONE;
  $("one").classList.toggle("unsure", done && Boolean(abstain));
  $("one").classList.toggle("failed", state === FAILED);
  $("one").setAttribute("aria-busy", String(state === WAITS || state === ASKED));
  $("verdict").textContent = done ? (abstain ? "I don't know" : best.label) : state === FAILED ? "No answer" : "One moment …";
  const limit = about?.threshold == null ? "That is too low to be an answer." : `Below ${share(about.threshold)} this model does not answer.`;
  $("explained").textContent = state === FAILED ? photo.error : !done ? ""
    : abstain ? `The best guess is ${best.label}, with a score of ${share(best.score)}. ${limit}` : `Score ${share(best.score)}`;
  $("unlike").hidden = !(done && novel);
  $("bars").replaceChildren(...(done ? labels : []).map(({ label, score }) => {
    const item = $("bar").content.firstElementChild.cloneNode(true);
    item.querySelector(".label").textContent = label;
    item.querySelector(".score").textContent = share(score);
    item.querySelector(".fill").style.width = `${100 * score}%`;
    return item;
  }));
  const count = about?.classes.length ?? 0;
  $("all").hidden = !done || labels.length >= count;
  $("all").textContent = `Show all ${count} labels`;
  $("again-one").hidden = !photo.again;
  $("heat-row").hidden = !(done && about?.explains);
  $("heat-of").replaceChildren(...labels.map(({ label }) => new Option(label, label)));
  $("heat-of").value = photo.heatOf ?? best?.label ?? "";
}

function showCount() {
  const total = all.length, some = (wanted) => all.filter(wanted).length;
  const done = some(({ state }) => state === DONE || state === FAILED);
  const failed = some(({ state }) => state === FAILED), again = some((photo) => photo.again);
  const unsure = some(({ abstain }) => abstain), novel = some((photo) => photo.novel);
  $("several").hidden = total < 2;
  $("close").hidden = total < 2;
  $("drop").classList.toggle("small-drop", total > 0);
  const ready = done === total;
  const text = !ready ? `${done.toLocaleString("en")} of ${photos(total)}` : [photos(total),
    unsure && `${unsure} “I don't know”`, novel && `${novel} unlike the training photos`,
    failed && `${failed} without an answer`].filter(Boolean).join(", ");
  $("count").textContent = text;
  $("progress").max = total;
  $("progress").value = done;
  if (!ready && $("done").contains(document.activeElement)) $("choose").focus();
  const had = document.activeElement === $("cancel");
  $("working").hidden = ready;
  $("done").hidden = !ready;
  if (ready && had) $("csv").focus();
  $("again").hidden = !again;
  $("again").textContent = `Try ${photos(again)} again`;
  if (ready && total > 1 && !shown) $("said").textContent = `Done: ${text}.`;
}

// What is pressed, dropped and pasted

async function toggleHeat(label) {
  const photo = shown;
  if (label !== null && !photo.heats.has(label)) {
    $("heat-note").textContent = "Computing the heat map …";
    try {
      const path = `page/explain?label=${encodeURIComponent(label)}`;
      const response = await send(path, { body: photo.file });
      photo.heats.set(label, URL.createObjectURL(await response.blob()));
    } catch (error) {
      if (photo === shown) $("heat-note").textContent = error.message;
      return;
    }
  }
  photo.heatOf = label;
  if (photo === shown) showPicture();
}

async function showAll() {
  const photo = shown;
  try {
    const response = await send("page/predict?labels=all", { body: photo.file });
    const { labels, abstain, novel } = await response.json(); // of a newer version, perhaps
    Object.assign(photo, { labels, abstain, novel });
    if (photo === shown) {
      showLabels();
      $("verdict").focus();
    }
  } catch (error) {
    notify(error.message, error.again ? showAll : null);
  }
}

/** Lists the files of folders too; hidden files in them, such as .DS_Store, are left out. */
async function filesIn(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [[file, entry.fullPath.replace(/^\//, "")]];
  }
  const reader = entry.createReader(), found = [];
  for (;;) { // it gives at most 100 at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    for (const one of some) if (!one.name.startsWith(".")) found.push(...await filesIn(one));
  }
  return found;
}

const named = (files) => [...files].map((file) => [file, file.name]);

async function takeDropped(transfer) {
  const files = named(transfer.files);
  if (!files.length) {
    notify("Only files can be dropped here. Save the picture first, or copy the picture itself and paste it.");
    return;
  }
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) {
    take(files);
    return;
  }
  try {
    const found = (await Promise.all(entries.map(filesIn))).flat();
    if (found.length) take(found);
    else notify("There is no file in this folder.");
  } catch {
    notify("The folder can't be read. Choose the photos in it instead.");
  }
}

addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault(); // anywhere: the browser would leave the page for the file
  $("drop").classList.remove("over");
  takeDropped(event.dataTransfer);
});
addEventListener("paste", (event) => {
  const files = named(event.clipboardData.files);
  if (files.length) take(files);
  else if (!event.target.closest?.("input")) notify("There is no picture in the clipboard. Copy the picture itself, not its address.");
});

for (const [button, input] of [["choose", "files"], ["photograph", "camera"]]) {
  $(button).addEventListener("click", () => $(input).click());
  $(input).addEventListener("change", () => {
    take(named($(input).files));
    $(input).value = ""; // so that the same file can be chosen once more
  });
}
$("heat").addEventListener("click", () => toggleHeat(shown.heatOf === null ? $("heat-of").value : null));
$("heat-of").addEventListener("change", () => { toggleHeat($("heat-of").value); });
$("all").addEventListener("click", showAll);
$("again-one").addEventListener("click", () => askAgain([shown]));
$("close").addEventListener("click", () => {
  const { row } = shown;
  show(null);
  row.querySelector("button").focus();
});
$("cancel").addEventListener("click", cancel);
$("csv").addEventListener("click", download);
$("again").addEventListener("click", () => askAgain(all));
$("clear").addEventListener("click", clear);

if (navigator.clipboard) { // only where the address is https or this machine
  for (const command of document.querySelectorAll(".command")) {
    const button = document.createElement("button");
    button.type = "button";
    const call = (word) => {
      button.textContent = word;
      button.setAttribute("aria-label", `${word} ${command.dataset.name}`);
    };
    call("Copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(command.querySelector("pre").textContent);
      } catch {
        notify("This browser does not let the page copy. Select the command and copy it.");
        return;
      }
      call("Copied");
      setTimeout(() => call("Copy"), 1500);
    });
    command.append(button);
  }
}

function start() {
  $("notice").hidden = true;
  learn().catch((error) => notify(error.message, start));
}
start();
