//! How long a WHEP player that is there waits for the first frame of a WHIP publisher: from the moment the publisher sends its
//! offer to the first packet of its picture at the player. `bench/whip-latency` runs it on a release build.

use std::time::{Duration, Instant};

use support::media::Kind;
use support::{Deployment, OneOffer, Shape};

const ROUNDS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let deployment = Deployment::start(Shape::Embedded).await;
    let (mut all, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let room = deployment.room().await;
        let http = deployment.http().with_token(&room.token);
        let player = OneOffer::watch(&http, &room.id, "", &[Kind::Video]).await;
        let started = Instant::now();
        let publisher = OneOffer::publish(&http, &room.id, &[Kind::Video]).await;
        // Each frame of the generated picture is one packet, and a keyframe.
        while player.packets(Kind::Video).await == 0 {
            assert!(started.elapsed() < PATIENCE, "nothing comes");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        all.push(started.elapsed());
        answers.push(publisher.asked_for);
        publisher.delete().await;
        player.delete().await;
    }
    all.sort();
    answers.sort();
    let of =
        |list: &[Duration], part: f64| list[((list.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "WHIP publish to WHEP first frame, {ROUNDS} times: p50 {:.0} ms, p95 {:.0} ms, worst {:.0} ms (of that the answer: p50 {:.0} ms)",
        of(&all, 0.5),
        of(&all, 0.95),
        of(&all, 1.0),
        of(&answers, 0.5),
    );
}
