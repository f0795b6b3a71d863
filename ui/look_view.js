// Look's page side, last part: all rows in a grid, keys, and what calls what. See look_ask.js.

const TYPING = "input, textarea, select, [contenteditable]";
const grid = find(".grid");
let wasSeen = false;

// ---------------------------------------------------------------- the grid

function forgetRows() {
  grid.replaceChildren();
  shownRow = 0;
  shownVariant = 1;
  stage.dataset.shown = "";
  moveTo(1, 0, 0);
  flip(false);
  paintStage();
}

// Rows that stand there stay as they are while others arrive: nothing on screen reloads.
function paintRows() {
  const isTable = job.variants.length > 2;
  grid.dataset.kind = isTable ? "table" : "cards";
  grid.style.setProperty("--columns", job.variants.length);
  if (isTable && !grid.querySelector(".names") && rows.length) {
    const names = create("div", "names");
    names.append(create("span"), ...job.variants.map((variant) => create("span", "", variant.label)));
    grid.append(names);
  }
  const there = grid.querySelectorAll(".result").length;
  rows.slice(there).forEach((row, index) => grid.append(createRow(row, there + index)));
  if (!rows.length) return;
  if (there === 0) choose(0);
  paintChosen();
}

function createRow(row, number) {
  const line = create("article", "result");
  const words = create("div", "words");
  words.append(create("p", "of", row.prompt), create("p", "which", `seed ${row.seed}`));
  const cells = row.images.map((address, index) => {
    const cell = createButton("cell", undefined, () => choose(number, index || shownVariant));
    cell.title = job.variants[index].label;
    if (!address) {
      cell.classList.add("gone");
      cell.ariaLabel = `${described(row, index)}: the file is gone`;
      return cell;
    }
    const image = create("img");
    image.loading = "lazy";
    image.alt = described(row, index);
    image.src = root + address.thumb;
    cell.append(image);
    return cell;
  });
  line.append(words, ...cells);
  return line;
}

function paintChosen() {
  grid.querySelectorAll(".result").forEach((line, number) => {
    line.classList.toggle("chosen", number === shownRow);
    line.querySelectorAll(".cell").forEach((cell, index) => {
      const isShown = number === shownRow && (index === 0 || index === shownVariant);
      cell.setAttribute("aria-pressed", isShown);
    });
  });
  setText(find(".rowing span"), `${shownRow + 1} of ${rows.length}`);
  find(".rowing").hidden = find(".hint .rows").hidden = rows.length < 2;
  find(".hint .adapters").hidden = job.variants.length < 3;
}

// ---------------------------------------------------------------- keys

const KEYS = {
  "+": () => zoomAt(CENTRE, KEY_ZOOM),
  "=": () => zoomAt(CENTRE, KEY_ZOOM),
  "-": () => zoomAt(CENTRE, 1 / KEY_ZOOM),
  0: () => moveTo(1, 0, 0),
};
MODES.forEach((name, index) => (KEYS[index + 1] = () => chooseMode(name)));
// Only where the focus is here: elsewhere arrows scroll the page.
const ARROWS = {
  ArrowUp: () => choose(shownRow - 1),
  ArrowDown: () => choose(shownRow + 1),
  ArrowLeft: () => choose(shownRow, shownVariant - 1),
  ArrowRight: () => choose(shownRow, shownVariant + 1),
};

function isForUs(event) {
  const isTyping = event.target.closest && event.target.closest(TYPING);
  return isSeen() && rows.length && !isTyping && !event.defaultPrevented && !event.ctrlKey && !event.metaKey && !event.altKey;
}

function onKeyDown(event) {
  if (!element.isConnected) return document.removeEventListener("keydown", onKeyDown);
  if (!isForUs(event)) return;
  if (event.key.toLowerCase() === "f") return flip(true);
  const isHere = look.contains(document.activeElement);
  const action = KEYS[event.key] || (isHere && ARROWS[event.key]);
  if (!action) return;
  event.preventDefault();
  action();
}

function onKeyUp(event) {
  if (!element.isConnected) return document.removeEventListener("keyup", onKeyUp);
  if (event.key.toLowerCase() === "f") flip(false);
}

document.addEventListener("keydown", onKeyDown);
document.addEventListener("keyup", onKeyUp);
window.addEventListener("blur", () => flip(false)); // the key may come up elsewhere

// ---------------------------------------------------------------- what calls what

function onJobNews() {
  if (!element.isConnected) return document.removeEventListener("job-news", onJobNews);
  load();
}

function start() {
  if (!props.session) return trigger("attach", {}); // built only now, and Gradio forgets what it was sent before
  load();
}

for (const button of element.querySelectorAll(".ways button"))
  button.addEventListener("click", () => chooseMode(button.dataset.mode));
find(".earlier").addEventListener("click", () => choose(shownRow - 1));
find(".later").addEventListener("click", () => choose(shownRow + 1));
document.addEventListener("job-news", onJobNews);
new ResizeObserver(() => {
  if (isSeen() && !wasSeen) load(); // its tab was opened
  wasSeen = isSeen();
}).observe(look);
setDivide(50);
moveTo(1, 0, 0);
chooseMode(mode);
watch(["session"], start);
start();
