//! A deployment on nodes. A pod here is a process that is started with the settings of `k8s/base` on a node of its own,
//! counts as ready when its probe says so, and is ended by SIGTERM, as the kubelet does it: nothing goes before (workers
//! have no preStop hook), and a worker drains until it ends by itself.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::store::Store;
use support::deployment::{KEY_ID, KEY_SECRET};
use support::inspect::BrokerView;
use support::network::{Network, Node};
use support::process::Process;
use support::{Http, OwnServices, eventually};

/// How long Kubernetes lets a worker end (`terminationGracePeriodSeconds` in `k8s/base/worker.yaml`) before it kills it.
const GRACE: Duration = Duration::from_secs(75);

/// The settings that every pod has, as an overlay leaves them.
fn settings() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../../k8s/base/settings.env").lines();
    lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='))
}

/// A part, running on a node.
pub struct Pod {
    process: Process,
    probe: Http,
}

impl Pod {
    /// Starts it, and waits until its probe says that it is ready.
    async fn start(node: &Node, part: &str, secrets: &[(&str, &str)]) -> Self {
        let address = node.address.to_string();
        let mut environment: Vec<(&str, &str)> = settings().collect();
        environment.extend(secrets);
        if part == "worker" {
            environment.push(("SWITCHYARD_PUBLIC_ADDRESS", &address));
        }
        let process = node.start(part, &[part], &environment);
        let probe = Http::new(&[format!("http://{address}:9090")]);
        let mut pod = Self { process, probe };
        eventually(&format!("the {part} at {address} is ready"), || async {
            match pod.asked("/readyz").await {
                Some(200) => Ok(()),
                other => Err(format!("its probe says {other:?}; {}", pod.process.log_path().display())),
            }
        })
        .await;
        assert!(pod.process.running());
        pod
    }

    /// What it answers to a probe; nothing when it does not.
    async fn asked(&self, path: &str) -> Option<u16> {
        let request = self.probe.request(reqwest::Method::GET, path).timeout(Duration::from_secs(1));
        support::http::try_send(request).await.ok().map(|reply| reply.status)
    }

    /// Ends it as the kubelet does. Meanwhile it is alive and, as a worker, not ready; it ends by itself, well, and in time.
    async fn end(self, drains: bool) {
        let started = Instant::now();
        self.process.terminate();
        if drains {
            eventually("it is not ready while it drains", || async {
                match (self.asked("/readyz").await, self.asked("/healthz").await) {
                    // That fast.
                    (None, _) | (Some(503), None | Some(200)) => Ok(()),
                    other => Err(format!("readiness and liveness are {other:?}")),
                }
            })
            .await;
        }
        let log = self.process.log_path().to_owned();
        let status =
            tokio::task::spawn_blocking(move || self.process.wait()).await.expect("it is waited for");
        assert_eq!(status.code(), Some(0), "{}", log.display());
        assert!(started.elapsed() < GRACE, "it would have been killed after {GRACE:?}");
        let log = std::fs::read_to_string(&log).expect("its log is there");
        assert!(!log.contains("panicked at"), "a panic:\n{log}");
    }
}

/// API and worker pods over RabbitMQ and the store.
pub struct Cluster {
    apis: Vec<Option<Pod>>,
    workers: Vec<Option<Pod>>,
    api_nodes: Vec<Node>,
    worker_nodes: Vec<Node>,
    urls: Vec<String>,
    network: Network,
    // Dropped last, after the processes that use them.
    services: OwnServices,
}

impl Cluster {
    /// With nodes for so many of each, and all APIs running.
    pub async fn start(apis: usize, workers: usize) -> Self {
        let mut network = Network::new();
        let services = OwnServices::start_at(network.address()).await;
        let api_nodes: Vec<Node> = (0..apis).map(|_| network.node()).collect();
        let worker_nodes = (0..workers).map(|_| network.node()).collect();
        let urls = api_nodes.iter().map(|node| format!("http://{}:8080", node.address)).collect();
        let mut cluster = Self {
            apis: (0..apis).map(|_| None).collect(),
            workers: (0..workers).map(|_| None).collect(),
            api_nodes,
            worker_nodes,
            urls,
            network,
            services,
        };
        for index in 0..apis {
            cluster.start_api(index).await;
        }
        cluster
    }

    async fn pod(&self, node: &Node, part: &str) -> Pod {
        let location = self.services.location();
        let keys = format!("{KEY_ID}:{KEY_SECRET}");
        let secrets = [
            ("SWITCHYARD_API_KEYS", keys.as_str()),
            ("SWITCHYARD_OPERATOR_KEYS", KEY_ID),
            ("SWITCHYARD_BROKER", &location.broker),
            ("SWITCHYARD_STORE", &location.store),
        ];
        Pod::start(node, part, &secrets).await
    }

    async fn start_api(&mut self, index: usize) {
        let pod = self.pod(&self.api_nodes[index], "api").await;
        self.apis[index] = Some(pod);
    }

    /// Starts a worker on each of these nodes, all at once.
    pub async fn start_workers(&mut self, nodes: std::ops::Range<usize>) {
        let pods = nodes.clone().map(|index| self.pod(&self.worker_nodes[index], "worker"));
        let pods = futures::future::join_all(pods).await;
        for (index, pod) in nodes.zip(pods) {
            assert!(self.workers[index].replace(pod).is_none(), "a node has one worker");
        }
    }

    /// Ends the workers on these nodes, all at once.
    pub async fn end_workers(&mut self, nodes: std::ops::Range<usize>) {
        let pods = nodes.map(|index| self.workers[index].take().expect("it runs"));
        futures::future::join_all(pods.map(|pod| pod.end(true))).await;
    }

    /// Replaces an API: the new one begins on the node where the old one was, when that has gone. No proxy has to hear of it
    /// first (for that APIs have a preStop hook): clients ask the other one.
    pub async fn roll_api(&mut self, index: usize) {
        self.apis[index].take().expect("it runs").end(false).await;
        self.start_api(index).await;
    }

    /// A client without credentials, alternating between the APIs.
    pub fn http(&self) -> Http {
        Http::new(&self.urls)
    }

    /// A client as the application's backend has it.
    pub fn backend(&self) -> Http {
        self.http().with_key(KEY_ID, KEY_SECRET)
    }

    /// From where clients send.
    pub fn clients(&self) -> IpAddr {
        self.network.address()
    }

    pub fn broker(&self) -> BrokerView {
        BrokerView::new(&self.services.location())
    }

    /// The store beside the APIs, for what they do not show.
    pub async fn store(&self) -> std::sync::Arc<dyn Store> {
        let url = self.services.location().store.parse().expect("a store's URL");
        common::connect::store(&url).await.expect("the store answers")
    }

    /// The announced media address of each worker that is listed, with its id.
    pub async fn listed(&self) -> Vec<Listed> {
        let listed = self.backend().get("/v1/workers").await.expect(200);
        let rows = listed["workers"].as_array().expect("a list").iter();
        let read = |row: &serde_json::Value| Listed {
            id: support::deployment::text(&row["id"]),
            address: support::deployment::text(&row["address"]),
            state: support::deployment::text(&row["state"]),
            memory_bytes: row["load"]["memory_bytes"].as_u64().expect("a number"),
        };
        rows.map(read).collect()
    }

    /// No process has ended by itself, and none has panicked.
    pub fn still_there(&mut self) {
        for pod in self.apis.iter_mut().chain(&mut self.workers).flatten() {
            assert!(pod.process.running(), "a process ended:\n{}", pod.process.log());
            assert!(!pod.process.log().contains("panicked at"), "a panic:\n{}", pod.process.log());
        }
    }

    /// The address of a worker's node.
    pub fn address(&self, index: usize) -> IpAddr {
        self.worker_nodes[index].address
    }
}

/// A worker as operators see it.
#[derive(Debug, Clone)]
pub struct Listed {
    pub id: String,
    pub address: String,
    pub state: String,
    pub memory_bytes: u64,
}
