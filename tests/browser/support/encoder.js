/** Those who are seen and look at nobody: cameras that publish by WHIP alone, all of them in one page that draws nothing. */

/** In the page: publishes a small camera under each token, in two sizes. @param {{ session: string, tokens: string[] }} room */
async function publish({ session, tokens }) {
  const video = { width: { ideal: 320 }, height: { ideal: 180 }, frameRate: { ideal: 5 } };
  const [track] = (await navigator.mediaDevices.getUserMedia({ video })).getVideoTracks();
  const connect = async (/** @type {string} */ token) => {
    const connection = new RTCPeerConnection();
    connection.addTransceiver(track, { direction: 'sendonly', sendEncodings: [{ rid: 'l', scaleResolutionDownBy: 2 }, { rid: 'h' }] });
    await connection.setLocalDescription();
    const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/sdp' };
    const reply = await fetch(`/v1/whip/${session}`, { method: 'POST', headers, body: connection.localDescription?.sdp });
    if (reply.status !== 201) throw new Error(`${reply.status} ${await reply.text()}`);
    await connection.setRemoteDescription({ type: 'answer', sdp: await reply.text() });
    return connection;
  };
  // Kept from being collected.
  Object.assign(window, { publishers: await Promise.all(tokens.map(connect)) });
}

/**
 * @param {import('playwright-core').Browser} browser
 * @param {import('./deployment.js').Deployment} deployment
 * @param {string} session
 * @param {string[]} names
 */
export async function encoders(browser, deployment, session, names) {
  const links = names.map((name) => deployment.backend('POST', `/v1/sessions/${session}/links`, { name, can_subscribe: false }));
  const tokens = (await Promise.all(links)).map(({ token }) => token);
  const page = await (await browser.newContext()).newPage();
  // Any document of this origin will do.
  await page.goto(`${deployment.url}/sdk/switchyard.js`);
  await page.evaluate(publish, { session, tokens });
}
