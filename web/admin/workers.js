/** The media servers: what all do together as graphs, and each one in a row. */

import { byId, make } from '../demo/dom.js';
import { Chart, Colours } from './chart.js';
import { confirm } from './confirm.js';
import { bitrate, bytes, count, shortId } from './format.js';
import { History, figures, total } from './history.js';
import { keyed } from './keyed.js';
import { cell, pill } from './table.js';

/** @typedef {import('./history.js').Figure} Figure */

/** @type {{ figure: Figure, name: string, text: (value: number) => string }[]} */
const GRAPHS = [
  { figure: 'participants', name: 'People', text: count },
  { figure: 'packets', name: 'Packets/s', text: count },
  { figure: 'bits', name: 'Bit rate', text: bitrate },
  { figure: 'memory', name: 'Memory', text: bytes },
];

/** What a worker's row is called. @param {any} worker */
export function stateOf(worker) {
  if (!worker.alive) return 'lost';
  if (worker.state === 'draining') return 'draining';
  return worker.load.full ? 'full' : 'ready';
}

export class Workers {
  /** The last answer. @type {any[]} */
  list = [];
  #api;
  #history = new History();
  #colours = new Colours();
  /** @type {{ chart: Chart, value: HTMLElement, top: HTMLElement, since: HTMLElement, graph: (typeof GRAPHS)[number] }[]} */
  #graphs = [];
  /** @type {Map<string, Chart>} */
  #rows = new Map();
  #toast;

  /** @param {import('./admin-api.js').AdminApi} api @param {(text: string) => void} toast */
  constructor(api, toast) {
    this.#api = api;
    this.#toast = toast;
    const place = byId('graphs', HTMLElement);
    place.replaceChildren();
    byId('workers', HTMLElement).replaceChildren();
    for (const graph of GRAPHS) {
      const figure = make('figure', 'graph');
      const caption = make('figcaption');
      const value = make('strong', 'graph-value', '–');
      caption.append(make('span', 'graph-name', graph.name), value);
      const chart = new Chart(`${graph.name} of each media server, last minutes`);
      const top = make('span', 'graph-top');
      top.setAttribute('aria-hidden', 'true');
      const axis = make('div', 'graph-axis');
      axis.setAttribute('aria-hidden', 'true');
      const since = make('span');
      axis.append(since, make('span', '', 'now'));
      figure.append(caption, chart.svg, top, axis);
      place.append(figure);
      this.#graphs.push({ chart, value, top, since, graph });
    }
  }

  async refresh() {
    this.list = await this.#api.workers();
    const now = Date.now();
    this.#history.add(now, this.list);
    const time = { now, span: this.#history.span(now) };
    const all = total(this.list);
    for (const { chart, value, top, since, graph } of this.#graphs) {
      value.textContent = graph.text(all[graph.figure]);
      value.setAttribute('data-figure', graph.figure);
      top.textContent = graph.text(chart.draw(this.#history.lines(graph.figure), time, this.#colours.of));
      since.textContent = `${time.span / 60_000} min ago`;
    }
    const living = this.list.filter(({ alive }) => alive).length;
    byId('workers-count', HTMLElement).textContent = `${living} of ${this.list.length} alive`;
    byId('workers-empty', HTMLElement).hidden = this.list.length > 0;
    byId('workers-table', HTMLElement).hidden = this.list.length === 0;
    keyed(byId('workers', HTMLElement), this.list, ({ id }) => id, (worker) => this.#row(worker), (row, worker) => this.#fill(row, worker, time));
    for (const id of this.#rows.keys()) if (!this.list.some((worker) => worker.id === id)) this.#rows.delete(id);
  }

  /** @param {any} worker */
  #row(worker) {
    const row = make('tr', 'worker');
    const name = make('th', 'name');
    name.scope = 'row';
    const swatch = make('span', `swatch colour-${this.#colours.of(worker.id)}`);
    swatch.setAttribute('aria-hidden', 'true');
    const id = make('span', 'mono', shortId(worker.id));
    id.title = worker.id;
    const address = make('span', 'soft mono address', worker.address);
    const texts = make('span', 'stack');
    texts.append(id, address);
    name.append(swatch, texts);
    row.append(name);
    for (const [label, type] of [['State', ''], ['People', 'number'], ['Sessions', 'number'], ['Packets/s', 'number'], ['Bit rate', 'number'], ['CPU', 'number'], ['Memory', 'number']]) {
      row.append(cell(label, type));
    }
    const traffic = cell('Traffic', 'traffic');
    const chart = new Chart(`Packets per second of ${shortId(worker.id)}, last minutes`, true);
    this.#rows.set(worker.id, chart);
    traffic.append(chart.svg);
    const actions = cell('', 'actions');
    const drain = make('button', 'quiet slim', 'Drain');
    drain.type = 'button';
    drain.setAttribute('aria-label', `Drain media server ${shortId(worker.id)}`);
    drain.onclick = () => this.#drain(worker.id);
    actions.append(drain);
    row.append(traffic, actions);
    return row;
  }

  /** @param {Element} row @param {any} worker @param {{ now: number, span: number }} time */
  #fill(row, worker, time) {
    const state = stateOf(worker);
    const { participants, sessions, packets, bits, cpu, memory } = figures(worker);
    const [, at, people, rooms, rate, flow, cores, used] = row.children;
    row.setAttribute('data-state', state);
    pill(at, state);
    people.textContent = count(participants);
    rooms.textContent = count(sessions);
    rate.textContent = count(packets);
    flow.textContent = bitrate(bits);
    cores.textContent = `${Math.round(cpu * 100)} %`;
    used.textContent = bytes(memory);
    const line = { id: worker.id, points: this.#history.line(worker.id, 'packets'), last: packets };
    this.#rows.get(worker.id)?.draw([line], time, this.#colours.of);
    const drain = row.querySelector('button');
    if (drain) drain.disabled = state === 'draining' || state === 'lost';
  }

  /** @param {string} id */
  async #drain(id) {
    const worker = this.list.find((one) => one.id === id);
    const people = worker ? worker.load.endpoints : 0;
    const others = this.list.filter((one) => one.id !== id && stateOf(one) === 'ready').length;
    const warning = others === 0 ? ' No other media server takes its sessions: they will be interrupted.' : '';
    const done = await confirm({
      title: `Drain ${shortId(id)}?`,
      text: `Its sessions move to other media servers (${count(people)} ${people === 1 ? 'person' : 'people'} now), and then its process ends.${warning}`,
      yes: 'Drain',
      act: () => this.#api.drain(id),
    });
    if (!done) return;
    this.#toast(`${shortId(id)} drains`);
    await this.refresh().catch(() => {});
  }
}
