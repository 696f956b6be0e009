/** The real binary in either shape, the same as tests/support/src/deployment.rs does it for Rust. */

import { randomUUID } from 'node:crypto';
import { Balancer } from './balancer.js';
import { Process, binary } from './process.js';

const KEY_ID = 'test-key';
const KEY_SECRET = 'a-secret-for-tests-that-is-longer-than-32-bytes';

/** For those who make sessions themselves. */
export const KEY = `${KEY_ID}:${KEY_SECRET}`;

const AUTHORIZATION = `Basic ${Buffer.from(`${KEY_ID}:${KEY_SECRET}`).toString('base64')}`;

/** @param {string} name */
function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: tests/run browser starts RabbitMQ and MongoDB and sets it`);
  return value;
}

/** `url` with its path replaced. @param {string} url @param {string} path */
function withPath(url, path) {
  const [, start, query] = /^([a-z+]+:\/\/[^/?]+)[^?]*(\?.*)?$/.exec(url) ?? [];
  return `${start}/${path}${query ?? ''}`;
}

export class Deployment {
  /** @type {Process[]} */
  processes = [];
  /** The media servers of a cluster. @type {Process[]} */
  workers = [];
  /** The API instances of a cluster. @type {Process[]} */
  apiProcesses = [];
  /** @type {Record<string, string>} */
  #environment = {};
  /** Base URLs of the API instances. @type {string[]} */
  apis = [];
  /** What browsers open: the one API, or what spreads their requests over all. */
  url = '';
  /** @type {Balancer | null} */
  balancer = null;
  #address = '127.0.0.1';
  #cleanUp = async () => {};

  /**
   * Everything in one process, or 2 API and 2 worker processes over RabbitMQ and MongoDB behind a balancer that
   * sends consecutive requests of one client to different APIs.
   * @param {'embedded' | 'cluster'} shape
   * @param {{ broker: string, store: string }} [location] of a cluster's broker and store, when they are the caller's own
   * @param {string} [address] where it is reached
   * @param {Record<string, string>} [settings] of all its processes
   */
  static async start(shape, location, address = '127.0.0.1', settings = {}) {
    const deployment = new Deployment();
    deployment.#address = address;
    deployment.#environment = settings;
    try {
      if (shape === 'embedded') await deployment.#startEmbedded();
      else await deployment.#startCluster(location ?? (await deployment.#claim()));
    } catch (error) {
      await deployment.stop();
      throw error;
    }
    return deployment;
  }

  /** @param {string} name @param {string[]} args @param {Record<string, string>} environment */
  #process(name, args, environment = {}) {
    const all = [...args, '--api-keys', `${KEY_ID}:${KEY_SECRET}`, '--operator-keys', KEY_ID, '--media-address', this.#address, '--media-port', '0'];
    const started = new Process(name, binary(), all, {
      SWITCHYARD_LISTEN: `${this.#address.includes(':') ? `[${this.#address}]` : this.#address}:0`,
      SWITCHYARD_DEMO: 'true',
      SWITCHYARD_LOG: process.env.SWITCHYARD_TEST_LOG ?? 'info,rest_api=debug,media_worker=debug',
      ...environment,
    });
    this.processes.push(started);
    return started;
  }

  async #startEmbedded() {
    const all = this.#process('all', [], this.#environment);
    this.url = (await all.line('switchyard: listening on ')).replace(/\/$/, '');
    this.apis = [this.url];
  }

  /** Ends the one process as a crash would; all that it knew is gone with it. */
  async crashEmbedded() {
    await this.processes[0].crash();
  }

  /** Its successor, at the same address. */
  async startEmbeddedAgain() {
    this.processes.shift();
    this.#environment = { SWITCHYARD_LISTEN: new URL(this.url).host };
    await this.#startEmbedded();
  }

  /** A virtual host and a database to itself on the servers of all tests. */
  async #claim() {
    const name = `test-${randomUUID()}`;
    const admin = new URL(required('SWITCHYARD_TEST_BROKER_ADMIN'));
    const headers = { Authorization: `Basic ${btoa(`${admin.username || 'guest'}:${admin.password || 'guest'}`)}` };
    const vhost = new URL(`/api/vhosts/${name}`, `${admin.protocol}//${admin.host}`);
    const made = await fetch(vhost, { method: 'PUT', headers });
    if (made.status !== 201) throw new Error(`no virtual host: ${made.status}`);
    this.#cleanUp = async () => {
      await fetch(vhost, { method: 'DELETE', headers });
    };
    return {
      broker: withPath(required('SWITCHYARD_TEST_BROKER'), name),
      store: withPath(required('SWITCHYARD_TEST_STORE'), name),
    };
  }

  /** @param {{ broker: string, store: string }} location */
  async #startCluster({ broker, store }) {
    const environment = (this.#environment = { SWITCHYARD_BROKER: broker, SWITCHYARD_STORE: store });
    const workers = [this.startWorker(), this.startWorker()];
    this.apiProcesses = [1, 2].map(() => this.#process('api', ['api'], environment));
    await Promise.all(workers);
    for (const api of this.apiProcesses) this.apis.push((await api.line('switchyard: listening on ')).replace(/\/$/, ''));
    this.balancer = await Balancer.start(this.apis);
    this.url = this.balancer.url;
  }

  /** Starts one more worker; resolves when it takes sessions. */
  async startWorker() {
    const worker = this.#process('worker', ['worker'], this.#environment);
    this.workers.push(worker);
    await worker.line('switchyard: worker ');
    return worker;
  }

  /** Ends an API instance as a crash would. @param {number} index */
  async crashApi(index) {
    await this.apiProcesses[index].crash();
  }

  /** Its successor, at the same address. @param {number} index */
  async startApiAgain(index) {
    const environment = { ...this.#environment, SWITCHYARD_LISTEN: new URL(this.apis[index]).host };
    this.apiProcesses[index] = this.#process('api', ['api'], environment);
    await this.apiProcesses[index].line('switchyard: listening on ');
  }

  /**
   * The worker whose media port this is.
   * @param {number} port
   */
  async workerAt(port) {
    for (const worker of this.workers) {
      if (worker.ended === undefined && (await worker.line('switchyard: worker ')).endsWith(`:${port}`)) return worker;
    }
    throw new Error(`no living worker has its media on port ${port}`);
  }

  /**
   * A request as the application's backend makes it.
   * @param {string} method @param {string} path @param {unknown} [body]
   */
  async backend(method, path, body) {
    const response = await fetch(this.apis[0] + path, {
      method,
      headers: { Authorization: AUTHORIZATION, 'Content-Type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.status === 204 ? null : response.json();
  }

  /** The admin page as an operator opens it. @returns {Promise<string>} its address, with a token */
  async adminLink() {
    const { token } = await this.backend('POST', '/v1/admin/tokens', {});
    return `${this.url}/admin/#token=${token}`;
  }

  /** Creates a session. @param {Record<string, unknown>} [body] @returns {Promise<{ id: string, token: string, address: string }>} */
  async room(body = {}) {
    const { session, token } = await this.backend('POST', '/v1/sessions', body);
    return { id: session.id, token, address: `${this.url}/#session=${session.id}&token=${token}` };
  }

  async stop() {
    this.balancer?.stop();
    await Promise.all(this.processes.map((process) => process.stop()));
    await this.#cleanUp();
  }
}
