// The review's page side, last part: health, files that are gone, what can be chosen, and what calls what. See review_ask.js.

const TYPING_MS = 250;
const QUIET_MS = 1200; // without a change before health is computed again: it is the slow part
const MOST_FINDINGS = 5; // shown unfolded
const ORDERS = [["newest", "Newest first"], ["least", "Least confident first"], ["most", "Most confident first"]];
const STATES = { used: "Used", proposed: "To be confirmed", deleted: "Deleted", gone: "File gone", needs_reject: "Needs a reject" };
let health = { revision: "", findings: [], model: "" };
let checking = 0, typing = 0, isChecking = false, isUnfolded = false;

// ---------------------------------------------------------------- what can be chosen

function paintTools() {
  review.dataset.state = facts.all || facts.states.deleted ? "full" : "empty";
  const splits = facts.has_validation ? [["training", "Training"], ["validation", "Validation"]] : [];
  const states = Object.keys(STATES).filter((state) => facts.states[state]);
  const many = states.length > 1 || states[0] === "deleted";
  const choices = {
    source: facts.sources, rater: facts.raters, split: splits,
    state: many ? states.map((state) => [state, `${STATES[state]} (${facts.states[state].toLocaleString()})`]) : [],
  };
  for (const [name, values] of Object.entries(choices)) {
    const select = find(`[data-filter=${name}]`);
    const options = [["", select.dataset.any], ...values.map(([value, text]) => [JSON.stringify(value), text])];
    setOptions(select, options);
    select.value = wanted[name] === null ? "" : JSON.stringify(wanted[name]);
    select.classList.toggle("on", wanted[name] !== null);
    select.hidden = values.length < (name === "state" ? 1 : 2) && wanted[name] === null; // one value filters nothing
  }
  find("[data-filter=order]").value = wanted.order;
  const isNarrow = isFiltered();
  const name = wanted.finding && health.findings.find((finding) => finding.code === wanted.finding);
  setText(find(".amount"), `${isNarrow ? `${total.toLocaleString()} of ` : ""}${amount(facts.all, "pair")}${name ? ": those of one finding" : ""}`);
  find(".line .clear").hidden = !isNarrow;
  setText(find(".nothing"), total || !isNarrow ? "" : "No pair matches. Show all, or search for less.");
  paintGone();
}

const isFiltered = () => Boolean(wanted.words) || ["source", "rater", "split", "state", "finding"].some((name) => wanted[name] !== null);

function setOptions(select, options) {
  if (JSON.stringify(options) === select.dataset.options) return;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  select.dataset.options = JSON.stringify(options);
}

function clearFilters() {
  find(".search").value = "";
  want({ words: "", source: null, rater: null, split: null, state: null, finding: null });
  paintHealth();
}

// ---------------------------------------------------------------- files that are gone

function paintGone() {
  const gone = facts.states.gone || 0;
  const box = find(".gone");
  box.hidden = !gone;
  if (!gone) return;
  const looking = facts.looking ? ` ${facts.looking}.` : "";
  setText(
    box.querySelector("p"),
    `${amount(gone, "pair")} ${gone === 1 ? "is" : "are"} not used, because files of ${gone === 1 ? "it" : "them"} are gone. ` +
      `If they were moved, say where to: they are found by their content.${looking}`,
  );
}

async function findFiles(event) {
  event.preventDefault();
  const folder = find(".gone input").value.trim();
  if (folder && (await ask("find_files", { folder }))) lookAgain();
}

async function removeGone() {
  const name = freshName();
  const answer = await ask("remove_gone", { client: name });
  if (!answer) return;
  say(`Removed ${amount(answer.removed, "pair")}.`, Array.from({ length: answer.removed }, (_, number) => [name, number]));
  version++;
  load();
}

// ---------------------------------------------------------------- health

async function check() {
  if (isChecking || !isSeen() || !props.session) return;
  isChecking = true;
  const answer = await ask("check_pairs", {});
  isChecking = false;
  if (!answer) return;
  health = { ...answer, revision: answer.revision.join() };
  paintHealth();
  checkSoon(); // what changed meanwhile
}

function checkSoon() {
  clearTimeout(checking);
  if (isSeen() && facts && health.revision !== loaded) checking = setTimeout(check, health.revision ? QUIET_MS : 0);
}

function paintHealth() {
  const findings = isUnfolded ? health.findings : health.findings.slice(0, MOST_FINDINGS);
  const lines = findings.map((finding) => {
    const line = create("li", `severity-${Math.max(0, Math.min(3, finding.severity))}`);
    const words = create("p");
    words.append(create("span", "sentence", finding.sentence), " ", create("span", "remedy", finding.remedy));
    if (finding.pairs) {
      const show = createButton("quiet", `Show these ${finding.pairs.toLocaleString()}`, () => want({ finding: finding.code }));
      words.append(" ", show);
    }
    line.append(words);
    return line;
  });
  const left = health.findings.length - findings.length;
  if (left > 0)
    lines.push(createButton("quiet", `${left} more`, () => {
      isUnfolded = true;
      paintHealth();
    }));
  find(".health ol").replaceChildren(...lines);
  const about = health.findings.length ? "" : "Nothing stands out. ";
  setText(find(".health .about"), health.revision ? `${about}Images were compared with what is to be trained: ${health.model}.` : "");
}

// ---------------------------------------------------------------- what calls what

function start() {
  if (!props.session) return trigger("attach", {}); // built only now, and Gradio forgets what it was sent before
  if (!isSeen()) return; // folded away: it is asked for when it is unfolded
  if (!props.revision || props.revision.join() !== loaded) version++;
  measure();
  load().then(checkSoon);
}

// The picker's keys are not meant here: none that is pressed in the review goes further.
for (const name of ["keydown", "keyup"]) review.addEventListener(name, (event) => event.stopPropagation());

setOptions(find("[data-filter=order]"), ORDERS);
find(".search").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => want({ words: event.target.value }), TYPING_MS);
});
for (const select of element.querySelectorAll("[data-filter]"))
  select.addEventListener("change", () => {
    const { filter } = select.dataset;
    want({ [filter]: filter === "order" ? select.value : select.value ? JSON.parse(select.value) : null });
  });
find(".line .clear").addEventListener("click", clearFilters);
find(".line .undo").addEventListener("click", undo);
find(".gone form").addEventListener("submit", findFiles);
find(".show-gone").addEventListener("click", () => want({ state: "gone" }));
find(".remove-gone").addEventListener("click", removeGone);

const sizes = new ResizeObserver(() => {
  if (!isSeen()) return;
  measure();
  if (!facts) return start();
  paint();
  load().then(checkSoon);
});
for (const watched of [review, sheet]) sizes.observe(watched);
watch(["session", "revision"], start);
start();
