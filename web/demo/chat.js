/** The chat: what people wrote since we came, a line to write in, and how much of it is unread. Text is only ever text. */

import { byId, make } from './dom.js';
import { colourOf } from './person.js';

/** @typedef {import('../sdk/switchyard.js').Room} Room */
/** @typedef {import('../sdk/types.js').Message} Message */

export const TOPIC = 'chat';
/** The oldest lines go. */
const MOST_LINES = 400;
/** Lines by the same person within this long stand together. Milliseconds. */
const TOGETHER_MS = 60_000;

/**
 * What is shown of a message; null for what is no chat. Other clients may send anything.
 * @param {Pick<Message, 'topic' | 'data'>} message
 * @returns {string | null}
 */
export function textOf({ topic, data }) {
  if (topic !== TOPIC || typeof data !== 'string') return null;
  const text = data.trim().slice(0, 4000);
  return text === '' ? null : text;
}

/** @param {number} unread */
export function labelOf(unread) {
  return unread === 0 ? 'Chat' : `Chat, ${unread} unread`;
}

export class Chat {
  #room;
  #changed;
  #panel = byId('chat', HTMLElement);
  #log = byId('chat-log', HTMLElement);
  #form = byId('chat-form', HTMLFormElement);
  #input = byId('chat-input', HTMLTextAreaElement);
  #to = byId('chat-to', HTMLSelectElement);
  #abort = new AbortController();
  #unread = 0;
  /** @type {{ by: string, at: number } | null} */
  #last = null;

  /**
   * @param {Room} room
   * @param {() => void} changed shown, hidden, or another number unread
   */
  constructor(room, changed) {
    this.#room = room;
    this.#changed = changed;
    this.#log.replaceChildren(make('p', 'chat-hint', 'Messages are for who is here now. Nothing is kept.'));
    this.#input.value = '';
    this.refreshPeople();
    const { signal } = this.#abort;
    this.#form.addEventListener('submit', (event) => this.#submit(event), { signal });
    this.#input.addEventListener('keydown', (event) => this.#onKey(event), { signal });
    this.#panel.addEventListener('keydown', (event) => event.key === 'Escape' && this.hide(), { signal });
    byId('chat-close', HTMLButtonElement).addEventListener('click', () => this.hide(), { signal });
    room.on('message', (message) => this.#receive(message));
    room.on('messagesMissed', () => this.#note('Some messages were missed.'));
  }

  get shown() {
    return !this.#panel.hidden;
  }

  get unread() {
    return this.#unread;
  }

  toggle() {
    if (this.shown) this.hide();
    else this.show();
  }

  show() {
    this.#panel.hidden = false;
    this.#unread = 0;
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#input.focus();
    this.#changed();
  }

  hide() {
    if (!this.shown) return;
    const hadFocus = this.#panel.contains(document.activeElement);
    this.#panel.hidden = true;
    this.#changed();
    if (hadFocus) byId('chat-toggle', HTMLButtonElement).focus();
  }

  /** Who can be written to alone. */
  refreshPeople() {
    const chosen = this.#to.value;
    const everyone = new Option('Everyone', '');
    const people = [...this.#room.participants.values()].map(({ id, name }) => new Option(name || 'Guest', id));
    this.#to.replaceChildren(everyone, ...people);
    this.#to.value = people.some(({ value }) => value === chosen) ? chosen : '';
  }

  remove() {
    this.#abort.abort();
    this.#panel.hidden = true;
    this.#log.replaceChildren();
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#form.requestSubmit();
  }

  /** @param {SubmitEvent} event */
  async #submit(event) {
    event.preventDefault();
    const text = this.#input.value.trim();
    if (text === '') return;
    const to = this.#to.value;
    const name = this.#to.selectedOptions[0]?.text ?? '';
    this.#input.value = '';
    const line = this.#add({ by: 'self', name: to ? `You to ${name}` : 'You', text, isDirect: to !== '' });
    line.classList.add('waiting');
    try {
      await this.#room.sendMessage(text, { topic: TOPIC, events: true, ...(to ? { to: [to] } : {}) });
    } catch {
      line.append(make('span', 'chat-failed', ' – not sent'));
    } finally {
      line.classList.remove('waiting');
    }
  }

  /** @param {Message} message */
  #receive(message) {
    const text = textOf(message);
    if (text === null) return;
    const { from, participant, direct } = message;
    const known = participant?.name || (from ? 'Guest' : 'Notice');
    this.#add({ by: from ?? '', name: direct ? `${known} to you` : known, text, isDirect: direct });
    if (this.shown) return;
    this.#unread += 1;
    this.#changed();
  }

  /** @param {{ by: string, name: string, text: string, isDirect: boolean }} line */
  #add({ by, name, text, isDirect }) {
    const now = Date.now();
    const key = `${by} ${name}`;
    const isNext = this.#last?.by === key && now - this.#last.at < TOGETHER_MS;
    this.#last = { by: key, at: now };
    const line = make('p', `chat-line${isDirect ? ' direct' : ''}${by === 'self' ? ' own' : ''}`);
    if (!isNext) {
      const head = make('span', 'chat-name', name);
      if (by !== 'self') head.style.setProperty('--person', colourOf(by));
      const time = make('time', 'chat-time', new Date(now).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }));
      line.append(head, time);
    }
    line.append(make('span', 'chat-text', text));
    this.#append(line);
    return line;
  }

  /** @param {string} text */
  #note(text) {
    this.#last = null;
    this.#append(make('p', 'chat-hint', text));
  }

  /** Follows the end, unless somebody reads further up. @param {HTMLElement} line */
  #append(line) {
    const log = this.#log;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(line);
    while (log.children.length > MOST_LINES) log.firstElementChild?.remove();
    if (atEnd || line.classList.contains('own')) log.scrollTop = log.scrollHeight;
  }
}
