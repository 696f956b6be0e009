/**
 * Says what a network address translator does (RFC 4787), seen from both of its sides: run inside with the addresses to
 * send to, it sends from one socket to each and says what came back, as JSON, when told that this was all.
 *
 * `node nat-probe.js ADDRESS:PORT…`
 */

import { createSocket } from 'node:dgram';

const socket = createSocket('udp4');
/** @type {string[]} */ const heard = [];
socket.on('message', (message) => {
  heard.push(String(message));
  if (String(message) !== 'that was all') return;
  console.log(JSON.stringify(heard.slice(0, -1)));
  process.exit(0);
});
for (const target of process.argv.slice(2)) {
  const [address, port] = target.split(':');
  socket.send('hello', Number(port), address);
}
