// Painters of the Train tab's parts (train_parts.py): lists of sentences, the list of runs, the strip of sample pictures.

painters.list = () => {
  const lines = props.lines || [];
  part.hidden = lines.length === 0;
  const shown = JSON.stringify(lines);
  if (part.dataset.shown === shown) return; // what is unchanged is not read out again
  part.dataset.shown = shown;
  find("ul").replaceChildren(
    ...lines.map((line) => {
      const item = create("li", "");
      item.dataset.tone = line.tone || "dim";
      item.append(create("p", "", line.text));
      if (line.advice) item.append(create("p", "advice", line.advice));
      return item;
    }),
  );
};

const RUN_ACTIONS = {
  compare: ["Compare curves", "Draw this run's curves beside those of the run shown"],
  uncompare: ["Stop comparing", "Draw the curves of the run shown alone"],
  clone: ["Clone", "Fill the form with this run's settings, to change some and train again"],
  sooner: ["Move up", "Start it before the one in front of it"],
  remove: ["Remove from the queue", "It does not start; its folder stays"],
  delete: ["Delete", "Delete this run with all it learned"],
};

const actButton = (row, action, [label, title]) => {
  const button = create("button", `act ${action}`, label);
  button.type = "button";
  button.title = title;
  button.addEventListener("click", (event) => {
    event.stopPropagation();
    part.dataset.asking = action === "delete" ? row.name : "";
    if (action === "delete" || action === "keep") painters.runs();
    else trigger("act", { name: row.name, action: action === "erase" ? "delete" : action });
  });
  return button;
};

const actions = (row) => {
  const cell = create("td", "acts");
  if (part.dataset.asking === row.name && row.actions.includes("delete")) {
    const question = create("span", "question", "Delete all it learned?");
    question.setAttribute("role", "alert");
    cell.append(question, actButton(row, "erase", ["Delete it", "There is no way back"]), actButton(row, "keep", ["Keep it", ""]));
    return cell;
  }
  cell.append(...row.actions.map((action) => actButton(row, action, RUN_ACTIONS[action])));
  return cell;
};

painters.runs = () => {
  const rows = props.rows || [];
  part.hidden = rows.length === 0;
  find("tbody").replaceChildren(
    ...rows.map((row) => {
      const line = create("tr", row.shown ? "shown" : row.compared ? "compared" : "");
      const choose = create("button", "", row.name);
      choose.type = "button";
      choose.title = "Show this run";
      const name = create("td", "name");
      name.append(choose);
      if (row.problem) {
        name.append(create("p", "", row.problem));
        name.colSpan = 4;
      }
      if (row.verdict) name.append(create("p", "", row.verdict));
      const state = create("td", "state", row.state);
      state.dataset.tone = row.tone;
      const numbers = row.problem ? [] : ["pairs", "steps", "accuracy"];
      line.append(name, ...numbers.map((what) => create("td", `number ${what}`, row[what])), state, actions(row));
      line.addEventListener("click", () => trigger("choose", { name: row.name }));
      return line;
    }),
  );
};

painters.strip = () => {
  const strip = props.strip || {};
  const steps = strip.steps || [];
  part.hidden = steps.length === 0;
  if (part.hidden) return;
  const newest = steps[steps.length - 1];
  // Who looks back at an early step stays there while others arrive; who looked at the newest goes along.
  const looked = part.dataset.run === strip.run && steps.find((one) => String(one.step) === part.dataset.step);
  const look = (one) => {
    part.dataset.step = one === newest ? "" : one.step;
    setText(find(".sides"), `Base above, step ${one.step.toLocaleString("en")} below.`);
    one.images.forEach((address, number) => {
      const image = find(`figure:nth-child(${number + 1}) .policy`);
      if (image.getAttribute("src") !== root + address) image.src = root + address;
      image.alt = `Step ${one.step}: ${strip.prompts[number]}`;
    });
    for (const button of part.querySelectorAll(".steps button")) {
      button.setAttribute("aria-pressed", String(button.value === String(one.step)));
    }
  };
  if (part.dataset.run !== strip.run) {
    part.dataset.run = strip.run;
    find(".pictures").replaceChildren(
      ...strip.prompts.map((prompt, number) => {
        const figure = create("figure", "");
        const base = create("img", "base");
        base.src = root + strip.base[number];
        base.alt = `Base: ${prompt}`;
        figure.append(base, create("img", "policy"), create("figcaption", "", prompt));
        return figure;
      }),
    );
  }
  find(".steps").replaceChildren(
    ...steps.map((one) => {
      const button = create("button", "", one.step.toLocaleString("en"));
      button.type = "button";
      button.value = one.step;
      button.addEventListener("click", () => look(one));
      return button;
    }),
  );
  look(looked || newest);
};

painters.rounds = () => {
  const rounds = props.rounds || [];
  part.hidden = rounds.length === 0;
  find("ol").replaceChildren(
    ...rounds.map((round) => {
      const item = create("li", "");
      const button = create("button", "", `${round.number} ${round.name}`);
      button.type = "button";
      button.title = "Go back to this round: compare its adapter, or go on from it";
      button.setAttribute("aria-pressed", String(round.shown));
      button.addEventListener("click", () => trigger("choose", { name: round.name }));
      const source = round.candidates ? `${round.pairs} of ${round.candidates}` : round.pairs;
      item.append(button, create("p", "", source), create("p", "", round.verdict));
      return item;
    }),
  );
};
