// Finds, creates and updates elements. Text is only ever inserted as text, so nothing in a document, a file name or an answer
// can become markup; the content security policy blocks all other ways.

export const find = (id) => document.getElementById(id);

/** A new element. Properties are attributes, or listeners if the name starts with "on"; null and false are skipped. */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Changes a text only if it differs: each change is announced in a live region and clears the selection. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows a text, or hides the node if there is none. */
export function setNotice(node, text) {
  setText(node, text ?? "");
  node.hidden = !text;
}

/** Makes the children show these items in this order. Nodes of existing keys are reused, which keeps focus and selection. */
export function showList(parent, items, keyOf, create, update) {
  const keys = new Set(items.map((item) => String(keyOf(item))));
  const reusable = new Map();
  for (const node of [...parent.children]) {
    if (keys.has(node.dataset.key)) reusable.set(node.dataset.key, node);
    else node.remove();
  }
  let position = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const node = reusable.get(key) ?? create(item);
    node.dataset.key = key;
    update(node, item);
    if (node === position) position = position.nextElementSibling;
    else parent.insertBefore(node, position);
  }
}

/** Fills a select with choices `{value, label, disabled}`. Keeps the current choice if possible, else selects `preferred`. */
export function showChoices(select, choices, preferred) {
  const chosen = select.value;
  const fresh = select.options.length === 0;
  showList(select, choices, (choice) => choice.value, () => element("option"), (option, choice) => {
    option.value = choice.value;
    option.disabled = Boolean(choice.disabled);
    setText(option, choice.label);
  });
  const offered = (value) => choices.some((choice) => choice.value === value);
  select.value = !fresh && offered(chosen) ? chosen : offered(preferred) ? preferred : (choices[0]?.value ?? "");
}

/** Asks before a deletion. Resolves to whether the user confirms it. */
export function confirmed(question, action) {
  const dialog = find("confirm");
  find("confirm-question").textContent = question;
  find("confirm-yes").textContent = action;
  find("confirm-yes").onclick = () => dialog.close("yes");
  find("confirm-no").onclick = () => dialog.close("");
  dialog.returnValue = "";
  dialog.showModal();
  find("confirm-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
