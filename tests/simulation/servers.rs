//! API instances and workers as their supervisor (Kubernetes, say) keeps them: one process after the other in each place.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::model::WorkerId;
use common::token::ApiKeys;
use media_worker::{Parts, Worker, WorkerConfig};
use rest_api::{ApiConfig, ApiState};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::broker::SimBroker;
use crate::media::{SimLoad, SimMedia};
use crate::process::Process;
use crate::store::SimStore;
use crate::world::World;

pub const KEY: &str = "key1";
/// The workers' lease: short, so that a schedule sees several.
pub const LEASE: Duration = Duration::from_millis(1_500);

pub struct Servers {
    pub apis: Vec<Arc<ApiPlace>>,
    pub workers: Vec<Arc<WorkerPlace>>,
}

pub struct ApiPlace {
    index: usize,
    current: Mutex<Option<(Arc<Process>, Option<ApiState>)>>,
}

/// What a worker is asked by a signal or an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Drain,
    Stop,
}

pub struct WorkerPlace {
    index: usize,
    current: Mutex<Option<Working>>,
}

pub struct Working {
    pub process: Arc<Process>,
    pub id: WorkerId,
    pub media: Arc<SimMedia>,
    /// Once it has started, and until it stops.
    pub worker: Option<Arc<Worker>>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Servers {
    pub fn start(world: &Arc<World>) -> Self {
        let keys = ApiKeys::new([(KEY, "the-secret-of-key-one")]).expect("a good key");
        let apis = (0..2).map(|index| Arc::new(ApiPlace { index, current: Mutex::default() })).collect();
        let count = world.random().between(2, 3) as usize;
        let workers =
            (0..count).map(|index| Arc::new(WorkerPlace { index, current: Mutex::default() })).collect();
        let servers = Self { apis, workers };
        for api in &servers.apis {
            tokio::spawn(api.clone().keep(world.clone(), keys.clone()));
        }
        for worker in &servers.workers {
            tokio::spawn(worker.clone().keep(world.clone()));
        }
        servers
    }

    /// Every process that lives.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        let apis = self.apis.iter().filter_map(|api| api.process());
        let workers = self.workers.iter().filter_map(|worker| worker.process());
        apis.chain(workers).collect()
    }
}

/// How long the supervisor takes to start a successor.
fn pause(world: &World) -> Duration {
    if world.is_calm() { Duration::from_millis(50) } else { world.random().millis(50, 2_500) }
}

impl ApiPlace {
    pub fn process(&self) -> Option<Arc<Process>> {
        self.current.lock().unwrap().as_ref().map(|(process, _)| process.clone())
    }

    /// The instance, when it takes requests.
    pub fn serving(&self) -> Option<(Arc<Process>, ApiState)> {
        let current = self.current.lock().unwrap();
        current.as_ref().and_then(|(process, state)| Some((process.clone(), state.clone()?)))
    }

    async fn keep(self: Arc<Self>, world: Arc<World>, keys: ApiKeys) {
        for run in 1.. {
            let process = Process::start(&world, format!("api{}.{run}", self.index));
            *self.current.lock().unwrap() = Some((process.clone(), None));
            let (place, config) = (self.clone(), api_config(keys.clone()));
            process.run({
                let process = process.clone();
                async move {
                    let broker = Arc::new(SimBroker::of(&process));
                    let store = Arc::new(SimStore::of(&process));
                    match ApiState::start(config, broker, store, CancellationToken::new()).await {
                        Ok(state) => {
                            process.note(|| "serves".to_owned());
                            *place.current.lock().unwrap() = Some((process, Some(state)));
                            std::future::pending::<()>().await;
                        }
                        Err(_) => process.die(Duration::ZERO),
                    }
                }
            });
            process.died.cancelled().await;
            *self.current.lock().unwrap() = None;
            let pause = pause(&world);
            tokio::time::sleep(pause).await;
        }
    }
}

fn api_config(keys: ApiKeys) -> ApiConfig {
    let mut config = ApiConfig::new(keys);
    config.timings.command_deadline = Duration::from_secs(5);
    config.timings.lease_idle = Duration::from_secs(6);
    config
}

fn worker_config() -> WorkerConfig {
    WorkerConfig {
        lease: LEASE,
        empty_timeout: Some(Duration::from_secs(6)),
        rejoin_timeout: Duration::from_secs(3),
        pass_interval: Duration::from_millis(1_500),
        drain_timeout: Duration::from_secs(3),
        stop_timeout: Duration::from_secs(2),
        closed_retention: Duration::from_secs(12),
        ..WorkerConfig::default()
    }
}

impl WorkerPlace {
    pub fn process(&self) -> Option<Arc<Process>> {
        self.current.lock().unwrap().as_ref().map(|working| working.process.clone())
    }

    /// Looks at who works here now.
    pub fn with<T>(&self, look: impl FnOnce(&Working) -> T) -> Option<T> {
        self.current.lock().unwrap().as_ref().map(look)
    }

    pub fn order(&self, order: Order) {
        if let Some(working) = &*self.current.lock().unwrap() {
            working.process.note(|| format!("is told to {order:?}"));
            let _ = working.orders.send(order);
        }
    }

    async fn keep(self: Arc<Self>, world: Arc<World>) {
        // As in a StatefulSet, or as in a Deployment.
        let same_id = world.random().per_mille(500).then(WorkerId::new);
        for run in 1.. {
            let process = Process::start(&world, format!("worker{}.{run}", self.index));
            let id = same_id.unwrap_or_else(WorkerId::new);
            process.note(|| format!("starts as {id}"));
            let (orders, taken) = mpsc::unbounded_channel();
            let (media, events) = SimMedia::start(&process);
            *self.current.lock().unwrap() =
                Some(Working { process: process.clone(), id, media: media.clone(), worker: None, orders });
            let parts = Parts { id, media, media_events: events, load: Box::new(SimLoad) };
            process.run(self.clone().work(process.clone(), parts, taken));
            process.died.cancelled().await;
            *self.current.lock().unwrap() = None;
            let pause = pause(&world);
            tokio::time::sleep(pause).await;
        }
    }

    /// The worker's process, as the binary runs it.
    async fn work(
        self: Arc<Self>,
        process: Arc<Process>,
        parts: Parts,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) {
        let broker = Arc::new(SimBroker::of(&process));
        let store = Arc::new(SimStore::of(&process));
        let worker = match Worker::start_with(worker_config(), broker, store, parts).await {
            Ok(worker) => Arc::new(worker),
            Err(error) => {
                process.note(|| format!("did not start: {error}"));
                return process.die(Duration::ZERO);
            }
        };
        self.set_worker(Some(worker.clone()));
        process.note(|| "works".to_owned());
        let drains = tokio::select! {
            biased;
            () = worker.ended() => false,
            () = worker.drain_asked() => true,
            order = orders.recv() => {
                // Others may find it gone from here on.
                process.troubled_for(Duration::from_secs(3_600));
                if order == Some(Order::Drain) {
                    worker.drain();
                }
                order == Some(Order::Drain)
            }
        };
        if drains {
            tokio::select! {
                biased;
                () = worker.ended() => {}
                () = worker.drained() => {}
            }
        }
        self.set_worker(None);
        if let Some(worker) = Arc::into_inner(worker) {
            process.note(|| "stops".to_owned());
            worker.stop().await;
        }
        process.die(Duration::ZERO);
    }

    fn set_worker(&self, worker: Option<Arc<Worker>>) {
        if let Some(working) = &mut *self.current.lock().unwrap() {
            working.worker = worker;
        }
    }
}
