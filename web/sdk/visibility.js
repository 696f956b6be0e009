/**
 * How large an element is on the screen, or that nobody sees it: scrolled away, in a hidden tab. Told when that has been so
 * for a moment, sooner when it grows than when it shrinks.
 */

/** Milliseconds. */
const GROWS_MS = 150;
const SHRINKS_MS = 1000;
/** Sizes are rounded up to a multiple of this: a pixel more is no other size. */
const STEP = 32;
const LARGEST = 65_504;

/** @typedef {import('./wishes.js').Seen} Seen */

/**
 * @param {Element} element
 * @param {(seen: Seen) => void} changed
 * @returns {() => void} ends it
 */
export function watchVisibility(element, changed) {
  let inView = true;
  /** @type {Seen | null} */
  let told = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const look = () => {
    const seen = seenOf(element, inView);
    clearTimeout(timer);
    if (JSON.stringify(seen) === JSON.stringify(told)) return;
    const tell = () => {
      told = seen;
      changed(seen);
    };
    // Where it is not laid out yet nothing is known.
    if (told === null && seen !== 'hidden') tell();
    else timer = setTimeout(tell, areaOf(seen) > areaOf(told) ? GROWS_MS : SHRINKS_MS);
  };
  const size = new ResizeObserver(look);
  const view = new IntersectionObserver((entries) => {
    inView = entries.at(-1)?.isIntersecting ?? inView;
    look();
  });
  size.observe(element);
  view.observe(element);
  document.addEventListener('visibilitychange', look);
  return () => {
    clearTimeout(timer);
    size.disconnect();
    view.disconnect();
    document.removeEventListener('visibilitychange', look);
  };
}

/** @param {Element} element @param {boolean} inView @returns {Seen} */
function seenOf(element, inView) {
  const floating = document.pictureInPictureElement ?? null;
  const floats = floating !== null && element.contains(floating);
  if (!floats && (!inView || document.hidden)) return 'hidden';
  const shown = (/** @type {number} */ pixels) =>
    Math.min(LARGEST, Math.ceil((pixels * devicePixelRatio) / STEP) * STEP);
  const [width, height] = [shown(element.clientWidth), shown(element.clientHeight)];
  return width > 0 && height > 0 ? { width, height } : 'hidden';
}

/** @param {Seen | null} seen */
function areaOf(seen) {
  return seen === null || seen === 'hidden' ? 0 : seen.width * seen.height;
}
