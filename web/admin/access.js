/**
 * The operator's token: comes in the link's fragment, is taken out of the address at once, and is kept for this tab only.
 *
 * It is signed, short-lived, and no API key: whoever finds it can look after sessions until it ends, and join none.
 */

const STORED = 'switchyard.operator';

/**
 * What a token says, unchecked: the server checks it.
 * @param {string} token
 * @returns {{ expiresAt: number, keyId: string } | null} `null` when it is no operator's token
 */
export function read(token) {
  const [, payload] = token.split('.');
  if (!payload) return null;
  try {
    const bytes = Uint8Array.from(atob(payload.replace(/-/g, '+').replace(/_/g, '/')), (one) => one.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    if (claims.video?.operator !== true || !Number.isFinite(claims.exp)) return null;
    return { expiresAt: claims.exp * 1000, keyId: String(claims.iss ?? '') };
  } catch {
    return null;
  }
}

/** A token as somebody pastes it: itself, or the link that has it. @param {string} text */
export function pasted(text) {
  const found = /[#&]token=([^&\s]+)/.exec(text);
  return (found ? decodeURIComponent(found[1]) : text).trim();
}

/** The token of the address, which is taken out of it, or the one of this tab. Empty when there is none. */
export function take() {
  const found = /^#token=/.test(location.hash) ? pasted(location.hash) : '';
  if (!found) return sessionStorage.getItem(STORED) ?? '';
  history.replaceState(null, '', location.pathname);
  keep(found);
  return found;
}

/** @param {string} token */
export function keep(token) {
  sessionStorage.setItem(STORED, token);
}

export function forget() {
  sessionStorage.removeItem(STORED);
}
