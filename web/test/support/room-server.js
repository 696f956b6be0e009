/**
 * A real HTTP server on loopback with the participant routes of docs/API.md and events by long poll, for
 * one participant, whose endpoints have a queue each. It negotiates nothing: answers are empty, revisions are counted.
 */

import http from 'node:http';

export class RoomServer {
  /** Bodies by route: `join`, `offer`, `answer`, `candidates`, `mute`, `leave`, `stats`, `rating`, `ice-servers`. */
  calls = { join: [], offer: [], answer: [], candidates: [], mute: [], leave: [], stats: [], rating: [], 'ice-servers': [] };
  /** Refusals to come, by route: `[{status, code}]`, used up one by one. */
  refusals = {};
  /** A promise that the next replies to joins wait for. */
  holding = null;
  others = [];
  iceServers = [];
  revision = 0;
  /** So many joins take effect, but their connection breaks before the reply. */
  cutJoins = 0;
  /** Joins are answered 202: nobody gets to them. */
  pending = false;
  /** Of the session: joins from now on happen at this one. */
  epoch = 1;
  /** Endpoint ids in the order of their joins. @type {string[]} */
  endpoints = [];
  /** Unconfirmed events by endpoint; null when the endpoint is gone. @type {Map<string, object[] | null>} */
  #queues = new Map();
  #number = 0;
  /** @type {Set<() => void>} */
  #waiting = new Set();
  #server = http.createServer((request, response) => this.#handle(request, response));

  static async start() {
    const server = new RoomServer();
    await new Promise((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  get base() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  get link() {
    return `${this.base}/#session=ses_1&token=join-token`;
  }

  /** The endpoint of the latest join. */
  get endpointId() {
    return this.endpoints.at(-1);
  }

  /** To everyone: every endpoint has it. About an endpoint: only that one. */
  send(type, data) {
    this.#number += 1;
    const event = { id: `evt_${this.#number}`, session_id: 'ses_1', time: Date.now(), type, data };
    for (const [id, queue] of this.#queues) {
      if (data?.endpoint_id === undefined || data.endpoint_id === id) queue?.push(event);
    }
    this.#wakeAll();
  }

  /** Ends the events of an endpoint: `410 endpoint_gone` from now on. */
  forget(endpointId) {
    this.#queues.set(endpointId, null);
    this.#wakeAll();
  }

  /** Whether anybody polls the events of this endpoint now. */
  isRead(endpointId) {
    return [...this.#waiting].some((wake) => wake.endpointId === endpointId);
  }

  #wakeAll() {
    for (const wake of [...this.#waiting]) wake();
  }

  async #handle(request, response) {
    let text = '';
    for await (const piece of request) text += piece;
    const body = text === '' ? {} : JSON.parse(text);
    const url = new URL(request.url, 'http://server');
    const route = routeOf(request.method, url.pathname);
    if (route === 'events') {
      await this.#poll(url, response);
      return;
    }
    const query = Object.fromEntries(url.searchParams);
    this.calls[route].push({ ...body, ...query, path: url.pathname, token: request.headers.authorization });
    const { others } = this; // as things stand now, however late the reply is
    if (route === 'join' && !this.#queues.has(body.endpoint_id)) {
      this.endpoints.push(body.endpoint_id);
      this.#queues.set(body.endpoint_id, []);
    }
    if (route === 'join') await this.holding;
    if (route === 'join' && this.cutJoins > 0) {
      this.cutJoins -= 1;
      response.destroy();
      return;
    }
    if (route === 'join' && this.pending) {
      reply(response, 202, { command_id: request.headers['idempotency-key'] });
      return;
    }
    const refusal = this.refusals[route]?.shift();
    if (refusal) reply(response, refusal.status, { title: 'no', ...refusal });
    else this.#accept(route, body, others, response);
  }

  #accept(route, body, others, response) {
    if (route === 'join') {
      this.revision = body.offer ? 1 : 0;
      reply(response, 201, {
        session_id: 'ses_1',
        participant: { id: body.participant_id ?? (this.calls.join.length > 1 ? 'par_again' : 'par_me'), name: body.name, state: 'joined', joined_at: 0, tracks: [] },
        endpoint_id: body.endpoint_id,
        epoch: this.epoch,
        destination: `to-${body.endpoint_id}`,
        token: 'own-token',
        token_expires_at: 0,
        ice_servers: this.iceServers,
        participants: others,
        answer: body.offer ? { sdp: '', revision: 1 } : null,
        tracks: tracksOf(body.offer),
      });
    } else if (route === 'offer') {
      this.revision += 1;
      reply(response, 200, { sdp: '', revision: this.revision, tracks: tracksOf(body) });
    } else if (route === 'ice-servers') {
      reply(response, 200, { ice_servers: this.iceServers });
    } else if (route === 'stats') {
      reply(response, 200, { state: 'connected', transport: {}, published: [], subscribed: [] });
    } else if (route === 'mute') {
      reply(response, 200, { id: 'trk', muted: body.muted });
    } else {
      if (route === 'answer') this.revision = body.revision;
      reply(response, 204);
    }
  }

  async #poll(url, response) {
    const cursor = Number((url.searchParams.get('cursor') ?? 'evt_0').slice(4));
    const endpointId = url.searchParams.get('endpoint');
    const queue = () => this.#queues.get(endpointId)?.filter(({ id }) => Number(id.slice(4)) > cursor);
    if (queue()?.length === 0 && url.searchParams.get('wait') !== '0') {
      await new Promise((resolve) => {
        const wake = () => {
          if (queue()?.length === 0 && !response.destroyed) return;
          this.#waiting.delete(wake);
          resolve();
        };
        wake.endpointId = endpointId;
        this.#waiting.add(wake);
        response.on('close', wake);
      });
    }
    const events = queue();
    if (!events) reply(response, 410, { title: 'no', code: 'endpoint_gone' });
    else reply(response, 200, { events, cursor: events.at(-1)?.id ?? null });
  }
}

function routeOf(method, path) {
  const last = path.split('/').at(-1);
  if (last === 'participants') return 'join';
  if (path.includes('/tracks/')) return 'mute';
  if (method === 'DELETE') return 'leave';
  return last;
}

function tracksOf(offer) {
  return (offer?.tracks ?? []).map(({ mid, track_id: id, source, muted }) => ({ id, mid, source, muted, kind: 'audio' }));
}

function reply(response, status, body) {
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(body === undefined ? '' : JSON.stringify(body));
}
