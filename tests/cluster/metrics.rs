//! What the processes of a cluster measure together.

use support::{Deployment, Shape};
use switchyard::config::Role;
use switchyard::telemetry::catalogue;

use crate::scenarios;
use crate::scenarios::metrics::ARGUMENTS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_documented_is_measured() {
    let mut deployment = Deployment::start_with(Shape::Cluster { apis: 2, workers: 2 }, &ARGUMENTS).await;
    let all = catalogue(Role::AllInOne);
    scenarios::metrics::everything_that_is_documented_is_measured(&mut deployment, &all, "rabbitmq").await;
    scenarios::still_there(&mut deployment);
}
