//! Placement of a million sessions on a thousand workers: balance, what failures move, and what a decision costs.
//!
//! `cargo run --release -p bench --bin placement -- --help`

use bench::placement::{Balance, Decide, World, by_lot, the_lightest};
use clap::Parser;

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 1_000)]
    workers: usize,
    #[arg(long, default_value_t = 1_000_000)]
    sessions: usize,
    /// Sessions that begin in a second
    #[arg(long, default_value_t = 300)]
    rate: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Workers that die at once, in the second failure (the first is of one)
    #[arg(long)]
    dying: Option<usize>,
}

fn main() {
    let options = Options::parse();
    let Options { workers, sessions, rate, seed, .. } = options;
    println!("{sessions} sessions, {rate} a second, on {workers} workers; seed {seed}");
    for (name, decide) in
        [("by lot (as it is)", by_lot as Decide), ("the lightest, for comparison", the_lightest)]
    {
        println!("\n{name}");
        let mut world = World::new(workers, seed, decide);
        world.open(sessions, rate);
        show("all are there", &world.balance());
        let dying = options.dying.unwrap_or(workers / 10).clamp(1, workers - 1);
        for number in [1, dying.min(workers.saturating_sub(2)).max(1)] {
            let failure = world.kill(number);
            println!(
                "  {number} died: {} sessions placed anew, {} others moved; {} workers took them, the most by one {}",
                failure.lost, failure.disturbed, failure.takers, failure.most_taken
            );
            show("after that", &world.balance());
        }
        println!("  a decision: {:?}", world.cost());
    }
}

fn show(when: &str, balance: &Balance) {
    let Balance { workers, mean, least, most } = balance;
    println!(
        "  {when}: {workers} workers, endpoints {mean:.0} on average, {least} to {most}; peak {:.2} times the mean",
        balance.peak()
    );
}
