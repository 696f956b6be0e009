/** The admin page: signs in, finds its way by the address, and keeps looking. */

import { byId } from '../demo/dom.js';
import { toast } from '../demo/toasts.js';
import { forget, keep, pasted, read, take } from './access.js';
import { AdminApi } from './admin-api.js';
import { duration } from './format.js';
import { Poller } from './poller.js';
import { SessionView } from './session.js';
import { Sessions } from './sessions.js';
import { Workers } from './workers.js';

/** Workers write their figures every two seconds, by default. */
const LOOK_MS = 2_000;

/** @type {{ stop(): void } | null} */
let open = null;

/** @param {string} why empty: nothing went wrong */
function signIn(why) {
  open?.stop();
  open = null;
  forget();
  byId('operations-screen', HTMLElement).hidden = true;
  byId('signin-screen', HTMLElement).hidden = false;
  const problem = byId('signin-error', HTMLElement);
  problem.textContent = why;
  problem.hidden = why === '';
  byId('signin-input', HTMLInputElement).focus();
}

/** @param {string} token */
function enter(token) {
  const claims = read(token);
  if (!claims) return signIn('That is no admin link.');
  if (claims.expiresAt <= Date.now()) return signIn('That link has expired. Make a new one.');
  keep(token);
  open?.stop();
  byId('signin-screen', HTMLElement).hidden = true;
  byId('operations-screen', HTMLElement).hidden = false;
  open = operate(token, claims.expiresAt);
}

/** @param {string} token @param {number} expiresAt */
function operate(token, expiresAt) {
  const api = new AdminApi(token, (code) => {
    signIn(code === 'unauthorized' ? 'The link has expired, or is not from this server. Make a new one.' : 'The key that signed this link is not an operator’s here.');
  });
  const workers = new Workers(api, toast);
  const sessions = new Sessions(api);
  /** @type {SessionView | null} */
  let session = null;

  const looks = new Poller(async () => {
    try {
      // The overview's figures go on while one session is looked at: its graphs have no holes.
      await workers.refresh();
      sessions.offer(workers.list);
      await (session ?? sessions).refresh();
      fresh(true);
    } catch (error) {
      fresh(false, /** @type {Error} */ (error).message);
      throw error;
    }
  }, LOOK_MS);

  const lasts = byId('lasts', HTMLElement);
  const tick = () => {
    const left = expiresAt - Date.now();
    lasts.textContent = left > 0 ? `${duration(left)} left` : '';
    if (left <= 0) signIn('The link has expired. Make a new one.');
  };
  const ticking = window.setInterval(tick, 1000);
  tick();

  /** @param {boolean} [byHand] somebody followed a link: what it leads to gets the focus */
  const go = (byHand = false) => {
    const found = /^#\/sessions\/(ses_[0-9a-f-]{36})$/.exec(location.hash);
    session?.leave();
    session = found ? new SessionView(api, found[1], toast) : null;
    byId('overview', HTMLElement).hidden = session !== null;
    byId('session', HTMLElement).hidden = session === null;
    if (byHand) {
      window.scrollTo(0, 0);
      byId(session ? 'session-name' : 'content', HTMLElement).focus({ preventScroll: true });
    }
    void looks.now();
  };
  const onHash = () => {
    // Another link, opened in this tab.
    if (location.hash.startsWith('#token=')) enter(take());
    else go(true);
  };
  window.addEventListener('hashchange', onHash);
  go();
  return {
    stop() {
      looks.stop();
      session?.leave();
      clearInterval(ticking);
      window.removeEventListener('hashchange', onHash);
    },
  };
}

/** Says whether what is shown is how things are. @param {boolean} good @param {string} [why] */
function fresh(good, why = '') {
  byId('lamp', HTMLElement).className = good ? 'lamp on' : 'lamp off';
  byId('freshness-text', HTMLElement).textContent = good ? 'Live' : `Not live: ${why}`;
}

byId('signin-form', HTMLFormElement).onsubmit = (event) => {
  event.preventDefault();
  const input = byId('signin-input', HTMLInputElement);
  const token = pasted(input.value);
  input.value = '';
  enter(token);
};
/** @type {HTMLElement} */ (document.querySelector('.skip')).onclick = (event) => {
  event.preventDefault(); // the address is ours: it says what is shown
  byId('content', HTMLElement).focus();
};
byId('signout', HTMLButtonElement).onclick = () => signIn('');

const token = take();
if (token) enter(token);
else signIn('');
