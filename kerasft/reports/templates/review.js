// The page of `kerasft review`: one photo at a time, a key for each class, and the table filled.
// Names of classes and files are only ever text. What is typed stays in the browser's storage, so
// that a page that was closed goes on where it was.

const KEYS = "1234567890abcdefghijklmnopqrstuvwxyz";
const { table, classes, photos, id } = JSON.parse(document.getElementById("data").textContent);
const STORED = `kerasft-review ${id}`;
const $ = (name) => document.getElementById(name);

const state = stored() ?? { at: 0, labels: photos.map(() => "") };

function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(STORED));
    return found?.labels?.length === photos.length ? found : null;
  } catch {
    return null; // no storage, as in a private window
  }
}

function store() {
  try {
    localStorage.setItem(STORED, JSON.stringify(state));
  } catch {
    // the page works without it
  }
}

/** Sets the label of the photo that is shown, "" for none, and shows the next one. */
function set(label) {
  if (state.at >= photos.length) return;
  state.labels[state.at] = label;
  go(state.at + 1);
}

function go(at) {
  state.at = Math.max(0, Math.min(photos.length, at));
  store();
  show();
}

function show() {
  const photo = photos[state.at];
  const labelled = state.labels.filter(Boolean).length;
  $("desk").hidden = !photo;
  $("done").textContent = photo
    ? `${labelled} of ${photos.length} labelled`
    : `All ${photos.length} seen: ${labelled} labelled, ${photos.length - labelled} left out.`;
  $("again").hidden = Boolean(photo);
  $("bar").style.width = `${(100 * labelled) / photos.length}%`;
  if (!photo) return;
  $("place").textContent = `Photo ${state.at + 1} of ${photos.length}`;
  $("path").textContent = photo.shown;
  $("why").textContent = photo.why;
  $("photo").hidden = !photo.picture;
  $("no-picture").hidden = Boolean(photo.picture);
  if (photo.picture) $("photo").src = photo.picture;
  $("photo").alt = photo.shown;
  $("name").value = "";
  $("back").disabled = state.at === 0;
  const label = state.labels[state.at];
  for (const [i, button] of [...$("classes").children].entries()) {
    button.setAttribute("aria-pressed", String(classes[i].name === label));
    button.classList.toggle("guess", classes[i].name === photo.guess);
  }
  if (label && !classes.some((one) => one.name === label)) $("name").value = label;
}

/** Writes the table: fields in quotes where they need them (RFC 4180). */
function csv() {
  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = photos.map((photo, i) => [...photo.cells, state.labels[i]]);
  return [["path", "guess", "score", "why", "label"], ...rows]
    .map((row) => row.map(cell).join(",") + "\n").join("");
}

for (const [i, { name, shown }] of classes.entries()) {
  const button = document.createElement("button");
  button.type = "button";
  if (KEYS[i]) {
    const key = document.createElement("kbd");
    key.textContent = KEYS[i];
    button.append(key, " ");
  }
  button.append(shown);
  button.addEventListener("click", () => set(name));
  $("classes").append(button);
  const option = document.createElement("option");
  option.value = name;
  $("names").append(option);
}

$("other").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  $("name").blur();
  if (name) set(name);
});
$("back").addEventListener("click", () => go(state.at - 1));
$("again").addEventListener("click", () => go(0));
$("skip").addEventListener("click", () => set(""));
$("download").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = table;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === $("name")) {
    if (event.key === "Escape") $("name").blur();
    return;
  }
  const at = KEYS.indexOf(event.key.toLowerCase());
  if (event.key.length === 1 && at >= 0 && at < classes.length) set(classes[at].name);
  else if (event.key === " ") set("");
  else if (event.key === "ArrowLeft" || event.key === "Backspace") go(state.at - 1);
  else if (event.key === "ArrowRight") go(state.at + 1);
  else return;
  event.preventDefault(); // Space would press the button that has the focus, too
});

$("result").hidden = false;
show();
