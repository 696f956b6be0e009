/**
 * Which room this page is for: the join link in its address, or, where the server offers the demo, the
 * room named by `#room=`.
 */

import { SwitchyardError, parseJoinLink } from '../sdk/switchyard.js';

/**
 * @typedef {object} Entrance
 * @property {string} link the join link
 * @property {string} title what to call the room
 * @property {string | null} share what to pass on so that others land in the same room; null when the
 *   link is for one person only
 */

/**
 * @param {string} address the page's address
 * @param {typeof fetch} [fetching]
 * @returns {Promise<Entrance | null>} null when a join link is needed
 * @throws {SwitchyardError} `network`
 */
export async function findEntrance(address, fetching = globalThis.fetch.bind(globalThis)) {
  const url = new URL(address);
  const fields = new URLSearchParams(url.hash.slice(1));
  if (fields.has('session')) {
    const { sessionId, token } = parseJoinLink(url);
    const title = fields.get('room') ?? sessionId.slice(-6);
    return { link: url.href, title, share: isPersonal(token) ? null : url.href };
  }
  const room = fields.get('room') || 'lobby';
  let response;
  try {
    response = await fetching('/v1/demo/links', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ room }),
    });
  } catch (cause) {
    throw new SwitchyardError('network', 'the server could not be reached', { cause });
  }
  if (response.status >= 500 || response.status === 429) {
    throw new SwitchyardError('unavailable', 'the server is not ready', { status: response.status });
  }
  if (!response.ok) return null;
  const { join_link: link } = await response.json();
  // The link's own host may be another name of this server; this page is allowed to call only its own.
  const local = new URL(new URL(link).hash, url.origin + url.pathname);
  return { link: local.href, title: room, share: `${url.origin}${url.pathname}#room=${encodeURIComponent(room)}` };
}

/**
 * A token with a subject is one person's; passing it on would throw that person out.
 * @param {string} token
 */
export function isPersonal(token) {
  try {
    const payload = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    return typeof JSON.parse(atob(payload)).sub === 'string';
  } catch {
    return false;
  }
}
