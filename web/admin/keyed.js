/** Lists that change under the reader's hands: what stays keeps its element, and with it focus and scroll position. */

/**
 * Makes the children of `parent` one element for each item, in order.
 * @template Item
 * @template {Element} Made
 * @param {Element} parent
 * @param {Item[]} items
 * @param {(item: Item) => string} key
 * @param {(item: Item) => Made} create
 * @param {(made: Made, item: Item) => void} update
 */
export function keyed(parent, items, key, create, update) {
  const wanted = new Set(items.map(key));
  /** @type {Map<string, Element>} */
  const there = new Map();
  // First, so that what stays need not be moved past them: a moved element loses the focus.
  for (const child of [...parent.children]) {
    const name = child.getAttribute('data-key') ?? '';
    if (wanted.has(name)) there.set(name, child);
    else child.remove();
  }
  /** @type {Element | null} */
  let next = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = /** @type {Made | undefined} */ (there.get(name));
    if (!child) {
      child = create(item);
      child.setAttribute('data-key', name);
    }
    update(child, item);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
}
