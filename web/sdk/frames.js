/**
 * The framing of messages on data channels (docs/API.md, "Messages"): text is a JSON object with everything in it;
 * binary is the length of a JSON header (two bytes, big-endian), the header, and the payload.
 */

/**
 * @typedef {object} Outgoing
 * @property {unknown} data a binary payload (`ArrayBuffer` or a view of one), or anything that JSON can say
 * @property {string[]} [to] participant ids; absent: everyone else
 * @property {string} [topic]
 * @property {string} id
 * @property {boolean} [events] also as an event to those without a data channel
 */

/**
 * @typedef {object} Incoming
 * @property {string} [from] the participant; absent: the application
 * @property {string} [topic]
 * @property {string} [id]
 * @property {boolean} [direct] it names its receivers
 * @property {unknown} data
 */

/**
 * @param {Outgoing} message
 * @returns {string | Uint8Array<ArrayBuffer>}
 */
export function encode({ data, ...header }) {
  if (!isBinary(data)) return JSON.stringify({ ...header, data: data ?? null });
  const bytes = bytesOf(data);
  const head = new TextEncoder().encode(JSON.stringify(header));
  const frame = new Uint8Array(2 + head.length + bytes.length);
  new DataView(frame.buffer).setUint16(0, head.length);
  frame.set(head, 2);
  frame.set(bytes, 2 + head.length);
  return frame;
}

/**
 * @param {unknown} frame as a channel brings it
 * @returns {Incoming | null} null for what is none
 */
export function decode(frame) {
  try {
    if (typeof frame === 'string') return header(frame);
    if (!(frame instanceof ArrayBuffer) || frame.byteLength < 2) return null;
    const length = new DataView(frame).getUint16(0);
    if (2 + length > frame.byteLength) return null;
    const head = header(new TextDecoder().decode(new Uint8Array(frame, 2, length)));
    return head && { ...head, data: frame.slice(2 + length) };
  } catch {
    return null;
  }
}

/**
 * The event `message` of the server.
 * @param {Incoming & { binary?: boolean }} data
 * @returns {Incoming}
 */
export function fromEvent({ binary, ...message }) {
  if (!binary || typeof message.data !== 'string') return message;
  const bytes = Uint8Array.from(atob(message.data), (character) => character.charCodeAt(0));
  return { ...message, data: bytes.buffer };
}

/** @param {string | Uint8Array} frame @returns {number} bytes on the wire, near enough to tell when there are too many */
export function sizeOf(frame) {
  return typeof frame === 'string' ? new TextEncoder().encode(frame).length : frame.length;
}

/** @param {string} text @returns {Incoming | null} */
function header(text) {
  const value = JSON.parse(text);
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : null;
}

/** @param {unknown} data @returns {data is ArrayBuffer | ArrayBufferView} */
function isBinary(data) {
  return data instanceof ArrayBuffer || ArrayBuffer.isView(data);
}

/** @param {ArrayBuffer | ArrayBufferView} data */
function bytesOf(data) {
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
