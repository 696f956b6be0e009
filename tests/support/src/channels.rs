//! The data channels of a test client: what it says, and what it heard.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::task::JoinHandle;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};
use webrtc::peer_connection::PeerConnection;

use crate::eventually::eventually;
use crate::peer::Failure;

struct Channel {
    label: &'static str,
    channel: Arc<dyn DataChannel>,
    reader: JoinHandle<()>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[derive(Default)]
struct Seen {
    open: Vec<&'static str>,
    heard: Vec<(&'static str, Value)>,
}

/// Both channels of docs/API.md, "Messages".
pub struct Channels {
    channels: Vec<Channel>,
    seen: Arc<Mutex<Seen>>,
}

impl Channels {
    /// They are in the next offer.
    pub async fn open(connection: &dyn PeerConnection) -> Result<Self, Failure> {
        let lossy = RTCDataChannelInit { ordered: false, max_retransmits: Some(0), ..Default::default() };
        let seen = Arc::<Mutex<Seen>>::default();
        let mut channels = Vec::new();
        for (label, init) in [("reliable", None), ("lossy", Some(lossy))] {
            let channel =
                connection.create_data_channel(label, init).await.map_err(|error| error.to_string())?;
            let reader = tokio::spawn(read(label, Arc::clone(&channel), Arc::clone(&seen)));
            channels.push(Channel { label, channel, reader });
        }
        Ok(Self { channels, seen })
    }

    /// Waits until the channel is open and says something.
    ///
    /// # Panics
    /// When that does not work.
    pub async fn say(&self, label: &str, message: &Value) {
        eventually(&format!("the channel {label} is open"), || async {
            let open = self.seen.lock().expect("only noted").open.clone();
            if open.contains(&label) { Ok(()) } else { Err(format!("{open:?}")) }
        })
        .await;
        let channel = self.channels.iter().find(|channel| channel.label == label).expect("one of both");
        channel.channel.send_text(&message.to_string()).await.unwrap();
    }

    /// What came by a channel.
    pub fn heard(&self, label: &str) -> Vec<Value> {
        let seen = self.seen.lock().expect("only noted");
        seen.heard.iter().filter(|(by, _)| *by == label).map(|(_, message)| message.clone()).collect()
    }
}

async fn read(label: &'static str, channel: Arc<dyn DataChannel>, seen: Arc<Mutex<Seen>>) {
    while let Some(event) = channel.poll().await {
        let mut seen = seen.lock().expect("only noted");
        match event {
            DataChannelEvent::OnOpen => seen.open.push(label),
            DataChannelEvent::OnMessage(message) => {
                seen.heard.push((label, serde_json::from_slice(&message.data).unwrap_or(Value::Null)));
            }
            _ => {}
        }
    }
}
