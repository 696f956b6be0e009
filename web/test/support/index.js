/** What several tests need. */

/** How long a test waits for what should happen soon; the factor stretches it on a slow machine. Milliseconds. */
const PATIENCE_MS = 15_000 * Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);

/**
 * Resolves when `condition` holds; fails after a bound instead of waiting for ever.
 * @param {() => unknown} condition
 * @param {string} what
 */
export async function eventually(condition, what) {
  const deadline = Date.now() + PATIENCE_MS;
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
