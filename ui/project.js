// The page side of project_part.py. What takes long is started here and asked about until it is over. Names and messages are set
// as text content only.

const AGAIN_MS = 700; // between questions while something is on its way
const root = (window.gradio_config && window.gradio_config.root) || "";
const find = (selector) => element.querySelector(selector);
const box = find(".project");
let asking = 0, waiting = null; // what is to be asked once there is a session

async function call(name, payload) {
  if (!props.session) {
    waiting = [name, payload];
    trigger("attach", {});
    return null;
  }
  const { token, view } = props.session;
  let answer = null;
  try {
    answer = await server[name]({ token, view, ...payload });
  } catch {} // the app was closed, or the connection is gone
  if (answer && answer.error === "token") {
    waiting = [name, payload];
    if (props.session.token === token) trigger("attach", {});
    return null;
  }
  if (answer && !answer.error) return answer;
  paintTask({ is_over: true, sentence: "", error: answer ? answer.error : "The app does not answer.", download: "" });
  return null;
}

async function ask(name, payload) {
  clearTimeout(asking);
  const answer = await call(name, payload);
  if (!answer) return;
  setText(find(".where"), `As packed here or by python -m dpo project pack. ${answer.where}`);
  paintTask(answer.task);
  if (answer.task && !answer.task.is_over) asking = setTimeout(look, AGAIN_MS);
}

function look() {
  if (box.open) ask("project_standing", {});
}

function paintTask(task) {
  find(".task").hidden = !task;
  if (!task) return;
  const left = task.left_words ? `, ${task.left_words} left` : "";
  const progress = task.total ? `: ${((100 * task.done) / task.total).toFixed(0)}%${left}` : "";
  setText(find(".sentence"), task.is_over ? task.sentence : `${task.title}${progress}.`);
  setText(find(".error"), task.error || "");
  find(".bar").hidden = task.is_over || !task.total;
  find(".bar b").style.width = `${task.total ? (100 * task.done) / task.total : 0}%`;
  find(".stop").hidden = task.is_over || !task.total;
  for (const button of element.querySelectorAll("[type=submit], .choose")) button.disabled = !task.is_over;
  const download = find(".download");
  download.hidden = !task.download;
  if (task.download) {
    download.href = root + task.download;
    setText(download, `Download (${task.size})`);
  }
}

async function copyDiagnostics() {
  const answer = await call("tell_diagnostics", {});
  if (!answer) return;
  const text = find(".text");
  text.value = answer.text;
  text.hidden = false;
  let isCopied = false;
  try {
    await navigator.clipboard.writeText(answer.text);
    isCopied = true;
  } catch {
    text.select(); // a page that came without encryption may not write there; the keys for copying work
  }
  setText(find(".copied"), isCopied ? "Copied. Look through it before you paste it." : "Selected: copy it with Ctrl+C.");
}

box.addEventListener("toggle", look);
find(".pack").addEventListener("submit", (event) => {
  event.preventDefault();
  ask("begin_pack", { images: find(".images").value, checkpoints: find(".checkpoints").checked });
});
find(".choose").addEventListener("click", () => find(".file").click());
find(".file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  paintTask({ title: `Sending ${file.name}`, is_over: false, error: "", download: "" });
  try {
    await ask("begin_unpack", { upload: (await upload(file)).path });
  } catch (error) {
    paintTask({ is_over: true, sentence: "", error: String((error && error.message) || error), download: "" });
  }
});
find(".stop").addEventListener("click", () => ask("stop_project_task", {}));
find(".copy").addEventListener("click", copyDiagnostics);
// The picker's keys are not meant here.
for (const name of ["keydown", "keyup"]) box.addEventListener(name, (event) => event.stopPropagation());
watch("session", () => {
  if (!props.session || !waiting) return;
  const [name, payload] = waiting;
  waiting = null;
  if (name === "tell_diagnostics") copyDiagnostics();
  else ask(name, payload);
});
