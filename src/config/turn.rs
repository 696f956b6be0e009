//! The settings of TURN: servers that share a secret with this deployment, and the worker's own.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use common::turn::TurnSecret;

use super::{ConfigError, Role, Source, list, number, refuse, seconds};

/// The worker's own TURN server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnServer {
    pub listen: SocketAddr,
    /// Of relayed sockets; `None`: any that the system gives.
    pub relay_ports: Option<RangeInclusive<u16>>,
    pub max_allocations: usize,
    pub max_allocations_per_user: usize,
    pub lifetime: Duration,
}

/// The servers that clients are told of besides.
pub(super) fn urls(source: &Source) -> Result<Vec<String>, ConfigError> {
    let urls: Vec<String> = list(source.turn_urls.as_deref()).map(str::to_owned).collect();
    match urls.iter().find(|url| !["turn:", "turns:"].iter().any(|scheme| url.starts_with(scheme))) {
        Some(url) => Err(refuse("turn_urls", format!("{url:?} is not a turn: or turns: URL"))),
        None => Ok(urls),
    }
}

/// The secret itself, or what the file holds, without its line end.
pub(super) fn secret(source: &Source) -> Result<Option<TurnSecret>, ConfigError> {
    let Some(text) = source.turn_secret.as_deref() else { return Ok(None) };
    let text = match text.strip_prefix("file:") {
        None => text.to_owned(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| refuse("turn_secret", format!("cannot read {path}: {error}")))?,
    };
    let secret = text.trim_end_matches(['\n', '\r']).parse();
    secret.map(Some).map_err(|error: common::turn::TooShort| refuse("turn_secret", error.to_string()))
}

/// `is_open`: others than this machine may be served.
pub(super) fn server(
    role: Role,
    source: &Source,
    has_secret: bool,
    is_open: bool,
) -> Result<Option<TurnServer>, ConfigError> {
    let relay_ports = source.turn_relay_ports.as_deref().map(ports).transpose()?;
    let max_allocations =
        number("turn_max_allocations", source.turn_max_allocations.as_deref(), 1..=60_000, 1_000)?;
    let max_allocations_per_user = number(
        "turn_max_allocations_per_user",
        source.turn_max_allocations_per_user.as_deref(),
        1..=60_000,
        20,
    )?;
    let lifetime = seconds("turn_lifetime", source.turn_lifetime.as_deref(), 60..=3600, 600)?;
    // An API relays nothing, but one file may configure all parts.
    let Some(text) = source.turn_listen.as_deref().filter(|_| role != Role::Api) else { return Ok(None) };
    let listen: SocketAddr = text
        .parse()
        .map_err(|_| refuse("turn_listen", format!("{text:?} is not an address like 0.0.0.0:3478")))?;
    if !is_open && !listen.ip().is_loopback() {
        return Err(refuse("turn_listen", "without api_keys only loopback is served"));
    }
    if role == Role::Worker && !has_secret {
        let reason = "a worker's turn_listen needs the secret that the API processes make credentials with";
        return Err(refuse("turn_secret", reason));
    }
    Ok(Some(TurnServer { listen, relay_ports, max_allocations, max_allocations_per_user, lifetime }))
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, ConfigError> {
    let ends = text.split_once('-').and_then(|(first, last)| {
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first > 0 && first <= last).then_some(first..=last)
    });
    ends.ok_or_else(|| refuse("turn_relay_ports", format!("{text:?} is not a range like 49152-65535")))
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    fn check(role: Role, change: impl FnOnce(&mut Source)) -> Result<Settings, ConfigError> {
        let mut source = Source {
            broker: Some("amqp://broker".into()),
            store: Some("mongodb://store".into()),
            api_keys: Some("key:a-long-enough-secret-of-32-bytes-or-more".into()),
            ..Source::default()
        };
        change(&mut source);
        Settings::check(role, source)
    }

    #[test]
    fn a_server_of_ones_own_is_off_unless_it_is_asked_for() {
        assert_eq!(check(Role::AllInOne, |_| {}).unwrap().turn_server, None);
        let listen = |s: &mut Source| s.turn_listen = Some("0.0.0.0:3478".into());
        let server = check(Role::AllInOne, listen).unwrap().turn_server.unwrap();
        assert_eq!((server.listen.port(), server.relay_ports), (3478, None));
        assert_eq!((server.max_allocations, server.max_allocations_per_user), (1_000, 20));
        assert_eq!(server.lifetime, Duration::from_secs(600));
        assert_eq!(check(Role::Api, listen).unwrap().turn_server, None);
        assert_eq!(check(Role::Worker, listen).unwrap_err().setting, "turn_secret");
        let with_secret = |s: &mut Source| {
            listen(s);
            s.turn_secret = Some("north-wind-and-sun".into());
            s.turn_relay_ports = Some("50000 - 50999".into());
        };
        let server = check(Role::Worker, with_secret).unwrap().turn_server.unwrap();
        assert_eq!(server.relay_ports, Some(50_000..=50_999));
    }

    #[test]
    fn each_bad_setting_is_named() {
        type Case = (&'static str, fn(&mut Source));
        let cases: &[Case] = &[
            ("turn_listen", |s| s.turn_listen = Some("3478".into())),
            ("turn_listen", |s| (s.api_keys, s.turn_listen) = (None, Some("0.0.0.0:3478".into()))),
            ("turn_relay_ports", |s| s.turn_relay_ports = Some("50999-50000".into())),
            ("turn_relay_ports", |s| s.turn_relay_ports = Some("0-9".into())),
            ("turn_max_allocations", |s| s.turn_max_allocations = Some("0".into())),
            ("turn_max_allocations_per_user", |s| s.turn_max_allocations_per_user = Some("many".into())),
            ("turn_lifetime", |s| s.turn_lifetime = Some("10".into())),
        ];
        for (setting, change) in cases {
            assert_eq!(check(Role::AllInOne, change).unwrap_err().setting, *setting);
        }
    }
}
