//! A published audio or video source.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::TrackId;

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrackKind {
    Audio,
    Video,
}

/// What a track shows or carries; decides layout in clients, never forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrackSource {
    Camera,
    Microphone,
    Screen,
    ScreenAudio,
    Other,
}

/// One published track, as stored and as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Track {
    #[serde(rename = "id")]
    pub id: TrackId,
    pub kind: TrackKind,
    pub source: TrackSource,
    /// Media stopped by its publisher or a moderator; the track stays published.
    pub muted: bool,
    /// The `mid` of the publisher's m-line that carries it (RFC 5888).
    pub mid: String,
}
