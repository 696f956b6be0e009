/** What several tests need. */

/**
 * Resolves when `condition` holds; fails after a bound instead of waiting for ever.
 * @param {() => unknown} condition
 * @param {string} what
 */
export async function eventually(condition, what, patience = 5000) {
  const deadline = Date.now() + patience;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A promise and its two ends. */
export function deferred() {
  let resolve;
  let reject;
  const promise = new Promise((done, fail) => {
    resolve = done;
    reject = fail;
  });
  return { promise, resolve, reject };
}
