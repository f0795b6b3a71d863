// A part that begins what takes long (dataset_jobs.py) and shows how it is doing. Buttons of the class "while-idle" wait until
// it is over. The part has besides
//
//   STANDING         the server function that says how everything stands; whatever else is asked for here answers with that too
//   paint(answer)    says whether something is on its way, which is then asked about again
//   isSeen()

const AGAIN_MS = 700; // between questions while something is on its way
let asking = 0, isWaiting = false, isSilent = false;
let unasked = null; // what waits for a token

async function ask(name, payload) {
  clearTimeout(asking);
  const answer = await question(name, payload);
  if (!answer) {
    if (name !== STANDING || !unasked) unasked = () => ask(name, payload); // a look does not take the place of what was begun
    return;
  }
  // What was refused stays said until something else is asked for.
  if (answer.error || name !== STANDING || isSilent) setText(find(".problem"), answer.error || "");
  isSilent = Boolean(answer.isSilent);
  if (!answer.error) isWaiting = paint(answer);
  if (isWaiting || isSilent) asking = setTimeout(look, isSilent ? 3 * AGAIN_MS : AGAIN_MS);
  else if (answer.error && name !== STANDING) look(); // how things stand in spite of it
}

function look() {
  if (isSeen()) ask(STANDING);
}

function goOn() {
  if (!unasked || !props.session) return look();
  const again = unasked;
  unasked = null;
  again();
}

// `task`: as describe_task says it, or what a page knows before and instead of that.
function paintTask(task) {
  find(".task").hidden = !task;
  if (!task) return;
  const left = task.left_words ? `, ${task.left_words} left` : "";
  const progress = task.total ? `: ${Math.floor((100 * task.done) / task.total)}%${left}` : "";
  setText(find(".task .sentence"), task.is_over ? task.sentence || "" : `${task.title}${progress}.`);
  setText(find(".task .error"), task.error || "");
  find(".task .bar").hidden = task.is_over || !task.total;
  find(".task .bar b").style.width = `${task.total ? (100 * task.done) / task.total : 0}%`;
  find(".stop-task").hidden = task.is_over || !task.total;
  for (const button of element.querySelectorAll(".while-idle")) button.disabled = !task.is_over;
  const download = find(".task .download");
  download.hidden = !task.download;
  if (task.download) {
    download.href = root + task.download;
    setText(download, `Download (${task.size})`);
  }
}

async function sendFile(file, begin) {
  paintTask({ title: `Sending ${file.name}` });
  try {
    await begin((await upload(file)).path);
  } catch (error) {
    paintTask({ is_over: true, error: String((error && error.message) || error) });
  }
}
