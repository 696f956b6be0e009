/** The calls of this page, with the operator's token. */

import { Api } from '../sdk/api.js';

/** Sessions in one page of the list. */
export const PAGE = 25;

/**
 * @typedef {{ search?: string, workerId?: string, any?: boolean, after?: string | null }} Query
 */

export class AdminApi {
  #api;
  #token;
  #refused;

  /**
   * @param {string} token
   * @param {(code: string) => void} refused the token is not, or no longer, good
   * @param {Api} [api]
   */
  constructor(token, refused, api = new Api([location.origin])) {
    this.#token = token;
    this.#refused = refused;
    this.#api = api;
  }

  /** @param {string} method @param {string} path @param {any} [options] */
  async #ask(method, path, options = {}) {
    try {
      const { body } = await this.#api.request(method, path, { attempts: method === 'GET' ? 1 : 3, ...options, token: this.#token });
      return body;
    } catch (error) {
      const { code } = /** @type {any} */ (error);
      if (code === 'unauthorized' || (code === 'forbidden' && path === '/v1/workers')) this.#refused(code);
      throw error;
    }
  }

  /** @returns {Promise<any[]>} */
  async workers() {
    return (await this.#ask('GET', '/v1/workers')).workers;
  }

  /** @param {Query} query @returns {Promise<{ sessions: any[], next: string | null }>} */
  sessions({ search = '', workerId = '', any = false, after = null }) {
    const query = new URLSearchParams({ limit: String(PAGE), state: any ? 'any' : 'open' });
    if (search) query.set('search', search);
    if (workerId) query.set('worker_id', workerId);
    if (after) query.set('after', after);
    return this.#ask('GET', `/v1/admin/sessions?${query}`);
  }

  /** @param {string} id @returns {Promise<any>} */
  session(id) {
    return this.#ask('GET', `/v1/admin/sessions/${encodeURIComponent(id)}`);
  }

  /** The entries behind a number, at most a page of them. @param {string} id @param {number} after @returns {Promise<any[]>} */
  async timeline(id, after) {
    return (await this.#ask('GET', `/v1/sessions/${encodeURIComponent(id)}/timeline?limit=500&after=${after}`)).entries;
  }

  /** @param {string} session @param {string} participant @returns {Promise<any>} */
  stats(session, participant) {
    return this.#ask('GET', `/v1/sessions/${encodeURIComponent(session)}/participants/${encodeURIComponent(participant)}/stats`, { wait: 2 });
  }

  /** @param {string} workerId */
  drain(workerId) {
    return this.#ask('POST', `/v1/workers/${encodeURIComponent(workerId)}/drain`);
  }

  /** @param {string} id */
  close(id) {
    return this.#ask('DELETE', `/v1/sessions/${encodeURIComponent(id)}`);
  }

  /** @param {string} session @param {string} participant */
  remove(session, participant) {
    return this.#ask('DELETE', `/v1/sessions/${encodeURIComponent(session)}/participants/${encodeURIComponent(participant)}`);
  }
}
