//! The command line of `switchyard load`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::dtls::Ciphers;
use crate::media::{Codec, Profile, VideoCodec};
use crate::peer::Media;

/// Sections of `--help`.
const SERVER: &str = "Which server";
const ROOMS: &str = "Rooms and clients";
const STORM: &str = "Join storm and hostile datagrams";
const MEDIA: &str = "Media";
const MEASUREMENT: &str = "Measurement";
const REPORT: &str = "Report";

/// Puts load on a media server and measures what comes out.
///
/// Rooms are made over Switchyard's HTTP API, or with --janus or --whip over another server's; clients send synthetic media
/// that carries its time of departure and receive everybody else's.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Switchyard's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", help_heading = SERVER)]
    pub url: String,
    /// API key to make sessions with
    #[arg(long, value_name = "ID:SECRET", env = "SWITCHYARD_LOAD_API_KEY", hide_env_values = true, help_heading = SERVER)]
    pub api_key: Option<String>,
    /// Measure Janus instead: its WebSocket API (VideoRoom plugin)
    #[arg(long, value_name = "WS_URL", conflicts_with = "whip", help_heading = SERVER)]
    pub janus: Option<String>,
    /// Measure a WHIP server instead: URL with {room} and {publisher}, which become numbers from 0
    #[arg(long, value_name = "TEMPLATE", help_heading = SERVER)]
    pub whip: Option<String>,
    /// Where to receive from it (WHEP), one connection for each publisher
    #[arg(long, value_name = "TEMPLATE", requires = "whip", help_heading = SERVER)]
    pub whep: Option<String>,
    /// Token for WHIP and WHEP
    #[arg(long, value_name = "TOKEN", requires = "whip", help_heading = SERVER)]
    pub bearer: Option<String>,

    /// Rooms, all alike
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = ROOMS)]
    pub rooms: u32,
    /// Clients in each room that only send [default: 1, or 0 with --parties]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000), help_heading = ROOMS)]
    pub publishers: Option<u32>,
    /// Clients in each room that only receive [default: 10, or 0 with --parties]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000), help_heading = ROOMS)]
    pub subscribers: Option<u32>,
    /// Clients in each room that do both
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000), help_heading = ROOMS)]
    pub parties: u32,
    /// Joins per second before the measurement
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = positive, help_heading = ROOMS)]
    pub join_rate: f64,
    /// How long to measure, once everybody has media
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration, help_heading = MEASUREMENT)]
    pub duration: Duration,
    /// How long to wait before that, after the last join
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration, help_heading = ROOMS)]
    pub settle: Duration,
    /// How long a client may take to get all its media
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = ROOMS)]
    pub timeout: Duration,

    /// Join storm: so many more subscribers enter each room while the others are measured
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000), help_heading = STORM)]
    pub storm: u32,
    /// The time in which they do, from one second into the measurement
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration, help_heading = STORM)]
    pub storm_within: Duration,

    /// Send hostile datagrams to the media port during the measurement
    #[arg(long, value_name = "KIND", help_heading = STORM)]
    pub flood: Option<Flood>,
    /// Hostile datagrams per second
    #[arg(long, value_name = "N", default_value_t = 20_000, requires = "flood", value_parser = clap::value_parser!(u32).range(1..=5_000_000), help_heading = STORM)]
    pub flood_rate: u32,

    /// Of the video
    #[arg(long, value_enum, default_value_t, help_heading = MEDIA)]
    pub codec: VideoCodec,
    /// Bits per second, with k or M
    #[arg(long, value_name = "RATE", default_value = "1.5M", value_parser = bitrate, help_heading = MEDIA)]
    pub video_bitrate: u32,
    /// Video frames per second
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=120), help_heading = MEDIA)]
    pub fps: u32,
    /// From one keyframe to the next when nobody asks for one
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, help_heading = MEDIA)]
    pub keyframe_interval: Duration,
    /// Publishers send audio only
    #[arg(long, help_heading = MEDIA)]
    pub no_video: bool,
    /// Bits per second, with k
    #[arg(long, value_name = "RATE", default_value = "48k", value_parser = bitrate, help_heading = MEDIA)]
    pub audio_bitrate: u32,
    /// Publishers send video only
    #[arg(long, help_heading = MEDIA)]
    pub no_audio: bool,
    /// Offer three encodings (f, h, q), and send those that the server takes
    #[arg(long, help_heading = MEDIA)]
    pub simulcast: bool,
    /// SRTP profiles that clients offer, best first
    #[arg(long, value_enum, default_value_t, help_heading = MEDIA)]
    pub srtp: Ciphers,

    /// Measure processor time and memory of this server process; may be repeated
    #[arg(long = "pid", value_name = "PID", help_heading = MEASUREMENT)]
    pub pids: Vec<u32>,
    /// Threads of the generator
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64), help_heading = MEASUREMENT)]
    pub threads: u32,
    /// Decrypt and check one of so many received media packets; the others are counted by their headers. Latencies are
    /// those of the checked ones
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_000), help_heading = MEASUREMENT)]
    pub check_one_of: u16,
    /// Address of the clients
    #[arg(long, value_name = "IPV4", default_value_t = Ipv4Addr::LOCALHOST, help_heading = MEASUREMENT)]
    pub client_address: Ipv4Addr,
    /// Name of the run in reports
    #[arg(long, value_name = "TEXT", default_value = "", help_heading = REPORT)]
    pub label: String,
    /// Write the report as JSON; - is the standard output
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub json: Option<PathBuf>,
    /// Write the report as an HTML page with plots
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub html: Option<PathBuf>,
    /// No progress on the terminal
    #[arg(long, help_heading = REPORT)]
    pub quiet: bool,
}

/// Hostile datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flood {
    /// Random bytes of all lengths
    Junk,
    /// Connectivity checks for an endpoint that is there, with a wrong password
    Stun,
    /// RTP from addresses that nobody knows
    Rtp,
    /// Packets of a publisher, again, from the publisher's own address
    Replay,
}

impl Options {
    pub fn publishers(&self) -> u32 {
        self.publishers.unwrap_or(u32::from(self.parties == 0))
    }

    pub fn subscribers(&self) -> u32 {
        self.subscribers.unwrap_or(if self.parties == 0 { 10 } else { 0 })
    }

    /// What publishers send.
    pub fn media(&self) -> Media {
        let frame = Duration::from_secs(1) / self.fps;
        let keyframe_every = (self.keyframe_interval.as_secs_f64() * f64::from(self.fps)).round() as u32;
        let video = Profile {
            codec: Codec::Video(self.codec),
            bitrate_bps: self.video_bitrate,
            frame,
            keyframe_every,
        };
        let audio = Profile {
            codec: Codec::Opus,
            bitrate_bps: self.audio_bitrate,
            frame: Duration::from_millis(20),
            keyframe_every: 0,
        };
        Media {
            audio: (!self.no_audio).then_some(audio),
            video: (!self.no_video).then_some(video),
            with_simulcast: self.simulcast,
        }
    }

    /// What is wrong with the options together.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        if self.no_audio && self.no_video {
            return Err("--no-audio and --no-video leave nothing to send".into());
        }
        if self.publishers() + self.parties == 0 {
            return Err("nobody would send: --publishers or --parties".into());
        }
        if self.subscribers() + self.storm == 0 && self.parties < 2 {
            return Err("nobody would receive: --subscribers, or two --parties".into());
        }
        if self.janus.is_none() && self.whip.is_none() && self.api_key.is_none() {
            return Err("--api-key is missing; a server without keys prints one when it starts".into());
        }
        if self.duration < Duration::from_secs(1) {
            return Err("--duration is at least a second".into());
        }
        Ok(())
    }
}

/// `15s`, `500ms`, `2m`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.trim().parse().map_err(|_| "not a number with a unit".to_owned())?;
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return Err("the units are ms, s, m and h".to_owned()),
    };
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("from 0 to a day".to_owned())
    }
}

/// `1.5M`, `48k`, `32000`.
fn bitrate(text: &str) -> Result<u32, String> {
    let (number, factor) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1e3),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1.0), |number| (number, 1e6)),
    };
    let bits = number.trim().parse::<f64>().map_err(|_| "not a number, with k or M".to_owned())? * factor;
    if (8_000.0..=100e6).contains(&bits) { Ok(bits as u32) } else { Err("from 8k to 100M".to_owned()) }
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=100_000.0).contains(&number) { Ok(number) } else { Err("from 0.001 to 100000".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        let all = ["load"].iter().chain(arguments);
        let options = Cli::try_parse_from(all).map_err(|error| error.to_string())?.options;
        options.check().map(|()| options)
    }

    #[test]
    fn the_defaults_make_one_room_with_a_publisher_and_ten_subscribers() {
        let options = parse(&["--api-key", "a:b"]).unwrap();
        assert_eq!(
            (options.rooms, options.publishers(), options.subscribers(), options.parties),
            (1, 1, 10, 0)
        );
        let media = options.media();
        assert_eq!(media.video.unwrap().bitrate_bps, 1_500_000);
        assert_eq!(media.video.unwrap().keyframe_every, 300);
        let options = parse(&["--api-key", "a:b", "--parties", "4"]).unwrap();
        assert_eq!((options.publishers(), options.subscribers()), (0, 0));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (arguments, word) in [
            (&["--parties", "2"][..], "--api-key"),
            (&["--api-key", "a:b", "--no-audio", "--no-video"], "nothing to send"),
            (&["--api-key", "a:b", "--publishers", "0"], "nobody would send"),
            (&["--api-key", "a:b", "--subscribers", "0"], "nobody would receive"),
            (&["--api-key", "a:b", "--flood", "rain"], "junk"),
            (&["--whep", "http://h"], "--whip"),
            (&["--video-bitrate", "fast"], "video-bitrate"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(word), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn durations_and_bitrates() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("15"), Ok(Duration::from_secs(15)));
        assert!(duration("-1s").is_err() && duration("1y").is_err() && duration("").is_err());
        assert_eq!(
            (bitrate("1.5M"), bitrate("48k"), bitrate("32000")),
            (Ok(1_500_000), Ok(48_000), Ok(32_000))
        );
        assert!(bitrate("1").is_err() && bitrate("fast").is_err());
    }
}
