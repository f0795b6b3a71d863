// Look's page side, second part: base and one variant of the chosen row, large, in one of four ways. See look_ask.js.
//
// Both images lie in windows of the same shape and are moved by the same variables (look_zoom.js), so that what is seen of one is
// what is seen of the other, whatever the mode.

const MODES = ["side", "slider", "flip", "difference"];
const BRIGHTER = 4; // times, of a difference: most are too dark to be seen
const LARGE_PIXELS = 128; // an image no larger is shown pixel by pixel

const stage = find(".stage");
const divider = find(".divider");
let mode = MODES[0], shownRow = 0, shownVariant = 1, divide = 50;
let difference = ""; // of the two that are shown, in words
let painting = 0; // which pair of images is on its way: an older one that arrives late is not shown

const shown = () => rows[shownRow];
const described = (row, index) => `${job.variants[index].label}: ${row.prompt}, seed ${row.seed}`;

function choose(row, variant = shownVariant) {
  shownRow = Math.max(0, Math.min(row, rows.length - 1));
  shownVariant = Math.max(1, Math.min(variant, job.variants.length - 1));
  paintStage();
  paintChosen();
}

function chooseMode(name) {
  mode = name;
  look.dataset.way = mode;
  for (const button of element.querySelectorAll(".ways button")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
  setText(find(".hint .how"), { side: "Hold F to flip.", slider: "Drag, or use the arrow keys.", flip: "Hold F, or press and hold the image.", difference: "" }[mode]);
  paintCaptions();
  paintDifference();
  if (mode === "slider" && look.contains(document.activeElement)) divider.focus({ preventScroll: true });
}

// Both images are swapped at once, when both are there: nobody compares a new one with an old one.
async function paintStage() {
  const row = shown();
  const ticket = ++painting;
  difference = "";
  find(".viewer").hidden = !row;
  if (!row) return;
  setText(find(".prompt"), row.prompt);
  setText(find(".seed"), `seed ${row.seed}`);
  paintVariants();
  paintCaptions();
  const [base, other] = await Promise.all([row.images[0], row.images[shownVariant]].map(fetchImage));
  if (ticket !== painting) return;
  stage.classList.toggle("gone", !base || !other);
  const any = base || other;
  if (any) {
    look.style.setProperty("--aspect", any.naturalWidth / any.naturalHeight);
    look.classList.toggle("pixels", Math.max(any.naturalWidth, any.naturalHeight) <= LARGE_PIXELS);
  }
  for (const [selector, image, index] of [[".base img", base, 0], [".over img", base, 0], [".shown-other img", other, shownVariant]]) {
    const target = stage.querySelector(selector);
    target.src = image ? image.src : "";
    target.alt = selector === ".over img" ? "" : described(row, index);
  }
  stage.dataset.shown = `${shownRow} ${shownVariant}`; // what stands there now
  paintDifference();
  for (const next of [rows[shownRow + 1], rows[shownRow - 1]])
    if (next) for (const image of [next.images[0], next.images[shownVariant]]) fetchImage(image);
}

// A decoded image, or null where the file is gone.
async function fetchImage(address) {
  if (!address) return null;
  const image = new Image();
  image.src = root + address.full;
  try {
    await image.decode();
  } catch {
    return null; // deleted since: the others are still worth showing
  }
  return image;
}

// ---------------------------------------------------------------- captions, variants

function paintCaptions() {
  const row = shown();
  if (!row) return;
  const base = job.variants[0].label, other = job.variants[shownVariant].label;
  const isFlipped = stage.classList.contains("flipped");
  setText(find(".base figcaption"), base);
  setText(find(".other .left"), mode === "slider" ? base : mode === "difference" ? difference : "");
  setText(find(".other .right"), isFlipped && mode !== "difference" ? base : other);
}

function paintVariants() {
  const place = find(".variants");
  place.hidden = job.variants.length < 3;
  const names = job.variants.slice(1).map((variant) => variant.label);
  if (place.dataset.names !== JSON.stringify(names)) {
    place.dataset.names = JSON.stringify(names);
    place.replaceChildren(...names.map((name, index) => createButton("", name, () => choose(shownRow, index + 1))));
  }
  [...place.children].forEach((button, index) => button.setAttribute("aria-pressed", index + 1 === shownVariant));
}

// ---------------------------------------------------------------- flip

function flip(isOver) {
  if (stage.classList.contains("flipped") === isOver) return;
  stage.classList.toggle("flipped", isOver);
  paintCaptions();
}

// ---------------------------------------------------------------- slider

function setDivide(percent) {
  divide = Math.max(0, Math.min(100, percent));
  stage.style.setProperty("--divide", `${divide}%`);
  divider.setAttribute("aria-valuenow", Math.round(divide));
  divider.setAttribute("aria-valuetext", `${Math.round(divide)}% base`);
}

divider.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key]; // up and down go from row to row, here too
  const place = steps ? divide + steps * (event.shiftKey ? 10 : 2) : { Home: 0, End: 100 }[event.key];
  if (place === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  setDivide(place);
});

// ---------------------------------------------------------------- difference

// What is drawn comes from what is shown; the number from the app, out of the files as they were saved.
async function paintDifference() {
  const row = shown(), ticket = painting;
  if (mode !== "difference" || !row || stage.dataset.shown !== `${shownRow} ${shownVariant}`) return;
  const [base, other] = [".base img", ".shown-other img"].map((selector) => stage.querySelector(selector));
  const canvas = stage.querySelector("canvas");
  const width = (canvas.width = base.naturalWidth), height = (canvas.height = base.naturalHeight);
  if (!width || other.naturalWidth !== width || other.naturalHeight !== height) return sayDifference("These two cannot be laid over each other.");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const [first, second] = [base, other].map((image) => {
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, width, height);
  });
  for (let place = 0; place < first.data.length; place++)
    first.data[place] = place % 4 === 3 ? 255 : BRIGHTER * Math.abs(first.data[place] - second.data[place]);
  context.putImageData(first, 0, 0);
  const answer = await ask("look_difference", { key: job.key, row: shownRow, variant: shownVariant });
  if (answer && ticket === painting) sayDifference(answer.text);
}

function sayDifference(words) {
  difference = words;
  paintCaptions();
}
