// The result of a blind test. Prompts and names are other people's text: set as textContent only.

const card = element.querySelector(".card");
const find = (selector) => card.querySelector(selector);

function picture(url, label, isChosen) {
  const image = create("img", isChosen ? "chosen" : "");
  image.alt = isChosen ? `${label}, preferred` : label;
  image.addEventListener("load", () => image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= 128));
  image.src = root + url;
  return image;
}

function paint() {
  const shown = props.card;
  card.hidden = !shown;
  if (!shown) return;
  find(".asked").textContent = `${shown.run}: ${shown.asked}`;
  find("h3").textContent = shown.rate;
  find(".words").textContent = shown.words;
  find(".needed").textContent = shown.needed;
  find(".facts").textContent = shown.facts.join(" · ");
  find(".bootstrap").textContent = shown.bootstrap;
  Object.assign(find(".scale i").style, { left: `${100 * shown.low}%`, width: `${100 * (shown.high - shown.low)}%` });
  find(".scale b").hidden = shown.at === null;
  find(".scale b").style.left = `${100 * (shown.at || 0)}%`;
  find(".pairs").replaceChildren(
    ...shown.pairs.map((pair) => {
      const figure = create("figure");
      const both = create("div");
      both.append(...["base", "adapter"].map((side) => picture(pair[side], side, pair.chosen === side)));
      const caption = create("figcaption", "", pair.prompt);
      caption.title = `${pair.prompt}, seed ${pair.seed}`;
      figure.append(both, caption);
      return figure;
    }),
  );
  find(".how").hidden = !shown.pairs.length;
  find(".voters").replaceChildren(...shown.voters.map((words) => create("p", "", words)));
  find("tbody").replaceChildren(
    ...shown.prompts.map((line) => {
      const row = create("tr");
      const said = line.votes ? `${line.wins} of ${line.votes}` : "";
      const ties = line.ties ? `${line.ties} ${line.ties === 1 ? "tie" : "ties"}` : "";
      row.append(create("td", "", line.prompt), create("td", "", [said, ties].filter(Boolean).join(", ")));
      return row;
    }),
  );
  find("details").hidden = !shown.prompts.length;
  find(".make-pairs").disabled = !shown.decisions;
  find(".links").replaceChildren();
  find(".said").textContent = "";
}

// Asks the app; what it says against it stands beside the buttons.
async function ask(name) {
  const answer = await question(name, { test: props.card.test, question: props.card.question });
  setText(find(".said"), answer ? answer.error || answer.words || "" : "This page is older than the app. Load it again, then try once more.");
  return answer && !answer.error ? answer : null;
}

function link(url, words) {
  const node = create("a", "", words);
  node.href = root + url;
  node.download = "";
  return node;
}

find(".keep").addEventListener("click", async () => {
  find(".said").textContent = "Drawing the card.";
  const answer = await ask("keep");
  if (answer) find(".links").replaceChildren(link(answer.picture, "Picture (PNG)"), link(answer.record, "Numbers (JSON)"));
});
find(".make-pairs").addEventListener("click", async () => {
  const answer = await ask("pair");
  if (answer) trigger("pairs_made", {});
});
watch("card", paint);
paint();
