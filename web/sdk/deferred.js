/** A promise that is resolved from outside, and knows whether it was. */
export function deferred() {
  /** @type {() => void} */
  let done = () => {};
  /** @type {Promise<void>} */
  const promise = new Promise((resolve) => {
    done = resolve;
  });
  return {
    promise,
    settled: false,
    resolve() {
      this.settled = true;
      done();
    },
  };
}
