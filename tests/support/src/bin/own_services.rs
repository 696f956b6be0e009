//! RabbitMQ and the MongoDB-wire server for one test in another language, which breaks them by writing lines to stdin:
//! `kill NAME`, `stop NAME`, `start NAME`, with NAME `broker`, `store` or `both`. Says on stdout where they are, as one JSON
//! object, and `done` after each line. Ends, and ends both, when its stdin ends.

use serde_json::json;
use support::OwnServices;
use support::own_services::Server;
use tokio::io::{AsyncBufReadExt as _, BufReader};

async fn change(server: &mut Server, how: &str) {
    match how {
        "kill" => server.kill().await,
        "stop" => server.stop().await,
        "start" => server.start().await,
        _ => panic!("kill, stop or start, not {how:?}"),
    }
}

#[tokio::main]
async fn main() {
    let mut services = OwnServices::start().await;
    let location = services.location();
    println!("{}", json!({"broker": location.broker, "store": location.store}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let (how, name) = line.split_once(' ').expect("two words");
        let OwnServices { broker, store, .. } = &mut services;
        tokio::join!(
            async {
                if name != "store" {
                    change(broker, how).await
                }
            },
            async {
                if name != "broker" {
                    change(store, how).await
                }
            },
        );
        println!("done");
    }
}
