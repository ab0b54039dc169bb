// Finds, makes and updates elements. Text goes in as text alone, so nothing that a document, a file name or a model says
// can become markup; the server's content security policy refuses the other ways.

export const find = (id) => document.getElementById(id);

/** A new element. Properties are attributes, or listeners where the name begins with "on"; null and false are left out. */
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

/** Changes a text only if it differs: a live region is read out, and a selection lost, at every change. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows a text, or hides the node where there is none. */
export function setNotice(node, text) {
  setText(node, text ?? "");
  node.hidden = !text;
}

/** Makes the children show these items, in this order. Nodes of known keys are kept, and with them focus and selection. */
export function showList(parent, items, keyOf, create, update) {
  const wanted = new Set(items.map((item) => String(keyOf(item))));
  const known = new Map();
  for (const node of [...parent.children]) {
    if (wanted.has(node.dataset.key)) known.set(node.dataset.key, node);
    else node.remove();
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const node = known.get(key) ?? create(item);
    node.dataset.key = key;
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
}

/** Makes a select offer these choices: `{value, label, disabled}`. Keeps what is chosen, or else chooses `preferred`. */
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

/** Asks before something is lost. Resolves to whether the person wants it. */
export function confirmed(question, deed) {
  const dialog = find("confirm");
  find("confirm-question").textContent = question;
  find("confirm-yes").textContent = deed;
  find("confirm-yes").onclick = () => dialog.close("yes");
  find("confirm-no").onclick = () => dialog.close("");
  dialog.returnValue = "";
  dialog.showModal();
  find("confirm-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
