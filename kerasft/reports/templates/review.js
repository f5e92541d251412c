// The page of `kerasft review`: one photo at a time, a key for each class, and the table filled.
// Names of classes and files are only ever text. What is typed stays in the browser's storage, so
// that a page that was closed goes on where it was.

const $ = (name) => document.getElementById(name);
const KEYS = "1234567890abcdefghijklmnopqrstuvwxyz";
const { key, table, columns, classes, photos } = JSON.parse($("data").textContent);

// Path of a photo -> its label, "" for one that was left out. By path, and not by page, so that a
// page that is made again for the same table knows what was said.
const labels = stored();
let at = photos.findIndex((photo) => !labels.has(photo.path));
if (at < 0) at = photos.length;

function stored() {
  try {
    return new Map(JSON.parse(localStorage.getItem(key)) ?? []);
  } catch {
    return new Map(); // no storage, as in a private window
  }
}

/** Sets the label of the photo that is shown, "" for none, and shows the next one. */
function set(label) {
  if (at >= photos.length) return;
  labels.set(photos[at].path, label);
  try {
    localStorage.setItem(key, JSON.stringify([...labels]));
  } catch {
    // the page works without it
  }
  if (label) add(label);
  go(at + 1);
}

function go(to) {
  at = Math.max(0, Math.min(photos.length, to));
  show();
}

function show() {
  const photo = photos[at];
  const labelled = photos.filter((one) => labels.get(one.path)).length;
  $("desk").hidden = !photo;
  $("done").textContent = photo
    ? `${labelled} of ${photos.length} labelled`
    : `All ${photos.length} seen: ${labelled} labelled, ${photos.length - labelled} left out.`;
  $("again").hidden = Boolean(photo);
  $("bar").style.width = `${(100 * labelled) / photos.length}%`;
  if (!photo) return;
  $("place").textContent = `Photo ${at + 1} of ${photos.length}`;
  $("path").textContent = photo.shown;
  $("why").textContent = photo.why;
  $("photo").hidden = !photo.picture;
  $("no-picture").hidden = Boolean(photo.picture);
  if (photo.picture) $("photo").src = photo.picture;
  $("photo").alt = photo.shown;
  $("name").value = "";
  $("back").disabled = at === 0;
  for (const [i, button] of [...$("classes").children].entries()) {
    button.setAttribute("aria-pressed", String(classes[i] === labels.get(photo.path)));
    button.classList.toggle("guess", classes[i] === photo.guess);
  }
}

/** Writes the table: fields in quotes where they need them (RFC 4180). */
function csv() {
  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = photos.map((photo) => [...photo.cells, labels.get(photo.path) ?? ""]);
  return [columns, ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}

/** Adds a class that was typed, unless it is there. */
function add(name) {
  if (classes.includes(name)) return;
  classes.push(name);
  button(name, classes.length - 1);
}

/** Makes the button of a class, with its key. */
function button(name, i) {
  const made = document.createElement("button");
  made.type = "button";
  if (KEYS[i]) {
    const key = document.createElement("kbd");
    key.textContent = KEYS[i];
    made.append(key, " ");
  }
  made.append(name); // no control characters: a run refuses them, and the field takes none
  made.addEventListener("click", () => set(name));
  $("classes").append(made);
  const option = document.createElement("option");
  option.value = name;
  $("names").append(option);
}

classes.forEach(button);
photos.map((photo) => labels.get(photo.path)).filter(Boolean).forEach(add);

$("other").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  $("name").blur();
  const same = classes.find((one) => one.toLowerCase() === name.toLowerCase());
  if (name) set(same ?? name);
});
$("back").addEventListener("click", () => go(at - 1));
document.addEventListener("click", (event) => {
  // A button that was clicked would take the keys that follow.
  if (event.detail) document.activeElement?.closest("button")?.blur();
});
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
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target === $("name")) {
    if (event.key === "Escape") $("name").blur();
    return;
  }
  if (event.key === " " && event.target.closest?.("button, a, summary")) return; // it presses that
  const place = KEYS.indexOf(event.key.toLowerCase());
  if (event.key.length === 1 && place >= 0 && place < classes.length) set(classes[place]);
  else if (event.key === " ") set("");
  else if (event.key === "ArrowLeft" || event.key === "Backspace") go(at - 1);
  else if (event.key === "ArrowRight") go(at + 1);
  else return;
  event.preventDefault(); // Space would press the button that has the focus, too
});

$("result").hidden = false;
show();
