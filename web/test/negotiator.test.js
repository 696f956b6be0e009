import assert from 'node:assert/strict';
import test from 'node:test';

import { SwitchyardError } from '../sdk/errors.js';
import { Negotiator } from '../sdk/negotiator.js';
import { deferred, eventually } from './support/index.js';

/** The offer/answer states of an RTCPeerConnection (W3C webrtc, section 4.4.1.6), and nothing else. */
class FakePeer {
  signalingState = 'stable';
  localDescription = null;
  log = [];
  #offers = 0;

  async createOffer() {
    return { type: 'offer', sdp: '' };
  }

  async createAnswer() {
    return { type: 'answer', sdp: '' };
  }

  async setLocalDescription(description) {
    await null;
    if (description?.type === 'rollback') {
      assert.equal(this.signalingState, 'have-local-offer', 'only an own offer can be rolled back');
      this.signalingState = 'stable';
      this.log.push('rollback');
      return;
    }
    if (this.signalingState === 'have-remote-offer') {
      this.localDescription = { type: 'answer', sdp: 'own answer' };
      this.signalingState = 'stable';
    } else {
      assert.equal(this.signalingState, 'stable', 'no offer while another is outstanding');
      this.#offers += 1;
      this.localDescription = { type: 'offer', sdp: `own offer ${this.#offers}` };
      this.signalingState = 'have-local-offer';
    }
    this.log.push(this.localDescription.sdp);
  }

  async setRemoteDescription({ type, sdp }) {
    await null;
    assert.equal(this.signalingState, type === 'answer' ? 'have-local-offer' : 'stable', `a remote ${type} fits`);
    this.signalingState = type === 'answer' ? 'stable' : 'have-remote-offer';
    this.log.push(sdp);
  }
}

/** A negotiator on a fake peer; replies to its offers are given by the test, one by one. */
function setUp() {
  const peer = new FakePeer();
  const calls = { offers: [], answers: [], subscribed: [], published: [], broken: [] };
  let answering = async () => {};
  const negotiator = new Negotiator(
    peer,
    {
      sendOffer: (offer) => {
        const reply = deferred();
        calls.offers.push({ offer, ...reply });
        return reply.promise;
      },
      sendAnswer: (answer) => {
        calls.answers.push(answer);
        return answering(answer);
      },
      describeTracks: () => () => [{ mid: '0', source: 'camera' }],
      published: (tracks) => calls.published.push(tracks),
      subscribed: (tracks) => calls.subscribed.push(tracks),
      broken: (error) => calls.broken.push(error),
    },
    { collisionPatience: 20 },
  );
  const onAnswer = (handler) => {
    answering = handler;
  };
  return { peer, negotiator, calls, onAnswer };
}

const collision = () => new SwitchyardError('offer_collision', 'answer mine first', { status: 409 });
const serverOffer = (revision, tracks = []) => ({ endpoint_id: 'end_1', revision, sdp: `server offer ${revision}`, tracks });
const answer = (revision) => ({ revision, sdp: `answer ${revision}`, tracks: [] });

test('an own offer names the revision that it makes and counts once answered', async () => {
  const { peer, negotiator, calls } = setUp();
  const done = negotiator.negotiate();
  await eventually(() => calls.offers.length === 1, 'the offer');
  assert.deepEqual(calls.offers[0].offer, {
    sdp: 'own offer 1',
    revision: 1,
    tracks: [{ mid: '0', source: 'camera' }],
  });
  calls.offers[0].resolve({ ...answer(1), tracks: [{ id: 'trk_1' }] });
  await done;
  assert.equal(negotiator.completed, 1);
  assert.deepEqual(calls.published, [[{ id: 'trk_1' }]]);
  assert.equal(peer.signalingState, 'stable');
});

test('changes while an offer is on its way share the next one', async () => {
  const { negotiator, calls } = setUp();
  const first = negotiator.negotiate();
  await eventually(() => calls.offers.length === 1, 'the first offer');
  const later = [negotiator.negotiate(), negotiator.negotiate()];
  calls.offers[0].resolve(answer(1));
  await first;
  await eventually(() => calls.offers.length === 2, 'the second offer');
  calls.offers[1].resolve(answer(2));
  await Promise.all(later);
  assert.equal(calls.offers.length, 2);
  assert.equal(negotiator.completed, 2);
});

test('a server offer is applied and answered with its revision', async () => {
  const { peer, negotiator, calls } = setUp();
  negotiator.handleServerOffer(serverOffer(1, [{ mid: '5', track_id: 'trk_9' }]));
  await eventually(() => negotiator.completed === 1, 'the answer');
  assert.deepEqual(calls.answers, [{ sdp: 'own answer', revision: 1 }]);
  assert.deepEqual(calls.subscribed, [[{ mid: '5', track_id: 'trk_9' }]]);
  assert.equal(peer.signalingState, 'stable');
});

test('collision, refusal first: rolls back, answers the server, offers again', async () => {
  const { peer, negotiator, calls } = setUp();
  const done = negotiator.negotiate();
  await eventually(() => calls.offers.length === 1, 'the offer');
  calls.offers[0].reject(collision());
  await eventually(() => peer.log.includes('rollback'), 'the rollback');
  negotiator.handleServerOffer(serverOffer(1));
  await eventually(() => calls.offers.length === 2, 'the offer again');
  assert.equal(calls.offers[1].offer.revision, 2);
  calls.offers[1].resolve(answer(2));
  await done;
  assert.deepEqual(peer.log, ['own offer 1', 'rollback', 'server offer 1', 'own answer', 'own offer 2', 'answer 2']);
});

test('collision, server offer first: it waits for the refusal', async () => {
  const { peer, negotiator, calls } = setUp();
  const done = negotiator.negotiate();
  await eventually(() => calls.offers.length === 1, 'the offer');
  negotiator.handleServerOffer(serverOffer(1));
  calls.offers[0].reject(collision());
  await eventually(() => calls.offers.length === 2, 'the offer again');
  calls.offers[1].resolve(answer(2));
  await done;
  assert.deepEqual(peer.log, ['own offer 1', 'rollback', 'server offer 1', 'own answer', 'own offer 2', 'answer 2']);
});

test('reordering: the server accepted ours and its own next offer overtook the reply', async () => {
  const { peer, negotiator, calls } = setUp();
  const done = negotiator.negotiate();
  await eventually(() => calls.offers.length === 1, 'the offer');
  negotiator.handleServerOffer(serverOffer(2));
  calls.offers[0].resolve(answer(1));
  await done;
  await eventually(() => negotiator.completed === 2, 'the answer to the server');
  assert.deepEqual(peer.log, ['own offer 1', 'answer 1', 'server offer 2', 'own answer']);
});

test('the next server offer may overtake the reply to our answer', async () => {
  const { negotiator, calls, onAnswer } = setUp();
  const slow = deferred();
  onAnswer(({ revision }) => (revision === 1 ? slow.promise : Promise.resolve()));
  negotiator.handleServerOffer(serverOffer(1));
  await eventually(() => calls.answers.length === 1, 'the first answer');
  negotiator.handleServerOffer(serverOffer(2));
  slow.resolve();
  await eventually(() => negotiator.completed === 2, 'the second answer');
  assert.deepEqual(calls.broken, []);
});

test('repeated and outdated server offers are dropped', async () => {
  const { peer, negotiator, calls } = setUp();
  negotiator.handleServerOffer(serverOffer(1));
  negotiator.handleServerOffer(serverOffer(1));
  await eventually(() => negotiator.completed === 1, 'the answer');
  negotiator.handleServerOffer(serverOffer(1));
  const done = negotiator.negotiate();
  await eventually(() => calls.offers.length === 1, 'an offer after it');
  calls.offers[0].resolve(answer(2));
  await done;
  assert.equal(calls.answers.length, 1);
  assert.equal(peer.log.filter((entry) => entry === 'server offer 1').length, 1);
});

test('a refused offer is rolled back, its caller told, and the next one goes out', async () => {
  const { peer, negotiator, calls } = setUp();
  const refused = negotiator.negotiate();
  await eventually(() => calls.offers.length === 1, 'the offer');
  calls.offers[0].reject(new SwitchyardError('limit_exceeded', 'too many tracks', { status: 422 }));
  await assert.rejects(refused, { code: 'limit_exceeded' });
  assert.equal(peer.signalingState, 'stable');
  const done = negotiator.negotiate();
  await eventually(() => calls.offers.length === 2, 'another offer');
  assert.equal(calls.offers[1].offer.revision, 1);
  calls.offers[1].resolve(answer(1));
  await done;
  assert.deepEqual(calls.broken, []);
});

test('an offer that cannot be delivered is taken back; the connection goes on', async () => {
  const { peer, negotiator, calls } = setUp();
  const first = negotiator.negotiate();
  await eventually(() => calls.offers.length === 1, 'the offer');
  calls.offers[0].reject(new SwitchyardError('unavailable', 'later', { status: 503 }));
  await assert.rejects(first, { code: 'unavailable' });
  const second = negotiator.negotiate();
  await eventually(() => calls.offers.length === 2, 'the next offer');
  assert.equal(calls.offers[1].offer.revision, 1);
  calls.offers[1].resolve(answer(1));
  await second;
  assert.deepEqual(calls.broken, []);
  assert.equal(peer.signalingState, 'stable');
});

test('an answer is sent until it arrives, whatever became of the reply to the first try', async () => {
  const { negotiator, calls, onAnswer } = setUp();
  const replies = [
    new SwitchyardError('unavailable', 'later', { status: 503 }),
    new SwitchyardError('network', 'lost'),
    new SwitchyardError('no_offer_pending', 'you have answered', { status: 409 }),
  ];
  onAnswer(async () => {
    const refusal = replies.shift();
    if (refusal) throw refusal;
  });
  negotiator.handleServerOffer(serverOffer(1));
  await eventually(() => negotiator.completed === 1, 'completed');
  assert.equal(calls.answers.length, 3);
  assert.deepEqual(calls.broken, []);
});

test('an answer to nothing, at the first try, is out of step', async () => {
  const { negotiator, calls, onAnswer } = setUp();
  onAnswer(async () => {
    throw new SwitchyardError('no_offer_pending', 'which offer?', { status: 409 });
  });
  negotiator.handleServerOffer(serverOffer(1));
  await eventually(() => calls.broken.length === 1, 'broken');
});

test('an endpoint that is gone ends the negotiation, once', async () => {
  const { negotiator, calls } = setUp();
  const lost = negotiator.negotiate();
  await eventually(() => calls.offers.length === 1, 'the offer');
  calls.offers[0].reject(new SwitchyardError('endpoint_gone', 'join again', { status: 410 }));
  await assert.rejects(lost, { code: 'endpoint_gone' });
  await eventually(() => calls.broken.length === 1, 'the report');
  assert.equal(calls.broken[0].code, 'endpoint_gone');
  await assert.rejects(negotiator.negotiate(), { code: 'superseded' });
});

test('a server offer that skips a revision means that something was lost', async () => {
  const { negotiator, calls } = setUp();
  negotiator.handleServerOffer(serverOffer(3));
  await eventually(() => calls.broken.length === 1, 'the report');
  assert.equal(calls.broken[0].code, 'out_of_step');
});

test('collisions without any server offer are repeated, but not for ever', async () => {
  const { negotiator, calls } = setUp();
  const lost = assert.rejects(negotiator.negotiate(), { code: 'superseded' });
  for (let round = 0; round < 4; round += 1) {
    await eventually(() => calls.offers.length === round + 1, `offer ${round + 1}`);
    calls.offers[round].reject(collision());
  }
  await lost;
  assert.equal(calls.broken[0].code, 'out_of_step');
  assert.equal(calls.offers.length, 4);
});

test('closing tells everyone who waits, and a late reply changes nothing', async () => {
  const { peer, negotiator, calls } = setUp();
  const first = assert.rejects(negotiator.negotiate(), { code: 'superseded' });
  await eventually(() => calls.offers.length === 1, 'the offer');
  const second = assert.rejects(negotiator.negotiate(), { code: 'superseded' });
  negotiator.close();
  await second;
  calls.offers[0].resolve(answer(1));
  await first;
  assert.deepEqual(peer.log, ['own offer 1']);
  assert.deepEqual(calls.broken, []);
});

test('the first offer travels with the join; what came meanwhile follows its answer', async () => {
  const { peer, negotiator, calls } = setUp();
  const { sdp } = await negotiator.prepareFirst();
  assert.equal(sdp, 'own offer 1');
  negotiator.handleServerOffer(serverOffer(2));
  const done = negotiator.negotiate();
  await negotiator.acceptFirst({ revision: 1, sdp: 'answer 1' }, []);
  await eventually(() => calls.offers.length === 1, 'the offer of what changed meanwhile');
  assert.equal(calls.offers[0].offer.revision, 3);
  calls.offers[0].resolve(answer(3));
  await done;
  assert.deepEqual(peer.log, ['own offer 1', 'answer 1', 'server offer 2', 'own answer', 'own offer 2', 'answer 3']);
});

test('fifty rounds of both sides at once, in every order, end in agreement', async () => {
  const { peer, negotiator, calls } = setUp();
  for (let round = 0; round < 50; round += 1) {
    const base = negotiator.completed;
    const sent = calls.offers.length;
    const done = negotiator.negotiate();
    await eventually(() => calls.offers.length === sent + 1, 'our offer');
    const serverWins = round % 2 === 0;
    const offerFirst = round % 4 < 2;
    const theirs = serverOffer(serverWins ? base + 1 : base + 2);
    const reply = () => (serverWins ? calls.offers[sent].reject(collision()) : calls.offers[sent].resolve(answer(base + 1)));
    if (offerFirst) negotiator.handleServerOffer(theirs);
    reply();
    if (!offerFirst) negotiator.handleServerOffer(theirs);
    if (serverWins) {
      await eventually(() => calls.offers.length === sent + 2, 'our offer again');
      calls.offers[sent + 1].resolve(answer(base + 2));
    }
    await done;
    await eventually(() => negotiator.completed === base + 2, 'both offers');
  }
  assert.equal(negotiator.completed, 100);
  assert.equal(peer.signalingState, 'stable');
  assert.deepEqual(calls.broken, []);
});
