// A row of tiles: a file input, then a radio group. The group is one Tab stop; arrow keys move within it, and Enter, Space
// or a click choose. A picture that is chosen, dropped anywhere on the page, or pasted is sent to the server.

const input = element.querySelector("input"), row = element.querySelector(".tiles");
const tiles = [...element.querySelectorAll("[role=radio]")];
const frame = element.querySelector(".frame"), sending = element.querySelector(".sending");
let turn = 0; // of the file that was sent last
let ours = false; // what is dragged comes from the page itself

const makeTabStop = (tile) => tiles.forEach((other) => (other.tabIndex = other === tile ? 0 : -1));

/** Marks what the page shows: the tile of that index, or -1 for the visitor's own photo. */
function mark(index) {
  tiles.forEach((tile, i) => tile.setAttribute("aria-checked", i === index));
  makeTabStop(tiles[Math.max(index, 0)]);
  input.setAttribute("aria-current", index < 0);
  const { offsetLeft: left, offsetWidth: width } = tiles[index] ?? input.parentElement;
  if (left < row.scrollLeft || left + width > row.scrollLeft + row.clientWidth) row.scrollLeft = left - 16;
}

async function send(files) {
  const [file] = files, mine = ++turn;
  if (files.length > 1) trigger("info", `One picture at a time: this is ${file.name}.`);
  if (file.size > props.megabytes * 2 ** 20) {
    return trigger("warning", `${file.name} is too large: choose a picture of at most ${props.megabytes} MB.`);
  }
  sending.hidden = false;
  try {
    const { path } = await upload(file); // where it fails, gradio says why
    if (mine !== turn) return; // another one has been chosen since
    props.value = { path, orig_name: file.name, meta: { _type: "gradio.FileData" } };
    trigger("upload");
  } finally {
    if (mine === turn) sending.hidden = true;
  }
}

input.addEventListener("change", () => {
  if (input.files.length) send([...input.files]);
  input.value = ""; // so that the same file can be chosen again
});

tiles.forEach((tile, index) => {
  tile.addEventListener("click", () => trigger("select", { index, value: tile.innerText }));
  tile.addEventListener("keydown", (event) => {
    const { key } = event, last = tiles.length - 1;
    const to = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: last }[key];
    if (to === undefined) return;
    event.preventDefault();
    const next = tiles[(to + tiles.length) % tiles.length];
    makeTabStop(next);
    next.focus();
  });
});

// A part of the page that takes files itself stops the event on its way up.
const holdsFiles = (event) => !ours && event.dataTransfer.types.includes("Files");
const showFrame = (shown) => (frame.hidden = !shown);
document.addEventListener("dragstart", () => (ours = true), true);
document.addEventListener("dragend", () => (ours = false), true);
document.addEventListener("dragover", () => showFrame(false), true);
document.addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  showFrame(true);
});
document.addEventListener("dragleave", (event) => event.relatedTarget || showFrame(false), true);
document.addEventListener("drop", () => showFrame(false), true);
document.addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  send([...event.dataTransfer.files]);
});

document.addEventListener("paste", ({ target, clipboardData }) => {
  const typing = target.closest("input, textarea, [contenteditable]") && clipboardData.types.includes("text/plain");
  if (clipboardData.files.length && !typing) send([...clipboardData.files]);
});

watch("value", () => mark(props.value));
mark(props.value);
