// The contact sheet's page side (see review.py). Loads only while it is seen; prompts are set as textContent.

const find = (selector) => element.querySelector(selector);
const sheet = find(".sheet");
const root = (window.gradio_config && window.gradio_config.root) || "";
const client = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const PAGE = 48; // pairs loaded at once
let nextNumber = 0;
let count = PAGE, loaded = null, isLoading = false, isSeen = false;

async function load(undo) {
  if (isLoading || !props.session) return;
  isLoading = true;
  const revision = props.revision;
  let answer = null;
  try {
    answer = await server.review({ token: props.session.token, view: props.session.view, count, undo });
  } catch {} // no answer: the sheet stays as it is, and the next change loads it
  isLoading = false;
  if (!answer || answer.error) return setText(answer && answer.error !== "token" ? answer.error : "The app does not answer.");
  loaded = revision;
  paint(answer);
  if (revision !== props.revision) loadIfSeen();
}

function loadIfSeen() {
  if (!isSeen || (props.session && loaded === props.revision)) return;
  if (props.session) load();
  else trigger("attach", {}); // Gradio builds a folded part when it is unfolded, and forgets what it was sent before
}

// Rows that stay are kept as they are: no image on screen loads again.
function paint({ pairs, total }) {
  const rows = new Map([...sheet.children].map((row) => [row.dataset.pick, row]));
  sheet.replaceChildren(...pairs.map((pair) => rows.get(pair.pick.join(" ")) || createRow(pair)));
  find(".more").hidden = pairs.length >= total;
  setText(total ? "" : "No pairs yet. Every best and worst you pick, and every duel that is won, becomes one.");
}

function createRow(pair) {
  const row = document.createElement("li");
  row.dataset.pick = pair.pick.join(" ");
  const images = document.createElement("div");
  images.className = "sides";
  for (const side of ["chosen", "rejected"]) {
    const image = new Image();
    image.loading = "lazy";
    image.className = side;
    image.alt = `${side}: ${pair.prompt}`;
    image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth <= 128));
    image.src = root + pair[side];
    images.append(image);
  }
  const words = document.createElement("div");
  words.className = "words";
  const prompt = document.createElement("span");
  prompt.textContent = pair.missing.length ? "Not used: a file of it is gone" : pair.prompt;
  prompt.title = pair.missing.length ? pair.missing.join("\n") : pair.prompt;
  const takeBack = document.createElement("button");
  takeBack.type = "button";
  takeBack.textContent = "Take back";
  takeBack.title = "Undo this pick; its group can be picked again";
  takeBack.addEventListener("click", () => {
    takeBack.disabled = true;
    load({ client, number: nextNumber++, op: "undo", undoes: pair.pick });
  });
  words.append(prompt, takeBack);
  row.append(images, words);
  row.classList.toggle("missing", pair.missing.length > 0);
  return row;
}

function setText(text) {
  const node = find(".empty");
  if (node.textContent !== text) node.textContent = text;
}

const nearby = { rootMargin: "800px" }; // there before it is scrolled to
new IntersectionObserver((entries) => {
  isSeen = entries[entries.length - 1].isIntersecting;
  loadIfSeen();
}, nearby).observe(find(".review"));
find(".more").addEventListener("click", () => {
  count += PAGE;
  load();
});
watch(["session", "revision"], loadIfSeen);
