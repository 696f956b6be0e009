/** All sessions: search, filters, pages. */

import { byId, make } from '../demo/dom.js';
import { count, duration, shortId } from './format.js';
import { keyed } from './keyed.js';
import { cell, pill } from './table.js';

/** How long nobody must type before it is searched. */
const PAUSE_MS = 250;

/** What a session's row says of its state. @param {any} session */
export function sessionState(session) {
  if (session.state === 'closed') return 'ended';
  return session.is_moving ? 'moving' : 'open';
}

/** What a session is called; those without a name by their id. @param {any} session */
export function title(session) {
  return session.name?.trim() || shortId(session.id);
}

export class Sessions {
  #api;
  #search = byId('search', HTMLInputElement);
  #worker = byId('search-worker', HTMLSelectElement);
  #any = byId('search-any', HTMLInputElement);
  #next = byId('pages-next', HTMLButtonElement);
  #first = byId('pages-first', HTMLButtonElement);
  /** @type {string | null} */
  #after = null;
  /** Only the last question's answer is shown. */
  #asked = 0;
  #timer = 0;

  /** @param {import('./admin-api.js').AdminApi} api */
  constructor(api) {
    this.#api = api;
    byId('sessions', HTMLElement).replaceChildren();
    const again = () => {
      this.#after = null;
      void this.refresh().catch(() => {});
    };
    byId('search-form', HTMLFormElement).onsubmit = (event) => {
      event.preventDefault();
      again();
    };
    this.#search.oninput = () => {
      clearTimeout(this.#timer);
      this.#timer = window.setTimeout(again, PAUSE_MS);
    };
    this.#worker.onchange = again;
    this.#any.onchange = again;
    this.#first.onclick = again;
  }

  /** The servers that can be chosen. @param {any[]} workers */
  offer(workers) {
    const options = [{ id: '', name: 'All servers' }, ...workers.map(({ id }) => ({ id, name: shortId(id) }))];
    keyed(this.#worker, options, ({ id }) => id, ({ id, name }) => new Option(name, id), () => {});
  }

  async refresh() {
    const asked = (this.#asked += 1);
    const query = { search: this.#search.value.trim(), workerId: this.#worker.value, any: this.#any.checked, after: this.#after };
    const { sessions, next } = await this.#api.sessions(query);
    if (asked !== this.#asked) return;
    const now = Date.now();
    keyed(byId('sessions', HTMLElement), sessions, ({ id }) => id, row, (made, session) => fill(made, session, now));
    byId('sessions-table', HTMLElement).hidden = sessions.length === 0;
    const empty = byId('sessions-empty', HTMLElement);
    empty.hidden = sessions.length > 0;
    const filtered = query.search || query.workerId || this.#after;
    empty.textContent = filtered ? 'Nothing found.' : 'No session is open.';
    this.#first.hidden = this.#after === null;
    this.#next.hidden = next === null;
    this.#next.onclick = () => {
      this.#after = next;
      void this.refresh().catch(() => {});
    };
  }
}

/** @param {any} session */
function row(session) {
  const made = make('tr', 'session');
  const name = make('th', 'name');
  name.scope = 'row';
  const texts = make('span', 'stack');
  const link = make('a', 'session-link');
  link.href = `#/sessions/${session.id}`;
  texts.append(link, make('span', 'soft mono', shortId(session.id)));
  name.append(texts);
  made.append(name, cell('State'), cell('People', 'number'), cell('Tracks', 'number'), cell('Server', 'mono'), cell('Key', 'mono'), cell('Age', 'number'));
  return made;
}

/** @param {Element} made @param {any} session @param {number} now */
function fill(made, session, now) {
  const [name, state, people, tracks, server, key, age] = made.children;
  const link = /** @type {HTMLElement} */ (name.querySelector('a'));
  link.textContent = title(session);
  link.title = session.id;
  pill(state, sessionState(session));
  const waiting = session.participants - session.connected;
  people.textContent = waiting > 0 ? `${count(session.participants)} (${count(waiting)} waiting)` : count(session.participants);
  tracks.textContent = count(session.tracks);
  server.textContent = session.worker_id ? shortId(session.worker_id) : '–';
  key.textContent = session.key_id;
  age.textContent = duration((session.closed_at ?? now) - session.created_at);
}
