// Runs once for every part (see parts.py), with Gradio's `element`, `props`, `watch` and `trigger`.
// Text is only ever set as textContent: names, prompts and messages are other people's.

const part = element.querySelector("[data-part]");
const find = (selector) => part.querySelector(selector);

const painters = {
  text() {
    setText(find("p"), props.text || "");
    part.dataset.tone = props.tone || "dim";
    part.hidden = !props.text;
  },

  rights() {
    const may = { viewer: "look here: at images, pairs and results.", rater: "pick, vote, and look at what there is." }[props.role];
    setText(find("p"), may ? `You may ${may} The rest is for whoever opened this page.` : "");
    part.hidden = !may;
    if (props.role) document.documentElement.dataset.role = props.role;
  },

  job(job = {}) {
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
};
