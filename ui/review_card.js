// The review's page side, third part: one pair, as a card and large.

const SIDES = ["chosen", "rejected"];
let large = null; // place of the pair that is shown large

function createCard() {
  const card = create("div", "card");
  card.setAttribute("role", "listitem");
  const sides = create("div", "sides");
  const images = SIDES.map((side) => {
    const frame = create("span", side);
    const image = create("img");
    image.draggable = false;
    image.addEventListener("load", () => {
      frame.classList.remove("broken");
      image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= 128);
    });
    image.addEventListener("error", () => frame.classList.add("broken"));
    frame.append(image);
    return frame;
  });
  sides.append(...images);
  sides.addEventListener("click", () => showLarge(card.index));
  const buttons = create("div", "buttons");
  const button = (name, text, title) => {
    const made = createButton(name, text, () => act(name, card.index));
    made.title = title;
    return made;
  };
  buttons.append(
    button("keep", "Keep", "The scorer is right: this pair is used, as yours (K)"),
    button("swap", "Swap", "The rejected image is the better one (S)"),
    button("drop", "Delete", "This pair is not used (Delete)"),
    button("reopen", "Open again", "Forget what was picked from its group, and pick from it now"),
  );
  const about = create("p", "about");
  about.append(create("span", "facts"), create("span", "sign", "validation"));
  card.append(sides, create("p", "prompt"), about, buttons);
  return card;
}

function fillCard(card, pair, index) {
  card.tabIndex = index === active ? 0 : -1;
  for (const button of card.querySelectorAll("button")) button.tabIndex = card.tabIndex;
  card.setAttribute("aria-posinset", index + 1);
  card.setAttribute("aria-setsize", total);
  const painted = pair ? JSON.stringify(pair) : "";
  if (card.dataset.pair === painted) return; // nothing on screen loads again
  card.dataset.pair = painted;
  card.classList.toggle("loading", !pair);
  if (!pair) return;
  card.dataset.state = pair.state;
  card.setAttribute("aria-label", `${pair.prompt}, ${factsOf(pair)}${pair.is_validation ? ", validation" : ""}`);
  SIDES.forEach((side) => {
    const image = card.querySelector(`.${side} img`);
    image.hidden = !pair[side];
    const address = root + pair[side];
    if (pair[side] && image.getAttribute("src") !== address) image.src = address;
    image.alt = `${side}: ${pair.prompt}`;
  });
  const prompt = card.querySelector(".prompt");
  setText(prompt, pair.prompt);
  prompt.title = [pair.prompt, ...pair.missing.map((path) => `Gone: ${path}`)].join("\n");
  const facts = card.querySelector(".facts");
  setText(facts, factsOf(pair));
  facts.title = pair.made;
  card.querySelector(".sign").hidden = !pair.is_validation;
  setText(card.querySelector(".drop"), pair.state === "deleted" ? "Restore" : "Delete");
  card.querySelector(".keep").hidden = pair.state !== "proposed";
  card.querySelector(".swap").hidden = pair.state === "deleted" || !pair.rejected;
  card.querySelector(".reopen").hidden = pair.state === "deleted" || !pair.can_reopen;
}

const WORDS_OF_STATE = { proposed: "to be confirmed", gone: "file gone", needs_reject: "needs a reject", deleted: "deleted" };

function factsOf(pair) {
  return [WORDS_OF_STATE[pair.state], pair.source, pair.confidence, pair.rater, pair.age].filter(Boolean).join(" · ");
}

// ---------------------------------------------------------------- large

function showLarge(index) {
  const pair = items[index];
  large = pair ? index : null;
  const dialog = find(".large");
  dialog.hidden = !pair;
  if (!pair) return activate(active);
  active = index;
  dialog.querySelector(".both").replaceChildren(
    ...SIDES.filter((side) => pair[side]).map((side) => {
      const frame = create("span", side);
      const image = create("img");
      image.alt = `${side}: ${pair.prompt}`;
      image.addEventListener("load", () => image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= 128));
      image.src = root + pair[`${side}_large`];
      frame.append(image);
      return frame;
    }),
  );
  setText(dialog.querySelector(".whole"), pair.prompt);
  setText(dialog.querySelector(".about"), [factsOf(pair), ...pair.missing.map((path) => `Gone: ${path}`)].join(" · "));
  setText(dialog.querySelector("[data-do=drop] span"), pair.state === "deleted" ? "restore" : "delete");
  dialog.querySelector("[data-do=keep]").hidden = pair.state !== "proposed";
  dialog.querySelector("[data-do=swap]").hidden = pair.state === "deleted" || !pair.rejected;
  dialog.focus({ preventScroll: true });
}

// Also after a change: the next pair stands where the deleted one was.
function onLargeKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  if (event.key in moves) showLarge(Math.max(0, Math.min(total - 1, large + moves[event.key])));
  else if (event.key === "Escape" || (event.key === "Enter" && event.target.tagName !== "BUTTON")) showLarge(null);
  else if (onKeyOfPair(event)) showLarge(active);
  else return;
  event.preventDefault();
}

function onLargeButton(name) {
  if (name === "close") return showLarge(null);
  act(name, large);
  showLarge(active);
}

find(".large").addEventListener("keydown", onLargeKey);
find(".both").addEventListener("click", () => showLarge(null));
for (const button of element.querySelectorAll(".large [data-do]")) button.addEventListener("click", () => onLargeButton(button.dataset.do));
