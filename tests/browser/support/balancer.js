/**
 * What stands in front of several API instances in production, reduced to the point: every request goes to the next
 * instance, so that consecutive requests of one client never meet the same one.
 */

import http from 'node:http';
import net from 'node:net';

export class Balancer {
  #server = http.createServer((request, response) => this.#forward(request, response));
  #agent = new http.Agent({ keepAlive: true });
  /** Whose turn it is, by client. @type {Map<string, number>} */
  #turns = new Map();
  /** @type {URL[]} */
  #targets;
  /** Requests that went to each target, by its index. @type {number[]} */
  served;
  url = '';

  /** @param {string[]} targets */
  static async start(targets) {
    const balancer = new Balancer(targets);
    await new Promise((resolve) => balancer.#server.listen(0, '127.0.0.1', () => resolve(undefined)));
    const address = /** @type {net.AddressInfo} */ (balancer.#server.address());
    balancer.url = `http://127.0.0.1:${address.port}`;
    return balancer;
  }

  /** @param {string[]} targets @private */
  constructor(targets) {
    this.#targets = targets.map((target) => new URL(target));
    this.served = targets.map(() => 0);
    this.#server.keepAliveTimeout = 60_000;
    this.#server.on('upgrade', (request, socket, head) => this.#upgrade(request, /** @type {net.Socket} */ (socket), head));
  }

  stop() {
    this.#server.close();
    this.#server.closeAllConnections();
    this.#agent.destroy();
  }

  /** @param {http.IncomingMessage} request */
  #next(request) {
    const token = new URL(request.url ?? '/', 'http://x').searchParams.get('access_token');
    const client = request.headers.authorization ?? (token ? `Bearer ${token}` : '');
    const turn = (this.#turns.get(client) ?? -1) + 1;
    this.#turns.set(client, turn);
    const index = turn % this.#targets.length;
    this.served[index] += 1;
    return this.#targets[index];
  }

  /** @param {http.IncomingMessage} request @param {http.ServerResponse} response */
  #forward(request, response) {
    const { hostname, port } = this.#next(request);
    const { method, url: path, headers } = request;
    const onward = http.request({ hostname, port, method, path, headers, agent: this.#agent }, (reply) => {
      response.writeHead(reply.statusCode ?? 502, reply.headers);
      response.flushHeaders();
      reply.pipe(response);
      // An instance that dies in the middle of a stream: its client must learn that nothing more comes.
      reply.on('error', () => response.destroy());
    });
    onward.on('error', () => (response.headersSent ? response.destroy() : response.writeHead(502).end()));
    // A reader that goes away must be seen to go away, long polls and event streams above all.
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  }

  /** @param {http.IncomingMessage} request @param {net.Socket} socket @param {Buffer} head */
  #upgrade(request, socket, head) {
    const { hostname, port } = this.#next(request);
    const onward = net.connect(Number(port), hostname, () => {
      const lines = [`${request.method} ${request.url} HTTP/1.1`];
      for (let i = 0; i < request.rawHeaders.length; i += 2) {
        lines.push(`${request.rawHeaders[i]}: ${request.rawHeaders[i + 1]}`);
      }
      onward.write(`${lines.join('\r\n')}\r\n\r\n`);
      onward.write(head);
      onward.pipe(socket);
      socket.pipe(onward);
    });
    for (const [one, other] of [[socket, onward], [onward, socket]]) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  }
}
