/** Bounded patience: looks again until it is so, and fails with the last reason when it never is. */

const FACTOR = Number(process.env.SWITCHYARD_TEST_PATIENCE ?? 1);

/**
 * @template T
 * @param {string} what
 * @param {() => Promise<T | false | null | undefined>} look something true when it is so; may throw why not
 * @param {number} [seconds]
 * @param {number} [interval] milliseconds between two looks
 * @returns {Promise<T>}
 */
export async function eventually(what, look, seconds = 30, interval = 100) {
  const deadline = Date.now() + seconds * 1000 * FACTOR;
  /** @type {unknown} */
  let reason = 'it was not so';
  for (;;) {
    try {
      const seen = await look();
      if (seen) return seen;
    } catch (error) {
      reason = error instanceof Error ? error.message : error;
    }
    if (Date.now() > deadline) throw new Error(`not within ${seconds * FACTOR} s: ${what}: ${reason}`);
    await new Promise((resolve) => setTimeout(resolve, interval));
  }
}
