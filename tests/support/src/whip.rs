//! A client of WHIP (RFC 9725) or WHEP: one offer by HTTP, one answer, generated media out or packets counted in.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};

use crate::eventually::eventually;
use crate::http::{Http, Response, send};
use crate::media::Kind;
use crate::peer::Peer;

pub const SDP: &str = "application/sdp";
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// A connection that was made by one offer.
pub struct OneOffer {
    http: Http,
    peer: Peer,
    /// The path of its resource.
    pub location: String,
    /// The value of the `ETag` header.
    pub entity_tag: String,
    pub headers: HeaderMap,
    answer: String,
    /// From the request to its response.
    pub asked_for: Duration,
}

impl OneOffer {
    /// Publishes generated tracks.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn publish(http: &Http, session_id: &str, kinds: &[Kind]) -> Self {
        let (peer, _) = Peer::new().await.expect("a peer can be made");
        for kind in kinds {
            peer.add(*kind).await.expect("a track can be added");
        }
        Self::offer(http, &format!("/v1/whip/{session_id}"), peer).await
    }

    /// Watches, with an m-line for each kind.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn watch(http: &Http, session_id: &str, query: &str, kinds: &[Kind]) -> Self {
        let (peer, _) = Peer::new().await.expect("a peer can be made");
        for kind in kinds {
            peer.receive(*kind).await.expect("an m-line can be added");
        }
        Self::offer(http, &format!("/v1/whep/{session_id}{query}"), peer).await
    }

    async fn offer(http: &Http, path: &str, peer: Peer) -> Self {
        let (offer, _) = peer.offer(false).await.expect("an offer can be made");
        let request = http.request(Method::POST, path).header("Content-Type", SDP).body(offer.sdp.clone());
        let started = Instant::now();
        let response = request.send().await.expect("there is a response");
        let asked_for = started.elapsed();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = response.text().await.expect("the answer is text");
        assert_eq!(status, 201, "POST {path}: {answer}");
        peer.accepted(offer, &answer).await.expect("the answer is taken");
        let header = |name: &str| headers[name].to_str().expect("a header is text").to_owned();
        let (location, entity_tag) = (header("location"), header("etag"));
        Self { http: http.clone(), peer, location, entity_tag, headers, answer, asked_for }
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// A request about its resource, to the next API instance.
    pub fn request(&self, method: Method) -> RequestBuilder {
        self.http.request(method, &self.location)
    }

    /// Sends a fragment about ICE.
    pub async fn patch(&self, if_match: Option<&str>, fragment: &str) -> Response {
        let request = self.request(Method::PATCH).header("Content-Type", FRAGMENT).body(fragment.to_owned());
        send(match if_match {
            Some(tags) => request.header("If-Match", tags),
            None => request,
        })
        .await
    }

    pub async fn delete(&self) -> Response {
        send(self.request(Method::DELETE)).await
    }

    /// Restarts ICE by a fragment, and takes the server's side of it.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn restart_ice(&mut self) {
        let (offer, _) = self.peer.offer(true).await.expect("an offer can be made");
        let own = |name: &str| line_of(&offer.sdp, name).expect("an offer has credentials").to_owned();
        let fragment = [own("a=ice-ufrag:"), own("a=ice-pwd:")].map(|line| format!("{line}\r\n")).concat();
        let request = self.request(Method::PATCH).header("Content-Type", FRAGMENT).header("If-Match", "*");
        let response = request.body(fragment).send().await.expect("there is a response");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], FRAGMENT);
        let tag = response.headers()["etag"].to_str().expect("a tag is text").to_owned();
        let theirs = response.text().await.expect("a fragment is text");
        let answer: Vec<String> = self
            .answer
            .lines()
            .map(|line| {
                let name = ["a=ice-ufrag:", "a=ice-pwd:"].into_iter().find(|name| line.starts_with(name));
                let new = name.and_then(|name| line_of(&theirs, name)).unwrap_or(line);
                format!("{new}\r\n")
            })
            .collect();
        self.answer = answer.concat();
        self.peer.accepted(offer, &self.answer).await.expect("the new side is taken");
        self.entity_tag = tag;
    }

    /// Packets so far on its first m-line of that kind.
    pub async fn packets(&self, kind: Kind) -> u64 {
        let sections = self.peer.remote_sections().await;
        let mid = sections.iter().find(|it| it.kind == kind.as_str()).map(|it| it.mid.clone());
        self.peer.received("", mid.as_deref()).await
    }

    /// Waits until further packets have come on its m-lines of these kinds.
    pub async fn plays(&self, kinds: &[Kind]) {
        for kind in kinds {
            let before = self.packets(*kind).await;
            eventually(&format!("{} is played", kind.as_str()), || async {
                let now = self.packets(*kind).await;
                if now >= before + 10 {
                    Ok(())
                } else {
                    Err(format!("{before} to {now}: {:?}", self.peer.counts()))
                }
            })
            .await;
        }
    }
}

fn line_of<'a>(sdp: &'a str, prefix: &str) -> Option<&'a str> {
    sdp.lines().find(|line| line.starts_with(prefix))
}
