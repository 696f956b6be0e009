//! A participant that only polls, as a program: joins, sends generated media, and says twice a second on stdout what
//! it receives, one JSON object per line. Bears what happens to the servers: it repeats what had no result, and joins again
//! when its session was interrupted. Ends, and leaves, when its stdin ends.
//!
//! `polling-client BASE_URL[,BASE_URL…] SESSION_ID TOKEN [NAME]`

use std::time::Duration;

use serde_json::json;
use support::{Http, JoinOptions, PollingClient};
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bases, session, token, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: polling-client BASE_URL[,BASE_URL…] SESSION_ID TOKEN [NAME]");
        std::process::exit(64);
    };
    let bases: Vec<String> = bases.split(',').map(str::to_owned).collect();
    let name = rest.first().map_or("polling client", String::as_str);
    let http = Http::new(&bases);
    let options = JoinOptions { patient: true, ..JoinOptions::publishing(name) };
    let mut client = match PollingClient::join(&http, session, token, options.clone()).await {
        Ok(client) => client,
        Err(error) => {
            eprintln!("cannot join: {error}");
            std::process::exit(1);
        }
    };
    let mut stdin = tokio::io::stdin();
    let mut byte = [0];
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = pace.tick() => {
                if !client.events_of("session.interrupted").is_empty() {
                    let id = Some(client.participant_id().to_owned());
                    let again = JoinOptions { participant_id: id, ..options.clone() };
                    let token = client.token.clone();
                    match PollingClient::join(&http, session, &token, again).await {
                        Ok(new) => std::mem::replace(&mut client, new).vanish().await,
                        // Its place went once more: with the next look it tries again.
                        Err(error) => eprintln!("cannot join again: {error}"),
                    }
                }
                report(&client).await;
            }
            read = stdin.read(&mut byte) => if !matches!(read, Ok(1..)) { break },
        }
    }
    client.leave().await;
}

async fn report(client: &PollingClient) {
    let mut tracks = Vec::new();
    for line in client.subscribed() {
        tracks.push(json!({
            "participant_id": line.participant_id,
            "track_id": line.track_id,
            "kind": line.kind,
            "packets": client.received(&line.track_id).await,
        }));
    }
    println!(
        "{}",
        json!({
            "participant_id": client.participant_id(),
            "connected": client.connected(),
            "tracks": tracks,
            "errors": client.errors(),
        })
    );
}
