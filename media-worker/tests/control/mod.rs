//! What the control plane's scenarios run in: workers over a broker and a store, and a client that plays the API.

pub mod api;
pub mod faults;
pub mod pausable;
pub mod peer;
pub mod scenarios;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::broker::embedded::EmbeddedBroker;
use common::broker::rabbitmq::RabbitBroker;
use common::broker::{Broker, topology};
use common::store::Store;
use common::store::embedded::EmbeddedStore;
use common::store::mongodb::MongoStore;
use media_worker::{Worker, WorkerConfig};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use self::api::Api;

/// How long anything may take before a test gives up; `SWITCHYARD_TEST_PATIENCE` (a factor) stretches it.
pub fn patience() -> Duration {
    let factor = std::env::var("SWITCHYARD_TEST_PATIENCE").ok().and_then(|factor| factor.parse().ok());
    Duration::from_secs(20).mul_f64(factor.unwrap_or(1.0))
}

/// Runs every scenario as a test of its own in the system that the expression makes.
macro_rules! run_scenarios {
    ($system:expr) => {
        $crate::control::run_scenarios!($system;
            life: a_session_lives_from_create_to_close,
            life: a_session_is_created_once_and_its_id_is_not_given_to_another_key,
            life: a_participant_that_connects_is_stored_so_and_is_gone_when_it_closes,
            life: a_rejoin_replaces_the_endpoint,
            life: an_endpoint_id_that_is_taken_is_refused_and_its_owner_stays,
            life: someone_removed_by_a_moderator_hears_of_it_like_everyone_else,
            life: who_was_removed_joins_with_newer_tokens_only,
            life: muting_is_stored_told_and_undone,
            life: a_refused_offer_undoes_the_whole_join,
            life: bad_offers_are_refused_and_the_room_goes_on,
            once: every_command_sent_twice_gives_one_effect_and_the_same_reply,
            once: a_late_copy_of_a_join_or_leave_changes_nothing,
            once: a_copy_of_a_join_whose_session_moves_on_is_answered_where_it_was_done,
            once: competing_workers_do_each_command_once,
            once: an_expired_command_and_a_newer_version_are_refused,
            routing: concurrent_first_joins_agree_on_one_pipeline,
            routing: a_join_at_the_wrong_worker_is_handed_on,
            routing: leave_and_close_at_the_wrong_worker_are_handed_on,
            routing: a_target_that_is_wrong_in_any_part_is_gone,
            routing: a_full_worker_refuses_its_own_and_lets_others_place_elsewhere,
            routing: workers_attach_through_the_change_stream_and_after_a_restart,
            life: others_hear_of_a_participant_before_they_are_offered_its_tracks,
            lost: who_never_connects_is_there_as_long_as_somebody_reads_its_events,
            lost: a_worker_without_its_media_thread_says_that_it_ended,
            lost: a_stopped_worker_hands_its_sessions_over,
            lost: a_join_right_after_a_crash_goes_to_the_survivor,
            lost: a_join_that_outlived_its_worker_is_not_done_again,
            lost: a_dead_workers_sessions_are_interrupted_once_its_lease_ran_out,
            lost: a_worker_declared_dead_starts_anew,
            lost: who_does_not_rejoin_and_sessions_that_stay_empty_are_cleared_away,
            lost: what_an_ended_session_has_left_at_the_broker_goes_before_its_record,
            drain: a_drained_worker_keeps_the_old_endpoints_until_everyone_has_moved,
            drain: who_moves_before_the_old_endpoint_connected_is_not_waited_for,
            drain: who_joins_during_a_move_is_placed_with_those_who_have_moved,
            drain: without_another_worker_a_drain_waits_for_one,
            drain: who_has_not_moved_at_the_deadline_is_interrupted_alone,
            drain: leaving_and_being_removed_during_a_move_ends_both_endpoints,
            drain: muting_works_during_a_move_on_whichever_side_the_track_is,
            drain: a_session_that_closes_during_a_move_ends_on_both_sides,
            drain: a_crash_of_the_draining_worker_interrupts_only_those_on_it,
            drain: a_crash_of_the_new_worker_during_a_move_makes_it_move_again,
            drain: a_drain_is_asked_for_by_command_and_refused_where_nobody_could_take_over,
            death: a_killed_worker_is_declared_dead_long_before_its_lease_ends,
            death: a_worker_without_broker_keeps_its_sessions_until_somebody_wants_in,
            death: leases_that_ran_out_together_interrupt_nobody,
            death: a_paused_worker_finds_its_sessions_gone_before_it_acts,
            death: a_restarted_worker_keeps_its_id_and_gets_its_sessions_back,
            death: a_worker_whose_id_went_to_another_process_ends,
            faults: what_is_no_command_is_dead_lettered,
            faults: a_command_that_keeps_failing_is_dead_lettered_and_its_sender_told,
            faults: a_command_outlives_a_short_outage_of_the_store,
            faults: who_was_removed_while_the_answer_was_lost_is_gone_and_everyone_is_told,
            faults: a_join_done_again_makes_one_endpoint_and_one_offer,
            faults: an_accepted_offer_is_answered_in_an_outage_and_stored_after_it,
            faults: a_lost_change_stream_is_made_up_for,
            faults: events_wait_for_a_broker_that_is_away_and_keep_their_order,
            faults: a_reply_that_could_not_be_sent_comes_with_the_next_try,
            faults: an_outage_of_the_store_does_not_touch_what_runs,
            faults: a_panic_ends_only_its_command
        );
    };
    ($system:expr; $($module:ident: $name:ident),* $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::control::scenarios::$module::$name($system.await).await;
        }
    )* };
}
pub(crate) use run_scenarios;

/// A broker and a store, and what makes connections to them.
pub struct System {
    broker: Connections,
    pub store: Arc<dyn Store>,
    _alone: Option<MutexGuard<'static, ()>>,
}

/// Opens connections to the system's broker, also on another runtime.
#[derive(Clone)]
pub enum Connections {
    Embedded(EmbeddedBroker),
    Rabbit(String),
}

impl System {
    pub async fn embedded() -> Self {
        log();
        let broker = Connections::Embedded(EmbeddedBroker::new());
        Self { broker, store: Arc::new(EmbeddedStore::new()), _alone: None }
    }

    /// A database of its own; the broker alone, because all workers of a broker share the queue `workers`.
    pub async fn cluster() -> Self {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
        log();
        let needed = |name: &str| {
            std::env::var(name)
                .unwrap_or_else(|_| panic!("{name} is not set: run tests/run, which starts what it names"))
        };
        let (broker, store) = (needed("SWITCHYARD_TEST_BROKER"), needed("SWITCHYARD_TEST_STORE"));
        let alone = ONE_AT_A_TIME.lock().await;
        let store = with_database(&store, &format!("control_{}", Uuid::now_v7().simple()));
        let store = MongoStore::connect(&store).await.expect("the test store is reachable");
        let system =
            Self { broker: Connections::Rabbit(broker), store: Arc::new(store), _alone: Some(alone) };
        // Whatever an earlier, failed test left there.
        system.connection().await.delete_queue(topology::WORKERS).await.unwrap();
        system
    }

    pub async fn connection(&self) -> Arc<dyn Broker> {
        self.broker.open().await
    }

    pub fn connector(&self) -> Connections {
        self.broker.clone()
    }

    pub async fn api(&self) -> Api {
        Api::start(self.connection().await).await
    }

    pub async fn worker(&self) -> TestWorker {
        self.worker_with(config(), self.store.clone()).await
    }

    pub async fn worker_with(&self, config: WorkerConfig, store: Arc<dyn Store>) -> TestWorker {
        self.worker_on(config, self.connection().await, store).await
    }

    pub async fn worker_on(
        &self,
        config: WorkerConfig,
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
    ) -> TestWorker {
        let worker = Worker::start(config, broker.clone(), store).await.expect("the worker starts");
        TestWorker { worker, broker }
    }
}

impl Connections {
    pub async fn open(&self) -> Arc<dyn Broker> {
        match self {
            Self::Embedded(broker) => Arc::new(broker.another_connection()),
            Self::Rabbit(url) => {
                Arc::new(RabbitBroker::connect(url).await.expect("the test broker is reachable"))
            }
        }
    }
}

/// A worker with a broker connection of its own, as a process has.
pub struct TestWorker {
    pub worker: Worker,
    pub broker: Arc<dyn Broker>,
}

impl TestWorker {
    pub async fn stop(self) {
        self.worker.stop().await;
        self.broker.close().await;
    }

    /// Ends like a killed process: its connection breaks and nothing is told to anyone.
    pub async fn crash(self) {
        drop(self.worker);
        self.broker.close().await;
    }

    pub async fn endpoints(&self) -> u64 {
        self.worker.media().stats().await.expect("the media thread runs").endpoints
    }
}

/// Long enough a lease that no scenario runs into its end unless it wants to.
pub fn config() -> WorkerConfig {
    let mut config = WorkerConfig { lease: Duration::from_secs(30), ..WorkerConfig::default() };
    config.media.listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    config
}

/// Short times, for scenarios about dead workers.
pub fn hasty() -> WorkerConfig {
    WorkerConfig {
        lease: Duration::from_millis(1_500),
        pass_interval: Duration::from_millis(500),
        ..config()
    }
}

/// Polls until the condition gives something; fails the test when it never does.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(started.elapsed() < patience(), "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Shows what `RUST_LOG` asks for; by default nothing.
fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Only the first test of the process sets it.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

/// The URL with this database instead of its own.
fn with_database(url: &str, database: &str) -> String {
    let (base, options) = url.split_once('?').map_or((url, None), |(base, options)| (base, Some(options)));
    let (scheme, rest) = base.split_once("://").expect("a mongodb URL");
    let hosts = rest.split('/').next().unwrap_or(rest);
    match options {
        Some(options) => format!("{scheme}://{hosts}/{database}?{options}"),
        None => format!("{scheme}://{hosts}/{database}"),
    }
}
