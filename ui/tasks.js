// How a task is doing that takes long (dataset_jobs.py), painted alike wherever one is begun. `task`: what describe_task says,
// or what a page knows before and instead of that. Buttons of the class "while-idle" wait until it is over.

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
