/**
 * Who is there and what they publish, from the join reply and the events after it; and which of that is
 * subscribed, from the server's offers. The two come by different ways and in either order.
 *
 * Everything may come twice or late (events are delivered at least once and may be older than the
 * snapshot in a join reply), so every change is "make it so", never "flip it".
 *
 * A publisher that joins again publishes under new track ids; the publication stays the same, found again
 * by its source. And we may have two endpoints for a while, when the room moves to another media server: what
 * is subscribed there is kept per endpoint (a *feed*). A publication that plays goes on playing from where it does
 * until somebody who watches the newer feed says that it carries it (`promote`); one that does not play
 * takes the newest there is.
 */

import { RemoteParticipant } from './participant.js';
import { Publication } from './publication.js';

/** Ids of earlier endpoints of a publisher that are still recognised. */
const FORMER_IDS = 4;

/** What carries a subscribed track to us. @typedef {{ mid: string, receiver: RTCRtpReceiver }} Carrier */

/**
 * One feed's carriers by track id; the key is whose feed it is.
 * @typedef {object} Feed
 * @property {object} key
 * @property {Map<string, Carrier>} carriers
 */

/**
 * @typedef {object} RosterEvents
 * @property {(participant: RemoteParticipant) => void} participantJoined
 * @property {(participant: RemoteParticipant, reason: import('./types.js').LeaveReason) => void} participantLeft
 * @property {(participant: RemoteParticipant) => void} participantUpdated name or state changed
 * @property {(publication: Publication, participant: RemoteParticipant) => void} trackPublished
 * @property {(publication: Publication, participant: RemoteParticipant) => void} trackUnpublished
 * @property {(track: MediaStreamTrack, publication: Publication, participant: RemoteParticipant) => void} trackSubscribed
 * @property {(track: MediaStreamTrack, publication: Publication, participant: RemoteParticipant) => void} trackUnsubscribed
 * @property {(track: MediaStreamTrack, publication: Publication, participant: RemoteParticipant, before: MediaStreamTrack) => void} trackSwitched
 * @property {(publication: Publication, participant: RemoteParticipant) => void} trackMuted
 * @property {(publication: Publication, participant: RemoteParticipant) => void} trackUnmuted
 * @property {(publication: Publication, participant: RemoteParticipant) => void} trackRefused
 * @property {(publication: Publication, participant: RemoteParticipant) => void} videoSuspended
 * @property {(publication: Publication, participant: RemoteParticipant) => void} videoResumed
 * @property {(publication: Publication, participant: RemoteParticipant) => void} videoHeld
 * @property {(publication: Publication, participant: RemoteParticipant) => void} videoReleased
 */

export class Roster {
  /** @type {Map<string, RemoteParticipant>} */
  participants = new Map();
  /** Newest first. @type {Feed[]} */
  #feeds = [];
  #events;

  /** @param {RosterEvents} events */
  constructor(events) {
    this.#events = events;
  }

  /**
   * An event about someone else. Types that are unknown are a newer server's.
   * @param {string} type
   * @param {any} data
   */
  handle(type, data) {
    const id = data?.participant_id;
    if (type === 'participant.joined') this.joined(data.participant);
    else if (type === 'participant.left') this.left(id, data.reason);
    else if (type === 'participant.disconnected') this.disconnected(id);
    else if (type === 'track.published') this.published(id, data.track);
    else if (type === 'track.unpublished') this.unpublished(id, data.track_id);
    else if (type === 'track.muted') this.muted(id, data.track_id, true);
    else if (type === 'track.unmuted') this.muted(id, data.track_id, false);
  }

  /**
   * The snapshot of a join reply: everyone else, and nobody who is not in it.
   * @param {import('./types.js').ParticipantInfo[]} others
   */
  replace(others) {
    const present = new Set(others.map((info) => info.id));
    for (const id of [...this.participants.keys()]) if (!present.has(id)) this.left(id, 'left');
    for (const info of others) this.joined(info);
  }

  /** @param {import('./types.js').ParticipantInfo} info */
  joined(info) {
    let participant = this.participants.get(info.id);
    if (participant) {
      participant.name = info.name;
      participant.state = info.state;
      participant.quality = 'excellent'; // of a new connection nothing is known yet
      this.#renew(participant, info.tracks);
      this.#events.participantUpdated(participant);
    } else {
      participant = new RemoteParticipant(info);
      this.participants.set(info.id, participant);
      this.#events.participantJoined(participant);
    }
    for (const track of info.tracks) this.published(info.id, track);
  }

  /** @param {string} id @param {import('./types.js').LeaveReason} reason */
  left(id, reason) {
    const participant = this.participants.get(id);
    if (!participant) return;
    for (const trackId of [...participant.tracks.keys()]) this.unpublished(id, trackId);
    this.participants.delete(id);
    this.#events.participantLeft(participant, reason);
  }

  /** @param {string} id */
  disconnected(id) {
    const participant = this.participants.get(id);
    if (!participant || participant.state === 'disconnected') return;
    participant.state = 'disconnected';
    this.#events.participantUpdated(participant);
  }

  /** @param {string} participantId @param {import('./types.js').TrackInfo} info */
  published(participantId, info) {
    const participant = this.participants.get(participantId);
    if (!participant) return;
    if (find(participant, info.id)) {
      this.muted(participantId, info.id, info.muted);
      return;
    }
    const publication = new Publication(info.id, info.kind, info.source, info.muted);
    participant.tracks.set(info.id, publication);
    this.#events.trackPublished(publication, participant);
    this.#attach(publication, participant);
  }

  /** @param {string} participantId @param {string} trackId */
  unpublished(participantId, trackId) {
    const participant = this.participants.get(participantId);
    const publication = participant?.tracks.get(trackId);
    // What has a new id is published there, whatever becomes of the old one.
    if (!participant || !publication) return;
    this.#detach(publication, participant);
    participant.tracks.delete(trackId);
    this.#events.trackUnpublished(publication, participant);
  }

  /** @param {string} participantId @param {string} trackId @param {boolean} muted */
  muted(participantId, trackId, muted) {
    const participant = this.participants.get(participantId);
    const publication = participant && find(participant, trackId);
    if (!participant || !publication || publication.muted === muted) return;
    publication.muted = muted;
    if (muted) this.#events.trackMuted(publication, participant);
    else this.#events.trackUnmuted(publication, participant);
  }

  /**
   * Our way carries too little for these, or enough again.
   * @param {string[]} trackIds
   * @param {boolean} suspended
   */
  suspended(trackIds, suspended) {
    for (const [participant, publication] of this.#all()) {
      if (publication.suspended === suspended || !trackIds.some((id) => isOf(publication, id))) continue;
      publication.suspended = suspended;
      if (suspended) this.#events.videoSuspended(publication, participant);
      else this.#events.videoResumed(publication, participant);
    }
  }

  /**
   * Cameras of whom others have spoken after are left out, or not any more.
   * @param {string[]} trackIds
   * @param {boolean} held
   */
  held(trackIds, held) {
    for (const [participant, publication] of this.#all()) {
      if (publication.held === held || !trackIds.some((id) => isOf(publication, id))) continue;
      publication.held = held;
      if (held) this.#events.videoHeld(publication, participant);
      else this.#events.videoReleased(publication, participant);
    }
  }

  /** We cannot decode it. @param {string} trackId @param {string} mimeType */
  refused(trackId, mimeType) {
    const found = this.#all().find(([, publication]) => isOf(publication, trackId));
    if (!found || found[1].refused === mimeType) return;
    found[1].refused = mimeType;
    this.#events.trackRefused(found[1], found[0]);
  }

  /** What was suspended or held on one endpoint is told anew on the next. */
  resumeAll() {
    const all = this.#all().map(([, publication]) => publication.id);
    this.suspended(all, false);
    this.held(all, false);
  }

  /** Those with one of these ids. @param {string[]} trackIds */
  publications(trackIds) {
    const found = this.#all().filter(([, publication]) => trackIds.includes(publication.id));
    return found.map(([, publication]) => publication);
  }

  /**
   * A server offer was applied on one of our endpoints: this is all that is subscribed there now. A track
   * that moved to another m-line, or an m-line that carries another track, counts as unsubscribed and
   * subscribed anew.
   * @param {object} key the endpoint
   * @param {import('./types.js').SubscribedTrack[]} tracks
   * @param {(mid: string) => RTCRtpReceiver | null} receiverOf
   */
  subscribed(key, tracks, receiverOf) {
    /** @type {Map<string, Carrier>} */
    const carriers = new Map();
    for (const { track_id: id, mid } of tracks) {
      const receiver = receiverOf(mid);
      if (receiver) carriers.set(id, { mid, receiver });
    }
    const feed = this.#feeds.find((known) => known.key === key);
    if (feed) feed.carriers = carriers;
    else this.#feeds.unshift({ key, carriers });
    this.#settle();
  }

  /** An endpoint is gone, and with it what was subscribed there. @param {object} key */
  drop(key) {
    this.#feeds = this.#feeds.filter((feed) => feed.key !== key);
    this.#settle();
  }

  /** Every endpoint is gone. */
  unsubscribeAll() {
    this.#feeds = [];
    this.#settle();
  }

  /**
   * Publications that play from an older feed although the given one is to carry them, too.
   * @param {object} key
   * @returns {{ publication: Publication, participant: RemoteParticipant, mid: string }[]}
   */
  waiting(key) {
    const feed = this.#feeds.find((known) => known.key === key);
    const found = [];
    for (const [participant, publication] of this.#all()) {
      const carrier = feed && carrierOf(feed, publication);
      if (!carrier || !publication.track || carrier.receiver.track === publication.track) continue;
      found.push({ publication, participant, mid: carrier.mid });
    }
    return found;
  }

  /** Whether anything plays from this feed. @param {object} key */
  plays(key) {
    const feed = this.#feeds.find((known) => known.key === key);
    if (!feed) return false;
    const receivers = new Set([...feed.carriers.values()].map(({ receiver }) => receiver));
    for (const [, publication] of this.#all()) {
      if (publication.receiver && receivers.has(publication.receiver)) return true;
    }
    return false;
  }

  /**
   * From now on this feed carries the publication: its media has come.
   * @param {object} key
   * @param {Publication} publication one of `waiting(key)`
   */
  promote(key, publication) {
    const feed = this.#feeds.find((known) => known.key === key);
    const carrier = feed && carrierOf(feed, publication);
    for (const [participant, known] of this.#all()) {
      const { track: before } = publication;
      if (known !== publication || !carrier || !before || carrier.receiver.track === before) continue;
      play(publication, carrier);
      this.#events.trackSwitched(carrier.receiver.track, publication, participant, before);
    }
  }

  /** By the feed and the m-line in it that carries it. @param {object} key @param {string} mid */
  byMid(key, mid) {
    const feed = this.#feeds.find((known) => known.key === key);
    for (const [participant, publication] of this.#all()) {
      if (feed && publication.mid === mid && carrierOf(feed, publication)?.receiver === publication.receiver) {
        return { participant, publication };
      }
    }
    return null;
  }

  /** @returns {[RemoteParticipant, Publication][]} */
  #all() {
    return [...this.participants.values()].flatMap((participant) =>
      [...participant.tracks.values()].map(
        (publication) => /** @type {[RemoteParticipant, Publication]} */ ([participant, publication]),
      ),
    );
  }

  /**
   * A participant publishes this now, having joined again or not: what has a new id is found again by its source.
   * @param {RemoteParticipant} participant
   * @param {import('./types.js').TrackInfo[]} tracks
   */
  #renew(participant, tracks) {
    const present = new Set(tracks.map(({ id }) => id));
    const added = tracks.filter(({ id }) => !participant.tracks.has(id));
    for (const [oldId, publication] of [...participant.tracks]) {
      if (present.has(oldId)) continue;
      const { kind, source } = publication;
      const at = added.findIndex((info) => info.kind === kind && info.source === source);
      if (at < 0) {
        this.unpublished(participant.id, oldId);
        continue;
      }
      const [{ id }] = added.splice(at, 1);
      publication.formerIds.add(oldId);
      for (const former of publication.formerIds) {
        if (publication.formerIds.size > FORMER_IDS) publication.formerIds.delete(former);
      }
      publication.id = id;
      participant.tracks.delete(oldId);
      participant.tracks.set(id, publication);
      this.#attach(publication, participant);
    }
  }

  /** What plays from where nothing comes any more is unsubscribed; what does not play and could, is subscribed. */
  #settle() {
    const all = this.#all();
    for (const [participant, publication] of all) {
      const live = this.#feeds.some((feed) => carrierOf(feed, publication)?.receiver === publication.receiver);
      if (publication.track && !live) this.#detach(publication, participant);
    }
    for (const [participant, publication] of all) this.#attach(publication, participant);
  }

  /** @param {Publication} publication @param {RemoteParticipant} participant */
  #attach(publication, participant) {
    if (publication.track) return;
    for (const feed of this.#feeds) {
      const carrier = carrierOf(feed, publication);
      if (!carrier) continue;
      play(publication, carrier);
      this.#events.trackSubscribed(carrier.receiver.track, publication, participant);
      return;
    }
  }

  /** @param {Publication} publication @param {RemoteParticipant} participant */
  #detach(publication, participant) {
    const { track } = publication;
    if (!track) return;
    publication.track = null;
    publication.mid = null;
    publication.receiver = null;
    this.#events.trackUnsubscribed(track, publication, participant);
  }
}

/** By any id that it has or had. @param {RemoteParticipant} participant @param {string} trackId */
function find(participant, trackId) {
  const now = participant.tracks.get(trackId);
  return now ?? [...participant.tracks.values()].find(({ formerIds }) => formerIds.has(trackId));
}

/** Whether it has or had that id. @param {Publication} publication @param {string} trackId */
function isOf({ id, formerIds }, trackId) {
  return id === trackId || formerIds.has(trackId);
}

/** @param {Feed} feed @param {Publication} publication @returns {Carrier | undefined} */
function carrierOf({ carriers }, { id, formerIds }) {
  const former = [...formerIds].reverse().find((each) => carriers.has(each));
  return carriers.get(id) ?? (former === undefined ? undefined : carriers.get(former));
}

/** @param {Publication} publication @param {Carrier} carrier */
function play(publication, { mid, receiver }) {
  publication.track = receiver.track;
  publication.mid = mid;
  publication.receiver = receiver;
}
