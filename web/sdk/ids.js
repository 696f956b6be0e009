/**
 * Ids that a client makes before any round trip: a prefix and a UUIDv7 (RFC 9562, section 5.7).
 *
 * Not `crypto.randomUUID()`: that one needs a secure context, and ids that sort by time are kinder to
 * the server's indexes.
 */

/**
 * @param {'par' | 'end' | 'trk' | 'cmd' | 'msg'} prefix
 * @returns {string} for example `trk_0192d3c4-7a5b-7c3e-8f21-0a1b2c3d4e5f`
 */
export function newId(prefix) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const now = Date.now();
  for (let index = 0; index < 6; index += 1) {
    bytes[index] = Math.floor(now / 2 ** (8 * (5 - index))) & 0xff;
  }
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  const groups = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)];
  return `${prefix}_${groups.join('-')}`;
}
