// What the scripts of several parts share. Text is only ever set as text content.

const root = (window.gradio_config && window.gradio_config.root) || "";

function create(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function createButton(className, text, action) {
  const button = create("button", className, text);
  button.type = "button";
  button.addEventListener("click", action);
  return button;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text; // an unchanged status is not read out again
}
