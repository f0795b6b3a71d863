// Runs once for every part (see parts.py), with Gradio's `element`, `props`, `watch` and `trigger`.
// Text is only ever set as textContent: names, prompts and messages are other people's.

const part = element.querySelector("[data-part]");
const find = (selector) => part.querySelector(selector);
const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text; // an unchanged status is not read out again
};
const create = (tag, className, text) => {
  const node = document.createElement(tag);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

const painters = {
  text() {
    setText(find("p"), props.text || "");
    part.dataset.tone = props.tone || "dim";
    part.hidden = !props.text;
  },

  job() {
    const job = props.job || {};
    setText(find(".words"), job.text || "idle");
    part.dataset.active = Boolean(job.active);
    find("button").disabled = !job.active;
    find("button").title = job.active ? "Go to this job" : "Nothing is running";
    find(".bar b").style.width = `${100 * (job.share || 0)}%`;
  },

  report() {
    const report = props.report || {};
    part.hidden = !report.headline;
    setText(find("h3"), report.headline || "");
    setText(find("p"), report.detail || "");
    part.dataset.tone = report.tone || "calm";
    find(".bar").hidden = !report.total;
    find(".bar b").style.width = `${report.total ? (100 * report.done) / report.total : 0}%`;
  },

  results() {
    const results = props.results || [];
    const root = (window.gradio_config && window.gradio_config.root) || "";
    const shown = find(".results");
    // Finished rows stay as they are while others arrive: nothing on screen reloads.
    const fresh = shown.dataset.first !== (results[0] && results[0].base);
    if (fresh) shown.replaceChildren();
    shown.dataset.first = results.length ? results[0].base : "";
    for (const result of results.slice(shown.children.length)) {
      const row = create("article", "result");
      const words = create("header", "");
      words.append(create("p", "prompt", result.prompt), create("p", "seed", `seed ${result.seed}`));
      const images = create("div", "sides");
      for (const [side, label] of [["base", "base"], ["adapter", `adapter, strength ${result.strength}`]]) {
        const figure = create("figure", side);
        const image = create("img", "");
        image.src = root + result[side];
        image.alt = `${label}: ${result.prompt}, seed ${result.seed}`;
        const pictures = create("div", "pictures");
        pictures.append(image);
        if (side === "adapter") {
          const base = create("img", "over");
          base.src = root + result.base;
          base.alt = "";
          pictures.append(base);
        }
        figure.append(pictures, create("figcaption", "", label));
        images.append(figure);
      }
      const flip = create("button", "flip", "Hold to flip");
      flip.type = "button";
      flip.title = "Lays base over adapter while held; so does the key F over a row";
      const hold = (on) => () => row.classList.toggle("flipped", on);
      flip.addEventListener("pointerdown", hold(true));
      for (const end of ["pointerup", "pointerleave", "pointercancel", "blur"]) flip.addEventListener(end, hold(false));
      flip.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press on a phone
      words.append(flip);
      row.append(words, images);
      shown.append(row);
    }
    part.hidden = results.length === 0;
  },
};
