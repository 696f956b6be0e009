//! WHIP (RFC 9725) to send and WHEP (draft-ietf-wish-whep) to receive: one request each, the client offers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::header::{CONTENT_TYPE, LOCATION};

use super::{Clients, Failure, Joined, Role, failure};
use crate::peer::Peer;
use crate::socket::wall_ns;

pub struct Whip {
    http: reqwest::Client,
    /// URL templates with `{room}` and `{publisher}`, both numbers.
    publish: String,
    play: Option<String>,
    bearer: Option<String>,
}

/// A room is only a number in the URLs.
#[derive(Default)]
pub struct Room {
    publishers: AtomicU32,
    /// What is deleted in the end.
    resources: std::sync::Mutex<Vec<reqwest::Url>>,
}

impl Whip {
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(publish: String, play: Option<String>, bearer: Option<String>) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().no_proxy().build().map_err(failure)?;
        Ok(Self { http, publish, play, bearer })
    }

    pub(super) async fn join(
        &self,
        clients: &Clients,
        room: &super::Room,
        handle: &Room,
        role: Role,
        group: usize,
    ) -> Result<Joined, Failure> {
        let mut joined = Joined::new(wall_ns());
        let mut own = None;
        if role != Role::Subscriber {
            let number = handle.publishers.fetch_add(1, Ordering::Relaxed);
            own = Some(number);
            let mut peer = clients.peer(room, role, group, 0)?;
            let offer = peer.offer_to_send();
            self.exchange(&fill(&self.publish, room.number, number), offer, &mut peer, handle).await?;
            joined.sends = Some(Arc::clone(&peer.shared));
            joined.keep(peer);
        }
        if role == Role::Publisher {
            return Ok(joined);
        }
        let play = self.play.as_ref().ok_or("receiving clients need --whep")?;
        for number in (0..room.senders).filter(|number| Some(*number) != own) {
            let mut peer = clients.peer(room, role, group, clients.media.tracks())?;
            let offer = peer.offer_to_receive();
            self.exchange(&fill(play, room.number, number), offer, &mut peer, handle).await?;
            joined.receives.push(Arc::clone(&peer.shared));
            joined.keep(peer);
        }
        Ok(joined)
    }

    async fn exchange(&self, url: &str, offer: String, peer: &mut Peer, room: &Room) -> Result<(), Failure> {
        let mut request = self.http.post(url).header(CONTENT_TYPE, "application/sdp").body(offer);
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        let response = request.send().await.map_err(|error| format!("POST {url}: {error}"))?;
        let (status, base) = (response.status(), response.url().clone());
        let location = response.headers().get(LOCATION).and_then(|it| it.to_str().ok());
        if let Some(resource) = location.and_then(|it| base.join(it).ok())
            && let Ok(mut resources) = room.resources.lock()
        {
            resources.push(resource);
        }
        let text = response.text().await.map_err(failure)?;
        if status.as_u16() != 201 {
            return Err(format!("POST {url}: {status}: {text}"));
        }
        peer.accept_answer(&text)
    }

    pub(super) async fn close(&self, room: &Room) {
        let resources = room.resources.lock().map(|mut it| std::mem::take(&mut *it)).unwrap_or_default();
        for resource in resources {
            let mut request = self.http.delete(resource);
            if let Some(bearer) = &self.bearer {
                request = request.bearer_auth(bearer);
            }
            // At the end of a run there is nobody left to tell.
            let _ = request.send().await;
        }
    }
}

fn fill(template: &str, room: u32, publisher: u32) -> String {
    template.replace("{room}", &room.to_string()).replace("{publisher}", &publisher.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in() {
        assert_eq!(fill("http://h/{room}/p{publisher}/whip", 3, 7), "http://h/3/p7/whip");
    }
}
