/**
 * Waiting between tries. Full jitter, so that a thousand clients that lost the same server do not come
 * back in the same millisecond.
 */

/**
 * @param {number} attempt 0 for the first retry
 * @param {{ base?: number, limit?: number, random?: () => number }} [options] milliseconds
 * @returns {number} milliseconds, between half and all of `base * 2^attempt`, at most `limit`
 */
export function backoff(attempt, { base = 200, limit = 5000, random = Math.random } = {}) {
  const ceiling = Math.min(limit, base * 2 ** Math.min(attempt, 20));
  return ceiling / 2 + (random() * ceiling) / 2;
}

/**
 * Resolves after `milliseconds`, or at once when `signal` is aborted; never rejects.
 * @param {number} milliseconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) {
      resolve();
      return;
    }
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener('abort', done);
  });
}
