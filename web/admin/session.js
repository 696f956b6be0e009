/** One session: who is in it, how their connections are, and what happened. */

import { byId, make } from '../demo/dom.js';
import { confirm } from './confirm.js';
import { bitrate, clock, duration, shortId } from './format.js';
import { keyed } from './keyed.js';
import { sessionState, title } from './sessions.js';
import { cell, pill } from './table.js';

/** Connections that are asked for their figures in one look; those of a larger session take turns. */
const ASKED_AT_ONCE = 12;
/** Lines of the timeline that are shown: the newest. */
const LINES = 500;
/** Pages of the timeline that are read in one look. */
const PAGES = 10;

const SOURCES = /** @type {Record<string, string>} */ ({ camera: 'camera', microphone: 'microphone', screen: 'screen', screen_audio: 'screen sound', other: 'other' });

/** Bit rates up and down of one connection, in bit/s. @param {any} stats as in GET …/stats */
export function rates({ published, subscribed }) {
  const up = published.flatMap((/** @type {any} */ track) => track.encodings).reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + (one.bitrate_bps ?? 0), 0);
  const down = subscribed.reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + (one.bitrate_bps ?? 0), 0);
  return { up, down };
}

/** Why something happened, as one line. @param {any} entry of a timeline */
export function because({ cause }) {
  const parts = [];
  if (cause.reason) parts.push(cause.reason.replaceAll('_', ' '));
  if (cause.worker_id) parts.push(shortId(cause.worker_id));
  if (cause.trace_id) parts.push(`trace ${cause.trace_id}`);
  return parts.join(' · ');
}

export class SessionView {
  #api;
  #id;
  #toast;
  /** @type {any} */
  #session = null;
  /** @type {Map<string, any>} */
  #stats = new Map();
  /** Whose turn it is to be asked. */
  #turn = 0;
  /** @type {any[]} */
  #entries = [];
  /** Names of everyone seen so far: the timeline tells of people who have left. @type {Map<string, string>} */
  #names = new Map();
  #gone = false;

  /** @param {import('./admin-api.js').AdminApi} api @param {string} id @param {(text: string) => void} toast */
  constructor(api, id, toast) {
    this.#api = api;
    this.#id = id;
    this.#toast = toast;
    for (const list of ['people', 'timeline', 'session-facts']) byId(list, HTMLElement).replaceChildren();
    byId('session-name', HTMLElement).textContent = shortId(id);
    byId('session-id', HTMLElement).textContent = id;
    byId('session-error', HTMLElement).hidden = true;
    byId('timeline-count', HTMLElement).textContent = '';
    const close = byId('session-close', HTMLButtonElement);
    close.hidden = true;
    close.onclick = () => this.#close();
  }

  /** Its answers are not wanted any more. */
  leave() {
    this.#gone = true;
  }

  async refresh() {
    try {
      const [session] = await Promise.all([this.#api.session(this.#id), this.#readTimeline()]);
      if (this.#gone) return;
      byId('session-error', HTMLElement).hidden = true;
      this.#show(session);
    } catch (error) {
      if (this.#gone) return;
      const { code, message } = /** @type {any} */ (error);
      const problem = byId('session-error', HTMLElement);
      problem.textContent = code === 'session_not_found' ? 'There is no such session, or its record is gone.' : `It cannot be read now: ${message}.`;
      problem.hidden = false;
      if (code === 'session_not_found') return;
      throw error;
    }
    await this.#ask();
  }

  async #readTimeline() {
    for (let page = 0; page < PAGES; page += 1) {
      const last = this.#entries[this.#entries.length - 1];
      const entries = await this.#api.timeline(this.#id, last?.number ?? 0);
      this.#entries = [...this.#entries, ...entries].slice(-LINES);
      if (entries.length < 500) return;
    }
  }

  /** Asks for the figures of some connections. */
  async #ask() {
    const members = this.#session.members.filter((/** @type {any} */ { state, endpoint }) => state === 'connected' && endpoint);
    const present = new Set(members.map((/** @type {any} */ { id }) => id));
    for (const id of this.#stats.keys()) if (!present.has(id)) this.#stats.delete(id);
    const asked = [];
    for (let turn = 0; turn < Math.min(ASKED_AT_ONCE, members.length); turn += 1) asked.push(members[(this.#turn + turn) % members.length].id);
    this.#turn += asked.length;
    await Promise.all(
      asked.map(async (id) => {
        try {
          this.#stats.set(id, await this.#api.stats(this.#id, id));
        } catch {
          this.#stats.delete(id); // it has just left, or its worker does not answer: no figures are shown then
        }
      }),
    );
    if (!this.#gone) this.#people();
  }

  /** @param {any} session */
  #show(session) {
    this.#session = session;
    for (const { id, name } of session.members) this.#names.set(id, name);
    byId('session-name', HTMLElement).textContent = title(session);
    const close = byId('session-close', HTMLButtonElement);
    close.hidden = session.state === 'closed';
    const now = Date.now();
    /** @type {[string, string][]} */
    const facts = [
      ['State', sessionState(session)],
      ['People', `${session.participants}, ${session.connected} connected`],
      ['Server', session.pipelines.map((/** @type {any} */ { worker_id: id, state }) => (state === 'draining' ? `${shortId(id)} (drains)` : shortId(id))).join(', ') || '–'],
      ['Placed', ['not yet', 'once'][session.epoch] ?? `${session.epoch} times`],
      ['API key', session.key_id],
      ['Began', `${duration(now - session.created_at)} ago, ${clock(session.created_at)}`],
    ];
    if (session.closed_at) facts.push(['Ended', `${duration(now - session.closed_at)} ago, ${clock(session.closed_at)}`]);
    keyed(byId('session-facts', HTMLElement), facts, ([name]) => name, fact, (made, [, value]) => {
      /** @type {HTMLElement} */ (made.lastElementChild).textContent = value;
    });
    this.#people();
    this.#timeline();
  }

  #people() {
    const { members } = this.#session;
    byId('people-empty', HTMLElement).hidden = members.length > 0;
    byId('people-table', HTMLElement).hidden = members.length === 0;
    keyed(byId('people', HTMLElement), members, ({ id }) => id, (member) => this.#person(member), (row, member) => this.#fill(row, member));
  }

  /** @param {any} member */
  #person(member) {
    const row = make('tr', 'person');
    const name = make('th', 'name');
    name.scope = 'row';
    const texts = make('span', 'stack');
    const id = make('span', 'soft mono', shortId(member.id));
    id.title = member.id;
    texts.append(make('span', 'person-name'), id);
    name.append(texts);
    row.append(name, cell('Connection'), cell('Quality'), cell('Sends', 'sends'), cell('Up', 'number'), cell('Down', 'number'), cell('Round trip', 'number'), cell('Server', 'mono'));
    const actions = cell('', 'actions');
    const remove = make('button', 'quiet slim', 'Remove');
    remove.type = 'button';
    remove.onclick = () => this.#remove(member.id);
    actions.append(remove);
    row.append(actions);
    return row;
  }

  /** @param {Element} row @param {any} member */
  #fill(row, member) {
    const [name, state, quality, sends, up, down, trip, server, actions] = row.children;
    /** @type {HTMLElement} */ (name.querySelector('.person-name')).textContent = member.name || 'without a name';
    pill(state, member.state);
    const tracks = member.tracks.map((/** @type {any} */ { source, muted }) => `${SOURCES[source] ?? source}${muted ? ' (muted)' : ''}`);
    sends.textContent = tracks.join(', ') || 'nothing';
    server.textContent = member.endpoint ? shortId(member.endpoint.worker_id) : '–';
    const stats = this.#stats.get(member.id);
    pill(quality, stats?.quality ?? '');
    const { up: sent, down: received } = stats ? rates(stats) : { up: null, down: null };
    up.textContent = sent === null ? '–' : bitrate(sent);
    down.textContent = received === null ? '–' : bitrate(received);
    const roundTrip = stats?.transport?.round_trip_time_ms;
    trip.textContent = Number.isFinite(roundTrip) ? `${Math.round(roundTrip)} ms` : '–';
    actions.querySelector('button')?.setAttribute('aria-label', `Remove ${member.name || shortId(member.id)}`);
  }

  #timeline() {
    const entries = [...this.#entries].reverse();
    byId('timeline-count', HTMLElement).textContent = entries.length === LINES ? `the last ${LINES}` : '';
    keyed(byId('timeline', HTMLElement), entries, ({ number }) => String(number), line, (made, entry) => {
      const who = entry.participant_id ? (this.#names.get(entry.participant_id) ?? shortId(entry.participant_id)) : '';
      /** @type {HTMLElement} */ (made.querySelector('.entry-who')).textContent = who;
    });
  }

  async #close() {
    const people = this.#session?.participants ?? 0;
    const done = await confirm({
      title: `End ${this.#session ? title(this.#session) : 'it'}?`,
      text: `Everyone in it is sent away (${people} ${people === 1 ? 'person' : 'people'} now). It cannot be opened again.`,
      yes: 'End session',
      act: () => this.#api.close(this.#id),
    });
    if (!done) return;
    this.#toast('The session has ended');
    await this.refresh().catch(() => {});
  }

  /** @param {string} participant */
  async #remove(participant) {
    const name = this.#names.get(participant) || shortId(participant);
    const done = await confirm({
      title: `Remove ${name}?`,
      text: 'Their connection ends. Whoever still has a link can join again.',
      yes: 'Remove',
      act: () => this.#api.remove(this.#id, participant),
    });
    if (!done) return;
    this.#toast(`${name} was removed`);
    await this.refresh().catch(() => {});
  }
}

/** @param {[string, string]} entry */
function fact([name]) {
  const made = make('div', 'fact');
  made.append(make('dt', '', name), make('dd'));
  return made;
}

/** @param {any} entry */
function line(entry) {
  const made = make('li', 'entry');
  const time = make('time', 'mono soft', clock(entry.time));
  time.dateTime = new Date(entry.time).toISOString();
  const what = make('span', 'entry-what', entry.what);
  what.setAttribute('data-kind', entry.what.split('.')[0]);
  const why = make('span', 'entry-why soft', because(entry));
  made.append(time, what, make('span', 'entry-who'), why);
  return made;
}
