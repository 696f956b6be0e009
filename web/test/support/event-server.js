/**
 * A real HTTP server on loopback with the event routes of docs/API.md: long poll, SSE and WebSocket over
 * one queue, at least once, removed only when confirmed. Tests switch parts of it off.
 */

import { createHash } from 'node:crypto';
import http from 'node:http';

export class EventServer {
  /** Not confirmed yet. */
  queue = [];
  /** Everything a client confirmed, in order. */
  confirmed = [];
  /** `websocket`, `sse`, `polling`, as the requests came. */
  requests = [];
  authorizations = [];
  /** Endpoints whose events were asked for. */
  endpoints = new Set();
  /** Transports that are not to be had: `refuse` 503, `html` a proxy's page, `status:<n>:<code>`. */
  broken = {};
  #number = 0;
  #waiting = new Set();
  #streams = new Set();
  #sockets = new Set();
  #server = http.createServer((request, response) => this.#handle(request, response));

  static async start() {
    const server = new EventServer();
    server.#server.on('upgrade', (request, socket) => server.#upgrade(request, socket));
    server.#server.on('connection', (socket) => {
      server.#sockets.add(socket);
      socket.on('close', () => server.#sockets.delete(socket));
    });
    await new Promise((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    server.base = `http://127.0.0.1:${server.#server.address().port}`;
    return server;
  }

  async stop() {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Sends an event to whoever reads, or keeps it for who comes. */
  send(type, data = {}) {
    this.#number += 1;
    const event = { id: `evt_${this.#number}`, session_id: 'ses_1', time: 0, type, data };
    this.queue.push(event);
    for (const stream of this.#streams) stream(event);
    for (const wake of [...this.#waiting]) wake();
    return event;
  }

  /** Cuts every connection, as a proxy's restart would. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
    this.#streams.clear();
  }

  get readers() {
    return this.#streams.size + this.#waiting.size;
  }

  #confirm(id) {
    const index = this.queue.findIndex((event) => event.id === id);
    if (index < 0) return;
    for (const event of this.queue.splice(0, index + 1)) this.confirmed.push(event.id);
  }

  #refused(name, response) {
    const how = this.broken[name];
    if (!how) return false;
    if (how === 'html') response.writeHead(200, { 'Content-Type': 'text/html' }).end('<p>Welcome to the Wi-Fi</p>');
    else {
      const [, status, code] = how === 'refuse' ? [null, '503'] : how.split(':');
      response.writeHead(Number(status)).end(JSON.stringify({ code }));
    }
    return true;
  }

  async #handle(request, response) {
    const url = new URL(request.url, 'http://server');
    const sse = request.headers.accept === 'text/event-stream';
    this.requests.push(sse ? 'sse' : 'polling');
    this.authorizations.push(request.headers.authorization);
    this.endpoints.add(url.searchParams.get('endpoint'));
    if (this.#refused(sse ? 'sse' : 'polling', response)) return;
    if (sse) this.#sse(request, response);
    else await this.#poll(url, response);
  }

  #sse(request, response) {
    this.#confirm(request.headers['last-event-id']);
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(': hello\n\n');
    const stream = (event) => {
      const text = `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
      // In two pieces, cut in the middle: a reader must not rely on pieces being whole.
      response.write(text.slice(0, 20));
      setImmediate(() => response.write(text.slice(20)));
    };
    for (const event of this.queue) response.write(`data: ${JSON.stringify(event)}\r\n\r\n`);
    this.#streams.add(stream);
    response.on('close', () => this.#streams.delete(stream));
  }

  async #poll(url, response) {
    this.#confirm(url.searchParams.get('cursor'));
    if (this.queue.length === 0 && url.searchParams.get('wait') !== '0') {
      await new Promise((resolve) => {
        const wake = () => {
          this.#waiting.delete(wake);
          resolve();
        };
        this.#waiting.add(wake);
        response.on('close', wake);
      });
    }
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ events: this.queue, cursor: this.queue.at(-1)?.id ?? null }));
  }

  /** Just enough of RFC 6455: the handshake, short text frames out, masked frames in. */
  #upgrade(request, socket) {
    this.requests.push('websocket');
    socket.on('error', () => {});
    if (this.broken.websocket?.startsWith('close:')) {
      this.#accept(request, socket);
      socket.end(Buffer.concat([Buffer.from([0x88, 2]), uint16(Number(this.broken.websocket.slice(6)))]));
      return;
    }
    if (this.broken.websocket) {
      socket.end('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n');
      return;
    }
    const { searchParams } = new URL(request.url, 'http://server');
    this.authorizations.push(searchParams.get('access_token'));
    this.endpoints.add(searchParams.get('endpoint'));
    this.#accept(request, socket);
    const stream = (event) => {
      const text = Buffer.from(JSON.stringify(event));
      const header = text.length < 126 ? Buffer.from([0x81, text.length]) : Buffer.concat([Buffer.from([0x81, 126]), uint16(text.length)]);
      socket.write(Buffer.concat([header, text]));
    };
    for (const event of this.queue) stream(event);
    this.#streams.add(stream);
    socket.on('close', () => this.#streams.delete(stream));
    socket.on('data', (frame) => {
      if ((frame[0] & 0x0f) !== 1) return;
      const mask = frame.subarray(2, 6);
      const text = Buffer.from(frame.subarray(6, 6 + (frame[1] & 0x7f)).map((byte, index) => byte ^ mask[index % 4]));
      this.#confirm(JSON.parse(text.toString()).ack);
    });
  }

  #accept(request, socket) {
    const key = `${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
    const accept = createHash('sha1').update(key).digest('base64');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  }
}

function uint16(value) {
  return Buffer.from([value >> 8, value & 0xff]);
}
