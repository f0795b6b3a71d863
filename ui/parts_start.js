// The last of a part's scripts: paints it, now and whenever its data changes. The painters: parts.js, train_parts.js.

const kind = part.dataset.part;
const source = {
  text: ["text", "tone"], rights: ["role"], report: ["report"], runs: ["rows"],
  list: ["lines"], strip: ["strip"], rounds: ["rounds"],
}[kind];
if (source) watch(source, () => painters[kind]());
painters[kind]();

if (kind === "job") {
  find("button").addEventListener("click", () => trigger("go"));
  document.addEventListener("job-line", function paint(event) { // from pulse.js
    if (!element.isConnected) return document.removeEventListener("job-line", paint);
    painters.job(event.detail);
  });
}
