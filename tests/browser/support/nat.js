/**
 * A home behind a router that translates addresses: the four kinds of RFC 3489, section 5, made of Linux's own parts (nftables
 * and connection tracking), and a look at whether a router is what it is called.
 */

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

import { run } from './network.js';

const INSIDE = '192.168.50.2';

/**
 * What the router does with UDP besides translating what leaves. Ports are kept where they are free, so one port of the
 * inside is one outside, whoever it sends to; unless they are chosen anew for every destination.
 * @type {Record<string, { leaving?: string, arriving?: string, note?: string, mapping: 'same' | 'each', lets: string[] }>}
 */
export const KINDS = {
  'full cone': { arriving: `udp dport 1024-65535 dnat to ${INSIDE}`, mapping: 'same', lets: ['known', 'known address', 'stranger'] },
  'address-restricted cone': {
    note: 'update @spoken { ip daddr }',
    arriving: `ip saddr @spoken udp dport 1024-65535 dnat to ${INSIDE}`,
    mapping: 'same',
    lets: ['known', 'known address'],
  },
  'port-restricted cone': { mapping: 'same', lets: ['known'] },
  symmetric: { leaving: 'fully-random', mapping: 'each', lets: ['known'] },
};

export class Home {
  /** The client's address, behind the router. */
  address = INSIDE;
  name = 'home';

  /** @param {import('./network.js').Network} network */
  constructor(network) {
    const router = network.guest('router');
    this.router = router;
    run('ip netns add home');
    run('ip link add lan netns router type veth peer name wan netns home');
    router.inside('ip address add 192.168.50.1/24 dev lan');
    router.inside('ip link set dev lan up');
    router.inside('sysctl -qw net.ipv4.ip_forward=1');
    for (const command of [`address add ${INSIDE}/24 dev wan`, 'link set dev wan up', 'link set dev lo up', 'route add default via 192.168.50.1']) {
      run(`ip netns exec home ip ${command}`);
    }
  }

  /** Makes the router one of that kind. @param {keyof typeof KINDS} kind */
  become(kind) {
    const { leaving = '', arriving, note } = KINDS[kind];
    this.router.inside('nft -f -', `
      flush ruleset
      table ip home {
        set spoken { type ipv4_addr; flags dynamic, timeout; timeout 2m; }
        chain arriving { type nat hook prerouting priority dstnat; ${arriving ? `iifname "wan" ${arriving}` : ''}
        }
        chain passing { type filter hook forward priority filter; ${note ? `iifname "lan" ${note}` : ''}
        }
        chain leaving { type nat hook postrouting priority srcnat; oifname "wan" masquerade ${leaving}
        }
      }
    `);
  }

  /**
   * Sends from one socket inside to three outside, and back from where it was sent to, from another port there, and from an
   * address that it never sent to. @param {string} hub @param {string} stranger two addresses outside
   */
  async probe(hub, stranger) {
    const known = await listening(hub);
    const others = [await listening(hub), await listening(hub)];
    const third = await listening(stranger);
    const targets = [known, ...others].map((socket) => `${hub}:${socket.address().port}`);
    const script = fileURLToPath(new URL('./nat-probe.js', import.meta.url));
    const inside = spawn('ip', ['netns', 'exec', this.name, process.execPath, script, ...targets], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      const seen = await Promise.all([known, ...others].map((socket) => once(socket, 'message')));
      const ports = new Set(seen.map(([, from]) => from.port));
      const [, { address, port }] = seen[0];
      // A port of the hub that it never sent to.
      const fresh = await listening(hub);
      for (const [socket, message] of /** @type {const} */ ([[known, 'known'], [fresh, 'known address'], [third, 'stranger'], [known, 'that was all']])) {
        await new Promise((sent, failed) => socket.send(message, port, address, (error) => (error ? failed(error) : sent(undefined))));
      }
      const [text] = await once(inside.stdout.setEncoding('utf8'), 'data');
      fresh.close();
      return { mapping: ports.size === 1 ? 'same' : 'each', lets: /** @type {string[]} */ (JSON.parse(text)) };
    } finally {
      for (const socket of [known, ...others, third]) socket.close();
      inside.kill();
    }
  }
}

/** @param {string} address */
async function listening(address) {
  const socket = createSocket('udp4');
  socket.bind(0, address);
  await once(socket, 'listening');
  return socket;
}
