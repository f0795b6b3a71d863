// The picker's page side, fourth part: one image as large as it goes, and two in one place to flip between.

const zoom = find(".zoom");
let zoomed = null, zoomPressed = 0;

function showZoom(index) {
  const screen = queue[0];
  zoomed = screen ? index : null;
  zoom.hidden = zoomed === null;
  if (zoomed === null) return zoom.querySelector(".large").replaceChildren();
  const image = screen.images[index];
  const large = new Image();
  large.alt = picture(image).alt;
  large.classList.toggle("pixels", Math.max(image.width, image.height) <= 128);
  large.src = root + image.full;
  const put = (shown) => zoomed === index && zoom.querySelector(".large").replaceChildren(shown);
  const placeholder = picture(image).cloneNode();
  put(placeholder);
  large.decode().then(() => put(large), () => {});
  const count = screen.images.length;
  const name = screen.mode === "duel" ? (index ? "right" : "left") : count > 1 ? `image ${index + 1} of ${count}` : "";
  const ways = [name, count > 1 && "arrows flip in place", usesShortcuts ? "Space or Esc closes" : "Esc closes"];
  zoom.querySelector("p").textContent = ways.filter(Boolean).join(" · ");
}

function flip(by) {
  const count = queue[0].images.length;
  showZoom((zoomed + by + count) % count);
}

function openZoom() {
  const focused = cells.findIndex((cell) => cell.button === document.activeElement);
  const index = hovered ?? (focused >= 0 ? focused : best ?? 0);
  if (queue[0]) showZoom(Math.min(index, queue[0].images.length - 1));
}

// Lay the right image of a duel over the left one, in place: small differences jump out.
function lay(isOver) {
  const screen = queue[0];
  const [{ frame }] = cells;
  const over = frame.querySelector(".over");
  if (over) over.remove();
  picker.classList.remove("laid");
  if (!isOver || !screen || screen.mode !== "duel") return;
  const copy = picture(screen.images[1]).cloneNode();
  copy.classList.add("over");
  copy.alt = "";
  frame.append(copy);
  picker.classList.add("laid");
}

zoom.querySelector(".large").addEventListener("click", () => flip(1));
zoom.querySelector("button").addEventListener("click", () => showZoom(null));
