//! What can be said of the settings alone.

use super::Finding;
use crate::config::{Role, Settings};

pub fn check(role: Role, settings: &Settings) -> Vec<Finding> {
    if role == Role::Worker {
        return Vec::new();
    }
    vec![keys(settings), public_url(settings)]
}

fn keys(settings: &Settings) -> Finding {
    match (&settings.api_keys, settings.operator_keys.is_empty()) {
        (None, _) => Finding::warn(
            "api_keys",
            "none: only this machine is served, with a key that changes at every start",
            "set api_keys (id:secret; `openssl rand -hex 32` makes a secret)",
        ),
        (Some(_), true) => Finding::warn(
            "api_keys",
            "set, and no operator_keys: nobody may list workers, drain them or change what is logged",
            "name one of the API keys' ids in operator_keys",
        ),
        (Some(_), false) => Finding::ok("api_keys", "set, operators among them"),
    }
}

fn public_url(settings: &Settings) -> Finding {
    const CHECK: &str = "public_url";
    let local = |url: &str| {
        let host = url.split("://").nth(1).unwrap_or_default();
        ["localhost", "127.", "[::1]"].iter().any(|name| host.starts_with(name))
    };
    match &settings.public_url {
        Some(url) if url.starts_with("https://") => Finding::ok(CHECK, url),
        Some(url) if local(url) => Finding::ok(CHECK, format!("{url}: for this machine")),
        Some(url) => Finding::warn(
            CHECK,
            format!("{url} is not https"),
            "put TLS in front of the API: browsers give camera and microphone to https:// and localhost only",
        ),
        None if settings.listen.ip().is_loopback() => Finding::ok(CHECK, "none: for this machine"),
        None => Finding::warn(
            CHECK,
            format!("none: join links lead to http://{}", settings.listen),
            "set public_url to the https:// address that clients have",
        ),
    }
}
