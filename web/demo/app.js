/** The demo: lobby, room, and the screens before and after. */

import { Room, SwitchyardError, parseJoinLink } from '../sdk/switchyard.js';
import { Devices } from './devices.js';
import { byId, setMessage, showScreen } from './dom.js';
import { findEntrance } from './link-source.js';
import { Lobby } from './lobby.js';
import { Rating } from './rating.js';
import { RoomView } from './room-view.js';

/** @type {Record<string, [heading: string, text: string]>} */
const ENDINGS = {
  left: ['You left the room', 'The door is still open.'],
  removed: ['You were removed', 'A moderator removed you from the room.'],
  session_closed: ['The room was closed', 'Its host ended it for everyone.'],
  taken_over: ['You are here already', 'You joined this room in another place with the same link.'],
  unauthorized: ['Your link is no longer valid', 'Ask for a new one.'],
};

/** Endings after which there is something to say about the call, and a token to say it with. */
const RATED = new Set(['left', 'removed', 'session_closed']);

/** @type {Record<string, string>} */
const REFUSALS = {
  unauthorized: 'This join link is not valid any more. Ask for a new one.',
  forbidden: 'This join link does not let you in.',
  session_not_found: 'This room does not exist any more.',
  session_closed: 'This room was closed.',
  unavailable: 'The server is busy or restarting. Try again in a moment.',
  invalid_link: 'This is not a join link. It looks like https://…/#session=…&token=…',
  network: 'The server cannot be reached. Check your connection and try again.',
  timeout: 'The server does not answer. Try again in a moment.',
};

/** For tests and the curious: the room that the page is in. @type {{ room: Room | null }} */
const exposed = { room: null };
Object.assign(window, { switchyard: exposed });

const devices = new Devices();
const lobby = new Lobby(devices, join);
const rating = new Rating();
/** @type {import('./link-source.js').Entrance | null} */
let entrance = null;

start();
addEventListener('hashchange', () => location.reload());
byId('rejoin', HTMLButtonElement).addEventListener('click', start);
byId('link-form', HTMLFormElement).addEventListener('submit', openPasted);

/** Finds out which room this is, and shows its lobby. */
async function start() {
  showScreen('lobby');
  rating.hide();
  // Asking for the room and for the devices takes a while each: at the same time.
  const finding = findEntrance(location.href);
  lobby.show(new URLSearchParams(location.hash.slice(1)).get('room') ?? 'lobby');
  try {
    entrance = await finding;
    if (entrance) byId('lobby-room', HTMLElement).textContent = entrance.title;
    else askForLink('');
  } catch (error) {
    if (error instanceof SwitchyardError && error.code === 'invalid_link') askForLink(explain(error));
    else lobby.showError(explain(error));
  }
}

async function join() {
  try {
    entrance ??= await findEntrance(location.href);
    if (!entrance) {
      askForLink('');
      return;
    }
    const room = await Room.join(entrance.link, {
      name: lobby.name,
      tracks: lobby.tracks(),
      transport: forcedTransport(),
      relayOnly: new URLSearchParams(location.search).has('relay'),
    });
    exposed.room = room;
    lobby.leave();
    showScreen('room');
    let wasConnected = room.connectionState === 'connected';
    room.on('connectionState', (state) => {
      wasConnected ||= state === 'connected';
    });
    new RoomView(room, devices, entrance, (reason) => {
      end(reason);
      if (wasConnected && RATED.has(reason)) rating.ask(room);
    });
  } catch (error) {
    entrance = null; // a demo link may have run out: the next try asks for a new one
    lobby.showError(explain(error));
  }
}

/** @param {string} reason */
function end(reason) {
  exposed.room = null;
  const [heading, text] = ENDINGS[reason] ?? ['You are out of the room', ''];
  byId('left-heading', HTMLElement).textContent = heading;
  byId('left-text', HTMLElement).textContent = text;
  const rejoin = byId('rejoin', HTMLButtonElement);
  rejoin.hidden = reason === 'unauthorized';
  showScreen('left');
  rejoin.focus();
}

/** @param {string} problem */
function askForLink(problem) {
  lobby.leave();
  devices.closeAll();
  showScreen('link');
  setMessage(byId('link-error', HTMLElement), problem);
}

/** @param {SubmitEvent} event */
function openPasted(event) {
  event.preventDefault();
  const pasted = byId('link-input', HTMLInputElement).value;
  try {
    parseJoinLink(pasted); // and nothing else: not every URL is safe to go to
  } catch (error) {
    setMessage(byId('link-error', HTMLElement), explain(error));
    return;
  }
  const { hash, origin } = new URL(pasted);
  if (origin !== location.origin) location.assign(pasted);
  else location.hash = hash; // reloads by hashchange
}

/** `?transport=polling` and the like: for trying each of them out. */
function forcedTransport() {
  const name = new URLSearchParams(location.search).get('transport');
  return name === 'websocket' || name === 'sse' || name === 'polling' ? name : undefined;
}

/** @param {unknown} error */
function explain(error) {
  if (error instanceof SwitchyardError) return REFUSALS[error.code] ?? `The server said: ${error.message}`;
  return 'Something went wrong here. Reload the page and try again.';
}
