/** Join links: `{public url}/#session=ses_…&token=…`. The fragment never reaches a server's log. */

import { SwitchyardError } from './errors.js';

/**
 * @typedef {object} JoinLink
 * @property {string} base the API's address, without a trailing slash
 * @property {string} sessionId
 * @property {string} token the join token
 */

/**
 * @param {string | URL} link
 * @param {string} [relativeTo] resolves a link that is only a fragment or a path
 * @returns {JoinLink}
 * @throws {SwitchyardError} `invalid_link`
 */
export function parseJoinLink(link, relativeTo = globalThis.location?.href) {
  let url;
  try {
    url = new URL(link, relativeTo);
  } catch (cause) {
    throw new SwitchyardError('invalid_link', 'this is not a link', { cause });
  }
  const fields = new URLSearchParams(url.hash.slice(1));
  const sessionId = fields.get('session');
  const token = fields.get('token');
  if (!/^https?:$/.test(url.protocol) || !sessionId || !token) {
    throw new SwitchyardError('invalid_link', 'a join link looks like https://…/#session=…&token=…');
  }
  return { base: url.origin + url.pathname.replace(/\/+$/, ''), sessionId, token };
}
