/** The one error type of the SDK: what the server refused, or what the SDK could not do. */

/**
 * Codes of docs/API.md, and these of the SDK itself: `network` (no reply), `timeout` (no reply in
 * time), `invalid_link`, `aborted` (by the caller's signal), `superseded` (the connection was replaced
 * while waiting), `no_devices` (camera and microphone are out of reach: insecure page or old browser),
 * `closed` (the room is over), `out_of_step` (the negotiation no longer fits the server's).
 */
export class SwitchyardError extends Error {
  /**
   * @param {string} code stable; for programs
   * @param {string} message for people
   * @param {{ status?: number, retryAfter?: number | null, cause?: unknown }} [more] `status` is the
   *   HTTP status, 0 when there was no reply; `retryAfter` is in seconds
   */
  constructor(code, message, { status = 0, retryAfter = null, cause } = {}) {
    super(message, { cause });
    this.name = 'SwitchyardError';
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed a moment later. */
  get retryable() {
    return this.code === 'network' || this.code === 'timeout' || [429, 502, 503].includes(this.status);
  }
}

/**
 * The code of any error, for switching on.
 * @param {unknown} error
 * @returns {string}
 */
export function codeOf(error) {
  return error instanceof SwitchyardError ? error.code : 'internal';
}
