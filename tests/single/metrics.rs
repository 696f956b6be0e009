//! What one process measures, and that the documentation says the same.

use std::collections::BTreeSet;

use common::catalogue::Metric;
use support::{Deployment, Shape};
use switchyard::config::Role;
use switchyard::telemetry::catalogue;

use crate::scenarios;
use crate::scenarios::metrics::ARGUMENTS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_documented_is_measured() {
    let mut deployment = Deployment::start_with(Shape::Embedded, &ARGUMENTS).await;
    let all = catalogue(Role::AllInOne);
    scenarios::metrics::everything_that_is_documented_is_measured(&mut deployment, &all, "embedded").await;
    scenarios::still_there(&mut deployment);
}

#[test]
fn the_documentation_has_just_these_metrics() {
    let page = include_str!("../../docs/METRICS.md");
    let documented: BTreeSet<&str> = page
        .lines()
        .filter(|line| ["| `switchyard_", "| `process_"].iter().any(|head| line.starts_with(head)))
        .collect();
    let rows: Vec<String> = catalogue(Role::AllInOne).into_iter().flatten().map(Metric::row).collect();
    let known: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
    let (missing, others): (Vec<_>, Vec<_>) =
        (known.difference(&documented).collect(), documented.difference(&known).collect());
    assert!(
        missing.is_empty() && others.is_empty(),
        "docs/METRICS.md lacks these rows:\n{missing:#?}\nand has these, which the code has not:\n{others:#?}"
    );
}
