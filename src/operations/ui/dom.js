// Helpers that build and update the page. Text is inserted only as text nodes and
// attributes, so nothing that a backend reports can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (`class`, `title`, …), handlers (`onclick`) and children. */
export function h(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** The same in the SVG namespace. */
export function svg(tag, attributes, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets text only when it differs, which avoids layout and keeps a selection. */
export function text(node, value) {
  const wanted = String(value ?? "");
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Characters at the end of a name that are never cut, because names differ there. */
const NAME_END = 6;

/** Sets a name, from which middle characters are cut when there is too little room. */
export function name(node, value) {
  const wanted = String(value ?? "");
  if (node.textContent === wanted) return;
  const letters = [...wanted];
  const at = Math.max(0, letters.length - NAME_END);
  node.classList.add("name");
  node.replaceChildren(h("span", { class: "cut" }, letters.slice(0, at).join("")), h("span", {}, letters.slice(at).join("")));
}

/** Sets or removes one attribute only when it differs. */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}

/** Sets a custom property through the DOM, which the content security policy permits. */
export function prop(node, name, value) {
  if (node.style.getPropertyValue(name) !== String(value)) node.style.setProperty(name, value);
}

/**
 * Makes the children of `parent` mirror `items`: nodes are kept by key, moved when the order
 * changed, made by `create(item)` and refreshed by `node.refresh(item)`.
 */
export function keyed(parent, items, key, create) {
  parent.knownNodes ??= new Map();
  const known = parent.knownNodes;
  const seen = new Set();
  let at = parent.firstChild;
  for (const item of items) {
    const id = key(item);
    if (seen.has(id)) continue;
    seen.add(id);
    let node = known.get(id);
    if (!node) {
      node = create(item);
      known.set(id, node);
    }
    node.refresh?.(item);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  for (const [id, node] of known) {
    if (seen.has(id)) continue;
    node.remove();
    known.delete(id);
  }
}

/**
 * The bodies of a table as a parent for `keyed`, which mirrors all children of its parent: this
 * leaves the head alone.
 */
export function bodies(table) {
  table.bodyParent ??= {
    get firstChild() {
      return table.tHead.nextSibling;
    },
    insertBefore: (node, at) => table.insertBefore(node, at),
  };
  return table.bodyParent;
}

/** A node with a function that shows a newer state of its item. */
export function live(node, refresh) {
  node.refresh = refresh;
  return node;
}

/** The element of that id. */
export const byId = (id) => document.getElementById(id);
